"""Which versions of Kubernetes nodes run, asked once in a run, and what forbids to take them to another.

It is apart from the deploys, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

import itertools

from pyinfra import inventory

from cluster import draining
from cluster.findings import report
from cluster.preflight.versions import skew
from cluster.topology import Node
from cluster.upgrade import stale, static_pods
from deploys import plan
from deploys.ask import ask
from facts.pods import NodePods
from facts.upgrade import NodeVersions
from operations import remote
from operations.kubeadm import find_seed
from operations.once import once


def wanted() -> dict[str, str]:
    """Images of the bundle's static pods."""
    return static_pods([image.name for image in plan.lock().images])


@once
def pending(planes: tuple[Node, ...]) -> list[Node]:
    """Those of these control planes that run other static pods than the bundle's."""
    found = ask(NodeVersions, planes)
    return [each for each in planes if stale(found[each.name]["images"], wanted())]


@once
def behind() -> list[str]:
    """Nodes that are of another version than the bundle's, of this run and the cluster that it joins hosts to: a layer
    would take them to it, all at once or undrained, or make a node that is newer than the API."""
    settings, topology = plan.settings(), plan.topology()
    seed = itertools.islice(remote.reached(topology.control_planes), 1)
    nodes = dict.fromkeys((*plan.in_run((*topology.control_planes, *topology.workers)), *seed))
    found = ask(NodeVersions, list(nodes))
    others = [each for name, runs in found.items() for each in skew(name, runs, settings.kubernetes_version)]
    return [each.line() for each in report(others, settings.waived_checks) if not each.waived]


@once
def left_behind() -> list[str]:
    """Control planes beyond this run that are not upgraded yet: no kubelet may be newer than an API server."""
    planes = plan.topology().control_planes
    left = [each for each in planes if each not in plan.in_run(planes)]
    reached = tuple(remote.reached(left))
    done = [each for each in reached if each not in pending(reached)]
    return [
        f"{each.name}: is not in this run, and not known to be upgraded. Control planes come before all other nodes: "
        "widen --limit."
        for each in left
        if each not in done
    ]


@once
def held() -> list[str]:
    """Pods that would not leave the nodes that are to be drained, however long one waits."""
    topology, version = plan.topology(), plan.settings().kubernetes_version
    seed, known = find_seed(topology)
    if seed is None:
        return []
    nodes = [each for each in plan.in_run((*topology.control_planes, *topology.workers)) if each.name in known]
    found = []
    for name, runs in ask(NodeVersions, nodes).items():
        if runs["running"] == version and not stale(runs["images"], wanted()):
            continue
        if state := inventory.get_host(seed.name).get_fact(NodePods, node=name):
            found += draining.problems(name, state["pods"], state["budgets"])
    return found


@once
def strangers() -> list[str]:
    """Hosts of this run that are no nodes of the cluster: they have nothing to upgrade, and no runtime for images."""
    topology = plan.topology()
    seed, known = find_seed(topology)
    nodes = plan.in_run((*topology.control_planes, *topology.workers))
    return [
        f"{each.name}: is no node of the cluster yet. Leave it out with --exclude {each.name}, and have it join by "
        "deploys/cluster.py after the upgrade."
        for each in nodes
        if seed and each.name not in known
    ]
