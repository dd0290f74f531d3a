"""systemd units that run with the configuration on disk."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.operation import OperationMeta

from facts.service import Unit, UnitState
from operations.change import any_changes, will


def actions(state: UnitState, restart: bool, reload: bool, enabled: bool, running: bool) -> list[str]:
    """The systemctl verbs that bring a unit from its state to the wanted one, in order."""
    verbs = ["unmask"] if state["enabled"].startswith("masked") else []
    if enabled and state["enabled"] not in ("enabled", "static", "indirect", "generated"):
        verbs.append("enable")
    up = state["active"] in ("active", "reloading")
    # What a reload is for has made its files newer, once this runs.
    if running and (restart or not up or (state["stale"] and not reload)):
        verbs.append("restart")
    elif running and reload:
        verbs.append("reload-or-restart")
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
    reload_on: Sequence[OperationMeta] = (),
    config_files: Sequence[str] = (),
    enabled: bool = True,
    running: bool = True,
    drift: Sequence[str] = (),
    effect: str = "",
) -> Generator[str, None, None]:
    """
    Enable a unit, keep it running, and restart or reload it when what it reads has changed.

    + unit: the unit, such as "haproxy.service"
    + restart_on: operations of this deploy whose change calls for a restart
    + reload_on: those whose change a reload is enough for
    + config_files: files it reads; one newer than what runs means that an earlier run missed it: then it is restarted
    + enabled: start at boot
    + running: run now
    + drift: in words, what the process was found to do otherwise than its files say; then it is restarted
    + effect: what comes of a restart for others, in words
    """
    state = host.get_fact(Unit, unit=unit, files=tuple(config_files))
    restart, reload = any_changes(restart_on), any_changes(reload_on)
    verbs = actions(state, restart or bool(drift), reload, enabled, running)
    if not (verbs or restart or reload or drift):
        host.noop(f"{unit} is enabled and runs with its present configuration")
        return
    if "unmask" in verbs:
        will(f"unmask {unit}")
    words = f"{' and '.join(verbs)} {unit}, for {'; '.join(drift or [_found(state)])}"
    if restart or reload:  # a package that was just installed may have enabled and started it
        words = f"{('restart' if restart else 'reload') if running else 'enable'} {unit}, for its files change"
    gentle = reload and not (restart or drift)
    will(words, effect=effect if running and not gentle else "")
    quoted = shlex.quote(unit)
    yield "systemctl daemon-reload"
    for verb in verbs:
        if verb in ("unmask", "enable"):
            yield f"systemctl {verb} {quoted}"
        else:
            why = f"systemctl status -n 20 --no-pager {quoted} >&2; exit 1"
            yield f"timeout 90 systemctl {verb} {quoted} || {{ {why}; }}"
