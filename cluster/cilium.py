"""Cilium, as its chart was rendered when the bundle was built: which manifest a cluster takes, and what is refused."""

from __future__ import annotations

import re

from cluster.compatibility import parse
from cluster.ip_families import words
from cluster.lock import Lock
from cluster.settings import Settings

# Where a bundle has manifests of networks, and the name by which the catalogue has Cilium's chart.
DIRECTORY = "networks"
CHART = "cilium-chart"
NAMESPACE = "kube-system"
# The cluster's families -> those that a manifest is rendered for. Of two it does not matter which is the first.
FAMILIES = {(4,): "ipv4", (6,): "ipv6", (4, 6): "dual"}
# Nodes can reach each other by IPv6 from here on, by the option underlay-protocol
# (https://github.com/cilium/cilium/blob/v1.18.11/Documentation/operations/upgrade.rst).
UNDERLAY_IPV6 = "1.18"
# The first Cilium of several -> the least Linux for them (Documentation/operations/system_requirements.rst of each).
KERNELS = {"1.18": "5.10", "1.16": "5.4", "1.14": "4.19.57"}
REPLICAS = re.compile(
    r"^(kind: Deployment\nmetadata:\n  name: cilium-operator\n(?:(?!---).*\n)*?  replicas: )(\d+)$", re.MULTILINE
)


def path(settings: Settings) -> str:
    """The manifest's path in the bundle."""
    return f"{DIRECTORY}/cilium-{FAMILIES[tuple(sorted(settings.ip_families))]}.yaml"


def version(settings: Settings, lock: Lock) -> str:
    """The version of the Cilium that the bundle has; empty when it has none."""
    return next((file.version for file in lock.files if file.path == path(settings)), "")


def kernel(given: str) -> str:
    """The least Linux for a version of Cilium; for one that is older than all that are known, that of the oldest."""
    fit = (least for first, least in KERNELS.items() if parse(given) >= parse(first))
    return next(fit, KERNELS["1.14"])


def problems(settings: Settings, lock: Lock) -> list[str]:
    """Why the bundle cannot give the Cilium that the settings ask for, in words."""
    given = version(settings, lock)
    if not given:
        return [
            f"cni: is cilium, and the bundle has no {path(settings)}. Set `networks: [cilium]` in bundle.yaml and "
            "build the bundle anew; docs/networks.md has more."
        ]
    if settings.ip_families == (6,) and parse(given) < parse(UNDERLAY_IPV6):
        return [
            f"cni: Cilium {given} reaches other nodes by IPv4 alone, and pod_subnet {settings.pod_subnet} is "
            f"{words(settings.ip_families)}; take {UNDERLAY_IPV6} or later."
        ]
    return []


def manifest(text: str, nodes: int) -> str:
    """The chart's manifest with no more operators than nodes, for no two of them run on one."""
    return REPLICAS.sub(lambda found: f"{found[1]}{min(int(found[2]), nodes)}", text)
