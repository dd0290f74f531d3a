"""Timers of systemd: taken away, and in words."""

from __future__ import annotations

import shlex
import time
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from facts.service import Unit
from facts.timer import TimerState, failed
from operations.change import will

UNITS, PROGRAMS = "/etc/systemd/system", "/usr/local/sbin"


@operation()
def absent(timer: str) -> Generator[StringCommand, None, None]:
    """
    Stop a timer of ours, and remove it with its service and program; what that has made stays.

    + timer: its name, such as "etcd-backup"
    """
    if host.get_fact(Unit, unit=f"{timer}.timer")["load"] == "not-found":
        host.noop(f"there is no {timer}.timer")
        return
    will(f"remove {timer}.timer")
    files = shlex.join([f"{UNITS}/{timer}.timer", f"{UNITS}/{timer}.service", f"{PROGRAMS}/{timer}"])
    yield StringCommand(f"systemctl disable --now {timer}.timer && rm -f {files} && systemctl daemon-reload")


def problem(state: TimerState, name: str, what: str) -> str | None:
    """What is wrong with a timer or the last run by it, in words.

    + name: the timer's, such as "etcd-backup"
    + what: what it does once, such as "backup"
    """
    if failed(state):
        return f"the last {what} by timer failed ({state['result']}): {state['said'] or 'it said nothing'}"
    if state["timer"] == "inactive":
        return f"{name}.timer is there and does not run: systemctl status {name}.timer"
    return None


def words(state: TimerState) -> str:
    """A timer and the last run by it, in one line."""
    timer = {"absent": "no timer", "inactive": "a timer that does not run", "active": "a timer"}[state["timer"]]
    if state["next"]:
        timer += f", next at {_date(state['next'])}"
    ended = f" at {_date(state['ended'])}" if state["ended"] else ""
    last = "it has not run since the last boot" if state["result"] == "none" else f"last run: {state['result']}{ended}"
    return f"{timer}; {last}"


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
