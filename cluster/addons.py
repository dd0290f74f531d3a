"""Add-ons: those that are offered, what each needs, and what of the settings for them is refused beforehand."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.compatibility import parse
from cluster.ip_families import words
from cluster.lock import Lock
from cluster.settings import Settings, dns_server

# Where the first control plane keeps what is applied, and the bundle the manifests of a site's own.
DIRECTORY = "/etc/kubernetes/addons.d"
OWN = "addons"
# The address of node-local-dns on every node, of those that never leave a link.
LINK_LOCAL = "169.254.20.10"


@dataclass(frozen=True)
class Offered:
    """An add-on of this project's. `images`: name in its template -> repository; `removal`: how a person removes it."""

    images: dict[str, str] = field(default_factory=dict)
    removal: str = "kubectl delete -f {path} && rm {path}"


OFFERED = {
    # Deleting what was applied would delete the cluster's DNS.
    "coredns": Offered(
        removal="to have kubeadm's own again: `kubectl -n kube-system delete deployment,configmap coredns && "
        "kubeadm init phase addon coredns --config FILE && rm {path}`, FILE being the ClusterConfiguration that "
        "`kubectl -n kube-system get configmap kubeadm-config` shows"
    ),
    "node-local-dns": Offered({"image": "registry.k8s.io/dns/k8s-dns-node-cache"}),
    "metrics-server": Offered(
        {"image": "registry.k8s.io/metrics-server/metrics-server"},
        removal="kubectl delete -f {path} && kubectl -n kube-system delete secret metrics-server && "
        "kubectl delete apiservice v1beta1.metrics.k8s.io && rm {path}",
    ),
    "local-path": Offered({"image": "docker.io/rancher/local-path-provisioner", "helper": "docker.io/library/busybox"}),
    "ingress-nginx": Offered({"image": "registry.k8s.io/ingress-nginx/controller"}),
    "headlamp": Offered({"image": "ghcr.io/headlamp-k8s/headlamp"}),
}


def manifest(name: str) -> str:
    """Where the first control plane keeps the manifest of an add-on."""
    return f"{DIRECTORY}/{name}.yaml"


def removal(name: str) -> str:
    """How a person removes an add-on that was applied."""
    return OFFERED.get(name, Offered()).removal.format(path=manifest(name))


def images(name: str, lock: Lock) -> dict[str, str]:
    """The references that the template of an offered add-on names. Raises LookupError when the bundle has one not."""
    known = {image.name.rpartition(":")[0]: image.name for image in lock.images}
    wanted = OFFERED[name].images
    if absent := [repository for repository in wanted.values() if repository not in known]:
        raise LookupError(", ".join(absent))
    return {key: known[repository] for key, repository in wanted.items()}


def serving(settings: Settings) -> bool:
    """Whether kubelets serve by certificates of the cluster's CA, which metrics-server checks."""
    return bool(settings.kubelet_config.get("serverTLSBootstrap", "metrics-server" in settings.addons))


def cluster_dns(settings: Settings) -> str:
    """The address of the cluster's DNS Service: the tenth of its first family, as kubeadm has it."""
    return str(settings.service_subnet.first[10])


def problems(settings: Settings, lock: Lock) -> list[str]:
    """What cannot work of the settings for add-ons with this bundle, in words."""
    return [*_names(settings, lock), *_fit(settings)]


def _names(settings: Settings, lock: Lock) -> Iterator[str]:
    known = [*OFFERED, *(name for name in lock.addons if name not in OFFERED)]
    for name in dict.fromkeys(settings.addons):
        if settings.addons.count(name) > 1:
            yield f"addons: {name} is named twice."
        if name in OFFERED:
            try:
                images(name, lock)
            except LookupError as error:
                yield (
                    f"addons: {name} needs {error}, which the bundle has not. Add `addons: [{name}]` to bundle.yaml "
                    f"and build, or take {name} out of the setting."
                )
        elif name not in lock.addons:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            yield (
                f"addons: there is no {name}: neither is it one of {', '.join(OFFERED)}, nor has the bundle one of "
                f"this name, from `own_addons` in bundle.yaml.{meant}"
            )


def _fit(settings: Settings) -> Iterator[str]:
    """Settings that contradict each other."""
    defaults = type(settings).model_fields
    if "coredns" not in settings.addons:
        for name in ("dns_replicas", "dns_forwarders", "dns_zones", "dns_hosts"):
            if getattr(settings, name) != defaults[name].get_default(call_default_factory=True, validated_data={}):
                yield f"{name}: is set, and `addons` has not coredns, which it is for. Add coredns there."
    if empty := [zone for zone, servers in settings.dns_zones.items() if not servers]:
        yield f"dns_zones: {', '.join(empty)} has no server. Name one or more."
    if "metrics-server" in settings.addons and not serving(settings):
        yield (
            "addons: metrics-server checks the certificates of kubelets, and kubelet_config.serverTLSBootstrap is "
            "false. Take that out of kubelet_config."
        )
    servers = {"dns_forwarders": settings.dns_forwarders}
    servers |= {f"dns_zones {zone}": each for zone, each in settings.dns_zones.items()}
    for key, each in servers.items():
        if beyond := [server for server in each if dns_server(server).version not in settings.ip_families]:
            yield (
                f"{key}: {', '.join(beyond)} cannot be asked by CoreDNS, whose pods have {words(settings.ip_families)} "
                "alone, by pod_subnet. Name servers that have an address of it."
            )
    if "node-local-dns" in settings.addons and settings.ip_families[0] == 6:
        yield (
            f"addons: node-local-dns takes {LINK_LOCAL} on each node, an address of IPv4, and the cluster's DNS is at "
            f"{cluster_dns(settings)}. Take it out, or let IPv4 be the first family of pod_subnet and service_subnet."
        )
    if "node-local-dns" in settings.addons and settings.kube_proxy_mode != "iptables":
        yield (
            "addons: node-local-dns takes the address of the cluster's DNS on each node, which needs kube-proxy's "
            f"mode iptables, and kube_proxy_mode is {settings.kube_proxy_mode}. Take one of the two out."
        )


def spread(settings: Settings) -> dict[str, object]:
    """The constraint that keeps CoreDNS's pods on different nodes, with the fields that this Kubernetes knows.

    https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/: a node that is away or
    cordoned does not count (1.26), nor does a pod that a newer one is about to replace (1.27).
    """
    constraint: dict[str, object] = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    version = parse(settings.kubernetes_version)
    if version >= parse("1.26"):
        constraint["nodeTaintsPolicy"] = "Honor"
    if version >= parse("1.27"):
        constraint["matchLabelKeys"] = ["pod-template-hash"]
    return constraint


def corefile(settings: Settings) -> str:
    """kubeadm's own Corefile with what the settings change of it.

    https://github.com/kubernetes/kubernetes/blob/v1.36.2/cmd/kubeadm/app/phases/addons/dns/manifests.go. Without
    comments, which kubeadm's upgrade would not keep.
    """
    domain = settings.dns_domain
    cache = "    cache 30\n"
    if parse(settings.kubernetes_version) >= parse("1.32"):  # as kubeadm: what pods ask of pods is not cached
        cache = f"    cache 30 {{\n       disable success {domain}\n       disable denial {domain}\n    }}\n"
    rows = "".join(f"       {each} {name}\n" for name, own in settings.dns_hosts.items() for each in own.each)
    hosts = f"    hosts {{\n{rows}       fallthrough\n    }}\n" if rows else ""
    zones = "".join(
        f"{zone}:53 {{\n    errors\n    cache 30\n    forward . {' '.join(servers)}\n    loop\n    reload\n}}\n"
        for zone, servers in settings.dns_zones.items()
    )
    return (
        ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n"
        f"    kubernetes {domain} in-addr.arpa ip6.arpa {{\n       pods insecure\n"
        "       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n    prometheus :9153\n"
        f"{hosts}    forward . {' '.join(settings.dns_forwarders or ('/etc/resolv.conf',))} {{\n"
        f"       max_concurrent 1000\n    }}\n{cache}    loop\n    reload\n    loadbalance\n}}\n{zones}"
    )
