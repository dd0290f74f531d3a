"""A node emptied of pods, as their disruption budgets allow."""

from __future__ import annotations

import time
from typing import Any

from pyinfra import host, inventory
from pyinfra.api import OperationError

from cluster.draining import holding, to_evict
from cluster.topology import Node
from facts.pods import MARK, NodePods
from operations import remote
from operations.kubeadm import KUBECTL, own_api

TELL = 20  # seconds between words of how far a drain is


def drain_script(seed: Node, node: str, seconds: int) -> str:
    """Shell that evicts a node's pods, in so many seconds; what is in their emptyDirs goes with the node."""
    return (
        f"{KUBECTL} --server=https://{own_api(seed)} drain {node} --ignore-daemonsets --delete-emptydir-data "
        f"--timeout={seconds}s"
    )


def mark(seed: Node, node: str, before: str | None) -> str:
    """Shell that notes on a Node how it was `before`; None takes the note off."""
    note = f"{MARK}={before}" if before else f"{MARK}-"
    return f"{KUBECTL} --server=https://{own_api(seed)} annotate --overwrite node {node} {note} >/dev/null"


def uncordon(seed: Node, node: str) -> str:
    """Shell that lets pods onto a node again."""
    return f"{KUBECTL} --server=https://{own_api(seed)} uncordon {node}"


def words(pods: list[dict[str, Any]], budgets: list[dict[str, Any]]) -> str:
    """Which pods are still there, and by which budgets."""
    names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in to_evict(pods)]
    held = "; ".join(f"budget {name} holds {', '.join(own)}" for name, own in holding(pods, budgets).items())
    return f"{', '.join(names)}{f' ({held})' if held else ''}"


def evict(seed: Node, node: Node, seconds: int, cordoned: bool, otherwise: str) -> None:
    """Have a node's pods leave it; when they have not in time, it takes pods again as before.

    Raises OperationError, which names the pods that stay and their budgets.

    + seed: a control plane whose API is asked
    + node: the node
    + seconds: how long its pods are given
    + cordoned: whether it took no pods before
    + otherwise: what does not happen when they stay, such as "it was not removed"
    """
    end = time.monotonic() + seconds
    while True:
        slice_ = max(1, min(TELL, round(end - time.monotonic())))
        said = remote.on(seed.name, f"{drain_script(seed, node.name, slice_)} 2>&1; echo $?", why="draining")
        if said[-1].strip() == "0":
            return
        state = inventory.get_host(seed.name).get_fact(NodePods, node=node.name)
        pods, budgets = (state["pods"], state["budgets"]) if state else ([], [])
        if time.monotonic() >= end:
            break
        host.log(f"{node.name} still has {words(pods, budgets) or said[-2]}")
    if not cordoned:
        remote.on(seed.name, uncordon(seed, node.name), why="uncordoning")
    now = "It is cordoned, as it was before" if cordoned else "It takes pods again"
    raise OperationError(
        f"{node.name}: not drained in {seconds} s, so {otherwise}. Still there: "
        f"{words(pods, budgets) or ' '.join(said[-5:-1])}. {now}; pods that left it stay where they are. Give these "
        "pods another place, change the budget, or allow more time with `--data drain_timeout=SECONDS`; then run again."
    )
