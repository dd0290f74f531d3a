"""Pod networks and kube-proxy's modes: their signs on a node, what they need of the kernel, and what cannot be."""

from __future__ import annotations

from cluster.compatibility import mode_refusal
from cluster.ip_families import words
from cluster.settings import Settings

# A network's own file in /etc/cni/net.d; one that the user installs may have any.
CNI_FILES = {
    "flannel": "10-flannel.conflist", "calico": "10-calico.conflist", "cilium": "05-cilium.conflist",
    "bridge": "10-bridge.conflist",
}  # fmt: skip
# Networks whose routes, rules and pools are of IPv4 alone (docs/ipv6.md).
OF_IPV4 = ("bridge", "calico")
# kube-proxy in mode nftables starts on no older kernel (pkg/proxy/nftables/supported.go of Kubernetes).
NFTABLES_KERNEL = "5.13"
# Documentation/operations/system_requirements.rst of Cilium's releases: what programs of eBPF are attached by, and what
# masquerading by iptables and VXLAN ask for. Both file systems are mounted by Cilium where nobody has.
CILIUM = ("bpf", "cgroup2", "cls_bpf", "sch_ingress", "ip_set", "ip_set_hash_ip", "xt_set", "vxlan")


def goes_unwrapped(settings: Settings) -> bool:
    """Whether pods' packets go from node to node as they are, with the other node as their next hop."""
    return settings.cni == "bridge" or (settings.cni == "flannel" and settings.flannel_backend == "host-gw")


def modules(settings: Settings) -> list[tuple[str, ...]]:
    """What the network asks of the kernel, each as modules any of which will do."""
    if settings.cni == "flannel":
        return [("vxlan",)] if settings.flannel_backend == "vxlan" else []
    if settings.cni == "cilium":
        return [(name,) for name in CILIUM]
    if settings.cni != "calico":
        return []
    # https://docs.tigera.io/calico/latest/getting-started/kubernetes/requirements#kernel-dependencies
    sets: list[tuple[str, ...]] = [] if settings.kube_proxy_mode == "nftables" else [("ip_set",), ("xt_set",)]
    return [*sets, *({"vxlan": [("vxlan",)], "ipip": [("ipip",)], "bgp": []}[settings.calico_encapsulation])]


def proxy_modules(settings: Settings) -> tuple[str, ...]:
    """What kube-proxy asks of the kernel beyond packet filters, all of it.

    https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-ipvs
    """
    if settings.kube_proxy_mode != "ipvs":
        return ()
    return ("ip_vs", f"ip_vs_{settings.kube_proxy_config.get('ipvs', {}).get('scheduler') or 'rr'}")


def problems(settings: Settings) -> list[str]:
    """Why Kubernetes cannot have the network or the mode of kube-proxy that the settings ask for, in words."""
    refused = mode_refusal(settings.kubernetes_version, settings.kube_proxy_mode)
    found = [f"kube_proxy_mode: {refused}"] if refused else []
    if settings.cni in OF_IPV4 and 6 in settings.ip_families:
        found.append(
            f"cni: is {settings.cni}, which is made for IPv4 alone here, and pod_subnet {settings.pod_subnet} is "
            f"{words(settings.ip_families)}. Take flannel or cilium, or with `none` a network of your own, or "
            "give networks of IPv4."
        )
    return found
