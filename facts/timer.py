"""A systemd timer, and how the last run of what it starts has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from pyinfra.api import FactBase

from facts.service import unix


class TimerState(TypedDict):
    timer: Literal["absent", "inactive", "active"]
    next: int | None
    result: str
    ended: int | None
    said: str


def shown(name: str) -> str:
    """Shell that prints what systemd knows of NAME.timer and NAME.service."""
    timer, service = f"{name}.timer", f"{name}.service"
    return (
        # --timestamp=unix is of systemd 251; before, times are in words, which are made to be of UTC.
        'show() { w=$1; shift; { systemctl show --timestamp=unix "$@" || TZ=UTC LC_ALL=C systemctl show "$@"; } '
        '2>/dev/null | sed "s/^/$w /"; }; '
        f"show timer {timer} -p LoadState,ActiveState; "
        # systemd 252 has this moment in words only.
        f"n=$(systemctl show {timer} -p NextElapseUSecRealtime --value 2>/dev/null); "
        'test -n "$n" && echo next $(date -d "$n" +%s); '
        f"show service {service} -p LoadState,ActiveState,Result,ExecMainExitTimestamp; "
        f"systemctl is-failed -q {service} 2>/dev/null && "
        # Not by -u, for systemd's own words of a failure come last and are as many.
        f"journalctl _SYSTEMD_UNIT={service} -n 4 -o cat --no-pager 2>/dev/null | sed 's/^/said /'; "
    )


def understood(output: Sequence[str]) -> TimerState:
    """What `shown` has printed; other lines are passed over."""
    found = Timer.default()
    units: dict[str, dict[str, str]] = {"timer": {}, "service": {}}
    said = []
    for line in output:
        kind, _, rest = line.partition(" ")
        if kind in units:
            name, _, value = rest.partition("=")
            units[kind][name] = value
        elif kind == "said":
            said.append(rest)
        elif kind == "next":
            found["next"] = int(rest)
    timer, service = units["timer"], units["service"]
    if timer.get("LoadState") == "loaded":
        found["timer"] = "active" if timer.get("ActiveState") == "active" else "inactive"
    found["ended"] = unix(service.get("ExecMainExitTimestamp", "")) or None
    if service.get("ActiveState") in ("activating", "active"):
        found["result"] = "running"
    elif found["ended"] is not None:
        found["result"] = service.get("Result", "none")
    found["said"] = "; ".join(said) if failed(found) else ""
    return found


def failed(state: TimerState) -> bool:
    """Whether the last run has failed."""
    return state["result"] not in ("none", "success", "running")


class Timer(FactBase[TimerState]):
    """The timer of this name, and how the last run of its service ended.

    ::

        {"timer": "active", "next": 1795572000, "result": "success", "ended": 1795485600, "said": ""}

    Times are seconds since 1970. `result` is systemd's of the service, such as "exit-code" or "timeout", and "none" as
    long as it has not run since the last boot; `said` are its last words when it has failed.
    """

    @staticmethod
    def default() -> TimerState:
        return TimerState(timer="absent", next=None, result="none", ended=None, said="")

    def command(self, timer: str) -> str:
        return f"{shown(timer)}true"

    def process(self, output: list[str]) -> TimerState:
        return understood(output)
