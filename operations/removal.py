"""A node taken out of its cluster, done on a control plane that stays."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.removal import holding, to_evict
from cluster.topology import Node
from facts.etcd import Members
from facts.pods import NodePods
from operations import remote
from operations.kubeadm import KUBECTL, delete_node, drop_member, own_api, peer

TELL = 20  # seconds between words of how far a drain is


def drain_script(seed: Node, node: str, seconds: int) -> str:
    """Shell that evicts a node's pods, in so many seconds; what is in their emptyDirs goes with the node."""
    return (
        f"{KUBECTL} --server=https://{own_api(seed)} drain {node} --ignore-daemonsets --delete-emptydir-data "
        f"--timeout={seconds}s"
    )


def words(pods: list[dict[str, Any]], budgets: list[dict[str, Any]]) -> str:
    """Which pods are still there, and by which budgets."""
    names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in to_evict(pods)]
    held = "; ".join(f"budget {name} holds {', '.join(own)}" for name, own in holding(pods, budgets).items())
    return f"{', '.join(names)}{f' ({held})' if held else ''}"


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
    if not host.state.is_executing:
        host.log(f"Will evict {len(to_evict(state['pods']))} pods from {node.name}, within {seconds} s")
    else:
        _evict(seed, node, seconds, cordoned=state["cordoned"])
    yield StringCommand(drain_script(seed, node.name, TELL))


def _evict(seed: Node, node: Node, seconds: int, cordoned: bool) -> None:
    end = time.monotonic() + seconds
    while True:
        slice_ = max(1, min(TELL, round(end - time.monotonic())))
        said = remote.on(host.name, f"{drain_script(seed, node.name, slice_)} 2>&1; echo $?", why="draining")
        if said[-1].strip() == "0":
            return
        state = host.get_fact(NodePods, node=node.name)
        pods, budgets = (state["pods"], state["budgets"]) if state else ([], [])
        if time.monotonic() >= end:
            break
        host.log(f"{node.name} still has {words(pods, budgets) or said[-2]}")
    if not cordoned:
        remote.on(host.name, f"{KUBECTL} --server=https://{own_api(seed)} uncordon {node.name}", why="uncordoning")
    now = "It is cordoned, as it was before" if cordoned else "It takes pods again"
    raise OperationError(
        f"{node.name}: not drained in {seconds} s, so it was not removed. Still there: "
        f"{words(pods, budgets) or ' '.join(said[-5:-1])}. {now}; pods that left it stay where they are. Give these "
        "pods another place, change the budget, or allow more time with `--data drain_timeout=SECONDS`; then run again."
    )


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
