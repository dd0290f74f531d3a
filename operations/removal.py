"""A node taken out of its cluster, done on a control plane that stays."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.draining import to_evict
from cluster.topology import Node
from facts.etcd import Members
from facts.pods import NodePods
from operations import remote
from operations.change import will
from operations.drain import TELL, drain_script, evict, mark, uncordon
from operations.kubeadm import delete_node, drop_member, peer


@operation()
def drain(seed: Node, node: Node, seconds: int) -> Generator[StringCommand, None, None]:
    """
    Have a node's pods leave it, as their budgets allow; when they have not in time, it takes pods again as before.

    + seed: this host, a control plane that stays
    + node: the node
    + seconds: how long its pods are given
    """
    state = host.get_fact(NodePods, node=node.name)
    if state is None:
        host.noop(f"{node.name} is no node of the cluster")
        return
    will(f"evict {len(to_evict(state['pods']))} pods from {node.name}, within {seconds} s")
    # A drain that was killed has cordoned the node; it tells how that was before, unless somebody has uncordoned it.
    before = (state["mark"] or "cordoned") if state["cordoned"] else "schedulable"
    if host.state.is_executing:
        remote.on(seed.name, mark(seed, node.name, before), why=f"marking {node.name}")
        try:
            evict(seed, node, seconds, before == "cordoned", "it was not removed")
        except OperationError:
            # Before the mark goes: without one the next run would take the node for cordoned by somebody.
            if before == "schedulable":
                remote.on(seed.name, uncordon(seed, node.name), why=f"uncordoning {node.name}")
            remote.on(seed.name, mark(seed, node.name, None), why=f"taking the mark off {node.name}")
            raise
    yield StringCommand(drain_script(seed, node.name, TELL))


@operation()
def member(node: Node) -> Generator[StringCommand, None, None]:
    """
    Remove a node's member from etcd. kubeadm keeps nothing else of a control plane that would have to follow.

    + node: the node, of which there may be no member
    """
    state = host.get_fact(Members)
    if state["state"] != "running":
        raise OperationError(
            f"{host.name}: etcd is {state['state']} here, so {node.name} cannot be taken out of it. Look at it with "
            "`crictl ps -a`, then run again."
        )
    if not any(peer(node) in each["peer_urls"] for each in state["members"]):
        host.noop(f"etcd has no member {node.name}")
        return
    yield StringCommand(drop_member(node))


@operation()
def deleted(seed: Node, node: Node) -> Generator[StringCommand, None, None]:
    """
    Delete a Node; its pods are then ended by the cluster.

    + seed: this host, a control plane that stays
    + node: the node, which may not be there
    """
    if host.get_fact(NodePods, node=node.name) is None:
        host.noop(f"{node.name} is no node of the cluster")
        return
    yield StringCommand(delete_node(seed, node))
