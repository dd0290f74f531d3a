"""Routes, names, sizes of packets, and the virtual IP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product
from typing import Any

from cluster.findings import Finding, names
from cluster.ip_families import Address, within
from cluster.networks import goes_unwrapped
from cluster.preflight.seen import Seen
from cluster.topology import Node


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of the network, ports apart."""
    for node in seen.nodes:
        if found := seen.names.get(node.name):
            yield from _route(seen, node.name, found)
            yield from _nameservers(seen, node.name, found)
    known = {each.name: [str(address) for address in each.addresses] for each in seen.topology.nodes}
    for node in seen.asked:
        if found := seen.names.get(node.name):
            yield from _hosts_file(known, node, found["hosts"])
    yield from _sizes(seen)
    yield from _next_hops(seen)
    yield from _virtual_ip(seen)
    yield from _peers(seen)


def _route(seen: Seen, name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    routes = [ip_network(route) for route in found["routes"]]
    for subnet in seen.cluster.service_subnet.each:
        if not any(within(subnet, route) for route in routes):
            yield Finding("default-route", (name,), f"no route leads to {subnet}, the addresses of Services")


def _nameservers(seen: Seen, name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    if seen.settings[name].kubelet_config.get("resolvConf"):
        return  # the site has chosen a file of its own
    # kubeadm has the kubelet read systemd-resolved's own list when that runs (1.36, componentconfigs/kubelet.go).
    path = "/run/systemd/resolve/resolv.conf" if found["resolved"] else "/etc/resolv.conf"
    servers = found["resolved_nameservers"] if found["resolved"] else found["nameservers"]
    if not servers:
        yield Finding("nameserver", (name,), f"{path} names no nameserver")
    for server in servers:
        if _loopback(server):
            yield Finding("nameserver-loop", (name,), f"{path} names {server}, the host itself")


def _loopback(address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _hosts_file(known: Mapping[str, list[str]], node: Node, lines: list[list[str]]) -> Iterator[Finding]:
    for address, *aliases in lines:
        for alias in aliases:
            # Debian gives a host's own name 127.0.1.1, and nothing here goes by its own name.
            own = alias == node.name and _loopback(address)
            if alias in known and address not in known[alias] and not own:
                what = f"/etc/hosts names {alias} as {address}, the inventory as {' and '.join(known[alias])}"
                yield Finding("hosts-file", (node.name,), what)


def _sizes(seen: Seen) -> Iterator[Finding]:
    sizes = {node.name: row["mtu"] for node in seen.asked if (row := seen.own_address(node))}
    if sizes:
        usual, _ = Counter(sizes.values()).most_common(1)[0]
        for name, size in sizes.items():
            if size != usual:
                yield Finding("mtu", (name,), f"an MTU of {size}, other hosts have {usual}")
    by_address = {str(node.address): node.name for node in seen.topology.nodes}
    for name, found in seen.pings.items():
        if lost := [by_address[address] for address, passed in found.items() if passed == "small"]:
            what = f"packets of its MTU ({sizes.get(name, 1500)}) do not reach {names(lost)}, small ones do"
            yield Finding("mtu-path", (name,), what)


def _next_hops(seen: Seen) -> Iterator[Finding]:
    if not goes_unwrapped(seen.cluster):
        return
    everybody = (*seen.topology.control_planes, *seen.topology.workers)
    for node, version in product(seen.nodes, seen.cluster.ip_families):
        if row := seen.own_address(node, version):
            subnet = ip_interface(f"{row['address']}/{row['prefix']}").network
            # One without an address of the family is refused before anybody is asked.
            if beyond := [each.name for each in everybody if (own := each.of(version)) and own not in subnet]:
                yield Finding("next-hop", (node.name,), f"{names(beyond)} are outside {subnet}, its own network")


def _virtual_ip(seen: Seen) -> Iterator[Finding]:
    for vip in seen.cluster.virtual_ips:
        yield from _one_virtual_ip(seen, vip)


def _one_virtual_ip(seen: Seen, vip: Address) -> Iterator[Finding]:
    balancers = seen.balancers
    for node in balancers:
        if node in seen.asked and (row := seen.own_address(node, vip.version)):
            subnet = ip_interface(f"{row['address']}/{row['prefix']}").network
            if vip not in subnet:
                what = f"vip {vip} is outside {subnet}, the subnet of its own address"
                yield Finding("vip-subnet", (node.name,), what)
    for node in seen.asked:
        rows = seen.hardware.get(node.name, {}).get("addresses", [])
        if node not in balancers and any(row["address"] == str(vip) for row in rows):
            what = f"vip {vip}: is on an interface here, and this host does not balance"
            yield Finding("vip-taken", (node.name,), what)
    if seen.vip_holders or not all(node in seen.asked for node in balancers):
        return  # one beyond --limit may have it
    by_mac = {row["mac"]: name for name, state in seen.hardware.items() for row in state["addresses"] if row["mac"]}
    for name, macs in seen.answers.items():
        if mac := macs.get(str(vip)):
            who = f" of {by_mac[mac]}" if mac in by_mac else ""
            what = f"something answers at it already ({mac}{who}, as seen by {name}) and no balancing host has it"
            yield Finding("vip-taken", (), f"vip {vip}: {what}")
            return


def _peers(seen: Seen) -> Iterator[Finding]:
    vips = [str(each) for each in seen.cluster.virtual_ips]
    for node in seen.balancers:
        for address, mac in seen.answers.get(node.name, {}).items():
            if mac is None and address not in vips:
                asked = "neighbour discovery" if ":" in address else "ARP"
                what = f"{address}, which balances too, does not answer {asked} here"
                yield Finding("vrrp-peers", (node.name,), what)
