"""Distributions: whether the bundle has what each host needs for the release that it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster import runtime
from cluster.balancing import balancers
from cluster.compatibility import refusals
from cluster.families import package_sets, problems, release, system
from cluster.findings import Finding
from cluster.lock import Lock
from cluster.preflight.seen import Seen
from cluster.settings import Settings
from cluster.topology import Topology, bundle_servers


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of hosts' releases."""
    systems = {node.name: system(state) for node in seen.asked if (state := seen.hardware.get(node.name))}
    yield from lacking(systems, seen.cluster, seen.topology, seen.lock)


def lacking(systems: Mapping[str, str], settings: Settings, topology: Topology, lock: Lock) -> Iterator[Finding]:
    """What the bundle has not for hosts that are such systems, by name, such as "rocky-9.4"."""
    members = {
        "node": (*topology.control_planes, *topology.workers),
        "balancer": balancers(settings, topology),
        "bundle_server": bundle_servers(topology, settings),
    }
    roles = {role: {node.name for node in nodes} for role, nodes in members.items()}
    for name, own in systems.items():
        has = [role for role, names in roles.items() if name in names]
        sets = list(package_sets(has, chrony=settings.time_sync == "chrony"))
        lines = problems(own, lock.package_sets, sets)
        for what in lines:
            yield Finding("os-release", (name,), what)
        if not lines and "node" in has:
            for what in runtime_problems(settings, lock, release(own, lock.package_sets) or ""):
                yield Finding("release-runtime", (name,), f"it is {own}. {what.rstrip('.')}")


def runtime_problems(settings: Settings, lock: Lock, release: str) -> list[str]:
    """Why nodes of a release would have no runtime that goes with this Kubernetes, in sentences."""
    found = refusals(lock.kubernetes_version, lock.versions(release))
    return found + runtime.problems(settings, lock, release)
