"""What the cluster is configured by, asked once in a run, and which settings it cannot follow.

It is apart from the deploys, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from gevent.lock import RLock
from pyinfra import inventory, logger

from cluster.kubeadm import live_documents
from cluster.reconfiguration import missing_names, refused
from deploys import authorities, plan
from facts.kubeadm import StoredConfiguration
from operations import remote

_once = RLock()


@cache
def _stored() -> dict[str, Any]:
    for node in remote.reached(plan.topology().control_planes):
        text = inventory.get_host(node.name).get_fact(StoredConfiguration)
        if text and text.strip():
            found: dict[str, Any] = yaml.safe_load(text)
            return found
    return {}


@cache
def _refuse() -> None:
    topology, stored = plan.topology(), _stored()
    if not stored:
        return
    first = topology.first_control_plane
    mine = plan.settings(first.name)
    documents = {each["kind"]: each for each in yaml.safe_load_all(live_documents(mine, mine, topology, first))}
    plan.refuse([*authorities.interrupted(), *refused(stored, documents["ClusterConfiguration"])])
    left = [node.name for node in topology.control_planes if node not in plan.in_run(topology.control_planes)]
    if left and len(left) < len(topology.control_planes):
        logger.warning(f"Warning: {', '.join(left)}: not in this run, so settings that have changed do not reach them")


def refuse() -> None:
    """Stop before the first change where a cluster that is there cannot follow the settings, or not before a rotation
    of its CAs has ended. Raises InputError."""
    with _once:
        _refuse()


def new_names() -> list[str]:
    """Names that the settings want in API servers' certificates and the cluster does not have there yet."""
    with _once:
        stored = _stored()
    return missing_names(stored, plan.settings()) if stored else []
