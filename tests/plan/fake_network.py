"""What the machines of fake_nodes.py know of the network between them: who answers, firewalls, load balancers."""

from __future__ import annotations

import re
import shlex
from typing import Any

from cluster import bridge
from cluster.ports import load as port_rules
from facts.firewall import Firewall
from facts.haproxy import Backends
from facts.keepalived import Vrrp
from facts.network import Answers, Listeners, Pings, Reach, RoutesAndNames
from facts.pod_network import PodNetwork
from operations.firewall import RELOAD
from tests.plan.fake_nodes import HAPROXY, SERVER, Node, Refused, command, fact


@fact(Vrrp, vip="ANY_vip")
def _(node: Node, vip: str) -> str:
    words = {"installed": node.has("keepalived"), "running": node.active("keepalived.service")}
    return "\n".join(word for word, true in {**words, "vip": node.world.holder(vip) == node.name}.items() if true)


@fact(Answers, address="ANY_address")
def _(node: Node, address: str) -> str:
    who = node.world.holder(address)
    macs = [each.mac for each in node.world.nodes.values() if each.name == who or address in each.addresses]
    return f"replied\n{address} dev eth0 lladdr {macs[0]} REACHABLE" if macs else ""


@fact(RoutesAndNames, names=("ANY_names",))
def _(node: Node, names: str) -> str:
    shlex.split(names)
    lines = ["nameserver 10.0.0.2"]
    if "." in node.state["address"]:
        lines += ["route 00000000 00000000 0003", "route 0000000A 00FFFFFF 0001"]
    if node.has_ipv6:
        lines.append(f"route6 {'0' * 32} 00 00000003")
    return "\n".join(lines)


@fact(Listeners, ports=("ANY_ports",))  # type: ignore[arg-type]
def _(node: Node, ports: str) -> str:
    there = {int(port): f"- {process}" for port, process in node.state["held"].items()}
    if node.active("haproxy.service"):
        for port in re.findall(r"bind (?:\*|\[::\]):(\d+)", node.files[HAPROXY]["text"]):
            there[int(port)] = "haproxy.service haproxy"
    if node.active(SERVER):
        there |= {
            int(port): f"{SERVER} nginx" for port in re.findall(r"listen \S+:(\d+) ssl", node.units[SERVER]["config"])
        }
    role = node.world.cluster["nodes"].get(node.name)
    for rule in port_rules():
        if role and rule.process and isinstance(rule.port, int) and rule.to == role.replace("-", "_"):
            there[rule.port] = f"kubelet.service {rule.process[:15]}"
    return "\n".join(f"{port:04X} {who}" for port, who in there.items() if str(port) in ports.split())


@fact(Reach, targets=("ANY_targets",))
def _(node: Node, targets: str) -> str:
    return "\n".join(f"{target} {node.reaches(target)}" for target in shlex.split(targets))


@fact(Pings, addresses=("ANY_addresses",), mtu=1500)
def _(node: Node, addresses: str) -> str:
    return "\n".join(f"{address} full" for address in shlex.split(addresses))


@fact(Firewall)
def _(node: Node) -> str:
    if not (firewall := node.state["firewall"]):
        return ""
    lines = [f"active {firewall}", *([f"version {node.state['firewalld']}"] if firewall == "firewalld" else [])]
    return "\n".join([*lines, *([] if node.rules() == node.state["loaded"] else [f"stale {firewall}"])])


@command(RELOAD["firewalld"])
@command(RELOAD["ufw"])
def _(node: Node) -> None:
    node.state["loaded"] = node.rules()


@fact(Backends)
def _(node: Node) -> str:
    if not node.has("haproxy"):
        return "absent"
    if not node.active("haproxy.service"):
        return "unreachable"
    rows = ["running", "# pxname,svname,status,addr,check_status"]
    for name, address in re.findall(r"^ +server (\S+) (\S+)", node.files[HAPROXY]["text"], re.MULTILINE):
        status = "UP" if node.world.cluster["nodes"].get(name) == "control-plane" else "DOWN"
        rows.append(f"kube-apiserver,{name},{status},{address},L7OK")
    return "\n".join(rows)


@fact(PodNetwork, script="ANY_script", protocol=bridge.PROTOCOL, chain=bridge.CHAIN)
def _(node: Node, script: str) -> str:
    if script not in node.files:
        return ""
    routes = [f"route {subnet} via {hop} dev eth0" for subnet, hop in node.state["routes"].items()]
    return "\n".join(["written", *routes, *(f"rule {rule}" for rule in node.state["rules"])])


def run_script(node: Node, script: dict[str, Any]) -> None:
    """What the script of the network of bridges does; it needs iptables, and next hops in this network."""
    if script["mode"] != "755" or not node.has("kubelet"):
        raise Refused(f"{bridge.SCRIPT}: Permission denied")
    node.state["routes"] = dict(re.findall(r"^ip -4 route replace (\S+) via (\S+) proto 148$", script["text"], re.M))
    for hop in node.state["routes"].values():
        if hop == node.state["address"] or hop not in {each.state["address"] for each in node.world.nodes.values()}:
            raise Refused("Error: Nexthop has invalid gateway.")
    tables = re.findall(r"^\*(\w+)$(.*?)^COMMIT$", script["text"], re.M | re.DOTALL)
    within = [f"{table} {line}" for table, text in tables for line in re.findall(r"^-A .*$", text, re.M)]
    into = re.findall(r"^    iptables --wait 10 -t (\w+ -A .*)$", script["text"], re.M)
    node.state["rules"] = [*into, *within]
