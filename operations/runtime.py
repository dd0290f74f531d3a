"""A container runtime that runs as it is configured to."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster.runtime import Wanted, differences
from facts.runtime import Runtime, RuntimeState
from operations.workload import settled


def state(wanted: Wanted) -> RuntimeState:
    """What the runtime of this host answers."""
    return host.get_fact(Runtime, runtime=wanted.name, socket=wanted.socket)


def drift(wanted: Wanted) -> list[str]:
    """What a restart may mend, in words: a runtime that runs with another configuration than it is to have."""
    found = state(wanted)
    return differences(wanted, {**found, "kubelet_driver": None}) if found["state"] == "running" else []


def _silent(wanted: Wanted) -> list[str]:
    """Why the runtime does not answer, in words; what it answers is final."""
    found = state(wanted)
    return [] if found["state"] == "running" else differences(wanted, found)


@operation()
def agrees(wanted: Wanted, seconds: int = 30) -> Generator[StringCommand, None, None]:
    """
    Assert that the runtime itself says it runs as wanted, and that the kubelet has the same driver; changes nothing.

    + wanted: what it is to run with
    + seconds: how long it may take to answer
    """
    if not host.state.is_executing:
        host.noop(f"{wanted.name} is asked when this runs")
        return
    settled(lambda: _silent(wanted), seconds)
    found = differences(wanted, state(wanted))
    if not found:
        host.noop(f"{wanted.name} runs with the cgroup driver {wanted.driver} and {wanted.pause}")
        return
    lines = "\n".join(f"  - {line}" for line in found)
    text = (
        f"{host.name}: the container runtime does not run as it is configured to:\n{lines}\n"
        f"Look at `crictl info`, `journalctl -u {wanted.unit}` and files beside its configuration; docs/runtimes.md "
        "says which of them win."
    )
    yield StringCommand(f"printf '%s\\n' {shlex.quote(text)} >&2; exit 1")
