"""State of one systemd unit, and whether its configuration is newer than the running process."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TypedDict

from pyinfra.api import FactBase


class UnitState(TypedDict):
    load: str
    active: str
    enabled: str
    stale: bool


def unix(text: str) -> int | None:
    """A time of systemd's, `@1764486575` or `Mon 2026-11-30 07:09:35 UTC`, in seconds since 1970; None for neither."""
    if text.startswith("@") and text[1:].isdigit():
        return int(text[1:])
    try:
        return int(datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


class Unit(FactBase[UnitState]):
    """`systemctl show` of a unit, with `stale` when one of `files` changed after the unit started, or was reloaded
    without a failure; of a directory, it or what is directly in it.

    ::

        {"load": "loaded", "active": "active", "enabled": "enabled", "stale": False}

    A unit that does not exist has `load` "not-found" and `active` "inactive". `stale` catches a run that
    was killed between writing a file and restarting its daemon.
    """

    @staticmethod
    def default() -> UnitState:
        return UnitState(load="not-found", active="inactive", enabled="", stale=False)

    def command(self, unit: str, files: tuple[str, ...] = ()) -> str:
        quoted = shlex.quote(unit)
        times = f"find -L {shlex.join(files)} -maxdepth 1 -printf 'changed=%C@\\n' 2>/dev/null; " if files else ""
        # --timestamp=unix is of systemd 251; before, times are in words, which are made to be of UTC.
        properties = "LoadState,ActiveState,UnitFileState,ActiveEnterTimestamp,StateChangeTimestamp,ReloadResult"
        words = f"systemctl show {quoted} -p {properties}"
        show = f"{{ {words} --timestamp=unix || TZ=UTC LC_ALL=C {words}; }}"
        return f"{show} 2>/dev/null; {times}true"

    def process(self, output: list[str]) -> UnitState:
        pairs = [line.partition("=")[::2] for line in output if "=" in line]
        shown = dict(pairs)
        # A reload leaves "active" for a moment, and does not enter it anew.
        reloaded = shown.get("ReloadResult") == "success"
        started = unix(shown.get("StateChangeTimestamp" if reloaded else "ActiveEnterTimestamp", ""))
        changed = [int(value.partition(".")[0]) for key, value in pairs if key == "changed"]
        return UnitState(
            load=shown.get("LoadState", "not-found"),
            active=shown.get("ActiveState", "inactive"),
            enabled=shown.get("UnitFileState", ""),
            stale=started is not None and any(when > started for when in changed),
        )
