"""systemd units that run with the configuration on disk."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.operation import OperationMeta

from facts.service import Unit, UnitState
from operations.change import any_changes, will


def actions(state: UnitState, changed: bool, enabled: bool, running: bool, action: str) -> list[str]:
    """The systemctl verbs that bring a unit from its state to the wanted one, in order."""
    verbs = ["unmask"] if state["enabled"].startswith("masked") else []
    if enabled and state["enabled"] not in ("enabled", "static", "indirect", "generated"):
        verbs.append("enable")
    if running and state["active"] not in ("active", "reloading"):
        verbs.append("restart")
    elif running and (changed or state["stale"]):
        verbs.append(action)
    return verbs


def _found(state: UnitState) -> str:
    """What a unit is, where that is not as it should be."""
    if state["active"] not in ("active", "reloading"):
        return f"it is {state['active']}"
    return "its files are newer" if state["stale"] else f"it is {state['enabled']}"


@operation()
def unit(
    unit: str,
    restart_on: Sequence[OperationMeta] = (),
    config_files: Sequence[str] = (),
    enabled: bool = True,
    running: bool = True,
    reload: bool = False,
    drift: Sequence[str] = (),
    effect: str = "",
) -> Generator[str, None, None]:
    """
    Enable a unit, keep it running, and restart it when what it reads has changed.

    + unit: the unit, such as "haproxy.service"
    + restart_on: operations of this deploy whose change calls for a restart
    + config_files: files it reads; one newer than the process means a restart was missed by an earlier run
    + enabled: start at boot
    + running: run now
    + reload: `systemctl reload-or-restart` in place of `restart`
    + drift: in words, what the process was found to do otherwise than its files say; then it is restarted
    + effect: what comes of a restart for others, in words
    """
    state = host.get_fact(Unit, unit=unit, files=tuple(config_files))
    changed = any_changes(restart_on) or bool(drift)
    action = "reload-or-restart" if reload else "restart"
    verbs = actions(state, changed, enabled, running, action)
    if not verbs and not changed:
        host.noop(f"{unit} is enabled and runs with its present configuration")
        return
    if "unmask" in verbs:
        will(f"unmask {unit}")
    words = f"{' and '.join(verbs)} {unit}, for {'; '.join(drift or [_found(state)])}"
    if any_changes(restart_on):  # a package that was just installed may have enabled and started it
        words = f"{('reload' if reload else 'restart') if running else 'enable'} {unit}, for its files change"
    will(words, effect=effect if running else "")
    quoted = shlex.quote(unit)
    yield "systemctl daemon-reload"
    for verb in verbs:
        if verb in ("unmask", "enable"):
            yield f"systemctl {verb} {quoted}"
        else:
            why = f"systemctl status -n 20 --no-pager {quoted} >&2; exit 1"
            yield f"timeout 90 systemctl {verb} {quoted} || {{ {why}; }}"
