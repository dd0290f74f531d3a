"""Another container runtime, or the same from elsewhere, on nodes that are to run this one."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.findings import Finding
from cluster.preflight.seen import Seen
from cluster.runtime import SOCKETS, UNITS, is_carried


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of the container runtime."""
    name, carried = seen.cluster.container_runtime, is_carried(seen.lock)
    for node in seen.nodes:
        if not (state := seen.installed.get(node.name)):
            continue
        if (socket := state["kubelet_socket"]) not in (None, SOCKETS[name]):
            what = f"its kubelet uses {socket}, and container_runtime is {name}"
            yield Finding("runtime-changed", (node.name,), what)
        elif carried:
            for package, version in state["packages"].items():
                what = f"it has the package {package} {version}, and the bundle has {name} of its own"
                yield Finding("runtime-package", (node.name,), what)
        elif state["unit"]:
            what = f"it has /etc/systemd/system/{UNITS[name]}, and the bundle has a package of {name}"
            yield Finding("runtime-elsewhere", (node.name,), what)
