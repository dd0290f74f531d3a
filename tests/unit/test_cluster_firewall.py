"""What firewalls of hosts let in, by role, and how ufw's file comes to have it."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from harness import DATA

from cluster.firewall import BEGIN, END, NUMBERS, Opening, marked, merged, openings, problems
from cluster.ports import load
from cluster.settings import load as settings_of
from cluster.topology import Node, Topology

CP1, CP2 = (Node(f"cp{number}", IPv4Address(f"10.0.0.2{number}")) for number in (1, 2))
LB1, LB2 = (Node(f"lb{number}", IPv4Address(f"10.0.0.1{number}")) for number in (1, 2))
W1 = Node("w1", IPv4Address("10.0.0.31"))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=(LB1, LB2))
BEFORE = (DATA / "before.rules.ufw-0.36.2.txt").read_text()


def found(node: Node, **changes: Any) -> dict[tuple[str, str], list[str]]:
    rows = openings(node, TOPOLOGY, settings_of({"vip": "10.0.0.100", **changes}))
    return {(each.protocol, each.port): [str(source) for source in each.sources] for each in rows}


def test_a_host_lets_in_what_its_role_needs_from_those_that_need_it() -> None:
    assert found(W1) == {("tcp", "10250"): ["10.0.0.21", "10.0.0.22"], ("udp", "8472"): ["10.0.0.21", "10.0.0.22"]}
    assert found(CP1) == {
        ("tcp", "10250"): ["10.0.0.22"],
        ("tcp", "2379"): ["10.0.0.22"],
        ("tcp", "2380"): ["10.0.0.22"],
        ("tcp", "6443"): ["10.0.0.11", "10.0.0.12", "10.0.0.22", "10.0.0.31"],
        ("udp", "8472"): ["10.0.0.22", "10.0.0.31"],
    }
    assert found(LB1) == {
        ("tcp", "5443"): ["10.0.0.12", "10.0.0.21", "10.0.0.22", "10.0.0.31"],
        ("tcp", "6443"): [],
        ("vrrp", ""): ["10.0.0.12"],
    }


def test_who_comes_from_outside_is_let_in_from_anywhere() -> None:
    outside = {"load_balancing": "external", "control_plane_endpoint": "api.example.org:443", "vip": None}
    topology = Topology(control_planes=(CP1,), workers=(W1,), load_balancers=())
    rows = openings(CP1, topology, settings_of(outside))
    assert Opening("tcp", "6443", ()) in rows
    assert [each for each in rows if each.port == "6443"] == [Opening("tcp", "6443", ())]


def test_ports_are_those_of_the_settings() -> None:
    assert ("tcp", "8443") in found(LB1, api_port=8443)
    assert not [port for protocol, port in found(W1, flannel_backend="host-gw") if protocol == "udp"]


def test_firewalls_are_opened_for_ipv4_alone_and_the_rest_is_refused() -> None:
    both = {"pod_subnet": "10.244.0.0/16,fd00:10:244::/56", "service_subnet": "10.96.0.0/12,fd00:10:96::/112"}
    assert problems(settings_of({"vip": "10.0.0.100", **both})) == []
    assert problems(settings_of({"vip": "10.0.0.100", "host_firewall": "open"})) == []
    assert problems(settings_of({"vip": "10.0.0.100", "host_firewall": "open", **both})) == [
        "host_firewall: is open, which writes rules of IPv4 alone, and pod_subnet 10.244.0.0/16,fd00:10:244::/56 is "
        "IPv4 and IPv6. Set it to `leave`, and open in each family what docs/ports.md names, and ICMPv6."
    ]


def test_node_ports_are_let_in_when_that_is_asked() -> None:
    both = {("tcp", "30000-32767"): [], ("udp", "30000-32767"): []}
    assert found(W1, host_firewall_node_ports=True).items() >= both.items()
    assert found(LB1, host_firewall_node_ports=True) == found(LB1)


def test_packets_between_nodes_are_let_in_as_the_network_wraps_them() -> None:
    everybody = ["10.0.0.21", "10.0.0.22"]
    of = {"bridge": {"cni": "bridge"}, "ipip": {"cni": "calico", "calico_encapsulation": "ipip"}}
    rows = {name: found(W1, **settings) for name, settings in of.items()}
    assert rows["bridge"] == {("tcp", "10250"): everybody}
    assert found(W1, cni="cilium") == dict.fromkeys(
        (("icmp", ""), ("tcp", "10250"), ("tcp", "4240"), ("udp", "8472")), everybody
    )
    assert rows["ipip"].items() >= {("ipip", ""): everybody, ("tcp", "179"): everybody}.items()


def test_ssh_and_what_a_host_asks_of_itself_are_left_as_they_are() -> None:
    ports = {port for node in TOPOLOGY.nodes for _, port in found(node)}
    assert {"22", "2381", "10248", "10249", "10256", "10257", "10259"} & ports == set()


def test_every_protocol_without_ports_has_a_number() -> None:
    assert {rule.protocol for rule in load() if rule.port is None} == {*NUMBERS, "any"}


def test_a_block_is_put_at_the_end_of_the_filter_table_and_then_in_its_own_place() -> None:
    first = merged(BEFORE, marked("-A one\n"))
    assert first is not None
    lines = first.splitlines()
    assert lines[lines.index(BEGIN) + 1] == "-A one"
    assert lines[lines.index(END) + 1] == "COMMIT"
    assert [line for line in lines if line not in BEFORE.splitlines()] == marked("-A one\n").splitlines()
    assert merged(first, marked("-A one\n")) == first
    second = merged(first, marked("-A two\n"))
    assert second == first.replace(marked("-A one\n"), marked("-A two\n")) != first


def test_another_table_after_it_is_left_alone() -> None:
    nat = "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"
    assert merged(BEFORE + nat, marked("")) == str(merged(BEFORE, marked(""))) + nat
    assert str(merged(nat + BEFORE, marked(""))).startswith(nat)


@pytest.mark.parametrize("text", ["", "*nat\nCOMMIT\n", "*filter\n-A ufw-before-input -j ACCEPT\n"])
def test_a_file_without_a_filter_table_is_not_known(text: str) -> None:
    assert merged(text, marked("")) is None
