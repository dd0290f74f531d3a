"""Hosts of the running lab with other addresses and networks than those of IPv4."""

from __future__ import annotations

from lab.layout import VIP, VIP6, Node

Members = list[tuple[str, dict[str, object]]]
DUAL = {
    "vip": f"{VIP},{VIP6}",
    "pod_subnet": "10.244.0.0/16,fd00:10:244::/56",
    "service_subnet": "10.96.0.0/12,fd00:10:96::/112",
}
IPV6 = {"vip": VIP6, "pod_subnet": "fd00:10:244::/56", "service_subnet": "fd00:10:96::/112"}


def of_both(members: Members) -> Members:
    """Hosts with their address of IPv4 and then that of IPv6."""
    return [(name, {**data, **DUAL, "address": f"{data['address']},{_six(name, data)}"}) for name, data in members]


def of_ipv6(members: Members) -> Members:
    """Hosts with their address of IPv6; images are pulled in it too. SSH goes where it went."""
    own = {**IPV6, "image_delivery": "registry"}
    return [(name, {**data, **own, "address": _six(name, data)}) for name, data in members]


def _six(name: str, data: dict[str, object]) -> str:
    return Node(name, "", str(data["address"])).address6
