"""Kernel modules and settings, live and at the next boot (guide 3.1)."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.kernel import KernelModules, Sysctl
from operations.change import any_changes, will


@operation()
def modules(names: Sequence[str]) -> Generator[StringCommand, None, None]:
    """
    Have these modules in the running kernel. One that is compiled in needs nothing.

    + names: module names
    """
    state = host.get_fact(KernelModules, names=tuple(names))
    absent = [name for name, found in state.items() if found == "absent"]
    if absent:
        raise OperationError(
            f"{host.name}: the kernel has no module {', '.join(absent)}, neither loadable nor compiled in. "
            "Install the kernel's modules (on Debian, linux-image) and run again."
        )
    wanted = [name for name, found in state.items() if found == "available"]
    if not wanted:
        host.noop(f"{', '.join(state)} are loaded or compiled in")
        return
    will(f"load kernel modules {', '.join(wanted)}")
    yield StringCommand(f"modprobe -a {shlex.join(wanted)}")


@operation()
def sysctl(
    wanted: Mapping[str, str], path: str, after: Sequence[OperationMeta] = ()
) -> Generator[StringCommand, None, None]:
    """
    Have these live values, from a file that is already written.

    + wanted: key -> value
    + path: the file in /etc/sysctl.d that holds them
    + after: operations that write it, or load modules whose settings it holds
    """
    live = host.get_fact(Sysctl, keys=tuple(wanted))
    differing = {key: value for key, value in wanted.items() if live.get(key) != value}
    if not differing and not any_changes(after):
        host.noop(f"{len(wanted)} kernel settings have their values")
        return
    known = {key: value for key, value in differing.items() if live.get(key) is not None}
    will(
        f"load {path}",
        [line for key, value in known.items() for line in (f"-{key} = {live[key]}", f"+{key} = {value}")],
        later="" if None not in live.values() else "settings of modules that are not loaded are known once they are",
    )
    yield StringCommand(f"sysctl -q -p {shlex.quote(path)}")
