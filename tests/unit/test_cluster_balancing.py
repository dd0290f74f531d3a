"""Who balances the API in each mode, where it is found, and what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml

from cluster import addressing, balancing, kubeadm, ports, topology
from cluster.settings import load
from cluster.topology import Node, Topology


def nodes(*rows: str) -> tuple[Node, ...]:
    """Nodes of words like `cp1=10.0.0.21`."""
    return tuple(Node(name, IPv4Address(address)) for name, _, address in (row.partition("=") for row in rows))


LOAD_BALANCERS = nodes("lb1=10.0.0.11", "lb2=10.0.0.12")
CONTROL_PLANES = nodes("cp1=10.0.0.21", "cp2=10.0.0.22", "cp3=10.0.0.23")
WORKERS = nodes("w1=10.0.0.31")
VIP = "10.0.0.100"
NAME = "k8s.example.org"
# Each mode with hosts and settings that work.
MODES: dict[str, tuple[dict[str, Any], Topology]] = {
    "dedicated": ({"vip": VIP}, Topology(CONTROL_PLANES, WORKERS, LOAD_BALANCERS)),
    "control-planes": ({"vip": VIP}, Topology(CONTROL_PLANES, WORKERS, ())),
    "external": ({"control_plane_endpoint": f"{NAME}:443"}, Topology(CONTROL_PLANES, WORKERS, ())),
    "none": ({}, Topology(CONTROL_PLANES[:1], WORKERS, ())),
}


def settings(mode: str, **others: Any) -> Any:
    return load({"load_balancing": mode, **MODES[mode][0], **others})


def problems(mode: str, hosts: Topology | None = None, **others: Any) -> list[str]:
    """Every finding, of a mode with other settings or hosts than those that work."""
    own, found = settings(mode, **others), hosts or MODES[mode][1]
    own_networks = addressing.check(found, own)
    return topology.check(found, own) + own_networks + balancing.check(found, own) + ports.clashes(found, own)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_can_be(mode: str) -> None:
    assert problems(mode) == []


def test_haproxy_and_keepalived_are_where_the_mode_has_them() -> None:
    found = {mode: balancing.balancers(settings(mode), hosts) for mode, (_, hosts) in MODES.items()}
    assert found == {"dedicated": LOAD_BALANCERS, "control-planes": CONTROL_PLANES, "external": (), "none": ()}


@pytest.mark.parametrize(
    ("mode", "others", "endpoint", "sans"),
    [
        ("dedicated", {}, "10.0.0.100:6443", [VIP]),
        ("dedicated", {"api_port": 443}, "10.0.0.100:443", [VIP]),
        ("dedicated", {"control_plane_endpoint": NAME}, f"{NAME}:6443", [NAME, VIP]),
        ("control-planes", {}, "10.0.0.100:8443", [VIP]),
        ("control-planes", {"control_plane_endpoint": f"{NAME}:8443"}, f"{NAME}:8443", [NAME, VIP]),
        ("external", {}, f"{NAME}:443", [NAME]),
        ("external", {"control_plane_endpoint": "10.0.9.9", "vip": VIP}, "10.0.9.9:6443", ["10.0.9.9"]),
        ("none", {}, "10.0.0.21:6443", []),
        ("none", {"vip": VIP}, "10.0.0.21:6443", []),
        ("none", {"control_plane_endpoint": NAME}, f"{NAME}:6443", [NAME]),
        ("none", {"control_plane_endpoint": "cp1:6443"}, "cp1:6443", []),
    ],
)
def test_one_endpoint_is_kubeadms_and_in_the_certificate(
    mode: str, others: dict[str, Any], endpoint: str, sans: list[str]
) -> None:
    own, hosts = settings(mode, **others), MODES[mode][1]
    assert problems(mode, **others) == []
    assert str(balancing.endpoint(own, hosts)) == endpoint
    documents = yaml.safe_load_all(kubeadm.authority_documents(own, hosts))
    document = next(each for each in documents if each["kind"] == "ClusterConfiguration")
    assert document["controlPlaneEndpoint"] == endpoint
    found = document["apiServer"]["certSANs"]
    kubernetes = [node.name for node in hosts.control_planes]
    addresses = [str(node.address) for node in (*hosts.control_planes, *hosts.load_balancers)]
    assert sorted(found) == sorted([*sans, *kubernetes, *addresses])


@pytest.mark.parametrize(
    ("mode", "endpoint", "found"),
    [
        ("dedicated", NAME, {NAME: (IPv4Address(VIP),)}),
        ("control-planes", f"{NAME}:8443", {NAME: (IPv4Address(VIP),)}),
        ("none", NAME, {NAME: (IPv4Address("10.0.0.21"),)}),
        ("external", NAME, {}),
        ("dedicated", VIP, {}),
        ("none", None, {}),
    ],
)
def test_the_endpoints_name_is_known_where_its_address_is(mode: str, endpoint: str, found: dict[str, Any]) -> None:
    assert balancing.names(settings(mode, control_plane_endpoint=endpoint), MODES[mode][1]) == found


@pytest.mark.parametrize("taints", [False, True])
def test_control_planes_that_take_pods_are_registered_without_taints(taints: bool) -> None:
    own = settings("dedicated", allow_scheduling_on_control_planes=not taints)
    first, hosts = CONTROL_PLANES[0], MODES["dedicated"][1]
    documents = (
        kubeadm.init_documents(own, hosts, first, "token", "key"),
        kubeadm.join_documents(own, hosts, first, "token", "sha256:0", "key"),
    )
    assert ["taints: []" in document for document in documents] == [not taints] * 2
    assert "taints" not in kubeadm.join_documents(own, hosts, WORKERS[0], "token", "sha256:0", None)


@pytest.mark.parametrize("mode", ["control-planes", "external", "none"])
def test_load_balancers_in_a_mode_that_has_none_are_refused(mode: str) -> None:
    hosts = MODES[mode][1]
    assert problems(mode, Topology(hosts.control_planes, hosts.workers, LOAD_BALANCERS)) == [
        f'lb1, lb2: in group load_balancer, which load_balancing "{mode}" does not have. Take the group out of the '
        'inventory, or choose "dedicated".'
    ]


def test_dedicated_load_balancers_that_are_not_there_are_refused() -> None:
    assert problems("dedicated", Topology(CONTROL_PLANES, WORKERS, ())) == [
        'no host in group load_balancer: load_balancing "dedicated" needs at least one. Add it to the inventory, or '
        'choose "control-planes", "external" or "none".'
    ]


@pytest.mark.parametrize(("mode", "where"), [("dedicated", "load balancers"), ("control-planes", "control planes")])
def test_keepalived_without_a_virtual_ip_is_refused(mode: str, where: str) -> None:
    assert problems(mode, vip=None) == [
        f'vip: must be set for load_balancing "{mode}". Choose an address in the subnet of the {where} that no host '
        "has."
    ]


@pytest.mark.parametrize("mode", ["dedicated", "control-planes"])
def test_a_virtual_ip_that_a_host_has_is_refused(mode: str) -> None:
    assert problems(mode, vip="10.0.0.31") == [
        "vip 10.0.0.31: is the address of w1. Choose an address that no host has."
    ]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "dedicated",
        {"control_plane_endpoint": "10.0.0.99:6443"},
        "control_plane_endpoint 10.0.0.99:6443: is another address than vip 10.0.0.100, which the balancing hosts "
        "hold. Leave it out, or give a name.",
    ),
    (
        "dedicated",
        {"control_plane_endpoint": "cp2:6443"},
        "control_plane_endpoint cp2:6443: is the name of a host, and stands for vip 10.0.0.100. Choose a name that no "
        "host has.",
    ),
    (
        "control-planes",
        {"control_plane_endpoint": NAME},
        "control_plane_endpoint k8s.example.org:6443: HAProxy listens on 8443 (api_port). Give both the same port.",
    ),
    (
        "external",
        {"control_plane_endpoint": None},
        'control_plane_endpoint: must be set for load_balancing "external". Give the name or address and the port of '
        "the site's load balancer.",
    ),
    (
        "external",
        {"control_plane_endpoint": "10.0.0.22:6443"},
        "control_plane_endpoint 10.0.0.22:6443: is cp2 itself, which balances nothing. Give the load balancer's, or "
        'choose load_balancing "none".',
    ),
    (
        "external",
        {"control_plane_endpoint": "10.96.0.9:6443"},
        "control_plane_endpoint 10.96.0.9:6443: is inside service_subnet 10.96.0.0/12, so that packets to it would go "
        "to pods or Services. Choose another service_subnet.",
    ),
    (
        "none",
        {"control_plane_endpoint": "10.0.0.31:6443"},
        'control_plane_endpoint 10.0.0.31:6443: is not cp1 (10.0.0.21), where the API is with load_balancing "none". '
        "Give a name of its own, that address, or leave it out.",
    ),
    (
        "none",
        {"control_plane_endpoint": "w1"},
        'control_plane_endpoint w1:6443: is not cp1 (10.0.0.21), where the API is with load_balancing "none". Give a '
        "name of its own, that address, or leave it out.",
    ),
    (
        "none",
        {"control_plane_endpoint": f"{NAME}:8443"},
        'control_plane_endpoint k8s.example.org:8443: with load_balancing "none" the API is on 6443. Give that port.',
    ),
    (
        "control-planes",
        {"api_port": 6443},
        "api_port 6443: is needed for the API server on cp1, cp2, cp3. Choose another.",
    ),
    (
        "control-planes",
        {"api_port": 30443},
        "api_port 30443: is needed for Services of type NodePort on cp1, cp2, cp3. Choose another.",
    ),
]


@pytest.mark.parametrize(("mode", "others", "finding"), REFUSED, ids=[finding[:60] for *_, finding in REFUSED])
def test_settings_that_a_mode_cannot_have_are_refused(mode: str, others: dict[str, Any], finding: str) -> None:
    assert problems(mode, **others) == [finding]


def test_more_than_one_control_plane_needs_somebody_who_balances() -> None:
    assert problems("none", Topology(CONTROL_PLANES, WORKERS, ())) == [
        'load_balancing "none": the API is at one control plane only, and the inventory has 3. Choose another way, or '
        "leave one control plane."
    ]


@pytest.mark.parametrize(
    ("mode", "others", "owner"),
    [
        ("dedicated", {"bundle_port": 6443}, "the API on the virtual IP on lb1, lb2"),
        ("dedicated", {"bundle_port": 10250, "bundle_servers": ["w1"]}, "the kubelet on w1"),
        ("control-planes", {"bundle_port": 8443}, "the API on the virtual IP on cp1, cp2"),
        ("control-planes", {"bundle_port": 6443}, "the API server on cp1, cp2"),
        ("external", {"bundle_port": 2379}, "etcd's clients on cp1, cp2"),
        ("none", {"bundle_port": 32000}, "Services of type NodePort on cp1"),
    ],
)
def test_a_port_for_the_bundle_that_its_server_needs_itself_is_refused(
    mode: str, others: dict[str, Any], owner: str
) -> None:
    assert problems(mode, **others) == [f"bundle_port {others['bundle_port']}: is needed for {owner}. Choose another."]


def test_a_port_for_the_bundle_that_only_other_hosts_need_is_taken() -> None:
    assert problems("dedicated", bundle_port=6443, api_port=8443) == []
    assert problems("dedicated", bundle_port=6443, bundle_servers=["w1"]) == []


def test_every_problem_is_reported_at_once() -> None:
    hosts = Topology(CONTROL_PLANES, (), LOAD_BALANCERS)
    found = problems("none", hosts, control_plane_endpoint="10.9.9.9:8443", bundle_port=6443)
    assert len(found) == 5
