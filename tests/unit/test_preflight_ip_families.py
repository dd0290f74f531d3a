"""What preflight finds in sites of IPv6 and of both families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_cluster_preflight import LOCK

from cluster import ip_families
from cluster.findings import Finding
from cluster.preflight import identity, network, surroundings
from cluster.preflight.kernel import features
from cluster.preflight.seen import Seen
from cluster.settings import load
from cluster.topology import Node, Topology

DUAL = {
    "pod_subnet": "10.244.0.0/16,fd00:10:244::/56",
    "service_subnet": "10.96.0.0/12,fd00:10:96::/112",
    "vip": "10.0.0.100,fd00::100",
}
HOSTS = [
    Node(name, *ip_families.addresses(f"10.0.0.{last},fd00::{last}").each)
    for name, last in (("lb1", 11), ("lb2", 12), ("cp1", 21), ("w1", 31))
]
TOPOLOGY = Topology(load_balancers=(HOSTS[0], HOSTS[1]), control_planes=(HOSTS[2],), workers=(HOSTS[3],))


def rows(node: Node, **others: Any) -> dict[str, Any]:
    found = [
        {
            "interface": "eth0",
            "address": str(each),
            "prefix": {4: 24, 6: 64}[each.version],
            "mac": node.name,
            "mtu": 1500,
        }
        for each in node.addresses
    ]
    return {"hostname": node.name, "machine_id": node.name, "product_uuid": None, "addresses": found} | others


WELL = Seen(
    settings={node.name: load(DUAL) for node in HOSTS},
    topology=TOPOLOGY,
    lock=LOCK,
    asked=TOPOLOGY.nodes,
    hardware={node.name: rows(node) for node in HOSTS},
    names={
        node.name: {
            "routes": ["0.0.0.0/0", "::/0"], "nameservers": ["10.0.0.2"], "resolved": False,
            "resolved_nameservers": [], "hosts": [["fd00::21", "cp1"], ["10.0.0.21", "cp1"]],
        }
        for node in HOSTS
    },
    answers={
        "lb1": {"10.0.0.12": "lb2", "10.0.0.100": None, "fd00::100": None},
        "lb2": {"10.0.0.11": "lb1", "10.0.0.100": None, "fd00::100": None},
    },
)  # fmt: skip


def findings(seen: Seen) -> list[Finding]:
    return [each for subject in (identity, network, surroundings) for each in subject.check(seen)]


def test_a_site_of_both_families_can_be_well() -> None:
    assert findings(WELL) == []


def test_an_address_of_the_second_family_that_the_host_lacks_is_found() -> None:
    lacking = rows(HOSTS[2], addresses=rows(HOSTS[2])["addresses"][:1])
    assert findings(replace(WELL, hardware={**WELL.hardware, "cp1": lacking})) == [
        Finding("address", ("cp1",), "no interface has its address fd00::21; it has 10.0.0.21")
    ]


def test_services_need_a_route_in_each_family() -> None:
    names = {**WELL.names, "w1": {**WELL.names["w1"], "routes": ["0.0.0.0/0", "fd00::/64"]}}
    assert findings(replace(WELL, names=names)) == [
        Finding("default-route", ("w1",), "no route leads to fd00:10:96::/112, the addresses of Services")
    ]


def test_a_name_with_an_address_that_is_none_of_the_host_s_is_found() -> None:
    names = {**WELL.names, "w1": {**WELL.names["w1"], "hosts": [["fd00::99", "cp1"]]}}
    assert findings(replace(WELL, names=names)) == [
        Finding("hosts-file", ("w1",), "/etc/hosts names cp1 as fd00::99, the inventory as 10.0.0.21 and fd00::21")
    ]


def test_each_virtual_ip_is_looked_at() -> None:
    settings = {name: load({**DUAL, "vip": "10.0.0.100,fd77::100"}) for name in WELL.settings}
    what = "vip fd77::100 is outside fd00::/64, the subnet of its own address"
    assert findings(replace(WELL, settings=settings, answers={})) == [
        Finding("vip-subnet", ("lb1",), what),
        Finding("vip-subnet", ("lb2",), what),
    ]
    answers = {**WELL.answers, "lb2": {**WELL.answers["lb2"], "fd00::100": "52:54:00:12:34:56"}}
    (found,) = findings(replace(WELL, answers=answers))
    assert (found.check, found.evidence.split(":")[0]) == ("vip-taken", "vip fd00")


def test_a_proxy_is_passed_by_in_both_families_or_it_is_found() -> None:
    excepted = "10.0.0.0/24,10.96.0.0/12,fd00::/64"
    proxies = {"the environment": {"http_proxy": "http://p:1", "no_proxy": excepted}}
    seen = {"proxies": proxies, "firewalls": [], "selinux": None, "missing": []}
    (found,) = findings(replace(WELL, asked=(HOSTS[0],), surroundings={"lb1": seen}))
    assert found == Finding("proxy", ("lb1",), "the environment sends service_subnet to the proxy http://p:1")
    proxies["the environment"]["no_proxy"] = f"{excepted},fd00:10:96::/112"
    assert findings(replace(WELL, asked=(HOSTS[0],), surroundings={"lb1": seen})) == []


def test_packets_that_are_not_wrapped_need_a_next_hop_in_each_family() -> None:
    machines = {node.name: rows(node) for node in HOSTS}
    own = {node.name: load({**DUAL, "flannel_backend": "host-gw"}) for node in HOSTS}
    assert findings(replace(WELL, settings=own)) == []
    machines["w1"]["addresses"][1]["prefix"] = 124
    found = findings(replace(WELL, settings=own, hardware=machines))
    assert found == [Finding("next-hop", ("w1",), "cp1 are outside fd00::30/124, its own network")]


@pytest.mark.parametrize(
    ("own", "tables"),
    [
        ({}, [("nf_tables", "ip_tables")]),
        (DUAL, [("nf_tables", "ip_tables"), ("nf_tables", "ip6_tables")]),
        ({**DUAL, "kube_proxy_mode": "nftables"}, [("nf_tables",)]),
    ],
)
def test_the_kernel_has_a_packet_filter_of_each_family(own: dict[str, Any], tables: list[tuple[str, ...]]) -> None:
    assert [each for each in features(load({"vip": "10.0.0.100", **own})) if "nf_tables" in each] == tables
