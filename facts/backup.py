"""Backups on a control plane, and how the last one by its timer ended."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict

from pyinfra.api import FactBase

from cluster.backup import MANIFEST, NODE_DIRECTORY

SERVICE, TIMER = "etcd-backup.service", "etcd-backup.timer"


class BackupState(TypedDict):
    timer: Literal["absent", "inactive", "active"]
    next: int | None
    result: str
    ended: int | None
    said: str
    kept: int
    newest: dict[str, Any] | None


class Backups(FactBase[BackupState]):
    """The timer of backups, how its last one ended, how many backups are on the node and the newest one's manifest.

    ::

        {"timer": "active", "next": 1795572000, "result": "success", "ended": 1795485600, "said": "", "kept": 7,
         "newest": {"time": "2026-11-25T02:03:11Z", "revision": 4711, ...}}

    Times are seconds since 1970. `result` is systemd's of the service, such as "exit-code" or "timeout", and "none" as
    long as it has not run since the last boot; `said` are its last words when it has failed.
    """

    @staticmethod
    def default() -> BackupState:
        return BackupState(timer="absent", next=None, result="none", ended=None, said="", kept=0, newest=None)

    def command(self) -> str:
        complete = f"ls -1d {NODE_DIRECTORY}/*/{MANIFEST} 2>/dev/null"
        return (
            "show() { systemctl show --timestamp=unix \"$@\" 2>/dev/null | sed 's/^/'\"$1\"' /'; }; "
            f"show {TIMER} -p LoadState,ActiveState; "
            # systemd 252 has this moment in words only.
            f"n=$(systemctl show {TIMER} -p NextElapseUSecRealtime --value 2>/dev/null); "
            'test -n "$n" && echo next $(date -d "$n" +%s); '
            f"show {SERVICE} -p LoadState,ActiveState,Result,ExecMainExitTimestamp; "
            f"systemctl is-failed -q {SERVICE} 2>/dev/null && "
            f"journalctl -u {SERVICE} -n 4 -o cat --no-pager 2>/dev/null | sed 's/^/said /'; "
            f"echo kept $({complete} | wc -l); "
            f'f=$({complete} | sort | tail -n 1); test -n "$f" && echo newest $(tr -d \'\\n\' < "$f"); true'
        )

    def process(self, output: list[str]) -> BackupState:
        found = self.default()
        shown: dict[str, dict[str, str]] = {TIMER: {}, SERVICE: {}}
        said = []
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind in shown:
                name, _, value = rest.partition("=")
                shown[kind][name] = value
            elif kind == "said":
                said.append(rest)
            elif kind == "next":
                found["next"] = int(rest)
            elif kind == "kept":
                found["kept"] = int(rest)
            elif kind == "newest":
                found["newest"] = json.loads(rest)
        timer, service = shown[TIMER], shown[SERVICE]
        if timer.get("LoadState") == "loaded":
            found["timer"] = "active" if timer.get("ActiveState") == "active" else "inactive"
        found["ended"] = _seconds(service.get("ExecMainExitTimestamp", ""))
        if service.get("ActiveState") in ("activating", "active"):
            found["result"] = "running"
        elif found["ended"] is not None:
            found["result"] = service.get("Result", "none")
        found["said"] = "; ".join(said) if found["result"] not in ("none", "success", "running") else ""
        return found


def _seconds(text: str) -> int | None:
    digits = text.lstrip("@")
    return int(digits) if digits.isdigit() and int(digits) > 0 else None
