"""A pod network made of the kernel alone: a bridge on each node, and a route on each to every other node's pods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import TypedDict

SCRIPT = "/usr/local/sbin/pod-network"
UNIT = "pod-network.service"
# The chain with all rules of this network, in each table that has some.
CHAIN = "POD-NETWORK"
# By which the kernel tells these routes from others'; names for some numbers are in /etc/iproute2/rt_protos.
PROTOCOL = 148
# Packets that go to many, which a node does not carry out of its own network.
MULTICAST = "224.0.0.0/4"


class NodeSubnet(TypedDict):
    """A node's own address, and its subnet of pods; that is empty until it has been given one."""

    address: str
    subnet: str


def conflist(subnet: str, mtu: int) -> str:
    """The CNI configuration of a node whose pods have this subnet.

    The bridge plugin's own masquerading is left off: it takes addresses of other nodes' pods for the outside
    (https://www.cni.dev/plugins/current/main/bridge/). `forceAddress`: a node that joins anew may get another subnet.
    """
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "forceAddress": True,
        "hairpinMode": True,
        "mtu": mtu,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]}, indent=2) + "\n"


def routes(nodes: Mapping[str, NodeSubnet], own: str) -> dict[str, str]:
    """A node's routes to all others' pods: subnet -> next hop."""
    return {each["subnet"]: each["address"] for name, each in sorted(nodes.items()) if name != own and each["subnet"]}


def rules(pods: IPv4Network) -> list[str]:
    """Rules of the packet filter, as a table's name and a line that `iptables -S` prints.

    A pod keeps its address towards pods, and has the node's towards everything else. Both ways are open even where
    the policy of FORWARD is to drop.
    """
    return [
        f"nat -A POSTROUTING -j {CHAIN}",
        f"nat -A {CHAIN} -d {pods} -j RETURN",
        f"nat -A {CHAIN} -d {MULTICAST} -j RETURN",
        f"nat -A {CHAIN} -s {pods} -j MASQUERADE --random-fully",
        f"filter -A FORWARD -j {CHAIN}",
        f"filter -A {CHAIN} -s {pods} -j ACCEPT",
        f"filter -A {CHAIN} -d {pods} -j ACCEPT",
    ]


def script(wanted: Mapping[str, str], pods: IPv4Network) -> str:
    """Shell that makes routes and rules as they are to be, and takes away routes of ours that are no longer wanted."""
    lines = rules(pods)
    within = {table: [line for line in _of(lines, table) if f"-A {CHAIN}" in line] for table in ("nat", "filter")}
    into = [(table, line) for table in ("nat", "filter") for line in _of(lines, table) if line not in within[table]]
    restored = [f"*{table}\n:{CHAIN} - [0:0]\n" + "\n".join(own) + "\nCOMMIT" for table, own in within.items()]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Routes to the pods of other nodes, and rules by which pods have the node's address outside.",
            f"# Written by the layer `network`, run by {UNIT}.",
            "set -eu",
            *(f"ip -4 route replace {subnet} via {hop} proto {PROTOCOL}" for subnet, hop in wanted.items()),
            f"for subnet in $(ip -4 -o route show proto {PROTOCOL} | cut -d ' ' -f 1); do",
            f"    case ' {' '.join(wanted)} ' in",
            '    *" $subnet "*) ;;',
            f'    *) ip -4 route delete "$subnet" proto {PROTOCOL} ;;',
            "    esac",
            "done",
            # A chain that is named anew is emptied first; every table changes at once.
            "iptables-restore --wait 10 --noflush <<'RULES'",
            *restored,
            "RULES",
            *(f"iptables --wait 10 -t {table} {line.replace('-A', '-C', 1)} 2>/dev/null ||\n"
              f"    iptables --wait 10 -t {table} {line}" for table, line in into),
        ]
    ) + "\n"  # fmt: skip


def _of(lines: Iterable[str], table: str) -> list[str]:
    return [line.removeprefix(f"{table} ") for line in lines if line.startswith(f"{table} ")]
