"""Clusters that can exist and clusters that cannot."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from cluster import addressing
from cluster.settings import load
from cluster.topology import Node, Topology, bundle_servers, check, even


def nodes(*rows: str) -> tuple[Node, ...]:
    """Nodes of words like `cp1=10.0.0.21`."""
    return tuple(Node(name, IPv4Address(address)) for name, _, address in (row.partition("=") for row in rows))


WHOLE = Topology(
    control_planes=nodes("cp1=10.0.0.21", "cp2=10.0.0.22", "cp3=10.0.0.23"),
    workers=nodes("w1=10.0.0.31"),
    load_balancers=nodes("lb1=10.0.0.11", "lb2=10.0.0.12"),
)


def problems(settings: dict[str, Any] | None = None, **groups: tuple[Node, ...]) -> list[str]:
    parts = {
        "control_planes": WHOLE.control_planes,
        "workers": WHOLE.workers,
        "load_balancers": WHOLE.load_balancers,
    }
    known, own = Topology(**(parts | groups)), load({"vip": "10.0.0.100", **(settings or {})})
    return check(known, own) + addressing.check(known, own)


def test_a_whole_cluster_can_exist() -> None:
    assert problems() == []


def test_nodes_are_in_order_and_the_first_control_plane_is_the_inventorys() -> None:
    assert [node.name for node in WHOLE.nodes] == ["lb1", "lb2", "cp1", "cp2", "cp3", "w1"]
    assert WHOLE.first_control_plane.name == "cp1"


def test_a_cluster_without_a_control_plane_is_refused() -> None:
    assert problems(control_planes=()) == [
        "no host in group control_plane: the cluster needs at least one. Add it to the inventory."
    ]


def test_a_cluster_without_a_worker_is_refused_unless_control_planes_take_pods() -> None:
    assert problems(workers=()) == [
        "no host in group worker: ordinary pods would have nowhere to run. Add one to the inventory, or set "
        "`allow_scheduling_on_control_planes`."
    ]
    assert problems({"allow_scheduling_on_control_planes": True}, workers=()) == []


@pytest.mark.parametrize("count", [2, 4])
def test_an_even_number_of_control_planes_is_refused(count: int) -> None:
    found = even(Topology(nodes(*(f"cp{n}=10.0.0.2{n}" for n in range(count))), (), ()))
    assert found == (
        f"{count} control planes: etcd survives no more failures with {count} members than with {count - 1}, "
        "and loses quorum sooner. Use 1, 3 or 5."
    )


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_an_odd_number_of_control_planes_is_well(count: int) -> None:
    assert even(Topology(nodes(*(f"cp{n}=10.0.0.2{n}" for n in range(count))), (), ())) is None


@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_odd_number_of_control_planes_is_taken(count: int) -> None:
    assert problems(control_planes=nodes(*(f"cp{n}=10.0.0.2{n}" for n in range(count)))) == []


def test_a_host_in_two_groups_is_refused() -> None:
    assert problems(workers=nodes("cp1=10.0.0.21")) == [
        "cp1: is in the inventory 2 times. A host has one role; name it once."
    ]


def test_an_address_of_two_hosts_is_refused() -> None:
    assert problems(workers=nodes("w1=10.0.0.21")) == [
        "10.0.0.21: is the address of cp1 and w1. Give each host its own `address`."
    ]


@pytest.mark.parametrize("name", ["W1", "w_1", "-w1", "w1-", "w1.", ".w1", "w 1", "a" * 64])
def test_a_name_that_no_node_can_have_is_refused(name: str) -> None:
    assert problems(workers=(Node(name, IPv4Address("10.0.0.31")),)) == [
        f"{name}: is not a name a node can have (RFC 1123: small letters, digits, '-' and '.'). Rename the host."
    ]


@pytest.mark.parametrize("name", ["w", "w1", "1", "w1.example.org", "a" * 63])
def test_a_name_that_a_node_can_have_is_taken(name: str) -> None:
    assert problems(workers=(Node(name, IPv4Address("10.0.0.31")),)) == []


def test_pod_and_service_networks_that_overlap_are_refused() -> None:
    assert problems({"service_subnet": "10.244.128.0/20"}) == [
        "pod_subnet 10.244.0.0/16 overlaps service_subnet 10.244.128.0/20: an address would mean two things. "
        "Choose networks apart."
    ]


@pytest.mark.parametrize(("key", "subnet"), [("pod_subnet", "10.0.0.0/18"), ("service_subnet", "10.0.0.0/24")])
def test_a_network_of_the_cluster_that_holds_a_hosts_address_is_refused(key: str, subnet: str) -> None:
    assert problems({key: subnet}) == [
        f"{key} {subnet} holds the address of lb1 (10.0.0.11), lb2 (10.0.0.12), cp1 (10.0.0.21), cp2 (10.0.0.22), "
        "cp3 (10.0.0.23), w1 (10.0.0.31), vip (10.0.0.100): packets to it would go to pods or Services. Choose "
        f"another {key}."
    ]


@pytest.mark.parametrize(("subnet", "room"), [("10.244.0.0/23", 2), ("10.244.0.0/24", 1), ("10.244.0.0/25", 0)])
def test_a_pod_network_without_room_for_every_node_is_refused(subnet: str, room: int) -> None:
    assert problems({"pod_subnet": subnet}) == [
        f"pod_subnet {subnet}: has room for {room} nodes of a /24 each, the inventory has 4. Choose a larger network."
    ]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"node-cidr-mask-size": "26"}, []),
        ([{"name": "node-cidr-mask-size-ipv4", "value": "27"}, {"name": "v", "value": "2"}], []),
        ({"node-cidr-mask-size": "20"}, ["has room for 0 nodes of a /20 each, the inventory has 4"]),
        ({"node-cidr-mask-size": 25}, ["has room for 2 nodes of a /25 each, the inventory has 4"]),
        ({"node-cidr-mask-size": "many"}, ["has room for 1 nodes of a /24 each, the inventory has 4"]),
    ],
)
def test_nodes_may_have_smaller_parts_of_the_pod_network(arguments: object, found: list[str]) -> None:
    own = {"cluster_configuration": {"controllerManager": {"extraArgs": arguments}}}
    said = problems({"pod_subnet": "10.244.0.0/24", **own})
    assert [each.partition(": ")[2].partition(". ")[0] for each in said] == found


def test_what_is_no_configuration_is_anothers_to_refuse() -> None:
    for wrong in ({"controllerManager": "x"}, {"controllerManager": {"extraArgs": "x"}}):
        assert problems({"cluster_configuration": wrong}) == []


def test_a_pod_network_with_just_enough_room_is_taken() -> None:
    assert problems({"pod_subnet": "10.244.0.0/22"}) == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ["lb1", "lb2"]),
        (["w1"], ["w1"]),
        (["cp2", "lb2", "cp1"], ["cp2", "lb2", "cp1"]),
        (["w9", "lb1"], ["lb1"]),
    ],
)
def test_the_bundle_is_served_by_the_load_balancers_or_whom_the_settings_name(
    names: list[str], found: list[str]
) -> None:
    settings = load({"vip": "10.0.0.100", "bundle_servers": names})
    assert [node.name for node in bundle_servers(WHOLE, settings)] == found


@pytest.mark.parametrize(("count", "found"), [(1, ["cp1"]), (3, ["cp1", "cp2"]), (5, ["cp1", "cp2"])])
def test_without_load_balancers_the_first_control_planes_serve_the_bundle(count: int, found: list[str]) -> None:
    control_planes = nodes(*(f"cp{n}=10.0.0.2{n}" for n in range(1, count + 1)))
    alone = Topology(control_planes=control_planes, workers=WHOLE.workers, load_balancers=())
    assert [node.name for node in bundle_servers(alone, load({}))] == found


def test_a_server_of_the_bundle_that_is_not_in_the_inventory_is_refused() -> None:
    assert problems({"bundle_servers": ["lb1", "w9", "mirror"]}) == [
        f"bundle_servers: {name} is not in the inventory. Name hosts of it, or none for the load balancers or, without "
        "these, control planes."
        for name in ("w9", "mirror")
    ]


def test_every_problem_is_reported_at_once() -> None:
    found = problems({"service_subnet": "10.244.0.0/20"}, workers=nodes("W=10.0.0.22"))
    assert len(found) == 3
