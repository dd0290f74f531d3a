"""Ports: who needs which, and who must reach whom."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from cluster.ports import Rule, listening, load, markdown, needed, ways
from cluster.settings import NAMES, Settings
from cluster.settings import load as settings_of
from cluster.topology import Node, Topology

CP1, CP2 = (Node(f"cp{number}", IPv4Address(f"10.0.0.2{number}")) for number in (1, 2))
LB1, LB2 = (Node(f"lb{number}", IPv4Address(f"10.0.0.1{number}")) for number in (1, 2))
W1 = Node("w1", IPv4Address("10.0.0.31"))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=(LB1, LB2))
ROLES = {"control_plane", "worker", "load_balancer", "balancer", "bundle_server"}
OUTSIDE = {"client", "control_machine", "time_server", "site_load_balancer"}


def settings(**changes: Any) -> Settings:
    return settings_of({"vip": "10.0.0.100", **changes})


def reached(source: Node, target: Node, **changes: Any) -> list[int]:
    found = ways(TOPOLOGY, settings(**changes))
    return sorted(way.port for way in found if (way.source, way.target) == (source, target))


def test_the_table_names_roles_settings_and_values_that_there_are() -> None:
    for rule in load():
        assert {rule.to, *rule.sources} <= ROLES | OUTSIDE
        assert set(rule.when) <= set(NAMES)
        text = str(rule.port or "")
        assert (
            rule.protocol in ("vrrp", "ipip", "icmp", "any")
            or text in NAMES
            or all(each.isdigit() for each in text.split("-"))
        )


def test_hosts_must_reach_what_their_roles_need() -> None:
    assert reached(CP1, CP2) == [2379, 2380, 6443, 10250]
    assert reached(CP1, W1) == [10250]
    assert reached(W1, CP1) == [6443]
    assert reached(LB1, CP1) == [6443]
    assert reached(W1, LB1) == reached(CP1, LB1) == [5443, 6443]
    assert reached(LB2, LB1) == [5443]
    assert reached(W1, W1) == reached(LB1, W1) == []


def test_ports_of_settings_are_theirs() -> None:
    assert reached(W1, LB1, api_port=8443, bundle_port=9443) == [8443, 9443]


def test_the_bundle_is_asked_for_where_it_is_served() -> None:
    assert reached(W1, LB1, bundle_servers=["cp1"]) == [6443]
    assert reached(W1, CP1, bundle_servers=["cp1"]) == [5443, 6443]


def test_what_an_addon_asks_is_reached_where_it_is_wanted() -> None:
    assert reached(W1, CP1) == [6443]
    assert reached(W1, CP1, addons=("coredns", "metrics-server")) == [6443, 10250]


def test_a_host_needs_the_ports_of_its_own_programs() -> None:
    assert {port: rule.process for port, rule in listening(LB1, TOPOLOGY, settings()).items()} == {
        5443: "nginx",
        6443: "haproxy",
    }
    assert sorted(listening(W1, TOPOLOGY, settings())) == [10248, 10249, 10250, 10256]
    assert set(listening(CP1, TOPOLOGY, settings())) >= {2379, 2380, 2381, 6443, 10257, 10259, 10250}


def test_packets_of_pods_need_their_port_only_where_they_are_wrapped() -> None:
    def udp(found: list[Rule]) -> set[int | str | None]:
        return {rule.port for rule in found if rule.protocol == "udp"}

    assert udp(needed(settings())) == {8472}
    assert udp(needed(settings(flannel_backend="host-gw"))) == udp(needed(settings(cni="bridge"))) == set()
    assert len([rule for rule in needed(settings(cni="bridge")) if rule.protocol == "any"]) == 2
    assert udp(needed(settings(time_sync="chrony", ntp_servers=["10.0.0.1"]))) == {8472, 123}


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"calico_encapsulation": "vxlan"}, {("udp", 4789), ("tcp", 5473)}),
        ({"calico_encapsulation": "ipip"}, {("ipip", None), ("tcp", 179), ("tcp", 5473)}),
        ({"calico_encapsulation": "bgp"}, {("any", None), ("tcp", 179), ("tcp", 5473)}),
        ({"calico_installation": "manifest"}, {("udp", 4789)}),
    ],
)
def test_calico_needs_ports_by_its_encapsulation_and_typha_by_its_operator(
    own: dict[str, Any], wanted: set[tuple[str, int | None]]
) -> None:
    others = needed(settings(cni="none"))
    mine = [rule for rule in needed(settings(cni="calico", **own)) if rule not in others]
    assert {(rule.protocol, rule.port) for rule in mine} == wanted
    assert {rule.to for rule in mine} == {"control_plane", "worker"}


def test_cilium_needs_its_tunnel_and_ways_to_ask_for_the_health_of_nodes() -> None:
    others = needed(settings(cni="none"))
    mine = [rule for rule in needed(settings(cni="cilium")) if rule not in others]
    assert {(rule.protocol, rule.port) for rule in mine if rule.sources} == {
        ("udp", 8472),
        ("tcp", 4240),
        ("icmp", None),
    }
    assert {rule.to for rule in mine} == {"control_plane", "worker"}
    assert {port: rule.process for port, rule in listening(W1, TOPOLOGY, settings(cni="cilium")).items()}.items() >= {
        4240: "cilium-agent", 9879: "cilium-agent", 9890: "cilium-agent", 9234: "cilium-operator-generic",
        9891: "cilium-operator-generic", 9963: "cilium-operator-generic",
    }.items()  # fmt: skip
    assert 4240 in reached(W1, CP1, cni="cilium")


def test_the_document_says_what_cannot_be_tried() -> None:
    text = markdown()
    assert "| 8472 | udp | control plane, worker | control plane, worker | pods' packets (flannel, VXLAN) |" in text
    assert "| - | vrrp | balancer | balancer | Keepalived (IP protocol 112) | always |" in text
    assert "UDP and VRRP say nothing when nobody listens" in text
