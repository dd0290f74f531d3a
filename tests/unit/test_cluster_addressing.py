"""Families, sizes and overlaps of a cluster's addresses and networks."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import addressing, balancing, ip_families
from cluster.settings import Settings, load
from cluster.topology import Node, Topology

PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/12"
PODS6, SERVICES6 = "fd00:10:244::/56", "fd00:10:96::/112"
SIX = {"pod_subnet": PODS6, "service_subnet": SERVICES6, "vip": "fd00::100"}
DUAL = {
    "pod_subnet": f"{PODS},{PODS6}",
    "service_subnet": f"{SERVICES},{SERVICES6}",
    "vip": "10.0.0.100,fd00::100",
}


def node(name: str, addresses: str) -> Node:
    return Node(name, *ip_families.addresses(addresses).each)


def topology(form: str, **others: str) -> Topology:
    """Hosts whose addresses are of this form; of some hosts others."""
    last = {"lb1": 11, "cp1": 21, "w1": 31}
    lb1, cp1, w1 = (node(name, others.get(name, form.format(number))) for name, number in last.items())
    return Topology((cp1,), (w1,), (lb1,))


ONLY4, ONLY6, BOTH = topology("10.0.0.{0}"), topology("fd00::{0}"), topology("10.0.0.{0},fd00::{0}")


def problems(hosts: Topology, **settings: Any) -> list[str]:
    own: Settings = load({"vip": "10.0.0.100", **settings})
    return addressing.check(hosts, own)


@pytest.mark.parametrize(
    ("hosts", "settings"),
    [
        (ONLY4, {}),
        (ONLY6, SIX),
        (BOTH, DUAL),
        (topology("10.0.0.{0},fd00::{0}", lb1="10.0.0.11"), {**DUAL, "vip": "10.0.0.100"}),
        (BOTH, {**DUAL, "load_balancing": "external", "vip": None}),
        (
            topology("fd00::{0},10.0.0.{0}"),
            {
                "vip": "fd00::100,10.0.0.100",
                "pod_subnet": f"{PODS6},{PODS}",
                "service_subnet": f"{SERVICES6},{SERVICES}",
            },
        ),
    ],
    ids=["IPv4", "IPv6", "both", "both, asked in the first", "both, balanced by the site", "both, IPv6 first"],
)
def test_these_can_be(hosts: Topology, settings: dict[str, Any]) -> None:
    assert problems(hosts, **settings) == []


FAMILIES: list[tuple[Topology, dict[str, Any], list[str]]] = [
    (
        ONLY4,
        {"service_subnet": SERVICES6},
        [
            "service_subnet fd00:10:96::/112: is IPv6, and pod_subnet 10.244.0.0/16 is IPv4. Give both the same "
            "families in the same order."
        ],
    ),
    (
        BOTH,
        {**DUAL, "service_subnet": f"{SERVICES6},{SERVICES}"},
        [
            "service_subnet fd00:10:96::/112,10.96.0.0/12: is IPv6 and IPv4, and pod_subnet "
            "10.244.0.0/16,fd00:10:244::/56 is IPv4 and IPv6. Give both the same families in the same order."
        ],
    ),
    (
        ONLY4,
        {"vip": "fd00::100"},
        [
            "vip fd00::100: is IPv6, and pod_subnet 10.244.0.0/16 is IPv4. Give one of the cluster's first family, or "
            "one of each in the same order."
        ],
    ),
    (
        topology("10.0.0.{0},fd00::{0}", cp1="10.0.0.21", w1="10.0.0.31"),
        DUAL,
        [
            "cp1 (10.0.0.21), w1 (10.0.0.31): `address` is IPv4, and pod_subnet 10.244.0.0/16,fd00:10:244::/56 is IPv4 "
            "and IPv6. Give `address` IPv4 and IPv6 in this order, with a comma between."
        ],
    ),
    (
        topology("10.0.0.{0},fd00::{0}", lb1="10.0.0.11"),
        DUAL,
        [
            "lb1 (10.0.0.11): `address` is IPv4, and pod_subnet 10.244.0.0/16,fd00:10:244::/56 is IPv4 and IPv6. Give "
            "`address` IPv4 and IPv6 in this order, with a comma between."
        ],
    ),
    (
        topology("10.0.0.{0}", w1="fd00::31"),
        {},
        ["w1 (fd00::31): `address` is IPv6, and pod_subnet 10.244.0.0/16 is IPv4. Give `address` IPv4 alone."],
    ),
]


@pytest.mark.parametrize(("hosts", "settings", "found"), FAMILIES, ids=[found[0][:60] for *_, found in FAMILIES])
def test_families_that_do_not_match_are_refused(hosts: Topology, settings: dict[str, Any], found: list[str]) -> None:
    assert problems(hosts, **settings) == found


SIZES = [
    ("fd00:10:244::/64", "has room for 1 nodes of a /64 each, the inventory has 2. Choose a larger network."),
    ("fd00:10:244::/65", "has room for 0 nodes of a /64 each, the inventory has 2. Choose a larger network."),
    (
        "fd00::/47",
        "is larger than Kubernetes takes where each node has a /64. Choose a network from /48 on.",
    ),
]


@pytest.mark.parametrize(("subnet", "words"), SIZES)
def test_a_pod_network_of_ipv6_must_have_room_and_not_too_much(subnet: str, words: str) -> None:
    hosts = topology("fd77::{0}")
    assert problems(hosts, **{**SIX, "vip": "fd77::100", "pod_subnet": subnet}) == [f"pod_subnet {subnet}: {words}"]


def test_each_family_is_measured_alone() -> None:
    assert problems(BOTH, **{**DUAL, "pod_subnet": "10.244.0.0/24,fd00:10:244::/64"}) == [
        "pod_subnet 10.244.0.0/24: has room for 1 nodes of a /24 each, the inventory has 2. Choose a larger network.",
        "pod_subnet fd00:10:244::/64: has room for 1 nodes of a /64 each, the inventory has 2. Choose a larger "
        "network.",
    ]


@pytest.mark.parametrize(
    ("arguments", "subnet", "room"),
    [
        ({"node-cidr-mask-size-ipv6": "80"}, "fd00:10:244::/80", 1),
        ([{"name": "node-cidr-mask-size-ipv6", "value": "80"}], "fd00:10:244::/80", 1),
        ({"node-cidr-mask-size": "80"}, "fd00:10:244::/80", 1),
    ],
)
def test_the_room_is_by_what_kube_controller_manager_is_told(arguments: Any, subnet: str, room: int) -> None:
    own = {"controllerManager": {"extraArgs": arguments}}
    assert problems(ONLY6, **{**SIX, "pod_subnet": subnet}, cluster_configuration=own) == [
        f"pod_subnet {subnet}: has room for {room} nodes of a /80 each, the inventory has 2. Choose a larger network."
    ]
    assert problems(ONLY6, **{**SIX, "pod_subnet": "fd00:10:244::/72"}, cluster_configuration=own) == []


@pytest.mark.parametrize(
    ("hosts", "settings", "subnet", "words"),
    [
        (ONLY6, SIX, "fd00:10:96::/107", "is larger than Kubernetes takes, a /108. Choose a smaller network, such as "
         "fd00:10:96::/108."),
        (ONLY6, SIX, "fd00:10:96::/125", "has 8 addresses, and the tenth is that of the cluster's DNS. Choose a larger "
         "network."),
        (ONLY4, {}, "10.96.0.0/11", "is larger than Kubernetes takes, a /12. Choose a smaller network, such as "
         "10.96.0.0/12."),
        (ONLY4, {}, "10.96.0.0/29", "has 8 addresses, and the tenth is that of the cluster's DNS. Choose a larger "
         "network."),
    ],
)  # fmt: skip
def test_a_service_network_that_kubernetes_would_not_take_is_refused(
    hosts: Topology, settings: dict[str, Any], subnet: str, words: str
) -> None:
    assert problems(hosts, **{**settings, "service_subnet": subnet}) == [f"service_subnet {subnet}: {words}"]


def test_overlaps_and_hosts_inside_are_found_in_each_family() -> None:
    own = {**DUAL, "service_subnet": f"{SERVICES},fd00:10:244::/112", "vip": "10.0.0.100,fd00:10:244:ff::1"}
    assert problems(BOTH, **own) == [
        "pod_subnet fd00:10:244::/56 overlaps service_subnet fd00:10:244::/112: an address would mean two things. "
        "Choose networks apart.",
        "pod_subnet fd00:10:244::/56 holds the address of vip (fd00:10:244:ff::1): packets to it would go to pods or "
        "Services. Choose another pod_subnet.",
    ]


def test_everything_is_said_at_once() -> None:
    found = problems(ONLY4, **{**SIX, "pod_subnet": f"{PODS},fd00:10:244::/64", "service_subnet": "fd00:10:96::/64"})
    assert len(found) == 5, found


def test_a_virtual_ip_of_either_family_that_a_host_has_is_refused() -> None:
    own = load({**DUAL, "vip": "10.0.0.100,fd00::31"})
    assert balancing.check(BOTH, own) == ["vip fd00::31: is the address of w1. Choose an address that no host has."]
