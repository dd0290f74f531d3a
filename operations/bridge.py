"""The network of bridges: each node configured with the subnet that the API has given it, and routes to the others'."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from ipaddress import IPv4Network

import gevent
from pyinfra import host, inventory
from pyinfra.api import OperationError, StringCommand, operation

from cluster import bridge
from cluster.bridge import NodeSubnet
from cluster.topology import Node, Topology
from facts.file import FileState
from facts.kubeadm import KubeadmNode
from facts.kubernetes import PodSubnets
from facts.pod_network import PodNetwork
from operations import file, remote
from operations.kubeadm import Role, find_seed, join_action
from operations.once import once

Subnets = Mapping[str, NodeSubnet]
WAIT = 60  # seconds that kube-controller-manager is given for a node that has just joined


def subnets(topology: Topology) -> Subnets | None:
    """Every node's subnet from the first control plane whose API answers; None when none does."""
    for node in remote.reached(topology.control_planes):
        if (found := inventory.get_host(node.name).get_fact(PodSubnets)) is not None:
            return found
    return None


@once
def joining(topology: Topology) -> tuple[str, ...]:
    """Nodes that this run is going to join, while planning; they are looked for once. What they get is not known."""
    _, known = find_seed(topology)
    found = []
    for node in (*topology.control_planes, *topology.workers):
        each = inventory.get_host(node.name)
        if host.state.is_host_in_limit(each):
            role: Role = "control-plane" if node in topology.control_planes else "worker"
            state = each.get_fact(KubeadmNode)["state"]
            # Without an API a node that is whole is not joined again.
            if (known or state != role) and join_action(state, known.get(node.name), role) != "none":
                found.append(node.name)
    return tuple(found)


def _given(topology: Topology, node: Node) -> Subnets:
    """Every node's subnet, once this node and all others of the API have one. Raises OperationError."""
    nobody = NodeSubnet(address="", subnet="")
    for _ in range(WAIT // 2):
        found = subnets(topology) or {}
        lacking = [name for name, each in {node.name: nobody, **found}.items() if not each["subnet"]]
        if not lacking:
            return found
        gevent.sleep(2)
    why = f"the API has given {', '.join(lacking)} no subnet of pods" if found else "no control plane's API answers"
    raise OperationError(
        f"{node.name}: {why}, after {WAIT} s. Look at `kubectl get nodes` and at the log of kube-controller-manager on "
        "a control plane, then run again."
    )


def _later(path: str, waits_for: tuple[str, ...]) -> Generator[StringCommand, None, None]:
    """Announce a file whose content is not known while planning; one that is there is left until it is."""
    if waits_for:
        file.announce(path, f"subnets of pods are known once {', '.join(waits_for)} joined")
    elif host.get_fact(FileState, path=path, secret=True):
        host.noop(f"{path} is there; no API answers now, so this is looked at again when it runs")
        return
    else:
        file.announce(path, "subnets of pods are known once the API answers")
    yield StringCommand("# subnets of pods are not known yet")


@operation()
def configure(topology: Topology, node: Node, mtu: int, dest: str) -> Generator[StringCommand, None, None]:
    """
    Have the CNI put pods of this node on its bridge, in the node's own subnet.

    + topology: the cluster's nodes
    + node: this host
    + mtu: of pods' interfaces, that of the host's own
    + dest: path of the CNI's configuration
    """
    if host.state.is_executing:
        known: Subnets | None = _given(topology, node)
    else:
        known = subnets(topology)
        own = (node.name,) if node.name in joining(topology) else ()
        if own or not known or node.name not in known or not known[node.name]["subnet"]:
            yield from _later(dest, own)
            return
    assert known is not None
    yield from file.content._inner(dest=dest, content=bridge.conflist(known[node.name]["subnet"], mtu))


@operation()
def connect(topology: Topology, node: Node, pods: IPv4Network) -> Generator[StringCommand, None, None]:
    """
    Write the script that makes routes to all other nodes' pods, and rules that give pods the node's address outside.

    + topology: the cluster's nodes
    + node: this host
    + pods: addresses of all pods
    """
    if host.state.is_executing:
        known: Subnets | None = _given(topology, node)
    else:
        known, later = subnets(topology), joining(topology)
        if later or not known:
            yield from _later(bridge.SCRIPT, later)
            return
    assert known is not None
    text = bridge.script(bridge.routes(known, node.name), pods)
    yield from file.content._inner(dest=bridge.SCRIPT, content=text, mode="755")


def drift(topology: Topology, node: Node, pods: IPv4Network) -> list[str]:
    """Live routes and rules that are not as the script makes them, in words; nothing where it has not been written."""
    live = host.get_fact(PodNetwork, script=bridge.SCRIPT, protocol=bridge.PROTOCOL, chain=bridge.CHAIN)
    known = subnets(topology) if live["written"] else None
    if not known:
        return []
    wanted = bridge.routes(known, node.name)
    found = [f"no route to {subnet} by {hop}" for subnet, hop in wanted.items() if live["routes"].get(subnet) != hop]
    found += [f"a route to {subnet}, which is no node's" for subnet in live["routes"] if subnet not in wanted]
    if sorted(live["rules"]) != sorted(bridge.rules(pods)):
        found.append(f"rules of {bridge.CHAIN} that are not as written")
    return found
