"""Input that cannot work is refused before anything is changed anywhere, in words that say what, where, why and what
to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from runs import GROUPS, Run, Site, make_site, together

Make = Callable[[Path, Path], Site]
AGAIN = "Build it with `python3 tasks.py bundle build`, or carry it here again"


def settings(**others: object) -> Make:
    return lambda directory, bundle: make_site(directory, bundle, **others)


def without(group: str) -> Make:
    return lambda directory, bundle: make_site(directory, bundle, GROUPS | {group: {}})


def alone(**others: object) -> Make:
    """Without load balancers."""
    return lambda directory, bundle: make_site(directory, bundle, GROUPS | {"load_balancer": {}}, **others)


def with_host(group: str, name: str, address: str) -> Make:
    return lambda directory, bundle: make_site(directory, bundle, GROUPS | {group: {**GROUPS[group], name: address}})


def with_bundle(spoil: Callable[[Path], object]) -> Make:
    def make(directory: Path, bundle: Path) -> Site:
        own = Path(shutil.copytree(bundle, directory / "bundle"))
        spoil(own)
        return make_site(directory, own)

    return make


def with_machine(host: str, **state: object) -> Make:
    def make(directory: Path, bundle: Path) -> Site:
        site = make_site(directory, bundle)
        with site.state() as found:
            found["nodes"][host].update(state)
        return site

    return make


def cut_lock(bundle: Path) -> None:
    lock = bundle / "bundle.lock"
    lock.write_text(lock.read_text()[:-100])


def flip_bit(bundle: Path) -> None:
    kubelet = bundle / "bin" / "kubelet"
    kubelet.write_text(kubelet.read_text().replace("kubelet", "kubelEt"))


def lose_piece(bundle: Path) -> None:
    (bundle / "bin" / "kubelet").unlink()


def with_second(directory: Path, bundle: Path, lacking: str) -> Site:
    """A site of both families, one host of which has another address than this one of its inventory."""
    groups = {
        group: {name: f"{address},fd00::{address.rpartition('.')[2]}" for name, address in members.items()}
        for group, members in GROUPS.items()
    }
    site = make_site(
        directory, bundle, groups, pod_subnet="10.244.0.0/16,fd00:10:244::/56",
        service_subnet="10.96.0.0/12,fd00:10:96::/112",
    )  # fmt: skip
    with site.state() as state:
        for node in state["nodes"].values():
            node["address"] = node["address"].replace(lacking, "fd00::99")
    return site


# What is wrong, how a site comes to be so, and what pyinfra must say of it.
INPUTS: dict[str, tuple[Make, list[str]]] = {
    "no bundle": (with_bundle(shutil.rmtree), ["bundle/bundle.lock: there is no bundle here", AGAIN]),
    "a damaged lock": (with_bundle(cut_lock), ["bundle/bundle.lock: cannot be read as a lock of format 2", AGAIN]),
    "a damaged piece": (with_bundle(flip_bit), ["bundle/bin/kubelet: sha256 is", "it was damaged or changed", AGAIN]),
    "a missing piece": (with_bundle(lose_piece), ["bundle/bin/kubelet: is missing", AGAIN]),
    "a bundle of another version": (
        settings(kubernetes_version="v1.35.0"),
        ["bundle.lock is for Kubernetes v1.36.2, the settings ask for v1.35.0", "or change kubernetes_version"],
    ),
    "no worker": (without("worker"), ["no host in group worker", "Add one to the inventory, or set"]),
    "no control plane": (without("control_plane"), ["no host in group control_plane", "Add it to the inventory"]),
    "no load balancer": (without("load_balancer"), ["no host in group load_balancer", "Add it to the inventory"]),
    "four control planes": (
        with_host("control_plane", "cp4", "10.0.0.24"),
        ["4 control planes: etcd survives no more failures with 4 members than with 3", "Use 1, 3 or 5"],
    ),
    "one address twice": (
        with_host("worker", "w4", "10.0.0.21"),
        ["10.0.0.21: is the address of cp1 and w4", "Give each host its own `address`"],
    ),
    "an address that is none": (
        with_host("worker", "w4", "w4.example.org"),
        [
            "w4: address 'w4.example.org': must be an address, or one of IPv4 and one of IPv6 with a comma between",
            "Set `address` for this host in the inventory",
        ],
    ),
    "a machine that is too small": (
        with_machine("cp3", cpus=1),
        ["cp3: 1 CPU, a control plane needs 2", "Add CPUs", "check: cpus"],
    ),
    "a virtual IP outside the load balancers' subnet": (
        settings(vip="10.9.9.9"),
        [
            "lb1, lb2: vip 10.9.9.9 is outside 10.0.0.0/24",
            "Nobody would be told when it moves",
            "Choose an address inside",
        ],
    ),
    "a virtual IP that a host has": (
        settings(vip="10.0.0.21"),
        ["vip 10.0.0.21: is the address of cp1", "Choose an address that no host has"],
    ),
    "pods and Services in one network": (
        settings(pod_subnet="10.96.0.0/16"),
        ["pod_subnet 10.96.0.0/16 overlaps service_subnet 10.96.0.0/12", "Choose networks apart"],
    ),
    "hosts in the network of pods": (
        settings(pod_subnet="10.0.0.0/16"),
        ["pod_subnet 10.0.0.0/16 holds the address of lb1 (10.0.0.11)", "vip (10.0.0.100)", "Choose another pod_sub"],
    ),
    "hosts in the network of Services": (
        settings(service_subnet="10.0.0.0/20"),
        ["service_subnet 10.0.0.0/20 holds the address of lb1 (10.0.0.11)", "Choose another service_subnet"],
    ),
    "a server of the bundle that nobody knows": (
        settings(bundle_servers=["lb1", "mirror"]),
        ["bundle_servers: mirror is not in the inventory", "Name hosts of it, or none for the load balancers"],
    ),
    "one port for the API and the bundle": (
        settings(bundle_port=6443),
        ["bundle_port 6443: is needed for the API on the virtual IP on lb1, lb2. Choose another"],
    ),
    "load balancers where the control planes are to balance": (
        settings(load_balancing="control-planes"),
        ['lb1, lb2: in group load_balancer, which load_balancing "control-planes" does not have'],
    ),
    "a virtual IP outside the subnet of control planes that balance": (
        alone(load_balancing="control-planes", vip="10.9.9.9"),
        ["cp1 to cp3: vip 10.9.9.9 is outside 10.0.0.0/24, the subnet of its own address", "Choose an address inside"],
    ),
    "nobody who balances three control planes": (
        alone(load_balancing="none"),
        ['load_balancing "none": the API is at one control plane only, and the inventory has 3'],
    ),
    "no virtual IP": (settings(vip=None), ['vip: must be set for load_balancing "dedicated"']),
    "an external load balancer that nobody knows": (
        alone(load_balancing="external", control_plane_endpoint="k8s.example.org"),
        [
            "the name of control_plane_endpoint k8s.example.org:6443 is not known here.",
            "Enter it in the DNS that they ask, or in /etc/hosts. (check: endpoint-name)",
        ],
    ),
    "an external load balancer that does not answer": (
        alone(load_balancing="external", control_plane_endpoint="10.0.0.99"),
        ["w3: control_plane_endpoint 10.0.0.99:6443 is not reached: no answer", "check: endpoint"],
    ),
    "a setting that does not exist": (
        settings(pod_subent="10.244.0.0/16"),
        ["pod_subent: there is no such setting; did you mean pod_subnet?", "Correct them in the inventory"],
    ),
    "a waiver of no check": (
        settings(waived_checks=["machine_id"]),
        ["waived_checks: there is no check machine_id; did you mean machine-id? docs/preflight.md has all of them"],
    ),
    "fields that Kubernetes does not have or the deploy decides": (
        settings(kubelet_config={"maxPod": 20}, cluster_configuration={"controlPlaneEndpoint": "10.0.0.1:6443"}),
        [
            "  - kubelet_config.maxPod: KubeletConfiguration has no such field; did you mean maxPods?",
            "  - cluster_configuration.controlPlaneEndpoint: is not taken from here: set `vip` and `api_port`",
        ],
    ),
    "a value of a wrong type, of some hosts": (
        lambda directory, bundle: make_site(
            directory, bundle, own={name: {"kubelet_config": {"maxPods": "many"}} for name in ("cp3", "w2")}
        ),
        ["  - cp3, w2: kubelet_config.maxPods: must be a whole number of 32 bits, not 'many'."],
    ),
    "families that do not match": (
        settings(
            pod_subnet="10.244.0.0/16,fd00:10:244::/64",
            service_subnet="10.96.0.0/12,fd00:10:96::/64",
            vip="fd00::100",
            cni="bridge",
            host_firewall="open",
        ),
        [
            "vip fd00::100: is IPv6, and pod_subnet 10.244.0.0/16,fd00:10:244::/64 is IPv4 and IPv6",
            "cp1 (10.0.0.21), cp3 (10.0.0.23), cp2 (10.0.0.22), w1 (10.0.0.31), w2 (10.0.0.32), w3 (10.0.0.33): "
            "`address` is IPv4",
            "pod_subnet fd00:10:244::/64: has room for 1 nodes of a /64 each, the inventory has 6",
            "cni: is bridge, which is made for IPv4 alone here",
            "host_firewall: is open, which writes rules of IPv4 alone",
            "service_subnet fd00:10:96::/64: is larger than Kubernetes takes, a /108",
        ],
    ),
    "an address of the second family that the host does not have": (
        lambda directory, bundle: with_second(directory, bundle, "fd00::21"),
        ["cp1: no interface has its address fd00::21; it has 10.0.0.21, fd00::99", "check: address"],
    ),
    "several things at once": (
        settings(vip="10.0.0.21", pod_subnet="10.96.0.0/16", kubernetes_version="v1.35.0"),
        ["vip 10.0.0.21", "overlaps service_subnet", "is for Kubernetes v1.36.2"],
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> dict[str, Future[Run]]:
    """A run with each input, with `-y`: nobody is there to see the plan."""
    sites = {what: make(tmp_path_factory.mktemp("input"), bundle) for what, (make, _) in INPUTS.items()}
    return together({what: lambda site=site: site.run("-y") for what, site in sites.items()})


@pytest.mark.parametrize("what", INPUTS)
def test_input_that_cannot_work_is_refused_before_any_change(runs: dict[str, Future[Run]], what: str) -> None:
    run = runs[what].result()
    assert run.code == 1
    assert run.changes == []
    for words in INPUTS[what][1]:
        assert words in run.words
    assert "Traceback" not in run.words
