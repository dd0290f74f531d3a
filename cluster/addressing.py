"""Addresses of hosts, pods and Services: whether they are of the same families, apart, and large enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cluster.api_versions import modelled
from cluster.ip_families import Network, words
from cluster.settings import Settings
from cluster.topology import Node, Topology

# What kube-controller-manager gives each node of the pod subnet unless told otherwise, by family
# (https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/).
NODE_PREFIXES = {4: 24, 6: 64}
ALTOGETHER = "node-cidr-mask-size"
# kubeadm refuses other sizes: PodSubnetNodeMaskMaxDiff, MaximumBitsForServiceSubnet, MinimumAddressesInServiceSubnet
# (kubeadm 1.36, app/constants/constants.go).
NODE_BITS, SERVICE_BITS, SERVICE_ADDRESSES = 16, 20, 10


def check(topology: Topology, settings: Settings) -> list[str]:
    """Every reason why these addresses and networks cannot be those of a cluster, in words."""
    found = [*_families(topology, settings), *_apart(topology, settings)]
    for subnet in settings.pod_subnet.each:
        found += _pods(subnet, topology, settings)
    for subnet in settings.service_subnet.each:
        found += _services(subnet)
    return found


def _families(topology: Topology, settings: Settings) -> Iterator[str]:
    wanted, pods = settings.ip_families, f"pod_subnet {settings.pod_subnet} is {words(settings.ip_families)}"
    if settings.service_subnet.versions != wanted:
        yield (
            f"service_subnet {settings.service_subnet}: is {words(settings.service_subnet.versions)}, and {pods}. Give "
            "both the same families in the same order."
        )
    vips: tuple[int, ...] = tuple(each.version for each in settings.virtual_ips)
    if vips != wanted[: len(vips)]:
        yield (
            f"vip {settings.vip}: is {words(vips)}, and {pods}. Give one of the cluster's first family, or one of each "
            "in the same order."
        )
    nodes = (*topology.control_planes, *topology.workers)
    yield from _hosts(nodes, [wanted], pods)
    # A load balancer needs no address of a family in which nobody asks it.
    enough = wanted[: max(len(vips), 1)]
    yield from _hosts(topology.load_balancers, [enough, wanted], pods)


def _hosts(nodes: Iterable[Node], wanted: list[tuple[int, ...]], pods: str) -> Iterator[str]:
    found: dict[tuple[int, ...], list[str]] = {}
    for node in nodes:
        versions: tuple[int, ...] = tuple(each.version for each in node.addresses)
        if versions not in wanted:
            found.setdefault(versions, []).append(f"{node.name} ({','.join(map(str, node.addresses))})")
    for versions, names in found.items():
        yield (
            f"{', '.join(names)}: `address` is {words(versions)}, and {pods}. Give `address` "
            f"{words(wanted[0])}{' in this order, with a comma between' if len(wanted[0]) > 1 else ' alone'}."
        )


def _apart(topology: Topology, settings: Settings) -> Iterator[str]:
    subnets = [(key, each) for key in ("pod_subnet", "service_subnet") for each in getattr(settings, key).each]
    for pods in settings.pod_subnet.each:
        for services in settings.service_subnet.each:
            if pods.version == services.version and pods.overlaps(services):
                yield (
                    f"pod_subnet {pods} overlaps service_subnet {services}: an address would mean two things. Choose "
                    "networks apart."
                )
    inhabitants = [(node.name, address) for node in topology.nodes for address in node.addresses]
    inhabitants += [("vip", address) for address in settings.virtual_ips]
    for key, subnet in subnets:
        if inside := [f"{name} ({address})" for name, address in inhabitants if address in subnet]:
            yield (
                f"{key} {subnet} holds the address of {', '.join(inside)}: packets to it would go to pods or "
                f"Services. Choose another {key}."
            )


def _pods(subnet: Network, topology: Topology, settings: Settings) -> Iterator[str]:
    prefix = node_prefix(settings, subnet.version)
    room = 2 ** (prefix - subnet.prefixlen) if subnet.prefixlen <= prefix else 0
    wanted = len(topology.control_planes) + len(topology.workers)
    if room < wanted:
        yield (
            f"pod_subnet {subnet}: has room for {room} nodes of a /{prefix} each, the inventory has {wanted}. Choose a "
            "larger network."
        )
    elif room > 2**NODE_BITS:
        yield (
            f"pod_subnet {subnet}: is larger than Kubernetes takes where each node has a /{prefix}. Choose a network "
            f"from /{prefix - NODE_BITS} on."
        )


def node_prefix(settings: Settings, version: int) -> int:
    """The size of each node's part of the pod subnet of a family: the default's, or what the settings give
    kube-controller-manager."""
    document = modelled("ClusterConfiguration", settings.cluster_configuration)
    manager = document.get("controllerManager")
    given = manager.get("extraArgs") if isinstance(manager, dict) else None
    sizes = {each.get("name"): each.get("value") for each in given or () if isinstance(each, dict)}
    size = str(sizes.get(f"{ALTOGETHER}-ipv{version}", sizes.get(ALTOGETHER, "")))
    # What is no number is refused as a value of an argument.
    return int(size) if size.isdigit() else NODE_PREFIXES[version]


def _services(subnet: Network) -> Iterator[str]:
    largest = subnet.max_prefixlen - SERVICE_BITS
    if subnet.prefixlen < largest:
        yield (
            f"service_subnet {subnet}: is larger than Kubernetes takes, a /{largest}. Choose a smaller network, such "
            f"as {subnet.network_address}/{largest}."
        )
    elif subnet.num_addresses < SERVICE_ADDRESSES:
        yield (
            f"service_subnet {subnet}: has {subnet.num_addresses} addresses, and the tenth is that of the cluster's "
            "DNS. Choose a larger network."
        )
