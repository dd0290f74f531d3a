"""Who balances the API and where it is found, by `load_balancing`, and what of that cannot be."""

from __future__ import annotations

from cluster.endpoint import API_SERVER_PORT, Endpoint
from cluster.ip_families import Address
from cluster.settings import Settings
from cluster.topology import Node, Topology


def balancers(settings: Settings, topology: Topology) -> tuple[Node, ...]:
    """Hosts that run HAProxy and Keepalived; none when the site balances or nobody does."""
    hosts = {"dedicated": topology.load_balancers, "control-planes": topology.control_planes}
    return hosts.get(settings.load_balancing, ())


def endpoint(settings: Settings, topology: Topology) -> Endpoint:
    """Where nodes and people find the API; settings and topology have passed `check`."""
    if settings.control_plane_endpoint:
        return Endpoint.parse(settings.control_plane_endpoint)
    if settings.virtual_ip:
        return Endpoint(settings.virtual_ip, settings.api_port)
    return Endpoint(topology.first_control_plane.address, API_SERVER_PORT)


def names(settings: Settings, topology: Topology) -> dict[str, tuple[Address, ...]]:
    """The endpoint's name with its addresses, where this project knows it; an external one is in the site's DNS."""
    name = endpoint(settings, topology).name
    if name is None or settings.load_balancing == "external":
        return {}
    return {name: settings.virtual_ips or topology.first_control_plane.addresses}


def check(topology: Topology, settings: Settings) -> list[str]:
    """Every reason why the API cannot be balanced and found in this way, in words; an empty list when there is none."""
    modes = {"dedicated": _balanced, "control-planes": _balanced, "external": _external, "none": _unbalanced}
    return [*_hosts(topology, settings), *modes[settings.load_balancing](topology, settings)]


def _hosts(topology: Topology, settings: Settings) -> list[str]:
    names = ", ".join(node.name for node in topology.load_balancers)
    if settings.load_balancing == "dedicated" and not names:
        return [
            'no host in group load_balancer: load_balancing "dedicated" needs at least one. Add it to the inventory, '
            'or choose "control-planes", "external" or "none".'
        ]
    if settings.load_balancing != "dedicated" and names:
        return [
            f'{names}: in group load_balancer, which load_balancing "{settings.load_balancing}" does not have. Take '
            'the group out of the inventory, or choose "dedicated".'
        ]
    return []


def _balanced(topology: Topology, settings: Settings) -> list[str]:
    """Findings where HAProxy and Keepalived balance."""
    if settings.vip is None:
        return [
            f'vip: must be set for load_balancing "{settings.load_balancing}". Choose an address in the subnet of the '
            f"{'load balancers' if settings.load_balancing == 'dedicated' else 'control planes'} that no host has."
        ]
    found = [
        f"vip {vip}: is the address of {node.name}. Choose an address that no host has."
        for vip in settings.vip.each
        for node in topology.nodes
        if vip in node.addresses
    ]
    if settings.control_plane_endpoint:
        given = Endpoint.parse(settings.control_plane_endpoint)
        if given.name is None and given.host not in settings.vip.each:
            found.append(
                f"control_plane_endpoint {given}: is another address than vip {settings.vip}, which the balancing "
                "hosts hold. Leave it out, or give a name."
            )
        found += [
            f"control_plane_endpoint {given}: is the name of a host, and stands for vip {settings.vip}. Choose a name "
            "that no host has."
            for node in topology.nodes
            if node.name == given.name
        ]
        if given.port != settings.api_port:
            found.append(
                f"control_plane_endpoint {given}: HAProxy listens on {settings.api_port} (api_port). Give both the "
                "same port."
            )
    return found


def _external(topology: Topology, settings: Settings) -> list[str]:
    if settings.control_plane_endpoint is None:
        return [
            'control_plane_endpoint: must be set for load_balancing "external". Give the name or address and the port '
            "of the site's load balancer."
        ]
    given = Endpoint.parse(settings.control_plane_endpoint)
    subnets = {"pod_subnet": settings.pod_subnet.each, "service_subnet": settings.service_subnet.each}
    found = [
        f"control_plane_endpoint {given}: is inside {key} {subnet}, so that packets to it would go to pods or "
        f"Services. Choose another {key}."
        for key, each in subnets.items()
        for subnet in each
        if not isinstance(given.host, str) and given.host in subnet
    ]
    return found + [
        f"control_plane_endpoint {given}: is {node.name} itself, which balances nothing. Give the load balancer's, or "
        'choose load_balancing "none".'
        for node in topology.nodes
        if given.host in (node.name, *node.addresses)
    ]


def _unbalanced(topology: Topology, settings: Settings) -> list[str]:
    found = []
    if len(topology.control_planes) > 1:
        found.append(
            f'load_balancing "none": the API is at one control plane only, and the inventory has '
            f"{len(topology.control_planes)}. Choose another way, or leave one control plane."
        )
    if settings.control_plane_endpoint is None or not topology.control_planes:
        return found
    given, first = Endpoint.parse(settings.control_plane_endpoint), topology.first_control_plane
    others = [node for node in topology.nodes if node != first]
    if given.host in [node.name for node in others] or (given.name is None and given.host not in first.addresses):
        found.append(
            f"control_plane_endpoint {given}: is not {first.name} ({first.address}), where the API is with "
            'load_balancing "none". Give a name of its own, that address, or leave it out.'
        )
    if given.port != API_SERVER_PORT:
        found.append(
            f'control_plane_endpoint {given}: with load_balancing "none" the API is on {API_SERVER_PORT}. Give that '
            "port."
        )
    return found
