"""kubeadm's documents."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml

from cluster import kubeadm
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
        "imagePullPolicy": "IfNotPresent",
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
    own = {"failCgroupV1": False, "cgroupDriver": "cgroupfs", "evictionHard": {"memory.available": "100Mi"}}
    document = init(kubelet_config=own)["KubeletConfiguration"]
    assert document == {**kubeadm.kubelet_configuration(settings()), **own}
    assert settings(kubelet_config=own).kubelet_config == own
    proxy = init(kube_proxy_config={"mode": "nftables", "conntrack": {"min": 0}})["KubeProxyConfiguration"]
    assert (proxy["mode"], proxy["conntrack"]) == ("nftables", {"min": 0})


def test_objects_are_merged_and_lists_and_values_replaced() -> None:
    base = {"a": {"x": 1, "y": {"z": 1}}, "list": [1, 2], "object": {"k": 1}, "value": 1}
    over = {"a": {"y": {"w": 2}}, "list": [3], "object": None, "value": {"k": 2}, "new": 3}
    assert kubeadm._merged(base, over) == {
        "a": {"x": 1, "y": {"z": 1, "w": 2}},
        "list": [3],
        "object": None,
        "value": {"k": 2},
        "new": 3,
    }
    assert base["a"] == {"x": 1, "y": {"z": 1}}


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


def test_cluster_document_holds_no_secret_and_no_node() -> None:
    text = kubeadm.cluster_document(settings(), TOPOLOGY)
    assert documents(text) == {"ClusterConfiguration": init()["ClusterConfiguration"]}
    for word in ("token", "certificateKey", "nodeRegistration", "advertiseAddress"):
        assert word not in text


@pytest.mark.parametrize("name", ["on", "007", "null"])
def test_names_that_yaml_would_take_for_something_else_stay_names(name: str) -> None:
    node = Node(name, IPv4Address("10.0.0.31"))
    assert join(node, None)["nodeRegistration"]["name"] == name
