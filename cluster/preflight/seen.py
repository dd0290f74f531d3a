"""What preflight has gathered before anything is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cluster.balancing import balancers
from cluster.lock import Lock
from cluster.settings import Settings
from cluster.topology import Node, Topology

# A fact's answer by host; the facts' own docstrings (facts/) have the shapes.
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Clock:
    """How far a host's clock is before this machine's, in seconds, and how far that may be wrong."""

    offset: float
    uncertainty: float


@dataclass(frozen=True)
class Seen:
    """Settings, inventory and bundle, and facts of the hosts that were asked; a host without a fact is passed over."""

    settings: Mapping[str, Settings]
    topology: Topology
    lock: Lock
    asked: tuple[Node, ...]
    hardware: Facts = field(default_factory=dict)
    file_systems: Mapping[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cgroups: Facts = field(default_factory=dict)
    swap: Facts = field(default_factory=dict)
    names: Facts = field(default_factory=dict)
    listeners: Mapping[str, Mapping[int, Mapping[str, str]]] = field(default_factory=dict)
    # host -> "address:port" -> what came of it
    reached: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # host -> address -> "full", "small" or "none"
    pings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    synchronized: Mapping[str, bool | None] = field(default_factory=dict)
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    writes: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    kubeadm: Facts = field(default_factory=dict)
    # What nodes run; and of control planes that are behind, APIs that are asked for and go, with the release.
    versions: Facts = field(default_factory=dict)
    removed_apis: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    leftovers: Facts = field(default_factory=dict)
    installed: Facts = field(default_factory=dict)
    surroundings: Facts = field(default_factory=dict)
    # Balancing host -> address -> MAC address that answers, or None; the virtual IPs and the other balancing hosts.
    answers: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    # Hosts whose firewalls are yet to be opened by the deploy.
    unopened: frozenset[str] = frozenset()
    # The CA that a backup brings to control planes which have none, by its hash.
    restored: str | None = None
    # Hosts that carry a virtual IP.
    vip_holders: tuple[str, ...] = ()

    @property
    def cluster(self) -> Settings:
        """Settings of any host, for what is one in the whole cluster."""
        return next(iter(self.settings.values()))

    @cached_property
    def roles(self) -> tuple[tuple[str, Node], ...]:
        """Each host that was asked with each role that it has."""
        known, asked = self.topology, set(self.asked)
        roles = {
            "control_plane": known.control_planes, "worker": known.workers, "load_balancer": known.load_balancers,
        }  # fmt: skip
        return tuple((role, node) for role, nodes in roles.items() for node in nodes if node in asked)

    @cached_property
    def nodes(self) -> dict[Node, None]:
        """Hosts of Kubernetes that were asked, in the inventory's order: control planes and workers."""
        return dict.fromkeys(node for role, node in self.roles if role != "load_balancer")

    @property
    def balancers(self) -> tuple[Node, ...]:
        """Hosts that balance the API, whether or not they were asked."""
        return balancers(self.cluster, self.topology)

    def own_address(self, node: Node, version: int | None = None) -> Mapping[str, Any] | None:
        """The interface with the host's address of the inventory, its first or that of a family, as the fact Hardware
        has it."""
        address = node.of(version) if version else node.address
        rows = self.hardware.get(node.name, {}).get("addresses", [])
        return next((row for row in rows if row["address"] == str(address)), None)
