"""The network of bridges: its configuration, its script as a shell runs it, and what of it is known when."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from harness import Command, Hosts, InTurn, Machine, answer, recorded
from pyinfra.api import OperationError

from cluster import bridge
from cluster.topology import Node, Topology
from facts.file import FileState
from facts.kubeadm import ClusterConfig, KubeadmNode
from facts.kubernetes import PodSubnets
from facts.pod_network import PodNetwork
from operations import bridge as operations
from operations.once import once

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
PODS = IPv4Network("10.244.0.0/16")
CP1, W1 = Node("cp1", IPv4Address("10.0.0.21")), Node("w1", IPv4Address("10.0.0.31"))
TOPOLOGY = Topology(control_planes=(CP1,), workers=(W1,), load_balancers=())
DEST = "/etc/cni/net.d/10-bridge.conflist"
SUBNETS = ["cp1 10.0.0.21 10.244.0.0/24", "w1 10.0.0.31 10.244.3.0/24", "answered"]
LIVE = {"script": bridge.SCRIPT, "protocol": bridge.PROTOCOL, "chain": bridge.CHAIN}
ROUTES = {"10.244.0.0/24": "10.0.0.21"}


def node(name: str, role: str) -> dict[str, Any]:
    labels = {"node-role.kubernetes.io/control-plane": ""} if role == "control-plane" else {}
    return {"metadata": {"name": name, "labels": labels}, "status": {}}


CLUSTER = ["initialised", json.dumps({"items": [node("cp1", "control-plane"), node("w1", "worker")]})]
WORKER = recorded("KubeadmNode.cluster-w1")


def told(subnets: Any = SUBNETS, cluster: list[str] = CLUSTER, worker: list[str] = WORKER, **more: Any) -> Any:
    cp1 = {
        PodSubnets().command(): subnets,
        ClusterConfig().command(): cluster,
        KubeadmNode().command(): recorded("KubeadmNode.cluster-cp1"),
    }
    files = {
        FileState().command(path=path, secret=secret): [] for path in (DEST, bridge.SCRIPT) for secret in (False, True)
    }
    return {"cp1": cp1, "w1": {KubeadmNode().command(): worker, **files, **more}}


@pytest.fixture(autouse=True)
def a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "joining", once(operations.joining.__wrapped__))
    monkeypatch.setattr(operations.gevent, "sleep", lambda _: None)


def configure(ran: Hosts, execute: bool) -> list[Command]:
    do = ran.execute if execute else ran.plan
    return do(operations.configure, "w1", topology=TOPOLOGY, node=W1, mtu=1450, dest=DEST)


def connect(ran: Hosts, execute: bool) -> list[Command]:
    do = ran.execute if execute else ran.plan
    return do(operations.connect, "w1", topology=TOPOLOGY, node=W1, pods=PODS)


def test_pods_have_the_nodes_subnet_and_mtu_and_keep_their_addresses_among_themselves() -> None:
    known = json.loads(bridge.conflist("10.244.3.0/24", 1450))
    plugin, portmap = known["plugins"]
    assert (plugin["type"], plugin["mtu"]) == ("bridge", 1450)
    assert plugin["ipam"] == {"type": "host-local", "ranges": [[{"subnet": "10.244.3.0/24"}]]}
    assert plugin["isDefaultGateway"] and plugin["hairpinMode"] and plugin["forceAddress"]
    assert "ipMasq" not in plugin  # of the plugin's own kind, which knows no other nodes
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}


def test_routes_lead_to_all_other_nodes_that_have_a_subnet() -> None:
    nodes = {name: bridge.NodeSubnet(address=f"10.0.0.{last}", subnet=subnet) for name, last, subnet in (
        ("w1", 31, "10.244.3.0/24"), ("cp1", 21, "10.244.0.0/24"), ("w2", 32, ""))}  # fmt: skip
    assert bridge.routes(nodes, "w1") == ROUTES
    assert bridge.routes(nodes, "cp1") == {"10.244.3.0/24": "10.0.0.31"}


def run_script(machine: Machine, live: str, jumps: bool, wanted: dict[str, str]) -> list[str]:
    machine.program("ip", f'case "$*" in *show*) printf "{live}";; *) echo "ip $*" >> said;; esac')
    machine.program("iptables-restore", 'echo "restore $*" >> said; cat >> said')
    machine.program("iptables", f'echo "iptables $*" >> said; case "$*" in *" -C "*) exit {0 if jumps else 1};; esac')
    done = machine.sh(bridge.script(wanted, PODS))
    assert (done.returncode, done.stderr) == (0, "")
    return (machine.root / "said").read_text().splitlines()


def test_the_script_makes_routes_removes_those_of_nobody_and_changes_rules_at_once(machine: Machine) -> None:
    live = "10.244.0.0/24 via 10.0.0.21 dev eth0 \\n10.244.9.0/24 via 10.0.0.39 dev eth0 \\n"
    assert run_script(machine, live, jumps=False, wanted=ROUTES) == [
        "ip -4 route replace 10.244.0.0/24 via 10.0.0.21 proto 148",
        "ip -4 route delete 10.244.9.0/24 proto 148",
        "restore --wait 10 --noflush",
        "*nat",
        ":POD-NETWORK - [0:0]",
        "-A POD-NETWORK -d 10.244.0.0/16 -j RETURN",
        "-A POD-NETWORK -d 224.0.0.0/4 -j RETURN",
        "-A POD-NETWORK -s 10.244.0.0/16 -j MASQUERADE --random-fully",
        "COMMIT",
        "*filter",
        ":POD-NETWORK - [0:0]",
        "-A POD-NETWORK -s 10.244.0.0/16 -j ACCEPT",
        "-A POD-NETWORK -d 10.244.0.0/16 -j ACCEPT",
        "COMMIT",
        "iptables --wait 10 -t nat -C POSTROUTING -j POD-NETWORK",
        "iptables --wait 10 -t nat -A POSTROUTING -j POD-NETWORK",
        "iptables --wait 10 -t filter -C FORWARD -j POD-NETWORK",
        "iptables --wait 10 -t filter -A FORWARD -j POD-NETWORK",
    ]


def test_run_again_the_script_jumps_to_its_rules_once(machine: Machine) -> None:
    said = run_script(machine, "10.244.9.0/24 via 10.0.0.39 dev eth0 \\n", jumps=True, wanted={})
    assert [line for line in said if line.startswith("ip")] == [
        "ip -4 route delete 10.244.9.0/24 proto 148",
        "iptables --wait 10 -t nat -C POSTROUTING -j POD-NETWORK",
        "iptables --wait 10 -t filter -C FORWARD -j POD-NETWORK",
    ]


def test_a_route_that_cannot_be_made_is_an_error(machine: Machine) -> None:
    machine.program("ip", 'case "$*" in *replace*) echo "Error: Nexthop has invalid gateway." >&2; exit 2;; esac')
    done = machine.sh(bridge.script(ROUTES, PODS))
    assert (done.returncode, done.stderr) == (2, "Error: Nexthop has invalid gateway.\n")


def test_live_routes_and_rules_are_asked_for_where_the_script_is(machine: Machine) -> None:
    machine.program("ip", 'echo "10.244.0.0/24 via 10.0.0.21 dev eth0 "')
    rules = "-P FORWARD ACCEPT\\n-N POD-NETWORK\\n-A FORWARD -j POD-NETWORK\\n-A FORWARD -j OTHER\\n"
    machine.program("iptables", f'case "$*" in *filter*) printf -- "{rules}";; *) exit 3;; esac')
    assert machine.ask(PodNetwork, **LIVE) == {"written": False, "routes": {}, "rules": []}
    machine.file(bridge.SCRIPT)
    assert machine.ask(PodNetwork, **LIVE) == {
        "written": True, "routes": ROUTES, "rules": ["filter -A FORWARD -j POD-NETWORK"],
    }  # fmt: skip


def test_subnets_as_the_api_has_them_or_none_when_it_does_not_answer() -> None:
    assert answer(PodSubnets, [*SUBNETS[:2], "w2 10.0.0.32 -", "w3 -", "answered"]) == {
        "cp1": {"address": "10.0.0.21", "subnet": "10.244.0.0/24"},
        "w1": {"address": "10.0.0.31", "subnet": "10.244.3.0/24"},
        "w2": {"address": "10.0.0.32", "subnet": ""},
    }
    assert answer(PodSubnets, []) is None
    assert answer(PodSubnets, ["answered"]) == {}


@pytest.mark.parametrize("execute", [False, True])
def test_both_files_are_written_from_what_the_api_says(hosts: Make, execute: bool) -> None:
    ran = hosts(told())
    (configured,), (connected,) = configure(ran, execute), connect(ran, execute)
    assert configured.stdin == bridge.conflist("10.244.3.0/24", 1450)
    assert connected.stdin == bridge.script(ROUTES, PODS)
    assert "chmod 755" in connected.text


@pytest.mark.parametrize("worker", [[], ["file kubelet.conf"]], ids=["a bare machine", "a join that was killed"])
def test_while_planning_what_a_node_that_joins_will_get_is_left_open(hosts: Make, worker: list[str]) -> None:
    ran = hosts(told(worker=worker))
    for make in (configure, connect):
        (command,) = make(ran, execute=False)
        assert command.text == "# subnets of pods are not known yet"
        dest = DEST if make is configure else bridge.SCRIPT
        assert ran.announced == [f"create {dest} (subnets of pods are known once w1 joined)"]


def test_a_node_is_waited_for_until_it_has_its_subnet(hosts: Make) -> None:
    nothing_yet = ["cp1 10.0.0.21 10.244.0.0/24", "answered"]
    ran = hosts(told(InTurn(nothing_yet, [*nothing_yet[:1], "w1 10.0.0.31 -", "answered"], SUBNETS)))
    (command,) = configure(ran, execute=True)
    assert command.stdin == bridge.conflist("10.244.3.0/24", 1450)


@pytest.mark.parametrize(
    ("subnets", "why"),
    [
        (["cp1 10.0.0.21 10.244.0.0/24", "w1 10.0.0.31 -", "answered"], "the API has given w1 no subnet of pods"),
        (["cp1 10.0.0.21 10.244.0.0/24", "answered"], "the API has given w1 no subnet of pods"),
        ([], "no control plane's API answers"),
    ],
)
def test_a_node_that_gets_no_subnet_is_an_error(hosts: Make, subnets: list[str], why: str) -> None:
    with pytest.raises(OperationError, match=rf"^w1: {why}, after 60 s\. Look at `kubectl get nodes`"):
        configure(hosts(told(subnets)), execute=True)


def test_while_planning_without_an_api_what_is_there_is_left_and_what_is_not_announced(hosts: Make) -> None:
    there = {FileState().command(path=DEST, secret=True): ["644 root root", f"{'a' * 64}  -"]}
    ran = hosts(told([], ["unreachable"], **there, **{FileState().command(path=bridge.SCRIPT, secret=True): []}))
    assert configure(ran, execute=False) == []
    assert ran.noops == [f"{DEST} is there; no API answers now, so this is looked at again when it runs"]
    assert len(connect(ran, execute=False)) == 1
    assert ran.announced == [f"create {bridge.SCRIPT} (subnets of pods are known once the API answers)"]


RULES = [f"rule {rule}" for rule in bridge.rules(PODS)]


@pytest.mark.parametrize(
    ("live", "found"),
    [
        ([], []),
        (["written", "route 10.244.0.0/24 via 10.0.0.21 dev eth0", *reversed(RULES)], []),
        (["written", *RULES], ["no route to 10.244.0.0/24 by 10.0.0.21"]),
        (["written", "route 10.244.0.0/24 via 10.0.0.99 dev eth0", *RULES], ["no route to 10.244.0.0/24 by 10.0.0.21"]),
        (
            ["written", "route 10.244.0.0/24 via 10.0.0.21", "route 10.244.9.0/24 via 10.0.0.39", *RULES[1:]],
            ["a route to 10.244.9.0/24, which is no node's", "rules of POD-NETWORK that are not as written"],
        ),
    ],
)
def test_what_the_kernel_has_otherwise_is_drift(hosts: Make, live: list[str], found: list[str]) -> None:
    ran = hosts(told(**{PodNetwork().command(**LIVE): live}))
    ran.plan(operations.connect, "w1", topology=TOPOLOGY, node=W1, pods=PODS)
    assert operations.drift(TOPOLOGY, W1, PODS) == found
