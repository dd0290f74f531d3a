"""Whether hosts may leave a cluster: by the inventory alone, by etcd's quorum, and by budgets of pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.topology import Topology


def without(topology: Topology, names: Sequence[str]) -> Topology:
    """The topology that is left when these hosts have gone."""
    return Topology(
        control_planes=tuple(node for node in topology.control_planes if node.name not in names),
        workers=tuple(node for node in topology.workers if node.name not in names),
        load_balancers=tuple(node for node in topology.load_balancers if node.name not in names),
    )


def problems(topology: Topology, names: Sequence[str]) -> list[str]:
    """Why the inventory cannot do without these hosts, in words; what the topology left cannot be is said elsewhere."""
    known = [node.name for node in topology.nodes]
    if not names:
        return [f"remove: names no host. Say which, as `--data remove=NAME[,NAME]`; there are {', '.join(known)}."]
    found = [
        f"remove: {name} is not in the inventory, which has {', '.join(known)}. A host is taken out while its line is "
        "still there."
        for name in names
        if name not in known
    ]
    if topology.control_planes and not without(topology, names).control_planes:
        last = ", ".join(node.name for node in topology.control_planes)
        found.append(
            f"remove: {last} is all there is of control planes, and without one there is no cluster. Add another "
            "first; to end the cluster, run deploys/reset.py."
        )
    return found


def majority(count: int) -> int:
    """How many of so many members etcd needs to answer."""
    return count // 2 + 1


def order(names: Sequence[str], members: Sequence[Mapping[str, Any]]) -> list[str]:
    """These hosts in the order in which they leave: whose etcd member is not healthy goes first, for it only costs."""
    healthy = {member["name"] for member in members if member["healthy"]}
    return sorted(names, key=lambda name: name in healthy)


def quorum_problems(names: Sequence[str], members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why etcd cannot lose the members of these hosts, one after another, in words.

    `members` are those of the fact Members. A learner has no vote.
    """
    voting = {member["name"]: bool(member["healthy"]) for member in members if not member["learner"]}
    for name in order(names, members):
        if name not in voting:
            continue
        sick = [each for each, healthy in voting.items() if not healthy]
        if len(voting) - len(sick) < majority(len(voting)):
            return [
                f"etcd has no quorum: of its {len(voting)} members {', '.join(sick)} do not answer. Bring one back, or "
                "restore a snapshot; no member can be removed until then."
            ]
        left = {each: healthy for each, healthy in voting.items() if each != name}
        if sum(left.values()) < majority(len(left)):
            away = ", ".join(each for each in sick if each != name)
            return [
                f"{name}: without its etcd member {len(left)} would be left, of which {away} does not answer, and etcd "
                f"would lose its quorum of {majority(len(left))}. Bring {away} back or remove it first."
            ]
        voting = left
    return []


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of a PodDisruptionBudget selects a pod; of policy/v1 an empty one selects all.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """
    if selector is None:
        return False
    for row in selector.get("matchExpressions", []):
        key, values = row["key"], row.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[row["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _name(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def to_evict(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pods of a node that a drain evicts: neither a DaemonSet's, nor the kubelet's own, nor ended."""
    return [
        pod
        for pod in pods
        if "kubernetes.io/config.mirror" not in pod["metadata"].get("annotations", {})
        and not any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", []))
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


def holding(pods: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Which budgets allow no eviction now, and which of these pods each holds: {"shop/web": ["shop/web-1"]}."""
    found: dict[str, list[str]] = {}
    for budget in budgets:
        own = [
            _name(pod)
            for pod in to_evict(pods)
            if pod["metadata"]["namespace"] == budget["metadata"]["namespace"]
            and _selects(budget["spec"].get("selector"), pod["metadata"].get("labels", {}))
        ]
        if own and budget.get("status", {}).get("disruptionsAllowed", 0) < 1:
            found[_name(budget)] = own
    return found


def drain_problems(node: str, pods: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a node can never be drained, however long one waits, in words.

    A budget that asks for as many healthy pods as there are allows none to go even when all are well; such a pod is
    held for good. Pods that nothing makes anew would be lost.
    """
    held = holding(pods, budgets)
    found = []
    for budget in budgets:
        status, name = budget.get("status", {}), _name(budget)
        if name in held and status.get("desiredHealthy", 0) >= status.get("expectedPods", 0):
            found.append(
                f"{node}: budget {name} asks for {status.get('desiredHealthy', 0)} healthy pods of "
                f"{status.get('expectedPods', 0)}, so {', '.join(held[name])} may never be evicted. Run more of these "
                "pods, or change the budget."
            )
    if alone := [_name(pod) for pod in to_evict(pods) if not pod["metadata"].get("ownerReferences")]:
        found.append(
            f"{node}: nothing would make {', '.join(alone)} anew on another node. Delete such pods yourself if they "
            "may go."
        )
    return found
