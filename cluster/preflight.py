"""What a host must be before it can carry its role (guide 2.1), compared with what it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.compatibility import refusals
from cluster.endpoint import Endpoint
from cluster.topology import Topology

# Least CPUs and memory by role, from the guide's table; kubeadm itself refuses a control plane below 2 and 1700 MB.
MINIMA = {"control_plane": (2, 1700), "worker": (1, 1700), "load_balancer": (1, 900)}


def check_hardware(
    hardware: Mapping[str, Mapping[str, Any]], topology: Topology, platform: str, waived: Sequence[str]
) -> list[str]:
    """Findings, one sentence each: what, where, why, and what to do. `waived` names checks to leave out."""
    roles = {
        "control_plane": topology.control_planes,
        "worker": topology.workers,
        "load_balancer": topology.load_balancers,
    }
    found: list[tuple[str, str]] = []
    for role, nodes in roles.items():
        cpus, memory = MINIMA[role]
        for node in (each for each in nodes if each.name in hardware):
            state = hardware[node.name]
            if state["cpus"] < cpus:
                found.append(("cpus", f"{node.name}: {state['cpus']} CPU, a {role} needs {cpus}. Add CPUs."))
            if state["memory_mib"] < memory:
                what = f"{node.name}: {state['memory_mib']} MiB of memory, a {role} needs {memory}. Add memory."
                found.append(("memory", what))
            architecture = platform.rpartition("/")[2]
            if state["architecture"] != architecture:
                what = f"{node.name}: architecture {state['architecture']}, the bundle is for {architecture}."
                found.append(("architecture", f"{what} Build a bundle for {state['architecture']}."))
            if not state["systemd"]:
                found.append(("systemd", f"{node.name}: PID 1 is not systemd, which kubelet's service needs."))
    for key in ("machine_id", "product_uuid"):
        owners = defaultdict(list)
        for name, state in hardware.items():
            if state[key]:
                owners[state[key]].append(name)
        for value, names in owners.items():
            if len(names) > 1:
                what = f"{', '.join(names)}: the same {key} {value}. Kubernetes tells machines apart by it."
                found.append((key, f"{what} Cloned machines need `systemd-machine-id-setup` or a new UUID."))
    return _unwaived(found, waived)


def check_kernel(
    hardware: Mapping[str, Mapping[str, Any]], topology: Topology, kubernetes_version: str, waived: Sequence[str]
) -> list[str]:
    """Findings of nodes whose kernel this Kubernetes does not run on (compatibility.yaml)."""
    nodes = [node.name for node in (*topology.control_planes, *topology.workers) if node.name in hardware]
    found = [
        ("kernel", f"{name}: {words}")
        for name in nodes
        for words in refusals(kubernetes_version, {"kernel": hardware[name]["kernel"]})
    ]
    return _unwaived(found, waived)


def check_time(synchronized: Mapping[str, bool | None], waived: Sequence[str]) -> list[str]:
    """Findings of hosts whose clock nothing keeps; None is a host that cannot tell."""
    loose = [name for name, kept in synchronized.items() if not kept]
    what = f"{', '.join(loose)}: the clock is not synchronized. Certificates and etcd's leases need one time."
    found = [("time", f'{what} Start a time service there, or set `time_sync` to "chrony" and `ntp_servers`.')]
    return _unwaived(found if loose else [], waived)


def check_endpoint(reached: Mapping[str, str], endpoint: Endpoint, waived: Sequence[str]) -> list[str]:
    """Findings of nodes that do not find an external endpoint; `reached` is what the fact of that name says of each.

    A refused connection is well: no API server may be up yet. So is it to kubeadm's own guide
    (https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/high-availability/).
    """
    wrong = {
        "unknown": f"the name {endpoint.host} is not known there. Enter it in the DNS that they ask, or in /etc/hosts.",
        "silent": "does not answer there, not even by refusing the connection. Open the way from these nodes to it, "
        "and from it to port 6443 of control planes.",
    }
    found = []
    for state, words in wrong.items():
        if names := [name for name, each in reached.items() if each == state]:
            found.append(("endpoint", f"{', '.join(names)}: control_plane_endpoint {endpoint}: {words}"))
    return _unwaived(found, waived)


def _unwaived(found: Sequence[tuple[str, str]], waived: Sequence[str]) -> list[str]:
    return [f"{text} (check: {name})" for name, text in found if name not in waived]
