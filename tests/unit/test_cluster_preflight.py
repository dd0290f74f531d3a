"""Every check of preflight: a cluster that is well, and what is found when one thing of it is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from harness import answer, recorded

from cluster.findings import Finding, checks
from cluster.lock import File, Image, Lock, Package
from cluster.pieces import NODE_DIRECTORY
from cluster.ports import listening, ways
from cluster.preflight import judge, kernel, leftovers
from cluster.preflight.seen import Clock, Seen
from cluster.preflight.surroundings import bypassed
from cluster.settings import load
from cluster.topology import Node, Topology
from facts.cgroup import Cgroup
from facts.hardware import Hardware
from facts.kubeadm import KubeadmNode
from facts.leftovers import Leftovers
from facts.runtime import Installed
from facts.surroundings import Surroundings
from facts.swap import Swap
from facts.upgrade import NodeVersions

MIB = 2**20
VIP = "10.0.0.100"
SITE = "api.example.org:443"


def nodes(**addresses: int) -> tuple[Node, ...]:
    return tuple(Node(name, IPv4Address(f"10.0.0.{last}")) for name, last in addresses.items())


TOPOLOGY = Topology(
    load_balancers=nodes(lb1=11, lb2=12), control_planes=nodes(cp1=21, cp2=22, cp3=23), workers=nodes(w1=31, w2=32)
)
NAMES = tuple(node.name for node in TOPOLOGY.nodes)
KUBERNETES = tuple(node.name for node in (*TOPOLOGY.control_planes, *TOPOLOGY.workers))
BALANCERS = tuple(node.name for node in TOPOLOGY.load_balancers)
FILE = File(path="images/blobs/sha256/" + "a" * 64, size=1000 * MIB, sha256="a" * 64, name="image", version="1")
LOCK = Lock(
    format=2,
    platform="linux/amd64",
    kubernetes_version="v1.36.2",
    components={},
    images=(Image(name="k/pause:1", digest=f"sha256:{'a' * 64}", size=1, blobs=(f"sha256:{'a' * 64}",)),),
    packages=(
        Package(
            name="containerd",
            version="1.6.20~ds1-1",
            architecture="amd64",
            release="debian-12",
            file="packages/debian-12/containerd.deb",
        ),
    ),
    package_sets={"debian-12": dict.fromkeys(("base", "runtime", "load_balancer", "mirror", "time"), ())},
    files=(FILE,),
)
PATHS = ("/", "/var/lib", NODE_DIRECTORY, "/var/lib/containerd")
ROOM = {"mount": "/", "size_mib": 90000, "free_mib": 80000, "inodes": 1000, "inodes_free": 900, "used_mib": 0}
FINISHED = answer(KubeadmNode, recorded("KubeadmNode.cluster-cp1"))


def machine(node: Node) -> dict[str, Any]:
    """A recorded machine with names and addresses of its own."""
    found: dict[str, Any] = copy.deepcopy(answer(Hardware, recorded("Hardware.cluster")))
    last = str(node.address).rpartition(".")[2]
    own = {
        "interface": "eth0",
        "address": str(node.address),
        "prefix": 24,
        "mac": f"02:00:00:00:00:{last}",
        "mtu": 1500,
    }
    return {**found, "hostname": node.name, "machine_id": node.name, "addresses": [own]}


def well() -> Seen:
    """What is gathered from bare hosts that can become a cluster."""
    settings = load({"vip": VIP, "waived_checks": ()})
    reached: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    for way in ways(TOPOLOGY, settings):
        reached[way.source.name][f"{way.target.address}:{way.port}"] = "Connection refused"
    cgroup = ["version 2", "controllers cpuset cpu io memory pids", "systemd 252"]
    return Seen(
        settings=dict.fromkeys(NAMES, settings),
        topology=TOPOLOGY,
        lock=LOCK,
        asked=TOPOLOGY.nodes,
        hardware={node.name: machine(node) for node in TOPOLOGY.nodes},
        file_systems={name: [{"path": path, **ROOM} for path in PATHS] for name in NAMES},
        modules={name: dict.fromkeys(kernel.modules(settings), "builtin") for name in KUBERNETES},
        cgroups={name: answer(Cgroup, cgroup) for name in KUBERNETES},
        swap={name: Swap.default() for name in KUBERNETES},
        names={
            name: {
                "routes": ["0.0.0.0/0"], "nameservers": ["10.0.0.2"], "resolved": False, "resolved_nameservers": [],
                "hosts": [["127.0.1.1", name], ["10.0.0.21", "cp1"]],
            }
            for name in NAMES
        },
        listeners={name: {} for name in NAMES},
        reached=reached,
        pings={name: {"10.0.0.21": "full"} for name in NAMES if name != "cp1"},
        synchronized=dict.fromkeys(NAMES, True),
        clocks={name: Clock(offset=0.2, uncertainty=0.3) for name in NAMES},
        writes={name: {"path": "/var/lib", "writes": 100, "median_ms": 1.0, "p99_ms": 3.0} for name in KUBERNETES[:3]},
        kubeadm={name: KubeadmNode.default() for name in KUBERNETES},
        versions={name: NodeVersions.default() for name in KUBERNETES},
        leftovers={name: Leftovers.default() for name in KUBERNETES},
        installed={name: Installed.default() for name in KUBERNETES},
        surroundings={name: Surroundings.default() for name in NAMES},
        answers={name: {"10.0.0.11": "02:00", VIP: None} for name in BALANCERS},
    )  # fmt: skip


def given(seen: Seen, **settings: Any) -> Seen:
    return replace(seen, settings=dict.fromkeys(NAMES, load({"vip": VIP, **settings})))


Change = Callable[[Seen], Seen]


def having(**settings: Any) -> Change:
    return lambda seen: given(seen, **settings)


def state(what: str, host: str, **changes: Any) -> Change:
    """One fact of one host is partly another."""

    def change(seen: Seen) -> Seen:
        facts = getattr(seen, what)
        return replace(seen, **{what: {**facts, host: {**facts[host], **changes}}})

    return change


def released(seen: Seen, host: str, system: str, release: str = "", *sets: str) -> Seen:
    """A host is another system, of a release of which the bundle has these sets of packages."""
    name, _, version = system.rpartition("-")
    own = {release or system: dict.fromkeys(sets, ())}
    lock = seen.lock.model_copy(update={"package_sets": seen.lock.package_sets | own})
    return state("hardware", host, os_id=name, os_version=version)(replace(seen, lock=lock))


def carried(seen: Seen) -> Seen:
    """The bundle has the runtime's programs, and not the distribution's package."""
    program = FILE.model_copy(update={"path": "runtime/containerd", "name": "containerd"})
    return replace(seen, lock=seen.lock.model_copy(update={"files": (*seen.lock.files, program)}))


def room(host: str, path: str, **changes: Any) -> Change:
    def change(seen: Seen) -> Seen:
        rows = [{**row, **changes} if row["path"] == path else row for row in seen.file_systems[host]]
        return replace(seen, file_systems={**seen.file_systems, host: rows})

    return change


def everywhere(host: str, **changes: Any) -> Change:
    """All paths are on one file system."""
    return both(*(room(host, path, **changes) for path in PATHS))


def address(host: str, **changes: Any) -> Change:
    def change(seen: Seen) -> Seen:
        (row,) = seen.hardware[host]["addresses"]
        return state("hardware", host, addresses=[{**row, **changes}])(seen)

    return change


def modules(host: str, *absent: str, **settings: Any) -> Change:
    def change(seen: Seen) -> Seen:
        seen = given(seen, **settings)
        found = dict.fromkeys(kernel.modules(seen.cluster), "loaded") | dict.fromkeys(absent, "absent")
        return replace(seen, modules={**seen.modules, host: found})

    return change


def cilium(seen: Seen) -> Seen:
    """The network is Cilium, which the bundle has."""
    file = FILE.model_copy(update={"path": "networks/cilium-ipv4.yaml", "version": "v1.20.2"})
    return replace(given(seen, cni="cilium"), lock=seen.lock.model_copy(update={"files": (*seen.lock.files, file)}))


def old_cgroups(**settings: Any) -> Change:
    return lambda seen: state("cgroups", "w1", version=1)(given(seen, **settings))


def lost(source: str, target: str, words: str) -> Change:
    return lambda seen: state("reached", source, **{target: words})(seen)


def external(seen: Seen) -> Seen:
    """The site's own load balancer is used."""
    return given(seen, load_balancing="external", control_plane_endpoint=SITE)


def unreached(target: str, words: str = "timeout") -> Change:
    """Nobody reaches it."""

    def change(seen: Seen) -> Seen:
        found = {name: {**each, **({target: words} if target in each else {})} for name, each in seen.reached.items()}
        return replace(seen, reached=found)

    return change


def clock(host: str, offset: float, uncertainty: float = 0.1) -> Change:
    return lambda seen: replace(seen, clocks={**seen.clocks, host: Clock(offset, uncertainty)})


def fast_hosts(seen: Seen) -> Seen:
    return replace(seen, clocks=dict.fromkeys(NAMES, Clock(100.0, 0.5)))


def taken(process: str, unit: str = "", host: str = "cp1", port: int = 6443) -> Change:
    return lambda seen: replace(seen, listeners={**seen.listeners, host: {port: {"process": process, "unit": unit}}})


def limited(*names: str) -> Change:
    return lambda seen: replace(seen, asked=tuple(node for node in seen.asked if node.name in names))


def both(*changes: Change) -> Change:
    def change(seen: Seen) -> Seen:
        for each in changes:
            seen = each(seen)
        return seen

    return change


def cluster_of(*names: str, ca: str = "sha256:ours") -> Change:
    """These hosts are nodes of a cluster."""
    return both(*(state("kubeadm", name, **{**FINISHED, "ca_cert_hash": ca}) for name in names))


def runs(host: str, kubelet: str, server: str = "", etcd: str = "3.6.8-0") -> Change:
    """A node of the cluster, a control plane when it has an API server, under a bundle with etcd 3.6.8."""
    tags = {"kube-apiserver": server, "etcd": etcd} if server else {}
    images = {name: f"registry.k8s.io/{name}:{tag}" for name, tag in tags.items()}
    own = Image(name="registry.k8s.io/etcd:3.6.8-0", digest=f"sha256:{'a' * 64}", size=1, blobs=())

    def change(seen: Seen) -> Seen:
        lock = seen.lock.model_copy(update={"images": (*seen.lock.images, own)})
        return state("versions", host, running=kubelet, images=images)(replace(seen, lock=lock))

    return change


def asked_for(api: str, release: str) -> Change:
    return lambda seen: replace(seen, removed_apis={"cp1": {api: release}})


PROXY = {"/etc/environment": {"https_proxy": "http://10.9.9.9:3128", "no_proxy": "localhost,10.0.0.0/24"}}
OLD = {"state": "worker", "ca_cert_hash": "sha256:theirs"}
# check -> what is not well, and the finding that says so: hosts, evidence.
CASES: dict[str, list[tuple[Change, tuple[str, ...], str]]] = {
    "kubernetes-version": [
        (runs("w1", "v1.35.6"), ("w1",), "it runs Kubernetes v1.35.6"),
        (runs("cp1", "v1.33.2", "v1.36.2"), ("cp1",), "it runs Kubernetes v1.33.2"),
        (runs("cp1", "v1.35.6", "v1.35.6", etcd="3.6.6-0"), ("cp1",), "it runs Kubernetes v1.35.6"),
        (runs("cp1", "v1.36.1", "v1.36.1"), ("cp1",), "it runs Kubernetes v1.36.1"),
    ],
    "kubernetes-minor-skipped": [
        (runs("cp1", "v1.34.9", "v1.34.9"), ("cp1",), "its API server is v1.34.9"),
        (runs("w1", "v1.32.9"), ("w1",), "its kubelet is v1.32.9"),
    ],
    "kubernetes-downgrade": [
        (runs("w1", "v1.36.3"), ("w1",), "it runs Kubernetes v1.36.3"),
        (runs("cp1", "v1.36.2", "v1.37.0"), ("cp1",), "it runs Kubernetes v1.37.0"),
    ],
    "etcd-too-old": [(runs("cp2", "v1.36.2", "v1.36.2", "3.5.19-0"), ("cp2",), "its etcd is 3.5.19-0")],
    "etcd-old": [(runs("cp2", "v1.36.2", "v1.36.2", "3.5.24-0"), ("cp2",), "its etcd is 3.5.24-0")],
    "removed-api": [
        (
            asked_for("batch/v1beta1/cronjobs", "1.36"),
            ("cp1",),
            "batch/v1beta1/cronjobs was asked for, which Kubernetes 1.36 removes",
        )
    ],
    "systemd": [(state("hardware", "lb2", systemd=False), ("lb2",), "PID 1 is not systemd")],
    "architecture": [
        (state("hardware", "w1", architecture="arm64"), ("w1",), "architecture arm64, the bundle is for amd64")
    ],
    "os-release": [
        (
            state("hardware", "w1", os_id="ubuntu", os_version="24.04"),
            ("w1",),
            "it is ubuntu-24.04, the bundle has packages for debian-12",
        ),
        (
            lambda seen: released(seen, "w1", "slackware-15"),
            ("w1",),
            "it is slackware-15, which this project does not know; it knows debian-12, debian-13, ubuntu-22.04, "
            "ubuntu-24.04, rocky-9, rocky-10, almalinux-9, almalinux-10, centos-9, centos-10, openEuler-22.03, "
            "openEuler-24.03, kylin-V10, kylin-V11",
        ),
        (
            lambda seen: released(seen, "lb1", "rocky-9.4", "rocky-9", "base", "runtime"),
            ("lb1",),
            "the bundle has no set load_balancer, mirror of packages of rocky-9",
        ),
    ],
    "release-runtime": [
        (
            lambda seen: released(seen, "w2", "rocky-9.4", "rocky-9", "base", "runtime"),
            ("w2",),
            "it is rocky-9.4. container_runtime: is containerd, and the bundle has no runtime. Choose `runtime` in "
            "bundle.yaml and build it anew, or change container_runtime; docs/runtimes.md shows how",
        )
    ],
    "cpus": [
        (state("hardware", "cp1", cpus=1), ("cp1",), "1 CPU, a control plane needs 2"),
        (state("hardware", "w1", cpus=0), ("w1",), "0 CPU, a worker needs 1"),
    ],
    "memory": [(state("hardware", "cp2", memory_mib=1699), ("cp2",), "1699 MiB of memory, a control plane needs 1700")],
    "memory-recommended": [
        (state("hardware", "cp2", memory_mib=1700), ("cp2",), "1700 MiB of memory, a control plane should have 1850"),
        (state("hardware", "w1", memory_mib=900), ("w1",), "900 MiB of memory, a worker should have 1850"),
        (state("hardware", "lb1", memory_mib=900), ("lb1",), "900 MiB of memory, a load balancer should have 925"),
    ],
    "disk-free": [
        (
            room("cp1", "/var/lib/containerd", mount="/data", free_mib=3999),
            ("cp1",),
            "3999 MiB free on the file system of /data, 4000 needed (/var/lib/containerd 4000)",
        ),
        (
            everywhere("w1", free_mib=5699),
            ("w1",),
            f"5699 MiB free on the file system of /, 5700 needed (/ 700, {NODE_DIRECTORY} 1000, "
            "/var/lib/containerd 4000)",
        ),
    ],
    "disk-size": [
        (
            everywhere("w1", size_mib=30000, free_mib=29000),
            ("w1",),
            "30000 MiB of disk, a worker should have 40 GB",
        )
    ],
    "disk-pressure": [
        (
            room("cp1", "/var/lib/containerd", mount="/data", free_mib=17000),
            ("cp1",),
            "17000 of 90000 MiB free on the file system of /data, and 4000 needed",
        )
    ],
    "inodes": [
        (
            room("w2", "/var/lib/containerd", mount="/data", inodes_free=49),
            ("w2",),
            "49 of 1000 inodes free on the file system of /data",
        )
    ],
    "etcd-disk": [
        (
            state("writes", "cp3", median_ms=8.04, p99_ms=10.1, writes=57),
            ("cp3",),
            "writes of /var/lib to its disk take 8.0 ms, the slowest of 100 (p99) 10.1 ms, in 57 tried",
        )
    ],
    "kernel": [
        (
            lambda seen: state("hardware", "cp1", kernel="4.18.0-553.el8")(given(seen, kubernetes_version="v1.33.1")),
            ("cp1",),
            "Linux 4.18.0-553.el8 is below 4.19, the least for Kubernetes 1.33: kubeadm's SystemVerification takes no "
            "older kernel; take 4.19 or later, or Kubernetes 1.31",
        ),
        (
            lambda seen: state("hardware", "cp1", kernel="5.10.0-8-amd64")(given(seen, kube_proxy_mode="nftables")),
            ("cp1",),
            "Linux 5.10.0-8-amd64 is below 5.13, the least for kube-proxy in mode nftables",
        ),
        (
            both(cilium, state("hardware", "w2", kernel="5.4.0-9-generic")),
            ("w2",),
            "Linux 5.4.0-9-generic is below 5.10, the least for Cilium v1.20.2",
        ),
    ],
    "kernel-features": [
        (modules("w1", "vxlan"), ("w1",), "the kernel has no vxlan, neither loadable nor compiled in"),
        (
            modules("w1", "nf_tables", "ip_tables"),
            ("w1",),
            "the kernel has no nf_tables or ip_tables, neither loadable nor compiled in",
        ),
        (
            modules("w1", "nf_tables", kube_proxy_mode="nftables"),
            ("w1",),
            "the kernel has no nf_tables, neither loadable nor compiled in",
        ),
        (
            modules("w1", "cls_bpf", cni="cilium"),
            ("w1",),
            "the kernel has no cls_bpf, neither loadable nor compiled in",
        ),
    ],
    "ipvs": [
        (
            modules("w1", "ip_vs", kube_proxy_mode="ipvs"),
            ("w1",),
            "the kernel has no ip_vs, neither loadable nor compiled in",
        ),
        (
            modules("w1", "ip_vs_lc", kube_proxy_mode="ipvs", kube_proxy_config={"ipvs": {"scheduler": "lc"}}),
            ("w1",),
            "the kernel has no ip_vs_lc, neither loadable nor compiled in",
        ),
    ],
    "cgroup-v1": [
        (old_cgroups(kubernetes_version="v1.34.1"), ("w1",), "cgroup v1, with Kubernetes 1.34 and systemd 252"),
        (
            old_cgroups(kubelet_config={"failCgroupV1": False}, ignore_preflight_errors=["SystemVerification"]),
            ("w1",),
            "cgroup v1, with Kubernetes 1.36 and systemd 252",
        ),
    ],
    "cgroup-v1-refused": [
        (old_cgroups(), ("w1",), "cgroup v1, which Kubernetes 1.36 refuses unless told otherwise"),
        (
            old_cgroups(kubelet_config={"failCgroupV1": False}),
            ("w1",),
            "cgroup v1, which Kubernetes 1.36 refuses unless told otherwise",
        ),
    ],
    "cgroup-controllers": [
        (state("cgroups", "w1", controllers=["cpu", "cpuset", "pids"]), ("w1",), "no cgroup controller memory")
    ],
    "swap": [
        (state("swap", "w1", devices=["/dev/sda2"], fstab=["/dev/sda2 none swap"]), ("w1",), "swap is on (/dev/sda2)")
    ],
    "swap-returns": [
        (
            state("swap", "w1", devices=["/dev/zram0"]),
            ("w1",),
            "swap is on (/dev/zram0), and nothing known turned it on",
        )
    ],
    "hostname": [(state("hardware", "w2", hostname="w1"), ("w1", "w2"), "the same host name w1")],
    "mac": [(address("w2", mac="02:00:00:00:00:31"), ("w1", "w2"), "the same MAC address 02:00:00:00:00:31")],
    "machine-id": [(state("hardware", "w1", machine_id="cp1"), ("cp1", "w1"), "the same machine-id cp1")],
    "product-uuid": [
        (
            both(state("hardware", "cp1", product_uuid="u"), state("hardware", "cp3", product_uuid="u")),
            ("cp1", "cp3"),
            "the same product_uuid u",
        )
    ],
    "address": [
        (address("w1", address="172.16.0.5"), ("w1",), "no interface has its address 10.0.0.31; it has 172.16.0.5")
    ],
    "default-route": [
        (
            state("names", "w1", routes=["10.0.0.0/24"]),
            ("w1",),
            "no route leads to 10.96.0.0/12, the addresses of Services",
        )
    ],
    "hosts-file": [
        (
            state("names", "w1", hosts=[["127.0.0.1", "localhost"], ["10.0.0.99", "cp2.example.org", "cp2"]]),
            ("w1",),
            "/etc/hosts names cp2 as 10.0.0.99, the inventory as 10.0.0.22",
        ),
        (
            state("names", "w1", hosts=[["127.0.0.1", "localhost", "cp2"]]),
            ("w1",),
            "/etc/hosts names cp2 as 127.0.0.1, the inventory as 10.0.0.22",
        ),
    ],
    "nameserver": [
        (state("names", "w1", nameservers=[]), ("w1",), "/etc/resolv.conf names no nameserver"),
        (
            state("names", "w1", resolved=True, nameservers=["127.0.0.53"]),
            ("w1",),
            "/run/systemd/resolve/resolv.conf names no nameserver",
        ),
    ],
    "nameserver-loop": [
        (
            state("names", "w1", nameservers=["127.0.0.53"]),
            ("w1",),
            "/etc/resolv.conf names 127.0.0.53, the host itself",
        ),
        (
            state("names", "w1", resolved=True, resolved_nameservers=["::1"]),
            ("w1",),
            "/run/systemd/resolve/resolv.conf names ::1, the host itself",
        ),
    ],
    "mtu": [(address("w1", mtu=9000), ("w1",), "an MTU of 9000, other hosts have 1500")],
    "mtu-path": [
        (
            state("pings", "w1", **{"10.0.0.21": "small", "10.0.0.22": "small", "10.0.0.23": "none"}),
            ("w1",),
            "packets of its MTU (1500) do not reach cp1, cp2, small ones do",
        )
    ],
    "port-taken": [
        (
            taken("apache2", "apache2.service"),
            ("cp1",),
            "port 6443 of the API server is taken by apache2 (apache2.service)",
        ),
        (taken("", host="lb1"), ("lb1",), "port 6443 of the API on the virtual IP is taken by something"),
        (
            taken("nginx", "nginx.service", host="lb1", port=5443),
            ("lb1",),
            "port 5443 of the bundle is taken by nginx (nginx.service)",
        ),
    ],
    "port-filtered": [
        (
            unreached("10.0.0.21:6443"),
            ("cp1",),
            "TCP 6443 (the API server) is not reached from any host that must: no answer",
        ),
        (
            lost("w1", "10.0.0.21:6443", "No route to host"),
            ("cp1",),
            "TCP 6443 (the API server) is not reached from w1: no route to host, or prohibited there",
        ),
    ],
    "port-beyond-limit": [
        (
            both(lost("w1", "10.0.0.21:6443", "timeout"), limited("w1")),
            ("cp1",),
            "TCP 6443 (the API server) is not reached from w1: no answer",
        )
    ],
    "vip-subnet": [
        (address("lb1", prefix=28), ("lb1",), f"vip {VIP} is outside 10.0.0.0/28, the subnet of its own address")
    ],
    "vip-taken": [
        (
            state("answers", "lb2", **{VIP: "52:54:00:12:34:56"}),
            (),
            f"vip {VIP}: something answers at it already (52:54:00:12:34:56, as seen by lb2) and no balancing host "
            "has it",
        ),
        (
            state("answers", "lb2", **{VIP: "02:00:00:00:00:32"}),
            (),
            f"vip {VIP}: something answers at it already (02:00:00:00:00:32 of w2, as seen by lb2) and no "
            "balancing host has it",
        ),
    ],
    "vrrp-peers": [
        (
            state("answers", "lb2", **{"10.0.0.11": None}),
            ("lb2",),
            "10.0.0.11, which balances too, does not answer ARP here",
        )
    ],
    "endpoint-name": [
        (
            both(external, lost("w1", SITE, "Invalid argument")),
            ("w1",),
            f"the name of control_plane_endpoint {SITE} is not known here",
        )
    ],
    "endpoint": [
        (
            both(external, lost("cp2", SITE, "timeout")),
            ("cp2",),
            f"control_plane_endpoint {SITE} is not reached: no answer",
        )
    ],
    "time": [
        (lambda seen: replace(seen, synchronized={"w1": False}), ("w1",), "the clock is not synchronized"),
        (lambda seen: replace(seen, synchronized={"w1": None}), ("w1",), "the clock is not synchronized"),
    ],
    "clock-skew": [
        (clock("w1", -5.0), ("w1",), "the clock is 5.2 s behind the middle of all hosts (give or take 0.1 s)")
    ],
    "clock-drift": [
        (clock("w1", 1.4), ("w1",), "the clock is 1.2 s ahead of the middle of all hosts (give or take 0.1 s)")
    ],
    "clock-control": [(fast_hosts, (), "the hosts' clocks are 100 s ahead of this machine's")],
    "foreign-cluster": [
        (
            both(cluster_of("cp1", "cp2", "cp3"), state("kubeadm", "w1", **OLD)),
            ("w1",),
            "it has the CA of another cluster (sha256:theirs, here sha256:ours)",
        ),
        (
            both(cluster_of("cp1", ca="sha256:theirs"), cluster_of("cp2", "cp3")),
            ("cp1",),
            "it has the CA of another cluster (sha256:theirs, here sha256:ours)",
        ),
    ],
    "leftover-cluster": [
        (
            state("kubeadm", "w1", **OLD),
            ("w1",),
            "/etc/kubernetes has files of a node, and no control plane has a cluster",
        )
    ],
    "leftover-etcd": [
        (
            state("kubeadm", "cp2", state="partial", etcd_data=True),
            ("cp2",),
            "/var/lib/etcd has data, and there is no etcd to them",
        )
    ],
    "etcd-directory": [
        (state("leftovers", "cp2", etcd_files=["lost+found"]), ("cp2",), "/var/lib/etcd is not empty (lost+found)")
    ],
    "next-hop": [
        (
            both(having(**settings), address("w2", prefix=29)),
            ("w2",),
            "cp1 to cp3, w1 are outside 10.0.0.32/29, its own network",
        )
        for settings in ({"cni": "bridge"}, {"flannel_backend": "host-gw"})
    ],
    "network-changed": [
        (
            both(having(cni="bridge"), cluster_of("cp1"), state("leftovers", "cp1", cni_files=["10-flannel.conflist"])),
            ("cp1",),
            "its network is flannel: /etc/cni/net.d has 10-flannel.conflist, and not 10-bridge.conflist",
        )
    ],
    "leftover-cni": [
        (
            both(having(cni="bridge"), state("leftovers", "w1", cni_files=["10-bridge.conflist"])),
            ("w1",),
            "/etc/cni/net.d has 10-bridge.conflist",
        ),
        (state("leftovers", "w1", cni_files=["87-podman.conflist"]), ("w1",), "/etc/cni/net.d has 87-podman.conflist"),
    ],
    "cni-before": [
        (
            both(
                cluster_of("cp1"),
                state(
                    "leftovers", "cp1", cni_files=["10-calico.conflist", "10-flannel.conflist", "87-podman.conflist"]
                ),
            ),
            ("cp1",),
            "/etc/cni/net.d has 10-calico.conflist",
        ),
    ],
    "leftover-network": [
        (
            state("leftovers", "w1", interfaces=["cni0", "flannel.1"], chains=True),
            ("w1",),
            "it has interface cni0, interface flannel.1, packet filter chains of Kubernetes (KUBE-)",
        )
    ],
    "proxy": [
        (
            state("surroundings", "w1", proxies=PROXY),
            ("w1",),
            "/etc/environment sends service_subnet to the proxy http://10.9.9.9:3128",
        ),
        (
            state("surroundings", "lb1", proxies={"the environment": {"http_proxy": "http://p:1"}}),
            ("lb1",),
            "the environment sends the virtual IP, service_subnet, hosts of the inventory to the proxy http://p:1",
        ),
    ],
    "other-runtime": [
        (
            state("surroundings", "w1", sockets=["/run/crio/crio.sock"]),
            ("w1",),
            "another container runtime listens at /run/crio/crio.sock",
        )
    ],
    "runtime-changed": [
        (
            state("installed", "w1", kubelet_socket="/var/run/crio/crio.sock"),
            ("w1",),
            "its kubelet uses /var/run/crio/crio.sock, and container_runtime is containerd",
        )
    ],
    "runtime-package": [
        (
            both(carried, state("installed", "w1", packages={"containerd.io": "1.7.22-1"})),
            ("w1",),
            "it has the package containerd.io 1.7.22-1, and the bundle has containerd of its own",
        )
    ],
    "runtime-elsewhere": [
        (
            state("installed", "w1", unit=True),
            ("w1",),
            "it has /etc/systemd/system/containerd.service, and the bundle has a package of containerd",
        )
    ],
    "containerd-package": [
        (
            state("surroundings", "w1", packages=["containerd.io", "docker-ce"]),
            ("w1",),
            "the package containerd.io, docker-ce is installed",
        )
    ],
    "containerd-config": [
        (state("surroundings", "w1", containerd_config=True), ("w1",), "/etc/containerd/config.toml is there")
    ],
    "containerd-drop-in": [
        (
            state("surroundings", "w1", drop_ins=["/etc/systemd/system/containerd.service.d/proxy.conf"]),
            ("w1",),
            "there is /etc/systemd/system/containerd.service.d/proxy.conf",
        )
    ],
    "firewall": [(state("surroundings", "lb1", firewalls=["ufw"]), ("lb1",), "ufw is active")],
    "selinux": [(state("surroundings", "w1", selinux="enforcing"), ("w1",), "SELinux is enforcing")],
    "apparmor": [
        (
            state("surroundings", "w1", apparmor_without_parser=True),
            ("w1",),
            "the kernel has AppArmor, and there is no apparmor_parser",
        )
    ],
    "network-manager": [
        (
            state("surroundings", "w1", network_manager=True),
            ("w1",),
            "NetworkManager runs and is not told to leave pods' interfaces alone",
        )
    ],
    "tools": [
        (
            state("surroundings", "w1", missing=["ping"]),
            ("w1",),
            "there is no `ping`, so it was not tried whether packets of full size pass",
        )
    ],
}


TABLE = [(check, *case) for check, cases in CASES.items() for case in cases]


def test_hosts_on_which_all_is_well_give_no_finding() -> None:
    assert judge(well()) == []


@pytest.mark.parametrize(("check", "change", "hosts", "evidence"), TABLE, ids=[each[0] for each in TABLE])
def test_what_is_not_well_is_found_once_with_its_evidence(
    check: str, change: Change, hosts: tuple[str, ...], evidence: str
) -> None:
    assert judge(change(well())) == [Finding(check, hosts, evidence)]


def test_every_check_is_tried() -> None:
    # The other two are judged while hosts are asked (deploys/survey.py); tests/plan has them.
    assert set(CASES) | {"bundle-damaged", "even-control-planes", "sudo"} == set(checks())


def finished(seen: Seen) -> Seen:
    """The same hosts with the cluster on them."""
    seen = both(cluster_of(*KUBERNETES))(seen)
    found = {}
    for node in TOPOLOGY.nodes:
        rules = listening(node, TOPOLOGY, seen.cluster)
        found[node.name] = {port: {"process": rule.process[:15], "unit": rule.unit} for port, rule in rules.items()}
    there = {"ours": True, "cni_files": ["10-flannel.conflist"], "interfaces": ["cni0"], "chains": True}
    there["etcd_files"] = ["member"]
    seen = both(*(state("leftovers", name, **there) for name in KUBERNETES))(seen)
    seen = both(*(state("surroundings", name, containerd_config=True) for name in KUBERNETES))(seen)
    seen = replace(seen, listeners=found, vip_holders=("lb1",), writes={})
    return state("answers", "lb2", **{VIP: "02:00:00:00:00:11"})(seen)


def test_a_finished_cluster_gives_no_finding() -> None:
    assert judge(finished(well())) == []


PART = {"state": "partial", "ca_cert_hash": "sha256:ours"}


@pytest.mark.parametrize(
    "change",
    [
        state("kubeadm", "cp1", ca_cert_hash="sha256:ours"),
        state("kubeadm", "cp1", **PART, manifests=["etcd", "kube-apiserver"], etcd_data=True),
        both(cluster_of("cp1"), state("kubeadm", "cp2", **PART, etcd_data=True)),
        both(cluster_of("cp1"), state("kubeadm", "w1", **{**PART, "ca_cert_hash": None})),
        state("leftovers", "w1", ours=True, interfaces=["flannel.1"], chains=True),
        both(
            cluster_of("cp2", "cp3"),
            state("kubeadm", "cp1", state="none"),
            state("leftovers", "cp1", ours=True, chains=True),
        ),
    ],
    ids=["CA made", "init killed", "join killed", "bootstrap killed", "cleaned up after a join", "machine replaced"],
)
def test_a_run_that_was_interrupted_leaves_nothing_that_is_found(change: Change) -> None:
    assert list(leftovers.check(change(well()))) == []


def test_hosts_beyond_the_limit_are_passed_over() -> None:
    seen = both(state("hardware", "cp1", cpus=1), state("kubeadm", "w2", **OLD), limited("w1"))(well())
    assert judge(seen) == []


def test_nothing_is_said_of_the_virtual_ip_while_a_load_balancer_was_not_asked() -> None:
    assert judge(both(state("answers", "lb2", **{VIP: "02:00"}), limited("lb2"))(well())) == []


def test_the_virtual_ip_on_a_host_that_is_no_load_balancer_is_found() -> None:
    def change(seen: Seen) -> Seen:
        rows = [
            *seen.hardware["w1"]["addresses"],
            {"address": VIP, "interface": "eth0", "prefix": 32, "mac": "", "mtu": 0},
        ]
        return state("hardware", "w1", addresses=rows)(seen)

    what = f"vip {VIP}: is on an interface here, and this host does not balance"
    assert judge(change(well())) == [Finding("vip-taken", ("w1",), what)]


def test_wrapped_packets_need_no_next_hop_and_a_network_of_ones_own_may_have_any_file() -> None:
    assert judge(address("w2", prefix=29)(well())) == []
    files = state("leftovers", "w1", cni_files=["10-flannel.conflist", "05-mine.conflist"])
    assert judge(files(given(well(), cni="none"))) == []


def test_a_network_asks_for_its_own_modules_alone() -> None:
    def wanted(**settings: Any) -> set[str]:
        return set(kernel.modules(load({"vip": VIP, **settings}))) - set(
            kernel.modules(load({"vip": VIP, "cni": "none"}))
        )

    assert wanted() == {"vxlan"}
    assert wanted(flannel_backend="host-gw") == wanted(cni="bridge") == set()
    assert wanted(cni="calico") == {"ip_set", "xt_set", "vxlan"}
    assert wanted(cni="calico", calico_encapsulation="ipip") == {"ip_set", "xt_set", "ipip"}
    assert wanted(cni="calico", calico_encapsulation="bgp", kube_proxy_mode="nftables") == set()
    assert wanted(cni="cilium") == {
        "bpf", "cgroup2", "cls_bpf", "sch_ingress", "ip_set", "ip_set_hash_ip", "xt_set", "vxlan",
    }  # fmt: skip
    assert wanted(cni="none", kube_proxy_mode="ipvs") == {"ip_vs", "ip_vs_rr"}


def test_a_host_without_ip_is_not_said_to_lack_its_address() -> None:
    assert judge(state("hardware", "w1", addresses=[])(well())) == []


def test_a_node_that_is_in_the_cluster_needs_no_more_room_and_pieces_that_are_there_none_again() -> None:
    full = {"free_mib": 14000, "size_mib": 15000}
    some = room("w1", NODE_DIRECTORY, mount="/b", free_mib=500, size_mib=600, used_mib=501)
    assert (
        judge(
            both(cluster_of("cp1"), room("cp1", "/var/lib/containerd", mount="/c", free_mib=3000, size_mib=9000))(
                well()
            )
        )
        == []
    )
    assert judge(some(well())) == [
        Finding("disk-pressure", ("w1",), "500 of 600 MiB free on the file system of /b, and 499 needed")
    ]
    assert judge(room("cp1", "/var/lib/containerd", mount="/c", used_mib=1000, **full)(well())) == []


def test_a_disk_is_judged_by_what_its_kubelet_keeps_free_and_not_where_there_is_none() -> None:
    few = {"free_mib": 6000, "used_mib": 10000}
    assert judge(everywhere("lb1", **few)(well())) == []
    assert [each.check for each in judge(everywhere("w1", **few)(well()))] == ["disk-pressure"]
    own = {"evictionHard": {"imagefs.available": "1Gi"}}
    assert judge(given(everywhere("w1", **few)(well()), kubelet_config=own)) == []


def test_a_clock_counts_as_far_as_it_is_certain() -> None:
    assert judge(clock("w1", 6.0, uncertainty=5.0)(well())) == []
    assert [each.check for each in judge(clock("w1", 6.0, uncertainty=4.0)(well()))] == ["clock-drift"]


def test_clocks_need_not_be_kept_where_the_site_says_so_or_chrony_will() -> None:
    for sync in ({"time_sync": "none"}, {"time_sync": "chrony", "ntp_servers": ["10.0.0.1"]}):
        assert judge(given(replace(well(), synchronized={"w1": False}), **sync)) == []


def test_a_resolv_conf_that_the_site_has_chosen_is_not_judged() -> None:
    seen = given(state("names", "w1", nameservers=[])(well()), kubelet_config={"resolvConf": "/etc/pods.conf"})
    assert judge(seen) == []


@pytest.mark.parametrize(
    ("no_proxy", "network", "is_bypassed"),
    [
        ("10.0.0.0/24", "10.0.0.7/32", True),
        ("localhost, 10.0.0.7", "10.0.0.7/32", True),
        ("*", "10.0.0.0/8", True),
        ("10.0.0.7", "10.0.0.0/24", False),
        (".example.org,localhost", "10.0.0.7/32", False),
        ("10.0.0.*", "10.0.0.7/32", False),
        ("", "10.0.0.7/32", False),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(no_proxy: str, network: str, is_bypassed: bool) -> None:
    assert bypassed(no_proxy, IPv4Network(network)) is is_bypassed


def chosen(seen: Seen, **changes: Any) -> Seen:
    """The settings of all hosts have these changes."""
    return replace(seen, settings={name: each.model_copy(update=changes) for name, each in seen.settings.items()})


@pytest.mark.parametrize(("firewall", "left"), [("firewalld", False), ("ufw", False), ("nftables", True)])
def test_a_firewall_that_the_deploy_opens_is_no_finding(firewall: str, left: bool) -> None:
    seen = chosen(state("surroundings", "lb1", firewalls=[firewall])(well()), host_firewall="open")
    found = [Finding("firewall", ("lb1",), f"{firewall} is active")]
    assert judge(seen) == (found if left else [])


def test_what_a_firewall_filters_until_the_deploy_opens_it_is_no_finding() -> None:
    seen = well()
    lost = {name: answers | dict.fromkeys([each for each in answers if "10.0.0.21" in each], "timeout")
            for name, answers in seen.reached.items()}  # fmt: skip
    filtered = replace(seen, reached=lost)
    assert {each.check for each in judge(filtered)} == {"port-filtered"}
    assert judge(replace(filtered, unopened=frozenset({"cp1"}))) == []
    assert judge(replace(filtered, unopened=frozenset({"cp2"}))) == judge(filtered)


@pytest.mark.parametrize(
    ("change", "setting", "check"),
    [
        ({"selinux": "enforcing"}, {"selinux": "configure"}, "selinux"),
        ({"network_manager": True}, {"network_manager": "unmanage"}, "network-manager"),
    ],
)
def test_what_the_deploy_tells_a_host_is_no_finding(change: Any, setting: Any, check: str) -> None:
    seen = state("surroundings", "w1", **change)(well())
    assert [each.check for each in judge(seen)] == [check]
    assert judge(chosen(seen, **setting)) == []
