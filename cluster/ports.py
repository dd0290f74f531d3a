"""Which ports hosts listen on, and who must reach them (ports.yaml)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cluster.balancing import balancers
from cluster.endpoint import Endpoint
from cluster.settings import NAMES, Settings
from cluster.topology import Node, Topology, bundle_servers

PATH = Path(__file__).with_name("ports.yaml")
# Settings of which `when` asks for one part.
LISTS = ("addons",)


class Rule(BaseModel):
    """One row of ports.yaml, which describes each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str
    sources: tuple[str, ...] = Field(alias="from")
    protocol: Literal["tcp", "udp", "tcp and udp", "vrrp", "ipip", "icmp", "any"]
    port: int | str | None = None
    process: str = ""
    unit: str = ""
    what: str
    when: Mapping[str, str] = {}
    opened_by: str = ""

    def covers(self, port: int) -> bool:
        """Whether this port lies in the rule's own range or is its number."""
        first, _, last = str(self.port).partition("-")
        return first.isdigit() and int(first) <= port <= int(last or first)

    def number(self, settings: Settings) -> int | None:
        """The port's number with these settings; None for a range, and where there is none."""
        port = getattr(settings, self.port) if self.port in NAMES else self.port
        return port if isinstance(port, int) else None


@functools.cache
def load() -> tuple[Rule, ...]:
    """All rules, read once."""
    return TypeAdapter(tuple[Rule, ...]).validate_python(yaml.safe_load(PATH.read_text()))


def needed(settings: Settings) -> list[Rule]:
    """Rules that hold with these settings."""
    return [rule for rule in load() if all(_holds(getattr(settings, key), value) for key, value in rule.when.items())]


def _holds(setting: object, value: str) -> bool:
    return value in setting if isinstance(setting, tuple) else setting == value


def members(topology: Topology, settings: Settings) -> dict[str, tuple[Node, ...]]:
    """Hosts of the inventory by the roles of ports.yaml."""
    return {
        "control_plane": topology.control_planes,
        "worker": topology.workers,
        "load_balancer": topology.load_balancers,
        "balancer": balancers(settings, topology),
        "bundle_server": bundle_servers(topology, settings),
    }


def listening(node: Node, topology: Topology, settings: Settings) -> dict[int, Rule]:
    """TCP ports that this host needs for itself."""
    roles = members(topology, settings)
    found = {}
    for rule in needed(settings):
        number = rule.number(settings)
        if rule.process and number and node in roles.get(rule.to, ()):
            found[number] = rule
    return found


def clashes(topology: Topology, settings: Settings) -> list[str]:
    """Settings that give a port which something else of the cluster has on the same host, in words."""
    roles, rules = members(topology, settings), needed(settings)
    chosen = {str(rule.port): rule for rule in rules if rule.port in NAMES and rule.to in roles}
    found: dict[tuple[str, int, str], list[str]] = {}
    for name, rule in chosen.items():
        number = rule.number(settings) or 0
        # Of two settings it is said of the second.
        earlier = [chosen[each] for each in list(chosen)[: list(chosen).index(name)]]
        for node in roles[rule.to]:
            for other in rules:
                taken = other.covers(number) or (other in earlier and other.number(settings) == number)
                if taken and node in roles.get(other.to, ()):
                    found.setdefault((name, number, other.what), []).append(node.name)
    return [
        f"{name} {number}: is needed for {what} on {', '.join(dict.fromkeys(names))}. Choose another."
        for (name, number, what), names in found.items()
    ]


class Way(BaseModel):
    """That one host must reach another by TCP."""

    model_config = ConfigDict(frozen=True)

    source: Node
    target: Node
    port: int
    what: str

    @property
    def at(self) -> Endpoint:
        """Where the other is reached."""
        return Endpoint(self.target.address, self.port)


def ways(topology: Topology, settings: Settings) -> list[Way]:
    """All that can be tried from host to host; one is listed once, whatever it is needed for."""
    roles = members(topology, settings)
    found = {
        (source, target, number): Way(source=source, target=target, port=number, what=rule.what)
        for rule in needed(settings)
        if rule.protocol == "tcp" and (number := rule.number(settings))
        for target in roles.get(rule.to, ())
        for role in rule.sources
        for source in roles.get(role, ())
        if source != target
    }
    return list(found.values())


def markdown() -> str:
    """docs/ports.md: a table of every port, who listens there and who must reach it."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for rule in load():
        when = (
            ", ".join(f"`{key}` {'has' if key in LISTS else 'is'} `{value}`" for key, value in rule.when.items())
            or "always"
        )
        port = f"`{rule.port}`" if rule.port in NAMES else str(rule.port or "-")
        sources = ", ".join(map(_words, rule.sources)) or "itself alone"
        merged.setdefault((port, rule.protocol, sources, rule.what, when), []).append(_words(rule.to))
    rows = [
        f"| {port} | {protocol} | {', '.join(targets)} | {sources} | {what} | {when} |"
        for (port, protocol, sources, what, when), targets in merged.items()
    ]
    return "\n".join([HEAD, *rows]) + "\n"


def _words(role: str) -> str:
    return role.replace("_", " ")


HEAD = """\
# Ports

Who must reach whom, from `cluster/ports.yaml`; names such as `api_port` are settings. Replies must come back.

Before a deploy changes anything, each host tries every TCP port here that it must reach. "Connection refused" is as
good as an answer: the packet came through, and nothing need listen yet. So a firewall that refuses by the ICMP message
"port unreachable" or by a TCP reset looks like a host on which nothing listens; one that drops, or says
"administratively prohibited", is found (check `port-filtered`). UDP and VRRP say nothing when nobody listens: of load
balancers it is looked at whether they are in one Ethernet (`vrrp-peers`), of nodes whether pings of full size pass
(`mtu-path`), and for the rest there is this table.

| port | protocol | to | from | what for | when |
| --- | --- | --- | --- | --- | --- |"""
