"""Names, addresses and places of the lab."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/pyinfra-kubeadm-lab")
NODES = STATE / "nodes"
SSH = STATE / "ssh"
FILE = STATE / "lab.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyinfra-kubeadm"

BRIDGE = "kubeadm-lab"
NETWORK = "10.88.0"
GATEWAY = f"{NETWORK}.1"
VIP = f"{NETWORK}.100"
# Beside it nodes have IPv6, where this machine's kernel has; the last number is the same.
NETWORK6 = "fd00:88::"
GATEWAY6 = f"{NETWORK6}1"
VIP6 = f"{NETWORK6}100"
USER = "admin"
DEFAULT = ("lb1", "lb2", "cp1", "cp2", "cp3", "w1")
# What `lab up --topology` raises; inventories/lab.py has each balanced as its nodes allow (docs/load-balancing.md).
TOPOLOGIES = {
    "default": DEFAULT,
    "large": ("lb1", "lb2", "cp1", "cp2", "cp3", "cp4", "cp5", "w1"),
    "compact": ("cp1", "cp2", "cp3", "w1"),
    "small": ("cp1", "w1"),
    "single": ("cp1",),
    "mixed": ("cp1", "cp2:debian-13", "cp3:ubuntu-24.04", "w1:ubuntu-22.04"),
}
# What a node is of which a topology names no release.
RELEASE = "debian-12"
# First address of each kind of node; the kind is the name without its number.
ROLES = {"lb": ("load_balancer", 10), "cp": ("control_plane", 20), "w": ("worker", 30)}


class LabError(Exception):
    """Something of the lab is not as it must be; the message says what and what to do."""


@dataclass(frozen=True)
class Node:
    """One machine of the lab."""

    name: str
    group: str
    address: str
    release: str = RELEASE

    @property
    def address6(self) -> str:
        """Its address of IPv6."""
        return f"{NETWORK6}{self.address.rpartition('.')[2]}"

    @property
    def directory(self) -> Path:
        """Where its disk and its console's log are."""
        return NODES / self.name

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{BRIDGE}-{self.name}"

    @property
    def link(self) -> str:
        """The end of its cable at the bridge; a name of an interface has 15 characters at most."""
        return f"lab-{self.name}"

    @property
    def console(self) -> Path:
        """What systemd-nspawn and the machine's PID 1 print."""
        return self.directory / "console.log"


def node(named: str) -> Node:
    """A node as topologies name it, "cp2" or "cp2:debian-13". Raises LabError for a name with no role."""
    name, _, release = named.partition(":")
    kind = name.rstrip("0123456789")
    number = name[len(kind) :]
    if kind not in ROLES or not number or not 1 <= int(number) <= 9:
        raise LabError(f"{name}: not a node's name. Use lbN, cpN or wN with N from 1 to 9, such as cp1.")
    group, first = ROLES[kind]
    return Node(name, group, f"{NETWORK}.{first + int(number)}", release or RELEASE)


def topology(name: str) -> tuple[str, ...]:
    """Names of a topology's nodes. Raises LabError for one that there is not."""
    if name not in TOPOLOGIES:
        raise LabError(f"{name}: there is no such topology of the lab; there are {', '.join(TOPOLOGIES)}.")
    return TOPOLOGIES[name]


def read() -> dict[str, Any]:
    """What `up` wrote of the running lab. Raises LabError when there is none."""
    try:
        found: dict[str, Any] = json.loads(FILE.read_text())
    except FileNotFoundError:
        raise LabError("The lab is not up. Raise it with `python3 tasks.py lab up`.") from None
    return found


def write(nodes: list[Node], facts: dict[str, Any]) -> None:
    """Describe the running lab for inventories/lab.py and the tests."""
    described = {
        "nodes": [asdict(each) for each in nodes], "vip": VIP, "user": USER,
        "key": str(SSH / "id_ed25519"), "known_hosts": str(SSH / "known_hosts"), **facts,
    }  # fmt: skip
    beside = FILE.with_suffix(".new")
    beside.write_text(json.dumps(described, indent=2) + "\n")
    beside.rename(FILE)
