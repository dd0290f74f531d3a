"""Which node has which role, and whether such a cluster can exist."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address

from cluster.settings import Settings

# kube-controller-manager gives each node a /24 of the pod subnet, unless one of these arguments says otherwise
# (https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/).
NODE_PREFIX = 24
PREFIXES = ("node-cidr-mask-size", "node-cidr-mask-size-ipv4")
HOSTNAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class Node:
    """One host: its name in the inventory and its IPv4 address in the cluster."""

    name: str
    address: IPv4Address


@dataclass(frozen=True)
class Topology:
    """All hosts by role, in the inventory's order."""

    control_planes: tuple[Node, ...]
    workers: tuple[Node, ...]
    load_balancers: tuple[Node, ...]

    @property
    def first_control_plane(self) -> Node:
        """The control plane on which `kubeadm init` runs."""
        return self.control_planes[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every host, load balancers first."""
        return (*self.load_balancers, *self.control_planes, *self.workers)


def node_prefix(settings: Settings) -> int:
    """The length of the prefix of each node's part of the pod subnet."""
    given = settings.cluster_configuration.get("controllerManager") or {}
    arguments = (given.get("extraArgs") or {}) if isinstance(given, dict) else {}
    rows = [each for each in arguments if isinstance(each, dict)] if isinstance(arguments, list) else []
    pairs = arguments.items() if isinstance(arguments, dict) else [(row.get("name"), row.get("value")) for row in rows]
    found = [str(value) for name, value in pairs if name in PREFIXES]
    return int(found[-1]) if found and found[-1].isdigit() else NODE_PREFIX


def bundle_servers(topology: Topology, settings: Settings) -> tuple[Node, ...]:
    """Hosts that hand the bundle on: those of the settings that the inventory has, else the load balancers, else the
    first two control planes; each keeps the whole bundle, and two are enough for one to fail."""
    if not settings.bundle_servers:
        return topology.load_balancers or topology.control_planes[:2]
    known = {node.name: node for node in topology.nodes}
    return tuple(known[name] for name in dict.fromkeys(settings.bundle_servers) if name in known)


def check(topology: Topology, settings: Settings) -> list[str]:
    """Every reason why these hosts cannot be a cluster, in words; an empty list when there is none.

    What depends on `load_balancing` is cluster.balancing's.
    """
    return [
        *_roles(topology, settings),
        *_identities(topology),
        *_networks(topology, settings),
        *_servers(topology, settings),
    ]


def _servers(topology: Topology, settings: Settings) -> list[str]:
    names = {node.name for node in topology.nodes}
    return [
        f"bundle_servers: {name} is not in the inventory. Name hosts of it, or none for the load balancers or, without "
        "these, control planes."
        for name in settings.bundle_servers
        if name not in names
    ]


def _roles(topology: Topology, settings: Settings) -> list[str]:
    found = []
    if not topology.control_planes:
        found.append("no host in group control_plane: the cluster needs at least one. Add it to the inventory.")
    if not topology.workers and not settings.allow_scheduling_on_control_planes:
        found.append(
            "no host in group worker: ordinary pods would have nowhere to run. Add one to the inventory, or set "
            "`allow_scheduling_on_control_planes`."
        )
    count = len(topology.control_planes)
    if count and count % 2 == 0:
        found.append(
            f"{count} control planes: etcd survives no more failures with {count} members than with {count - 1}, "
            "and loses quorum sooner. Use 1, 3 or 5."
        )
    return found


def _identities(topology: Topology) -> list[str]:
    names, addresses = defaultdict(list), defaultdict(list)
    for node in topology.nodes:
        names[node.name].append(node.address)
        addresses[node.address].append(node.name)
    found = [
        f"{name}: is in the inventory {len(owners)} times. A host has one role; name it once."
        for name, owners in names.items()
        if len(owners) > 1
    ]
    found += [
        f"{address}: is the address of {' and '.join(sorted(set(owners)))}. Give each host its own `address`."
        for address, owners in addresses.items()
        if len(set(owners)) > 1
    ]
    found += [
        f"{name}: is not a name a node can have (RFC 1123: small letters, digits, '-' and '.'). Rename the host."
        for name in names
        if not HOSTNAME.fullmatch(name)
    ]
    return found


def _networks(topology: Topology, settings: Settings) -> list[str]:
    found = []
    subnets = {"pod_subnet": settings.pod_subnet, "service_subnet": settings.service_subnet}
    if settings.pod_subnet.overlaps(settings.service_subnet):
        found.append(
            f"pod_subnet {settings.pod_subnet} overlaps service_subnet {settings.service_subnet}: an address would "
            "mean two things. Choose networks apart."
        )
    inhabitants = [(node.name, node.address) for node in topology.nodes]
    if settings.virtual_ip:
        inhabitants.append(("vip", settings.virtual_ip))
    for key, subnet in subnets.items():
        inside = [f"{name} ({address})" for name, address in inhabitants if address in subnet]
        if inside:
            found.append(
                f"{key} {subnet} holds the address of {', '.join(inside)}: packets to it would go to pods or "
                f"Services. Choose another {key}."
            )
    each = node_prefix(settings)
    room = 2 ** (each - settings.pod_subnet.prefixlen) if each >= settings.pod_subnet.prefixlen else 0
    wanted = len(topology.control_planes) + len(topology.workers)
    if room < wanted:
        found.append(
            f"pod_subnet {settings.pod_subnet}: has room for {room} nodes of a /{each} each, the inventory has "
            f"{wanted}. Choose a larger network."
        )
    return found
