"""Ports: whether each is free where it is needed, and reached from where it must be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from cluster.balancing import endpoint
from cluster.findings import Finding, names
from cluster.ports import listening, ways
from cluster.preflight.seen import Seen

COMM = 15  # bytes that the kernel keeps of a process's name
# What the kernel or the time limit says when a packet did not come through. "open" and "Connection refused" both say
# that it did; other words say that it could not be tried.
LOST = {
    "timeout": "no answer",
    "Connection timed out": "no answer",
    "No route to host": "no route to host, or prohibited there",
    "Network is unreachable": "network is unreachable",
    "Operation not permitted": "not permitted by this host's own firewall",
    "Permission denied": "prohibited on the way",
}
# bash's last word on a name that it cannot look up.
UNKNOWN = "Invalid argument"


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of ports."""
    yield from _taken(seen)
    yield from _filtered(seen)
    yield from _site_load_balancer(seen)


def _taken(seen: Seen) -> Iterator[Finding]:
    for node in seen.asked:
        held = seen.listeners.get(node.name, {})
        for port, rule in listening(node, seen.topology, seen.cluster).items():
            if port not in held:
                continue
            owner = held[port]
            # Where the unit is not known, the name must do.
            own_unit = not rule.unit or owner["unit"] in ("", rule.unit)
            if owner["process"] != rule.process[:COMM] or not own_unit:
                unit = f" ({owner['unit']})" if owner["unit"] else ""
                who = f"{owner['process'] or 'something'}{unit}"
                yield Finding("port-taken", (node.name,), f"port {port} of {rule.what} is taken by {who}")


def _filtered(seen: Seen) -> Iterator[Finding]:
    must: dict[tuple[str, int, str], set[str]] = defaultdict(set)
    lost: dict[tuple[str, int, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for way in ways(seen.topology, seen.cluster):
        answer = seen.reached.get(way.source.name, {}).get(str(way.at))
        if answer is None:
            continue
        key = (way.target.name, way.port, way.what)
        must[key].add(way.source.name)
        if answer in LOST and way.target.name not in seen.unopened:
            lost[key][LOST[answer]].append(way.source.name)
    asked = {node.name for node in seen.asked}
    for key, answers in lost.items():
        target, port, what = key
        for words, sources in answers.items():
            # Said alike for all hosts of which it is true of all, so that they are reported as one.
            who = "any host that must" if len(sources) > 1 and set(sources) == must[key] else names(sources)
            check = "port-filtered" if target in asked else "port-beyond-limit"
            yield Finding(check, (target,), f"TCP {port} ({what}) is not reached from {who}: {words}")


def _site_load_balancer(seen: Seen) -> Iterator[Finding]:
    """A refused connection is well: no API server may be up yet. So is it to kubeadm's own guide
    (https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/high-availability/)."""
    if seen.cluster.load_balancing != "external":
        return
    at = endpoint(seen.cluster, seen.topology)
    for node in seen.nodes:
        answer = seen.reached.get(node.name, {}).get(str(at))
        if answer == UNKNOWN:
            what = f"the name of control_plane_endpoint {at} is not known here"
            yield Finding("endpoint-name", (node.name,), what)
        elif answer in LOST:
            yield Finding("endpoint", (node.name,), f"control_plane_endpoint {at} is not reached: {LOST[answer]}")
