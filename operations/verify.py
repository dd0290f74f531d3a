"""Assertions on the live cluster. They change nothing, so a run that finds all well reports no change."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Generator
from typing import Any

from pyinfra import host, inventory, logger
from pyinfra.api import OperationError, StringCommand, operation

from cluster.balancing import balancers, endpoint
from cluster.endpoint import Endpoint
from cluster.settings import Settings
from cluster.topology import Topology
from facts.etcd import Members, MembersState
from facts.haproxy import Backends, BackendsState
from facts.upgrade import MARK
from operations import remote, workload

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s"
# Kubernetes' own conditions of a node that are bad when they are true
# (https://kubernetes.io/docs/reference/node/node-status/#condition).
SHORTAGES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


def nodes_not_ready(nodes: dict[str, Any], wanted: list[str], waiting: Collection[str] = ()) -> list[str]:
    """Findings from `kubectl get nodes -o json`: nodes that are missing, not Ready, or short of something.

    Those that are `waiting` for a network need not be Ready. What conditions of other programs mean is theirs to say.
    """
    found = {
        item["metadata"]["name"]: {row["type"]: row for row in item["status"].get("conditions", [])}
        for item in nodes["items"]
    }
    unfinished = [
        item["metadata"]["name"] for item in nodes["items"] if MARK in (item["metadata"].get("annotations") or {})
    ]
    findings = []
    for name in wanted:
        if name not in found:
            findings.append(f"node {name} is not in the cluster")
            continue
        if name in unfinished:
            findings.append(f"the upgrade of node {name} was not finished: run deploys/upgrade.py again")
        ready = found[name].pop("Ready", {})
        if ready.get("status") != "True" and name not in waiting:
            findings.append(f"node {name} is not Ready{_because(ready)}")
        findings += [
            f"node {name} has {kind}{_because(row)}"
            for kind, row in found[name].items()
            if kind in SHORTAGES and row["status"] == "True"
        ]
    return findings


def _because(row: dict[str, Any]) -> str:
    return f" ({row['message']})" if row.get("message") else ""


def without_network(nodes: dict[str, Any]) -> list[str]:
    """Nodes of `kubectl get nodes -o json` that are not Ready because no pod network is installed.

    The kubelet's words: https://github.com/kubernetes/kubernetes/blob/v1.36.2/pkg/kubelet/container/runtime.go
    """
    return [
        item["metadata"]["name"]
        for item in nodes["items"]
        for row in item["status"].get("conditions", [])
        if row["type"] == "Ready" and row["status"] != "True" and "NetworkReady=false" in row.get("message", "")
    ]


def pods_not_running(pods: dict[str, Any]) -> list[str]:
    """Findings from `kubectl get pods -A -o json`: pods that neither run, all containers ready, nor succeeded."""
    findings = []
    for item in pods["items"]:
        status = item["status"]
        containers = status.get("containerStatuses", [])
        ready = all(each["ready"] for each in containers)
        if status.get("phase") == "Succeeded" or (status.get("phase") == "Running" and ready):
            continue
        name = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        waiting = [each["state"]["waiting"] for each in containers if each.get("state", {}).get("waiting")]
        unmet = [
            row for row in status.get("conditions", []) if row["status"] != "True" and row["type"] == "PodScheduled"
        ]
        words = [row.get("message") or row.get("reason") for row in (*waiting, *unmet)]
        why = f" ({'; '.join(dict.fromkeys(each for each in words if each))})" if any(words) else ""
        findings.append(f"pod {name} is {status.get('phase')}, containers {'ready' if ready else 'not ready'}{why}")
    return findings


def etcd_unhealthy(state: MembersState, wanted: list[str]) -> list[str]:
    """Findings from the fact `Members`: missing, unhealthy or learning members."""
    found = {member["name"]: member for member in state["members"]}
    findings = [f"etcd member {name} is missing" for name in wanted if name not in found]
    findings += [f"etcd has a member {name!r} that the inventory has not" for name in found if name not in wanted]
    for name, member in found.items():
        if member["learner"]:
            findings.append(f"etcd member {name} is still a learner")
        if not member["healthy"]:
            why = "is not healthy" if member["healthy"] is False else "does not say whether it is healthy"
            findings.append(f"etcd member {name} {why}")
    return findings


def backends_down(name: str, state: BackendsState, wanted: int) -> list[str]:
    """Findings from the fact `Backends` of one load balancer."""
    if state["state"] != "running":
        return [f"{name}: HAProxy is {state['state']}"]
    servers = {server: row["status"] for backend in state["servers"].values() for server, row in backend.items()}
    findings = [f"{name}: HAProxy has server {server} {status}" for server, status in servers.items() if status != "UP"]
    if len(servers) != wanted:
        findings.append(f"{name}: HAProxy has {len(servers)} servers, not {wanted}")
    return findings


def through_endpoint(first: str, at: Endpoint) -> list[str]:
    """The API where everyone asks for it, with the cluster's CA checked and admin's certificate."""
    probe = f"{KUBECTL} --server=https://{at} get --raw=/readyz || true"
    answer = remote.on(first, probe, why="asking the API through its endpoint")
    return [] if answer == ["ok"] else [f"https://{at}/readyz answers {answer or 'nothing'}"]


def awaiting_network(settings: Settings, topology: Topology) -> list[str]:
    """Nodes that wait for a pod network which is the user's to install, and so may be missing."""
    return without_network(_nodes(topology)) if settings.cni == "none" else []


def _nodes(topology: Topology) -> dict[str, Any]:
    lines = remote.on(topology.first_control_plane.name, f"{KUBECTL} get nodes -o json", why="listing nodes")
    found: dict[str, Any] = json.loads("\n".join(lines))
    return found


def findings(settings: Settings, topology: Topology) -> list[str]:
    """Everything that is wrong with the cluster, in words; an empty list when all is well.

    Where nodes wait for the user's network, nothing that needs one is looked at.
    """
    first = topology.first_control_plane.name
    nodes = _nodes(topology)
    waiting = without_network(nodes) if settings.cni == "none" else []
    pods = "" if waiting else "\n".join(remote.on(first, f"{KUBECTL} get pods -A -o json", why="listing pods"))
    members = [node.name for node in topology.control_planes]
    found = nodes_not_ready(nodes, [node.name for node in (*topology.control_planes, *topology.workers)], waiting)
    found += pods_not_running(json.loads(pods)) if pods else []
    found += etcd_unhealthy(inventory.get_host(first).get_fact(Members), members)
    for node in balancers(settings, topology):
        found += backends_down(node.name, inventory.get_host(node.name).get_fact(Backends), len(members))
    found += through_endpoint(first, endpoint(settings, topology))
    return found


@operation()
def healthy(settings: Settings, topology: Topology, image: str) -> Generator[StringCommand, None, None]:
    """
    Assert that the whole cluster works; fail with everything that does not after some time.

    + settings: the cluster's settings
    + topology: its nodes
    + image: an image of the bundle whose pods are used to try DNS and the pod network
    """
    if not host.state.is_executing:
        host.noop("the live cluster is looked at when this runs")
        return

    def look() -> list[str]:
        try:
            return findings(settings, topology)
        except OperationError as error:  # the API may be away for a moment
            return [str(error)]

    found = workload.settled(look, settings.verify_timeout)
    waiting = [] if found else awaiting_network(settings, topology)
    if waiting:
        logger.warning(
            "%snot checked, for these nodes have no pod network yet, and with cni none it is yours to install: that %s "
            "are ready, that pods run, DNS, Services, the way from pod to pod. Install it, then run "
            "deploys/verify.py.", host.print_prefix, ", ".join(waiting),
        )  # fmt: skip
        host.noop("what there is of the cluster is healthy")
        return
    if not found:
        found = workload.findings(topology, image, dual=len(settings.ip_families) > 1)
    if not found:
        logger.info("%severy node, pod, etcd member, backend and network path is well", host.print_prefix)
        host.noop("the cluster is healthy")
        return
    text = "The cluster does not pass verification:\n" + "\n".join(f"  - {line}" for line in found)
    text += "\nWhat its parts complained of last:"
    yield StringCommand(f"{{ printf '%s\\n' {shlex.quote(text)}; {workload.COMPLAINTS}; }} >&2; exit 1")
