"""Which node has which role, and whether such a cluster can exist."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from cluster.ip_families import Address
from cluster.settings import Settings

# The check of cluster/checks.yaml that waives `even`.
EVEN = "even-control-planes"
HOSTNAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class Node:
    """One host: its name in the inventory and its address in the cluster; of two families it may have one of each."""

    name: str
    address: Address
    second: Address | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All its addresses in the cluster."""
        return (self.address,) if self.second is None else (self.address, self.second)

    def of(self, version: int) -> Address | None:
        """Its address of this family."""
        return next((each for each in self.addresses if each.version == version), None)


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


def bundle_servers(topology: Topology, settings: Settings) -> tuple[Node, ...]:
    """Hosts that hand the bundle on: those of the settings that the inventory has, else the load balancers, else the
    first two control planes; each keeps the whole bundle, and two are enough for one to fail."""
    if not settings.bundle_servers:
        return topology.load_balancers or topology.control_planes[:2]
    known = {node.name: node for node in topology.nodes}
    return tuple(known[name] for name in dict.fromkeys(settings.bundle_servers) if name in known)


def check(topology: Topology, settings: Settings) -> list[str]:
    """Every reason why these hosts cannot be a cluster, in words; an empty list when there is none.

    What depends on `load_balancing` is cluster.balancing's, and networks are cluster.addressing's.
    """
    return [
        *_roles(topology, settings),
        *_identities(topology),
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
    return found


def even(topology: Topology) -> str | None:
    """What is wrong with an even number of control planes, in words; None when there are 1, 3 or 5."""
    count = len(topology.control_planes)
    if not count or count % 2:
        return None
    return (
        f"{count} control planes: etcd survives no more failures with {count} members than with {count - 1}, and loses "
        "quorum sooner. Use 1, 3 or 5."
    )


def _identities(topology: Topology) -> list[str]:
    names, addresses = defaultdict(list), defaultdict(list)
    for node in topology.nodes:
        names[node.name].append(node.address)
        for address in node.addresses:
            addresses[address].append(node.name)
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
