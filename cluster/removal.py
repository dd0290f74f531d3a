"""Whether hosts may leave a cluster: by the inventory alone, and by etcd's quorum."""

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
