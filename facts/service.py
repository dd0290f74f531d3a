"""State of one systemd unit, and whether its configuration is newer than the running process."""

from __future__ import annotations

import shlex
from typing import TypedDict

from pyinfra.api import FactBase


class UnitState(TypedDict):
    load: str
    active: str
    enabled: str
    stale: bool


class Unit(FactBase[UnitState]):
    """`systemctl show` of a unit, with `stale` when one of `files` changed after the unit started; of a
    directory, it or what is directly in it.

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
        show = f"systemctl show {quoted} --timestamp=unix -p LoadState,ActiveState,UnitFileState,ActiveEnterTimestamp"
        return f"{show} 2>/dev/null; {times}true"

    def process(self, output: list[str]) -> UnitState:
        pairs = [line.partition("=")[::2] for line in output if "=" in line]
        shown = dict(pairs)
        started = shown.get("ActiveEnterTimestamp", "").lstrip("@")
        changed = [int(value.partition(".")[0]) for key, value in pairs if key == "changed"]
        return UnitState(
            load=shown.get("LoadState", "not-found"),
            active=shown.get("ActiveState", "inactive"),
            enabled=shown.get("UnitFileState", ""),
            stale=started.isdigit() and any(when > int(started) for when in changed),
        )
