"""Fields that the deploy decides, because another setting does or because all else depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BUNDLE = "images are those of the bundle, by the names that kubeadm has for them"
PHASES = "the deploy relies on every phase of kubeadm"
RUN = "every run makes its own"
DRY = "use `--dry` of pyinfra"
FILES = "kubeadm and the kubelet's service agree on it"
RUNTIME = "set `container_runtime` instead"
SUBNET = "set `service_subnet` instead"
# The arguments of a program are below its extraArgs by their names.
REGISTRATION = {
    "nodeRegistration.name": "a node has the host's name in the inventory",
    "nodeRegistration.criSocket": RUNTIME,
    "nodeRegistration.ignorePreflightErrors": "set `ignore_preflight_errors` instead",
    "nodeRegistration.kubeletExtraArgs.node-ip": "set `address` of the host instead",
    "nodeRegistration.kubeletExtraArgs.hostname-override": "a node has the host's name in the inventory",
    "nodeRegistration.kubeletExtraArgs.container-runtime": RUNTIME,
    "nodeRegistration.kubeletExtraArgs.container-runtime-endpoint": RUNTIME,
    "nodeRegistration.kubeletExtraArgs.cgroup-driver": "the container runtime has systemd's too",
    "nodeRegistration.kubeletExtraArgs.config": FILES,
    "nodeRegistration.kubeletExtraArgs.kubeconfig": FILES,
    "nodeRegistration.kubeletExtraArgs.bootstrap-kubeconfig": FILES,
    "dryRun": DRY,
    "skipPhases": PHASES,
}
OWNED = {
    "InitConfiguration": {
        **REGISTRATION,
        "bootstrapTokens": RUN,
        "certificateKey": RUN,
        "localAPIEndpoint.advertiseAddress": "set `address` of the host instead",
        "localAPIEndpoint.bindPort": "load balancers ask every API server at 6443; `api_port` is the virtual IP's",
    },
    "JoinConfiguration": {
        **REGISTRATION,
        "caCertPath": "it is /etc/kubernetes/pki/ca.crt",
        "controlPlane": "a host is a control plane by its group in the inventory",
        "discovery.bootstrapToken": RUN,
        "discovery.file": RUN,
        "discovery.tlsBootstrapToken": RUN,
    },
    "ClusterConfiguration": {
        "clusterName": "set `cluster_name` instead",
        "kubernetesVersion": "set `kubernetes_version` instead",
        "controlPlaneEndpoint": "set `vip` and `api_port`, or `control_plane_endpoint` instead",
        "networking.podSubnet": "set `pod_subnet` instead",
        "networking.serviceSubnet": SUBNET,
        "networking.dnsDomain": "set `dns_domain` instead",
        "certificatesDir": "it is /etc/kubernetes/pki",
        "imageRepository": BUNDLE,
        "useHyperKubeImage": BUNDLE,
        "apiServer.certSANs": "set `api_cert_extra_sans` instead",
        "apiServer.extraArgs.advertise-address": "set `address` of the host instead",
        "apiServer.extraArgs.secure-port": "load balancers ask every API server at 6443",
        "apiServer.extraArgs.service-cluster-ip-range": SUBNET,
        "apiServer.extraArgs.anonymous-auth": "load balancers ask /readyz without credentials",
        "controllerManager.extraArgs.cluster-cidr": "set `pod_subnet` instead",
        "controllerManager.extraArgs.service-cluster-ip-range": SUBNET,
        "controllerManager.extraArgs.allocate-node-cidrs": "the pod network wants a subnet for each node",
        "etcd.external": "etcd runs on the control planes",
        "etcd.local.dataDir": "it is /var/lib/etcd",
        "etcd.local.extraArgs.data-dir": "it is /var/lib/etcd",
        "etcd.local.imageRepository": BUNDLE,
        "etcd.local.imageTag": BUNDLE,
        "dns.type": "the cluster has CoreDNS",
        "dns.disabled": "`verify` asks the cluster's DNS",
        "dns.imageRepository": BUNDLE,
        "dns.imageTag": BUNDLE,
        "proxy.disabled": "kube-proxy is by what a finished `init` is known",
    },
    "KubeletConfiguration": {
        "cgroupDriver": "the container runtime has systemd's too",
        "clusterDomain": "set `dns_domain` instead",
        "containerRuntimeEndpoint": RUNTIME,
        "imageServiceEndpoint": RUNTIME,
        "staticPodPath": "it is /etc/kubernetes/manifests",
    },
    "KubeProxyConfiguration": {
        "mode": "set `kube_proxy_mode` instead",
        "clusterCIDR": "set `pod_subnet` instead",
        "clientConnection.kubeconfig": "kubeadm mounts it",
    },
}


def problems(kind: str, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a person's document that are not theirs to set: (path, who decides it instead)."""
    given = set(_paths(document))
    for path in ("apiVersion", "kind"):
        if path in given:
            yield path, f"is not taken from here: it follows from kubernetes_version and is {kind}'s"
    for path, words in OWNED[kind].items():
        if path in given:
            yield path, f"is not taken from here: {words}"


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Paths of all fields; what has a `name` in a list is found by it."""
    if isinstance(value, dict):
        named = value.items()
    elif isinstance(value, list):
        named = {str(each["name"]): each for each in value if isinstance(each, dict) and "name" in each}.items()
    else:
        return
    for name, each in named:
        path = f"{above}.{name}".lstrip(".")
        yield path
        yield from _paths(each, path)
