"""kubeadm's documents, v1beta4 (https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cluster.balancing import endpoint
from cluster.endpoint import API_SERVER_PORT
from cluster.settings import Settings
from cluster.topology import Node, Topology

API_VERSION = "kubeadm.k8s.io/v1beta4"
CRI_SOCKET = "unix:///run/containerd/containerd.sock"
Document = dict[str, Any]


def init_documents(settings: Settings, topology: Topology, node: Node, token: str, certificate_key: str) -> str:
    """The configuration of `kubeadm init` on the first control plane, as YAML. Holds secrets."""
    return _yaml(
        {
            "apiVersion": API_VERSION,
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": token, "ttl": "2h0m0s", "description": "joins of one run"}],
            "localAPIEndpoint": _endpoint(node),
            "nodeRegistration": _registration(settings, node, control_plane=True),
            "certificateKey": certificate_key,
        },
        cluster_configuration(settings, topology),
        kubelet_configuration(settings),
        kube_proxy_configuration(settings),
    )


def join_documents(
    settings: Settings, topology: Topology, node: Node, token: str, ca_hash: str, certificate_key: str | None
) -> str:
    """The configuration of `kubeadm join`, as YAML; of a control plane when it has a certificate key."""
    document: Document = {
        "apiVersion": API_VERSION,
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": str(endpoint(settings, topology)),
                "token": token,
                "caCertHashes": [ca_hash],
            }
        },
        "nodeRegistration": _registration(settings, node, control_plane=certificate_key is not None),
    }
    if certificate_key is not None:
        document["controlPlane"] = {"localAPIEndpoint": _endpoint(node), "certificateKey": certificate_key}
    return _yaml(document)


def cluster_configuration(settings: Settings, topology: Topology) -> Document:
    """ClusterConfiguration: the part that kubeadm keeps in the cluster and every node shares."""
    names = [node.name for node in topology.control_planes]
    addresses = [str(node.address) for node in (*topology.control_planes, *topology.load_balancers)]
    found = endpoint(settings, topology)
    entrances = [found.host, *([settings.virtual_ip] if settings.virtual_ip else [])]
    sans = [*map(str, entrances), *names, *addresses, *settings.api_cert_extra_sans]
    return {
        "apiVersion": API_VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": settings.cluster_name,
        "kubernetesVersion": settings.kubernetes_version,
        "controlPlaneEndpoint": str(found),
        "networking": {
            "podSubnet": str(settings.pod_subnet),
            "serviceSubnet": str(settings.service_subnet),
            "dnsDomain": settings.dns_domain,
        },
        "apiServer": {"certSANs": list(dict.fromkeys(sans))},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
    }


def cluster_document(settings: Settings, topology: Topology) -> str:
    """ClusterConfiguration alone, as YAML; holds no secret."""
    return _yaml(cluster_configuration(settings, topology))


def kubelet_configuration(settings: Settings) -> Document:
    """KubeletConfiguration of every node."""
    own: Document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        # An image that garbage collection removes cannot be pulled again: collect late, and little.
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 93,
    }
    return _merged(own, settings.kubelet_config)


def kube_proxy_configuration(settings: Settings) -> Document:
    """KubeProxyConfiguration of every node."""
    own: Document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
    }
    return _merged(own, settings.kube_proxy_config)


def _endpoint(node: Node) -> Document:
    return {"advertiseAddress": str(node.address), "bindPort": API_SERVER_PORT}


def _registration(settings: Settings, node: Node, control_plane: bool) -> Document:
    # An empty list is none; without the key kubeadm adds a control plane's own.
    taints: Document = {"taints": []} if control_plane and settings.allow_scheduling_on_control_planes else {}
    return {
        "name": node.name,
        "criSocket": CRI_SOCKET,
        "imagePullPolicy": "IfNotPresent",
        # Left to itself the kubelet may pick the virtual IP on a host that carries it.
        "kubeletExtraArgs": [{"name": "node-ip", "value": str(node.address)}],
        **taints,
    }


def _merged(base: Document, over: Mapping[str, Any]) -> Document:
    """`over` laid on `base`, objects key by key, everything else whole."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _yaml(*documents: Document) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)
