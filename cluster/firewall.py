"""What a host's firewall must let in, and how that is said to it (docs/platforms.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cluster.ip_families import Address, words
from cluster.ports import members, needed
from cluster.settings import Settings
from cluster.topology import Node, Topology

# Of protocols without ports, as in IP's header (https://www.iana.org/assignments/protocol-numbers).
NUMBERS = {"icmp": 1, "ipip": 4, "vrrp": 112}
# Firewalls that can be opened, and the first release of firewalld that has policies
# (https://firewalld.org/2020/09/policy-objects-introduction).
KNOWN = ("firewalld", "ufw")
POLICIES_SINCE = (0, 9)
# SSH from there is open already, else nobody had come in; and who may use it is the site's to say.
LEFT = "control_machine"
BEGIN, END = "# BEGIN pyinfra-kubeadm", "# END pyinfra-kubeadm"


@dataclass(frozen=True)
class Opening:
    """One protocol that is let in, `tcp` or `udp` with a port or range; from anybody when there are no sources."""

    protocol: str
    port: str
    sources: tuple[Address, ...]

    @property
    def number(self) -> int:
        """IP's number of a protocol without ports."""
        return NUMBERS[self.protocol]


def openings(node: Node, topology: Topology, settings: Settings) -> list[Opening]:
    """What others must reach on a host, by ports.yaml; each port once.

    Packets of pods themselves (`any`) are apart: every network has them, wrapped or not.
    """
    roles = members(topology, settings)
    found: dict[tuple[str, str], set[Address] | None] = {}
    for rule in needed(settings):
        callers = [role for role in rule.sources if role != LEFT]
        asked = rule.protocol != "any" and (not rule.opened_by or getattr(settings, rule.opened_by))
        if not callers or not asked or node not in roles.get(rule.to, ()):
            continue
        inside = {each.address for role in callers for each in roles.get(role, ()) if each != node}
        known = all(role in roles for role in callers)
        port = str(rule.number(settings) or rule.port or "")
        for protocol in rule.protocol.split(" and "):
            before = found.get((protocol, port), set())
            found[protocol, port] = before | inside if known and before is not None else None
    return [
        Opening(protocol, port, tuple(sorted(sources or ())))
        for (protocol, port), sources in sorted(found.items())
        if sources is None or sources
    ]


def problems(settings: Settings) -> list[str]:
    """Why firewalls cannot be opened for the cluster that the settings ask for, in words."""
    if settings.host_firewall == "leave" or 6 not in settings.ip_families:
        return []
    return [
        f"host_firewall: is open, which writes rules of IPv4 alone, and pod_subnet {settings.pod_subnet} is "
        f"{words(settings.ip_families)}. Set it to `leave`, and open in each family what docs/ports.md "
        "names, and ICMPv6."
    ]


def marked(rules: str) -> str:
    """A block of rules of ufw, with a comment that running rules show; by it one sees whether they are these."""
    digest = hashlib.sha256(rules.encode()).hexdigest()[:16]
    last = f"-A ufw-before-input -m comment --comment pyinfra-kubeadm-{digest}"
    return f"{BEGIN}\n{rules}{last}\n{END}\n"


def merged(text: str, block: str) -> str | None:
    """ufw's before.rules with a block in place of the one that is there, or at the end of table `filter`.

    None when there is no such table.
    """
    if BEGIN in text and END in text:
        before, _, rest = text.partition(f"{BEGIN}\n")
        return before + block + rest.partition(f"{END}\n")[2]
    table = text.find("*filter\n")
    end = text.find("\nCOMMIT", table) + 1
    return text[:end] + block + text[end:] if table >= 0 and end > 0 else None
