"""kubeadm's documents."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
import yaml
from harness import DATA

from cluster import configuration, kubeadm
from cluster.settings import Settings, load
from cluster.topology import Node, Topology

TOKEN, KEY, HASH = "abcdef.0123456789abcdef", "c" * 64, f"sha256:{'d' * 64}"
CP1, CP2, W1, LB1 = (
    Node(name, IPv4Address(address))
    for name, address in (("cp1", "10.0.0.21"), ("cp2", "10.0.0.22"), ("w1", "10.0.0.31"), ("lb1", "10.0.0.11"))
)
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=(LB1,))


def settings(**others: Any) -> Settings:
    return load({"vip": "10.0.0.100", **others})


def documents(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def init(**others: Any) -> dict[str, Any]:
    return documents(kubeadm.init_documents(settings(**others), TOPOLOGY, CP1, TOKEN, KEY))


def join(node: Node, key: str | None, **others: Any) -> Any:
    (document,) = documents(kubeadm.join_documents(settings(**others), TOPOLOGY, node, TOKEN, HASH, key)).values()
    return document


def registration(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "criSocket": "unix:///run/containerd/containerd.sock",
        "kubeletExtraArgs": [{"name": "node-ip", "value": str(node.address)}],
    }


def test_init_has_these_documents_and_no_others() -> None:
    assert {kind: document["apiVersion"] for kind, document in init().items()} == {
        "InitConfiguration": "kubeadm.k8s.io/v1beta4",
        "ClusterConfiguration": "kubeadm.k8s.io/v1beta4",
        "KubeletConfiguration": "kubelet.config.k8s.io/v1beta1",
        "KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
    }


def test_init_configuration_is_of_this_node_and_this_run() -> None:
    assert init()["InitConfiguration"] == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "bootstrapTokens": [{"token": TOKEN, "ttl": "2h0m0s", "description": "joins of one run"}],
        "localAPIEndpoint": {"advertiseAddress": "10.0.0.21", "bindPort": 6443},
        "nodeRegistration": registration(CP1),
        "certificateKey": KEY,
    }


def test_cluster_configuration_is_shared_by_all() -> None:
    own = {"cluster_name": "site", "api_port": 8443, "pod_subnet": "10.32.0.0/16", "service_subnet": "10.33.0.0/16"}
    document = init(**own, dns_domain="site.local", kubernetes_version="v1.36.1")["ClusterConfiguration"]
    assert document == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": "site",
        "kubernetesVersion": "v1.36.1",
        "controlPlaneEndpoint": "10.0.0.100:8443",
        "networking": {"podSubnet": "10.32.0.0/16", "serviceSubnet": "10.33.0.0/16", "dnsDomain": "site.local"},
        "apiServer": {"certSANs": ["10.0.0.100", "cp1", "cp2", "10.0.0.21", "10.0.0.22", "10.0.0.11"]},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
    }


def test_documents_of_ipv4_are_what_they_were_before_there_was_ipv6() -> None:
    """Byte for byte; Kubernetes keeps them."""
    hosts = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=(LB1,))
    written = kubeadm.init_documents(settings(), hosts, CP1, TOKEN, KEY)
    written += kubeadm.join_documents(settings(), hosts, CP2, TOKEN, HASH, KEY)
    written += kubeadm.join_documents(settings(), hosts, W1, TOKEN, HASH, None)
    assert written == (DATA / "ipv4/kubeadm.yaml").read_text()


def six(*nodes: Node, alone: bool = False) -> tuple[Node, ...]:
    """Nodes with an address of IPv6 beside that of IPv4, or in its place."""
    found = [(node, IPv6Address(f"fd00::{str(node.address).rpartition('.')[2]}")) for node in nodes]
    return tuple(Node(node.name, own) if alone else Node(node.name, node.address, own) for node, own in found)


def test_two_families_are_in_every_document_in_their_order() -> None:
    hosts = Topology(control_planes=six(CP1, CP2), workers=six(W1), load_balancers=six(LB1))
    own = settings(
        vip="10.0.0.100,fd00::100",
        pod_subnet="10.244.0.0/16,fd00:10:244::/56",
        service_subnet="10.96.0.0/12,fd00:10:96::/112",
    )
    found = documents(kubeadm.init_documents(own, hosts, hosts.control_planes[0], TOKEN, KEY))
    cluster = found["ClusterConfiguration"]
    assert cluster["controlPlaneEndpoint"] == "10.0.0.100:6443"
    assert cluster["networking"] == {
        "podSubnet": "10.244.0.0/16,fd00:10:244::/56",
        "serviceSubnet": "10.96.0.0/12,fd00:10:96::/112",
        "dnsDomain": "cluster.local",
    }
    assert cluster["apiServer"]["certSANs"] == [
        "10.0.0.100", "fd00::100", "cp1", "cp2", "10.0.0.21", "fd00::21", "10.0.0.22", "fd00::22", "10.0.0.11",
        "fd00::11",
    ]  # fmt: skip
    assert found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "10.0.0.21"
    arguments = found["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"]
    assert arguments == [{"name": "node-ip", "value": "10.0.0.21,fd00::21"}]


def test_an_endpoint_of_ipv6_is_in_brackets_and_addresses_alone_are_not() -> None:
    hosts = Topology(six(CP1, CP2, alone=True), six(W1, alone=True), six(LB1, alone=True))
    own = settings(vip="fd00::100", pod_subnet="fd00:10:244::/56", service_subnet="fd00:10:96::/112")
    found = documents(kubeadm.init_documents(own, hosts, hosts.control_planes[0], TOKEN, KEY))
    assert found["ClusterConfiguration"]["controlPlaneEndpoint"] == "[fd00::100]:6443"
    assert found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "fd00::21"
    joined = documents(kubeadm.join_documents(own, hosts, hosts.workers[0], TOKEN, HASH, None))["JoinConfiguration"]
    assert joined["discovery"]["bootstrapToken"]["apiServerEndpoint"] == "[fd00::100]:6443"
    assert joined["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "fd00::31"}]


def test_certificate_has_the_names_that_were_asked_for_and_each_once() -> None:
    extra = ("kubernetes.example.org", "10.0.0.100", "cp1")
    sans = init(api_cert_extra_sans=extra)["ClusterConfiguration"]["apiServer"]["certSANs"]
    assert sans == ["10.0.0.100", "cp1", "cp2", "10.0.0.21", "10.0.0.22", "10.0.0.11", "kubernetes.example.org"]


def test_kubelet_keeps_images_that_cannot_be_pulled_again() -> None:
    assert init()["KubeletConfiguration"] == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 93,
    }


def test_own_configuration_is_laid_over_key_by_key() -> None:
    own = {"failCgroupV1": False, "imageGCLowThresholdPercent": 90, "evictionHard": {"memory.available": "100Mi"}}
    document = init(kubelet_config=own)["KubeletConfiguration"]
    assert document == {**init()["KubeletConfiguration"], **own}
    proxy = init(kube_proxy_mode="nftables", kube_proxy_config={"conntrack": {"min": 0}})["KubeProxyConfiguration"]
    assert (proxy["mode"], proxy["conntrack"]) == ("nftables", {"min": 0})
    cluster = init(cluster_configuration={"etcd": {"local": {"serverCertSANs": ("etcd",)}}})["ClusterConfiguration"]
    assert cluster["etcd"] == {"local": {"dataDir": "/var/lib/etcd", "serverCertSANs": ["etcd"]}}
    taints: Any = [{"key": "a", "effect": "NoSchedule"}]
    assert init(init_configuration={"nodeRegistration": {"taints": taints}})["InitConfiguration"] == {
        **init()["InitConfiguration"],
        "nodeRegistration": registration(CP1) | {"taints": taints},
    }
    assert join(W1, None, join_configuration={"timeouts": {"discovery": "1m0s"}})["timeouts"] == {"discovery": "1m0s"}


def test_objects_are_merged_named_things_laid_over_by_name_and_all_else_replaced() -> None:
    base = {
        "a": {"x": 1, "y": {"z": 1}},
        "list": [1, 2],
        "object": {"k": 1},
        "value": 1,
        "unset": 1,
        "named": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
    }
    over = {
        "a": {"y": {"w": 2}},
        "list": [3],
        "object": None,
        "value": {"k": 2},
        "unset": None,
        "new": 3,
        "named": [{"name": "c", "value": "3"}, {"name": "a", "value": "4"}, {"name": "a", "value": "5"}],
    }
    assert configuration.merged(base, over) == {
        "a": {"x": 1, "y": {"z": 1, "w": 2}},
        "list": [3],
        "object": {"k": 1},
        "value": {"k": 2},
        "unset": None,
        "new": 3,
        "named": [
            {"name": "b", "value": "2"},
            {"name": "c", "value": "3"},
            {"name": "a", "value": "4"},
            {"name": "a", "value": "5"},
        ],
    }
    assert base["a"] == {"x": 1, "y": {"z": 1}}


@pytest.mark.parametrize(
    ("version", "api"),
    [
        *(("v1.21.14", "v1beta2"), ("v1.22.0", "v1beta3"), ("v1.30.14", "v1beta3")),
        *(("v1.31.0", "v1beta4"), ("v1.36.2", "v1beta4")),
    ],
)
def test_documents_are_of_the_api_that_the_version_reads(version: str, api: str) -> None:
    made = {**init(kubernetes_version=version), "join": join(W1, None, kubernetes_version=version)}
    assert {document["apiVersion"] for document in made.values()} == {
        f"kubeadm.k8s.io/{api}",
        "kubelet.config.k8s.io/v1beta1",
        "kubeproxy.config.k8s.io/v1alpha1",
    }
    assert configuration.problems(settings(kubernetes_version=version)) == []


AS_MAP = {"nodeRegistration": {"kubeletExtraArgs": {"v": "3"}}}
AS_LIST = {"nodeRegistration": {"kubeletExtraArgs": [{"name": "v", "value": "3"}]}}


@pytest.mark.parametrize("given", [AS_MAP, AS_LIST], ids=["map", "list"])
def test_arguments_are_taken_as_a_map_or_a_list_and_written_as_the_version_reads_them(given: dict[str, Any]) -> None:
    own = {"init_configuration": given, "cluster_configuration": {"etcd": {"local": {"extraArgs": {"v": "1"}}}}}
    old = init(kubernetes_version="v1.30.14", **own)
    assert old["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"] == {"node-ip": "10.0.0.21", "v": "3"}
    assert old["ClusterConfiguration"]["etcd"]["local"]["extraArgs"] == {"v": "1"}
    new = init(kubernetes_version="v1.31.0", **own)
    assert new["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"] == [
        {"name": "node-ip", "value": "10.0.0.21"},
        {"name": "v", "value": "3"},
    ]
    assert new["ClusterConfiguration"]["etcd"]["local"]["extraArgs"] == [{"name": "v", "value": "1"}]
    for version in ("v1.21.14", "v1.30.14", "v1.36.2"):
        assert configuration.problems(settings(kubernetes_version=version, **own)) == []


def test_timeouts_are_written_where_the_version_has_them() -> None:
    waits = {"timeouts": {"controlPlaneComponentHealthCheck": "6m0s"}}
    finds = {"timeouts": {"discovery": "7m0s"}}
    new, old = {"kubernetes_version": "v1.31.0"}, {"kubernetes_version": "v1.21.14"}
    assert init(init_configuration=waits, **new)["InitConfiguration"]["timeouts"] == waits["timeouts"]
    assert join(W1, None, join_configuration=finds, **new)["timeouts"] == finds["timeouts"]
    documents = init(init_configuration=waits, **old)
    assert "timeouts" not in documents["InitConfiguration"]
    assert documents["ClusterConfiguration"]["apiServer"]["timeoutForControlPlane"] == "6m0s"
    document = join(W1, None, join_configuration=finds, **old)
    assert "timeouts" not in document
    assert document["discovery"]["timeout"] == "7m0s"
    assert set(document["discovery"]) == {"bootstrapToken", "timeout"}
    assert configuration.problems(settings(init_configuration=waits, join_configuration=finds, **old)) == []


# Version, settings, and what is said of them.
REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "v1.30.14",
        {"kubelet_config": {"failCgroupV1": False}},
        [
            "kubelet_config.failCgroupV1: KubeletConfiguration has no such field in 1.30: Kubernetes has it from 1.31.",
        ],
    ),
    (
        "v1.36.2",
        {"kubelet_config": {"maxPod": 20}},
        ["kubelet_config.maxPod: KubeletConfiguration has no such field; did you mean maxPods?"],
    ),
    ("v1.36.2", {"kubelet_config": {"maxPods": "many"}}, ["kubelet_config.maxPods: must be a whole number of 32 bits"]),
    (
        "v1.26.0",
        {"kube_proxy_config": {"udpIdleTimeout": "1s"}},
        ["kube_proxy_config.udpIdleTimeout: KubeProxyConfiguration has no such field in 1.26: Kubernetes had it up to"],
    ),
    (
        "v1.31.0",
        {"cluster_configuration": {"apiServer": {"timeoutForControlPlane": "5m"}}},
        [
            "cluster_configuration.apiServer.timeoutForControlPlane: ClusterConfiguration has no such field in 1.31: "
            "Kubernetes had it up to 1.30; set init_configuration.timeouts.controlPlaneComponentHealthCheck instead.",
        ],
    ),
    (
        "v1.30.14",
        {"init_configuration": {"timeouts": {"etcdAPICall": "5m"}}},
        ["init_configuration.timeouts: InitConfiguration has no such field in 1.30: Kubernetes has it from 1.31."],
    ),
    (
        "v1.21.14",
        {"join_configuration": {"nodeRegistration": {"imagePullPolicy": "Never"}}},
        [
            "join_configuration.nodeRegistration.imagePullPolicy: JoinConfiguration has no such field in 1.21: "
            "Kubernetes has it from 1.22.",
        ],
    ),
    (
        "v1.36.2",
        {"cluster_configuration": {"networking": {"podSubnet": "10.0.0.0/8"}, "imageRepository": "site"}},
        [
            "cluster_configuration.networking.podSubnet: is not taken from here: set `pod_subnet` instead.",
            "cluster_configuration.imageRepository: is not taken from here: images are those of the bundle",
        ],
    ),
    (
        "v1.27.0",
        {"init_configuration": {"nodeRegistration": {"kubeletExtraArgs": {"node-ip": "::1"}}, "certificateKey": "x"}},
        [
            "init_configuration.nodeRegistration.kubeletExtraArgs.node-ip: is not taken from here: set `address` of",
            "init_configuration.certificateKey: is not taken from here: every run makes its own.",
        ],
    ),
    (
        "v1.36.2",
        {"join_configuration": {"controlPlane": {}, "discovery": {"bootstrapToken": {"token": "x"}}}},
        [
            "join_configuration.controlPlane: is not taken from here: a host is a control plane by its group",
            "join_configuration.discovery.bootstrapToken: is not taken from here: every run makes its own.",
        ],
    ),
    (
        "v1.36.2",
        {"kubelet_config": {"cgroupDriver": "cgroupfs", "kind": "KubeletConfiguration"}},
        [
            "kubelet_config.kind: is not taken from here: it follows from kubernetes_version",
            "kubelet_config.cgroupDriver: is not taken from here: the container runtime has systemd's too.",
        ],
    ),
    (
        "v1.30.14",
        {"cluster_configuration": {"scheduler": {"extraArgs": [{"name": "v", "value": "1"}] * 2}}},
        ["cluster_configuration.scheduler.extraArgs: has v more than once, which Kubernetes takes from 1.31 on."],
    ),
    (
        "v1.36.2",
        {"cluster_configuration": {"scheduler": {"extraArgs": [{"value": "1"}]}}},
        ["cluster_configuration.scheduler.extraArgs: must be names and values, or a list of entries of `name` and"],
    ),
    (
        "v1.36.2",
        {"cluster_configuration": {"scheduler": {"extraArgs": [{"name": ["v"], "value": "1"}]}}},
        [
            "cluster_configuration.scheduler.extraArgs: must be names and values, or a list of entries of `name` and",
            "cluster_configuration.scheduler.extraArgs[0].name: must be a string, not ['v'].",
        ],
    ),
    (
        "v1.36.2",
        {"cluster_configuration": {"scheduler": {"extraArgs": {"v": 4}}}},
        ["cluster_configuration.scheduler.extraArgs[0].value: must be a string, not 4."],
    ),
    (
        "v1.20.15",
        {},
        ["The fields of Kubernetes 1.20's configuration are not known here, only from 1.21 on; take that"],
    ),
]


@pytest.mark.parametrize(("version", "own", "said"), REFUSED)
def test_what_kubernetes_would_not_take_is_refused_by_the_name_of_its_setting(
    version: str, own: dict[str, Any], said: list[str]
) -> None:
    found = configuration.problems(settings(kubernetes_version=version, **own))
    assert len(found) == len(said), found
    assert [words for words, line in zip(said, found, strict=True) if not line.startswith(words)] == []


def test_argument_that_is_given_twice_is_taken_where_arguments_are_a_list() -> None:
    twice = [{"name": "service-account-issuer", "value": value} for value in ("a", "b")]
    own = {"cluster_configuration": {"apiServer": {"extraArgs": twice}}}
    assert configuration.problems(settings(**own)) == []
    assert init(**own)["ClusterConfiguration"]["apiServer"]["extraArgs"] == twice


def test_a_hosts_own_kubelet_configuration_is_a_patch_of_the_clusters() -> None:
    shared, own = settings(kubelet_config={"maxPods": 20}), settings(kubelet_config={"maxPods": 50})
    assert configuration.kubelet_patch(shared, shared) is None
    assert yaml.safe_load(configuration.kubelet_patch(own, shared) or "") == {"maxPods": 50}
    text = kubeadm.join_documents(own, TOPOLOGY, W1, TOKEN, HASH, None, patches=True)
    assert documents(text)["JoinConfiguration"]["patches"] == {"directory": "/etc/kubernetes/patches"}
    assert "patches" not in join(W1, None)


def test_a_kubelet_has_no_configuration_of_its_own_where_kubeadm_cannot_patch_it() -> None:
    def found(version: str, **others: Any) -> list[str]:
        own = settings(kubelet_config={"maxPods": 50}, kubernetes_version=version, **others)
        return configuration.kubelet_problems(own, settings(kubernetes_version=version))

    assert found("v1.25.0") == []
    (line,) = found("v1.24.17")
    assert "A kubelet has a configuration of its own from Kubernetes 1.25 on: set it in group_data/all.py" in line
    (line,) = found("v1.36.2", join_configuration={"patches": {"directory": "/etc/patches"}})
    assert "Put it there as kubeletconfiguration+merge.yaml." in line


def test_join_of_a_worker_has_no_control_plane_and_no_certificate_key() -> None:
    assert join(W1, None, api_port=8443) == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": "10.0.0.100:8443",
                "token": TOKEN,
                "caCertHashes": [HASH],
            }
        },
        "nodeRegistration": registration(W1),
    }


def test_join_of_a_control_plane_has_its_own_endpoint_and_the_key() -> None:
    document = join(CP2, KEY)
    assert document.pop("controlPlane") == {
        "localAPIEndpoint": {"advertiseAddress": "10.0.0.22", "bindPort": 6443},
        "certificateKey": KEY,
    }
    assert document["nodeRegistration"] == registration(CP2)


def test_the_authority_is_made_by_the_clusters_configuration_and_no_secret() -> None:
    text = kubeadm.authority_documents(settings(), TOPOLOGY)
    made = documents(text)
    assert made["ClusterConfiguration"] == init()["ClusterConfiguration"]
    assert made["InitConfiguration"]["nodeRegistration"] == registration(CP1)
    assert set(made) == {"InitConfiguration", "ClusterConfiguration"}
    for word in ("token", "certificateKey"):
        assert word not in text


@pytest.mark.parametrize("name", ["on", "007", "null"])
def test_names_that_yaml_would_take_for_something_else_stay_names(name: str) -> None:
    node = Node(name, IPv4Address("10.0.0.31"))
    assert join(node, None)["nodeRegistration"]["name"] == name
