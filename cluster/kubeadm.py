"""kubeadm's documents: what we want of a cluster and its nodes, in one model.

cluster/configuration.py has what the settings lay over it, cluster/api_versions.py how it is written for the version of
kubeadm's API that a Kubernetes reads.
"""

from __future__ import annotations

from ipaddress import ip_address

import yaml

from cluster import audit
from cluster.addons import serving
from cluster.api_versions import Document, Documents, api_version, written
from cluster.balancing import endpoint
from cluster.compatibility import parse
from cluster.configuration import PATCHES, given, merged
from cluster.endpoint import API_SERVER_PORT
from cluster.runtime import SOCKETS
from cluster.settings import Settings
from cluster.topology import Node, Topology

ROLE = "node-role.kubernetes.io/"


def init_documents(settings: Settings, topology: Topology, node: Node, token: str, certificate_key: str) -> str:
    """The configuration of `kubeadm init` on the first control plane, as YAML. Holds secrets."""
    init: Document = {
        "bootstrapTokens": [{"token": token, "ttl": "2h0m0s", "description": "joins of one run"}],
        "localAPIEndpoint": _endpoint(node),
        "nodeRegistration": _registration(settings, node, control_plane=True),
        "certificateKey": certificate_key,
    }
    own = {
        "InitConfiguration": init,
        "ClusterConfiguration": _cluster(settings, topology),
        "KubeletConfiguration": _kubelet(settings),
        "KubeProxyConfiguration": {"mode": settings.kube_proxy_mode},
    }
    return _yaml(settings, own)


def join_documents(
    settings: Settings,
    topology: Topology,
    node: Node,
    token: str,
    ca_hash: str,
    certificate_key: str | None,
    patches: bool = False,
) -> str:
    """The configuration of `kubeadm join`, as YAML; of a control plane when it has a certificate key.

    With `patches`, the kubelet is configured by KUBELET_PATCH too.
    """
    document: Document = {
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
    if patches:
        document["patches"] = {"directory": PATCHES}
    return _yaml(settings, {"JoinConfiguration": document})


def authority_documents(settings: Settings, topology: Topology) -> str:
    """The configuration of `kubeadm init phase certs ca` on the first control plane, as YAML; holds no secret."""
    return certificate_documents(settings, topology, topology.first_control_plane)


def certificate_documents(settings: Settings, topology: Topology, node: Node) -> str:
    """The configuration with which kubeadm makes and renews certificates of a control plane; holds no secret."""
    # Without the node's part kubeadm looks for an address and for the one runtime of the host itself.
    init = {"localAPIEndpoint": _endpoint(node), "nodeRegistration": _registration(settings, node, control_plane=True)}
    return _yaml(settings, {"InitConfiguration": init, "ClusterConfiguration": _cluster(settings, topology)})


def live_documents(settings: Settings, shared: Settings, topology: Topology, node: Node) -> str:
    """The configuration by which kubeadm would make this node now, were it the first; holds no secret of this run.

    + settings: the host's
    + shared: those of the first control plane, whose kubelet_config and init_configuration the cluster keeps
    """
    over = given(settings)
    if node != topology.first_control_plane:
        # kubeadm writes a node that joined by what its `join` was told.
        join = over["JoinConfiguration"]
        over["InitConfiguration"] = {name: join[name] for name in ("nodeRegistration", "patches") if name in join}
        over["KubeletConfiguration"] = given(shared)["KubeletConfiguration"]
        if settings.kubelet_config != shared.kubelet_config:
            own = given(settings)["KubeletConfiguration"]
            over["KubeletConfiguration"] = merged(over["KubeletConfiguration"], own)
    control_plane = node in topology.control_planes
    documents = {
        "InitConfiguration": {
            "localAPIEndpoint": _endpoint(node),
            "nodeRegistration": _registration(settings, node, control_plane),
        },
        "ClusterConfiguration": _cluster(settings, topology),
        "KubeletConfiguration": _kubelet(settings),
        "KubeProxyConfiguration": {"mode": settings.kube_proxy_mode},
    }
    return _yaml(settings, documents, over)


def shared_names(settings: Settings, topology: Topology) -> list[str]:
    """Names and addresses that the certificate of every API server has, in kubeadm's field `certSANs`."""
    names: list[str] = _cluster(settings, topology)["apiServer"]["certSANs"]
    return names


def api_server_names(settings: Settings, topology: Topology, node: Node) -> frozenset[str]:
    """All names and addresses that kubeadm writes into the certificate of this control plane's API server.

    GetAPIServerAltNames, https://github.com/kubernetes/kubernetes/blob/v1.36.2/cmd/kubeadm/app/util/pkiutil/pki_helpers.go
    """
    short = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
    own = (node.name, *short, f"{short[-1]}.{settings.dns_domain}", settings.service_subnet.first[1], node.address)
    return frozenset(_plain(str(name)) for name in (*own, *shared_names(settings, topology)))


def _plain(name: str) -> str:
    """An address as it is read back from a certificate."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _cluster(settings: Settings, topology: Topology) -> Document:
    """ClusterConfiguration: the part that kubeadm keeps in the cluster and every node shares."""
    names = [node.name for node in topology.control_planes]
    hosts = (*topology.control_planes, *topology.load_balancers)
    addresses = [str(address) for node in hosts for address in node.addresses]
    found = endpoint(settings, topology)
    entrances = [found.host, *settings.virtual_ips]
    sans = [*map(str, entrances), *names, *addresses, *settings.api_cert_extra_sans]
    return {
        "clusterName": settings.cluster_name,
        "kubernetesVersion": settings.kubernetes_version,
        "controlPlaneEndpoint": str(found),
        "networking": {
            "podSubnet": str(settings.pod_subnet),
            "serviceSubnet": str(settings.service_subnet),
            "dnsDomain": settings.dns_domain,
        },
        "apiServer": {"certSANs": list(dict.fromkeys(sans)), **audit.api_server(settings.audit_policy)},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
    }


def _kubelet(settings: Settings) -> Document:
    return {
        **({"serverTLSBootstrap": True} if serving(settings) else {}),
        "cgroupDriver": "systemd",
        # An image that garbage collection removes cannot be pulled again: collect late, and little.
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 93,
    }


def cri_socket(settings: Settings) -> str:
    """The URL at which kubeadm and the kubelet ask the container runtime."""
    return f"unix://{SOCKETS[settings.container_runtime]}"


def role_taints(settings: Settings, first: bool) -> list[str]:
    """Roles by whose taints pods stay away from a control plane: what the settings name, else kubeadm's own.

    Until 1.24 a control plane was a `master`
    (https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/kubeadm/2067-rename-master-label-taint).
    """
    registration = given(settings)["InitConfiguration" if first else "JoinConfiguration"].get("nodeRegistration", {})
    if "taints" in registration:
        rows = [each for each in registration["taints"] or [] if each.get("effect") == "NoSchedule"]
        return [each["key"].removeprefix(ROLE) for each in rows if each["key"].startswith(ROLE)]
    if settings.allow_scheduling_on_control_planes:
        return []
    minor = parse(settings.kubernetes_version)[:2]
    return [*(["master"] if minor < (1, 25) else []), *(["control-plane"] if minor >= (1, 24) else [])]


def _endpoint(node: Node) -> Document:
    return {"advertiseAddress": str(node.address), "bindPort": API_SERVER_PORT}


def _registration(settings: Settings, node: Node, control_plane: bool) -> Document:
    # An empty list is none; without the key kubeadm adds a control plane's own.
    taints: Document = {"taints": []} if control_plane and settings.allow_scheduling_on_control_planes else {}
    return {
        "name": node.name,
        "criSocket": cri_socket(settings),
        # Left to itself the kubelet may pick the virtual IP on a host that carries it.
        "kubeletExtraArgs": [{"name": "node-ip", "value": ",".join(map(str, node.addresses))}],
        **taints,
    }


def _yaml(settings: Settings, own: Documents, over: Documents | None = None) -> str:
    """Our documents, with what the settings lay over each, or else `over`, as this Kubernetes reads them."""
    over = given(settings) if over is None else over
    documents = written({kind: merged(own[kind], over[kind]) for kind in own}, settings.kubernetes_version)
    heads = {kind: {"apiVersion": api_version(kind, settings.kubernetes_version), "kind": kind} for kind in documents}
    whole = [{**heads[kind], **document} for kind, document in documents.items()]
    return yaml.safe_dump_all(whole, sort_keys=False, explicit_start=True)
