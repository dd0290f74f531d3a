"""What a removal asks the cluster before it begins, once in a run.

It is apart from the deploy, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyinfra import host, inventory, logger

from cluster import draining, removal
from cluster.topology import Node
from deploys import plan
from deploys.ask import ask
from facts.etcd import Members, MembersState
from facts.kubeadm import ClusterConfig, KubeadmNode, MemberNode
from facts.pods import NodePods
from operations import remote
from operations.kubeadm import find_seed, peer
from operations.once import once


@dataclass(frozen=True)
class Removal:
    """The hosts that go, in the order in which they do, and the control plane at which that is done."""

    seed: Node
    nodes: tuple[Node, ...]
    known: dict[str, MemberNode]

    def drained(self, node: Node) -> bool:
        """Whether a node's pods are evicted first: they are where a kubelet answers that can end them."""
        return node.name in self.known and self.known[node.name]["ready"]


def in_run(node: Node) -> bool:
    """Whether this run may touch a host, by `--limit` and `--exclude`."""
    return bool(host.state.is_host_in_limit(inventory.get_host(node.name)))


def gone() -> bool:
    """Whether `--data gone=true` says that machines are no more: those that go, or of a reset those beyond the run."""
    return plan.option("gone") is True


@once
def removal_of_this_run() -> Removal:
    """What is to be done, once it is known that it may be. Raises InputError with every reason why it may not."""
    nodes = {node.name: node for node in plan.everybody().nodes if node.name in plan.removed()}
    plan.refuse(list(_reach(nodes)))
    seed, known = find_seed(plan.topology())
    if seed is None:
        names = ", ".join(node.name for node in plan.topology().control_planes)
        raise plan.InputError(
            f"Nothing was changed on any host. {names}: none of them has a cluster that answers, so nothing can be "
            "taken out of it. Look with `crictl ps -a` there; if etcd has lost its quorum, restore a snapshot; to "
            "clean a host that was never a node, run deploys/reset.py."
        )
    if not in_run(seed):
        plan.refuse([_untouched(seed)])
    members: MembersState = inventory.get_host(seed.name).get_fact(Members)
    plan.refuse(list(_cluster(seed, nodes, known, members)))
    order = removal.order(list(nodes), members["members"])
    found = Removal(seed, tuple(nodes[name] for name in order), known)
    for node in found.nodes:
        if node.name in known and not found.drained(node) and not gone():
            logger.warning(f"Warning: {node.name}: its kubelet does not answer, so its pods are not evicted first")
    return found


def _reach(nodes: dict[str, Node]) -> Iterator[str]:
    """A machine that is gone must be left out of the run, and one that is there must not."""
    for name, node in nodes.items():
        if gone() and in_run(node):
            yield (
                f"{name}: `gone=true` says that its machine is no more, and it was reached. Leave `gone` out, and it "
                f"is drained and cleaned; or keep this run from it with `--exclude {name}` and shut it down first."
            )
        if not gone() and not in_run(node):
            yield (
                f"{name}: is to be removed and is not in this run. Leave out --limit and --exclude; if its machine is "
                f"gone for good, say so with `--exclude {name} --data gone=true`."
            )


def _untouched(seed: Node) -> str:
    """Why hosts are not removed while this run may not touch a control plane that stays, in words."""
    return (
        f"{seed.name}: has the cluster and is not in this run, in which no control plane that stays answers: hosts "
        "would be cleaned, and nothing drained, removed from etcd or deleted. Leave out --limit, or widen it to "
        f"{seed.name} too."
    )


def _cluster(seed: Node, nodes: dict[str, Node], known: dict[str, MemberNode], members: MembersState) -> Iterator[str]:
    if members["state"] != "running":
        yield f"{seed.name}: etcd is {members['state']} there, so it is not known whether its quorum would last."
        return
    names = {each["name"]: urls for each in members["members"] for urls in [each["peer_urls"]]}
    leaving = [name for name, urls in names.items() if any(peer(node) in urls for node in nodes.values())]
    yield from removal.quorum_problems(leaving, members["members"])
    for name, node in nodes.items():
        if gone() and name in known and known[name]["ready"]:
            yield (
                f"{name}: `gone=true` says that its machine is no more, and its kubelet still reports. Shut it down "
                "and wait a minute, or leave out `gone` and `--exclude`."
            )
        elif not gone() and name in known and known[name]["ready"]:
            state = inventory.get_host(seed.name).get_fact(NodePods, node=node.name)
            if state:
                yield from draining.problems(name, state["pods"], state["budgets"])


@once
def still_member() -> list[str]:
    """Hosts of this run that are nodes for a control plane which is not of this run, or may be, in words."""
    silent = [node for node in plan.topology().control_planes if not in_run(node)]
    for keeper in remote.reached(tuple(silent)):
        state = inventory.get_host(keeper.name).get_fact(ClusterConfig)
        members = inventory.get_host(keeper.name).get_fact(Members)["members"]
        # Members too: of one the Node may have been deleted by hand.
        voting = {url for each in members for url in each["peer_urls"]}
        names = [
            node.name
            for node in plan.topology().nodes
            if in_run(node) and (node.name in state["nodes"] or peer(node) in voting)
        ]
        if names:
            return [
                f"{', '.join(names)}: in the cluster that {keeper.name} keeps, as a node or a member of etcd. Take it "
                f"out with `deploys/remove_node.py --data remove={','.join(names)}`, which drains it, sees to etcd's "
                "quorum and cleans the host too."
            ]
        if state["state"] == "initialised":
            return []
        if state["state"] != "unreachable":
            silent.remove(keeper)
    return [] if gone() or not silent else _may_be_member(", ".join(node.name for node in silent))


def _may_be_member(silent: str) -> list[str]:
    """Hosts of this run that have been nodes, while control planes beyond it do not say whether they still are."""
    topology = plan.topology()
    local = ask(KubeadmNode, plan.in_run((*topology.control_planes, *topology.workers)))
    names = [name for name, each in local.items() if each["state"] != "none"]
    if not names:
        return []
    return [
        f"{', '.join(names)}: may still be a node of a cluster that lives, and may lose its etcd's quorum. Beyond this "
        f"run, {silent} cannot be asked: no SSH, or no API server there. Bring it back and run again; reset all "
        "hosts together; or, if its machine, or the cluster on it, is gone for good, say so with `--data gone=true`."
    ]
