"""Backups on a control plane, and how the last one by its timer ended."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import FactBase

from cluster.backup import MANIFEST, NODE_DIRECTORY
from facts.timer import Timer, TimerState, shown, understood

NAME = "etcd-backup"


class BackupState(TimerState):
    kept: int
    newest: dict[str, Any] | None


class Backups(FactBase[BackupState]):
    """The timer of backups and how its last one ended, as the fact `Timer` has it; how many backups are on the node and
    the newest one's manifest.

    ::

        {"timer": "active", "next": 1795572000, "result": "success", "ended": 1795485600, "said": "", "kept": 7,
         "newest": {"time": "2026-11-25T02:03:11Z", "revision": 4711, ...}}
    """

    @staticmethod
    def default() -> BackupState:
        return BackupState(**Timer.default(), kept=0, newest=None)

    def command(self) -> str:
        complete = f"ls -1d {NODE_DIRECTORY}/*/{MANIFEST} 2>/dev/null"
        return (
            f"{shown(NAME)}echo kept $({complete} | wc -l); "
            f'f=$({complete} | sort | tail -n 1); test -n "$f" && echo newest $(tr -d \'\\n\' < "$f"); true'
        )

    def process(self, output: list[str]) -> BackupState:
        found = BackupState(**understood(output), kept=0, newest=None)
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "kept":
                found["kept"] = int(rest)
            elif kind == "newest":
                found["newest"] = json.loads(rest)
        return found
