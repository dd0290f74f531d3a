"""What the cluster is configured by, asked once in a run, and which settings it cannot follow.

It is apart from the deploys, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

from typing import Any

import yaml
from pyinfra import inventory, logger

from cluster import reconfiguration
from cluster.endpoint import Endpoint
from cluster.kubeadm import live_documents
from cluster.reconfiguration import missing_names, refused
from cluster.topology import Node
from deploys import authorities, plan, versions
from deploys.ask import ask
from facts.kubeadm import KubeadmNode, StoredConfiguration
from operations import remote
from operations.once import once


@once
def _stored() -> dict[str, Any]:
    for node in remote.reached(plan.topology().control_planes):
        text = inventory.get_host(node.name).get_fact(StoredConfiguration)
        if text and text.strip():
            found: dict[str, Any] = yaml.safe_load(text)
            return found
    return {}


@once
def joined() -> list[Node]:
    """Hosts of this run of which kubeadm has made nodes, or has begun to."""
    topology = plan.topology()
    nodes = plan.in_run((*topology.control_planes, *topology.workers))
    states = ask(KubeadmNode, nodes)
    return [each for each in nodes if states[each.name]["state"] != "none"]


@once
def refuse() -> None:
    """Stop before the first change where a cluster that is there cannot follow the settings, or not before an upgrade
    or a rotation of its CAs has ended. Raises InputError."""
    topology = plan.topology()
    if not _stored():
        return
    plan.refuse([*versions.behind(), *authorities.interrupted(), *fixed(), *(_beyond() if left() else ())])
    others = [node.name for node in topology.control_planes if node not in plan.in_run(topology.control_planes)]
    if others and len(others) < len(topology.control_planes):
        logger.warning(
            f"Warning: {', '.join(others)}: not in this run, so settings that have changed do not reach them"
        )


@once
def fixed() -> list[str]:
    """Settings that a cluster which is there cannot follow, but for another virtual IP."""
    topology, stored = plan.topology(), _stored()
    if not stored:
        return []
    first = topology.first_control_plane
    mine = plan.settings(first.name)
    documents = {each["kind"]: each for each in yaml.safe_load_all(live_documents(mine, mine, topology, first))}
    return refused(stored, documents["ClusterConfiguration"], left() is not None)


@once
def left() -> Endpoint | None:
    """Where the cluster finds the API still, of which this run or another is to carry it to another virtual IP."""
    stored = _stored()
    return reconfiguration.left(stored, plan.settings(), plan.topology()) if stored else None


def moving() -> list[str]:
    """That the cluster is to follow to another virtual IP first, for deploys that would be in the way of it."""
    old = left()
    return [
        f"vip: the cluster finds the API at {old}, and the settings have {plan.endpoint()}. Run deploys/reconfigure.py "
        "first, which carries it there, or set vip back."
    ] if old else []  # fmt: skip


def _beyond() -> list[str]:
    """Hosts that would not follow to another virtual IP."""
    topology = plan.topology()
    found = [
        f"{node.name}: is not in this run, and would be left where vip was. Widen --limit to all hosts."
        for node in topology.nodes
        if node not in plan.in_run(topology.nodes)
    ]
    nodes = plan.in_run((*topology.control_planes, *topology.workers))
    return found + [
        f"{name}: is no node of the cluster yet. Add it in a run of its own, before vip is changed or after."
        for name, state in ask(KubeadmNode, nodes).items()
        if state["state"] in ("none", "partial")
    ]


def new_names() -> list[str]:
    """Names that the settings want in API servers' certificates and the cluster does not have there yet."""
    stored = _stored()
    moved = [str(plan.endpoint().host)] if left() else []
    return moved + missing_names(stored, plan.settings()) if stored else []
