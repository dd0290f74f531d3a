"""What else is on a host that the cluster will meet: proxies, other runtimes, firewalls, security modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from cluster.findings import Finding
from cluster.firewall import KNOWN
from cluster.ip_families import Network, within
from cluster.preflight.seen import Seen
from cluster.runtime import SOCKETS

# What cannot be looked at without a program.
BLIND = {
    "ip": "addresses, MAC addresses and MTUs were not looked at",
    "ping": "it was not tried whether packets of full size pass",
    "bash": "it was not tried which ports are reached",
    "find": "it was not looked at which process has a port",
    "xargs": "it was not tried which hosts are reached",
}


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of the surroundings."""
    nodes = seen.nodes
    for host in seen.asked:
        if found := seen.surroundings.get(host.name):
            yield from _everywhere(host.name, found, seen)
            if host in nodes:
                yield from _on_nodes(host.name, found, seen)
                yield from _before_ours(seen, host.name, found)


def _everywhere(name: str, found: Mapping[str, Any], seen: Seen) -> Iterator[Finding]:
    for source, variables in found["proxies"].items():
        if caught := _caught(variables, seen):
            proxy = next(value for key, value in variables.items() if key != "no_proxy")
            yield Finding("proxy", (name,), f"{source} sends {', '.join(caught)} to the proxy {proxy}")
    opened = KNOWN if seen.cluster.host_firewall == "open" else ()
    for what in found["firewalls"]:
        if what not in opened:
            yield Finding("firewall", (name,), f"{what} is active")
    if found["selinux"] == "enforcing" and seen.cluster.selinux == "leave":
        yield Finding("selinux", (name,), "SELinux is enforcing")
    for tool in found["missing"]:
        yield Finding("tools", (name,), f"there is no `{tool}`, so {BLIND[tool]}")


def _on_nodes(name: str, found: Mapping[str, Any], seen: Seen) -> Iterator[Finding]:
    own = SOCKETS[seen.cluster.container_runtime].removeprefix("/var")
    for path in (each for each in found["sockets"] if each != own):
        yield Finding("other-runtime", (name,), f"another container runtime listens at {path}")
    for path in found["drop_ins"]:
        yield Finding("containerd-drop-in", (name,), f"there is {path}")
    if found["apparmor_without_parser"]:
        yield Finding("apparmor", (name,), "the kernel has AppArmor, and there is no apparmor_parser")
    if found["network_manager"] and seen.cluster.network_manager == "leave":
        yield Finding("network-manager", (name,), "NetworkManager runs and is not told to leave pods' interfaces alone")


def _before_ours(seen: Seen, name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    if found["packages"]:
        yield Finding("containerd-package", (name,), f"the package {', '.join(found['packages'])} is installed")
    # What a run of ours has begun has its configuration from the package, until it is written.
    if found["containerd_config"] and not seen.leftovers.get(name, {}).get("ours"):
        yield Finding("containerd-config", (name,), "/etc/containerd/config.toml is there")


def _caught(variables: Mapping[str, str], seen: Seen) -> list[str]:
    """What of the cluster these variables send to a proxy."""
    if set(variables) <= {"no_proxy"}:
        return []
    settings = seen.cluster
    wanted = {
        "the virtual IP": [ip_network(each) for each in settings.virtual_ips],
        "service_subnet": settings.service_subnet.each,
        **{node.name: [ip_network(each) for each in node.addresses] for node in seen.topology.nodes},
    }
    excepted = variables.get("no_proxy", "")
    lost = [what for what, each in wanted.items() if not all(bypassed(excepted, network) for network in each)]
    hosts = [what for what in lost if what not in ("the virtual IP", "service_subnet")]
    return [what for what in lost if what not in hosts] + (["hosts of the inventory"] if hosts else [])


def bypassed(no_proxy: str, network: Network) -> bool:
    """Whether an address or network is excepted, as Go reads `no_proxy` (golang.org/x/net/http/httpproxy)."""
    for entry in no_proxy.replace(" ", ",").split(","):
        if entry == "*":
            return True
        try:
            if within(network, ip_network(entry, strict=False)):
                return True
        except ValueError:
            continue  # a name, which excepts no address
    return False
