"""Verification of the live cluster. Answers are recorded where a name says so, else hand-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from harness import Command, Hosts, Machine, answer, recorded
from pyinfra.context import ctx_host

from cluster.endpoint import Endpoint
from cluster.settings import Settings, load
from cluster.topology import Node, Topology
from facts.etcd import Members
from facts.haproxy import Backends
from operations import verify, workload

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
NODES: dict[str, Any] = json.loads("\n".join(recorded("ClusterConfig.cluster-cp1")[1:]))
MEMBERS: Any = answer(Members, recorded("Members.cluster"))
BACKENDS: Any = answer(Backends, recorded("Backends.cluster"))
CONTROL_PLANES = ["cp1", "cp2", "cp3"]
SETTINGS = load({"vip": "10.88.0.10", "verify_timeout": 0})
TOPOLOGY = Topology(
    control_planes=tuple(Node(f"cp{n}", IPv4Address(f"10.88.0.2{n}")) for n in (1, 2, 3)),
    workers=(Node("w1", IPv4Address("10.88.0.31")),),
    load_balancers=(Node("lb1", IPv4Address("10.88.0.11")),),
)


def pod(name: str, phase: str, *ready: bool) -> dict[str, Any]:
    status = {"phase": phase, "containerStatuses": [{"ready": each} for each in ready]}
    return {"metadata": {"namespace": "kube-system", "name": name}, "status": status}


def test_recorded_nodes_are_all_ready() -> None:
    assert verify.nodes_not_ready(NODES, [*CONTROL_PLANES, "w1"]) == []


def test_nodes_that_are_missing_or_not_ready_are_named() -> None:
    unready: dict[str, Any] = {
        "metadata": {"name": "w2"},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    new: dict[str, Any] = {"metadata": {"name": "w3"}, "status": {}}
    assert verify.nodes_not_ready({"items": [*NODES["items"], unready, new]}, ["cp1", "w2", "w3", "w4"]) == [
        "node w2 is not Ready",
        "node w3 is not Ready",
        "node w4 is not in the cluster",
    ]


WAITING = {
    "type": "Ready",
    "status": "False",
    "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network "
    "plugin returns error: cni plugin not initialized",
}


def test_nodes_that_wait_for_a_network_are_told_from_those_that_are_ill() -> None:
    nodes: list[dict[str, Any]] = [
        {"metadata": {"name": "w2"}, "status": {"conditions": [WAITING]}},
        {"metadata": {"name": "w3"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
    ]
    assert verify.without_network({"items": [*NODES["items"], *nodes]}) == ["w2"]


def test_a_node_that_is_short_of_something_is_named_with_what_the_kubelet_says() -> None:
    rows = [
        {"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"},
        {"type": "MemoryPressure", "status": "False", "message": "kubelet has sufficient memory available"},
        {"type": "example.org/Inspected", "status": "True", "message": "all is well"},
        {"type": "Ready", "status": "False", "message": "container runtime is down"},
    ]
    short: dict[str, Any] = {"metadata": {"name": "w1"}, "status": {"conditions": rows}}
    assert verify.nodes_not_ready({"items": [short]}, ["w1"]) == [
        "node w1 is not Ready (container runtime is down)",
        "node w1 has DiskPressure (kubelet has disk pressure)",
    ]


def test_a_pod_that_does_not_run_is_named_with_what_it_waits_for() -> None:
    unscheduled, unpulled = pod("a", "Pending"), pod("b", "Pending", False)
    words = "0/4 nodes are available: 4 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }."
    unscheduled["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": words}]
    unpulled["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImageNeverPull"}}
    assert verify.pods_not_running({"items": [unscheduled, unpulled]}) == [
        f"pod kube-system/a is Pending, containers ready ({words})",
        "pod kube-system/b is Pending, containers not ready (ErrImageNeverPull)",
    ]


def test_pods_that_run_or_have_succeeded_are_well() -> None:
    assert verify.pods_not_running({"items": [pod("a", "Running", True, True), pod("b", "Succeeded", False)]}) == []


def test_pods_that_do_not_run_are_named() -> None:
    assert verify.pods_not_running(
        {"items": [pod("a", "Running", True, False), pod("b", "Pending"), pod("c", "Failed", False)]}
    ) == [
        "pod kube-system/a is Running, containers not ready",
        "pod kube-system/b is Pending, containers ready",
        "pod kube-system/c is Failed, containers not ready",
    ]


def test_recorded_etcd_is_well() -> None:
    assert verify.etcd_unhealthy(MEMBERS, CONTROL_PLANES) == []


def test_etcd_members_that_are_missing_strange_learning_or_ill_are_named() -> None:
    first, second, third = MEMBERS["members"]
    changed = [first, {**second, "learner": True}, {**third, "healthy": False}, {**third, "name": "old"}]
    assert verify.etcd_unhealthy({"state": "running", "members": changed}, [*CONTROL_PLANES, "cp4"]) == [
        "etcd member cp4 is missing",
        "etcd has a member 'old' that the inventory has not",
        "etcd member cp2 is still a learner",
        "etcd member cp3 is not healthy",
    ]


@pytest.mark.parametrize("state", ["absent", "unreachable"])
def test_etcd_that_does_not_answer_is_not_well(state: Any) -> None:
    assert verify.etcd_unhealthy({"state": state, "members": []}, ["cp1"]) == ["etcd member cp1 is missing"]


def test_etcd_whose_health_cannot_be_had_is_not_well() -> None:
    unknown = answer(Members, recorded("Members.cluster")[:2])
    assert len(verify.etcd_unhealthy(unknown, CONTROL_PLANES)) == 3


def test_recorded_backends_are_up() -> None:
    assert verify.backends_down("lb1", BACKENDS, 3) == []


def test_backends_that_are_down_or_too_few_are_named() -> None:
    down = {**BACKENDS["servers"]["kube-apiserver"]["cp2"], "status": "DOWN"}
    servers = {"kube-apiserver": {"cp1": BACKENDS["servers"]["kube-apiserver"]["cp1"], "cp2": down}}
    assert verify.backends_down("lb1", {"state": "running", "servers": servers}, 3) == [
        "lb1: HAProxy has server cp2 DOWN",
        "lb1: HAProxy has 2 servers, not 3",
    ]


@pytest.mark.parametrize("state", ["absent", "unreachable"])
def test_haproxy_that_does_not_answer_is_named(state: Any) -> None:
    assert verify.backends_down("lb2", {"state": state, "servers": {}}, 3) == [f"lb2: HAProxy is {state}"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("ok", []),
        ("", ["https://10.88.0.10:6443/readyz answers nothing"]),
        ("[-]etcd failed", ["https://10.88.0.10:6443/readyz answers ['[-]etcd failed']"]),
    ],
)
def test_api_through_its_endpoint_must_say_ok(hosts: Make, said: str, found: list[str]) -> None:
    ran = hosts({"cp1": {"--server=https://10.88.0.10:6443 get --raw=/readyz": said}})
    ctx_host.set(ran.inventory.get_host("cp1"))
    assert verify.through_endpoint("cp1", Endpoint(IPv4Address("10.88.0.10"), 6443)) == found


PROBES = {
    "items": [
        {"metadata": {"name": f"probe-{node}"}, "spec": {"nodeName": node}, "status": {"podIPs": [{"ip": address}]}}
        for node, address in (("cp1", "10.244.0.5"), ("w1", "10.244.3.5"))
    ]
}
WELL: dict[str, Any] = {
    "get nodes -o json": json.dumps(NODES),
    "get pods -A -o json": json.dumps({"items": [pod("a", "Running", True)]}),
    Members().command(): recorded("Members.cluster"),
    "/readyz": "ok",
    "apply -f -": "",
    "rollout status": "",
    "get pods -o json": json.dumps(PROBES),
    "delete namespace": "",
    "xargs": "",
}
BALANCER = {Backends().command(): recorded("Backends.cluster")}


def healthy(hosts: Make, settings: Settings = SETTINGS, **changes: Any) -> tuple[Hosts, list[Command]]:
    ran = hosts({"cp1": changes | {key: WELL[key] for key in WELL if key not in changes}, "lb1": BALANCER})
    return ran, ran.execute(verify.healthy, "cp1", settings=settings, topology=TOPOLOGY, image="agnhost:1")


def test_healthy_cluster_is_no_change(hosts: Make) -> None:
    ran, yielded = healthy(hosts)
    assert yielded == []
    assert ran.noops == ["the cluster is healthy"]


def test_healthy_looks_at_nothing_while_planning(hosts: Make) -> None:
    ran = hosts({"cp1": {}})
    assert ran.plan(verify.healthy, settings=SETTINGS, topology=TOPOLOGY, image="agnhost:1") == []
    assert ran.ran == []


def test_probe_pods_try_every_path_from_every_node_and_are_removed(hosts: Make) -> None:
    ran, _ = healthy(hosts)
    commands = [command for _, command in ran.ran]
    (applied,) = [command.stdin for command in commands if "apply -f -" in command.text]
    assert "image: agnhost:1" in (applied or "")
    (tried,) = [command.stdin for command in commands if "/agnhost connect" in command.text]
    assert (tried or "").splitlines() == [
        "probe-cp1 10.244.3.5:8080",
        "probe-cp1 probe.pyinfra-kubeadm-verify.svc:80",
        "probe-cp1 kubernetes.default.svc:443",
        "probe-w1 10.244.0.5:8080",
        "probe-w1 probe.pyinfra-kubeadm-verify.svc:80",
        "probe-w1 kubernetes.default.svc:443",
    ]
    assert "delete namespace pyinfra-kubeadm-verify" in commands[-1].text


OWN = load({"vip": "10.88.0.10", "verify_timeout": 0, "cni": "none"})
UNREADY = json.dumps(
    {"items": [{**item, "status": {**item["status"], "conditions": [WAITING]}} for item in NODES["items"]]}
)


def test_without_a_network_of_the_users_what_needs_one_is_not_looked_at(hosts: Make) -> None:
    ran, yielded = healthy(hosts, OWN, **{"get nodes -o json": UNREADY})
    assert (yielded, ran.noops) == ([], ["what there is of the cluster is healthy"])
    assert not [each for _, each in ran.ran if "get pods" in each.text or "apply" in each.text]


def test_what_needs_no_network_must_be_well_all_the_same(hosts: Make) -> None:
    _, (command,) = healthy(hosts, OWN, **{"get nodes -o json": UNREADY, "/readyz": ""})
    assert "https://10.88.0.10:6443/readyz answers nothing" in command.text
    assert "is not Ready" not in command.text


def test_with_the_users_network_everything_is_looked_at(hosts: Make) -> None:
    ran, yielded = healthy(hosts, OWN)
    assert (yielded, ran.noops) == ([], ["the cluster is healthy"])
    assert [each for _, each in ran.ran if "/agnhost connect" in each.text]


def test_nodes_that_lack_a_network_that_is_not_the_users_are_not_well(hosts: Make) -> None:
    _, (command,) = healthy(hosts, **{"get nodes -o json": UNREADY})
    assert "node cp1 is not Ready" in command.text


def test_cluster_that_is_not_healthy_fails_with_every_finding(hosts: Make, machine: Machine) -> None:
    pods = json.dumps({"items": [pod("it's", "Pending")]})
    ran, (command,) = healthy(hosts, **{"get pods -A -o json": pods, "/readyz": ""})
    machine.program("kubectl", "echo FailedCreatePodSandBox")
    done = machine.sh(command.text)
    assert done.returncode == 1
    assert done.stderr == (
        "The cluster does not pass verification:\n"
        "  - pod kube-system/it's is Pending, containers ready\n"
        "  - https://10.88.0.10:6443/readyz answers nothing\n"
        "What its parts complained of last:\n"
        "FailedCreatePodSandBox\n"
    )
    assert not [each for _, each in ran.ran if "apply -f -" in each.text]


def test_paths_that_are_not_reached_are_named_and_the_pods_removed(hosts: Make) -> None:
    ran, (command,) = healthy(hosts, xargs="probe-w1 10.244.0.5:8080 TIMEOUT at last")
    assert "from the pod on w1, the pod on cp1 (10.244.0.5:8080) is not reached: TIMEOUT at last" in command.text
    assert "delete namespace" in ran.ran[-1][1].text


def test_each_path_is_tried_until_it_works_and_the_others_are_printed(hosts: Make, machine: Machine) -> None:
    machine.program("sleep", "true")
    machine.program("kubectl", 'echo "$*" >> tried; case "$*" in *10.244.0.5*) echo TIMEOUT; exit 1;; esac')
    ran, _ = healthy(hosts)
    (command,) = [command for _, command in ran.ran if "/agnhost connect" in command.text]
    done = machine.sh(command.text, command.stdin or "")
    assert (done.returncode, done.stdout) == (0, "probe-w1 10.244.0.5:8080 TIMEOUT\n")
    assert len((machine.root / "tried").read_text().splitlines()) == 5 + 6


def test_probe_pods_that_do_not_start_are_a_finding_and_removed(hosts: Make) -> None:
    ran, (command,) = healthy(hosts, **{"rollout status": {"success": False, "stderr": "timed out"}})
    assert "cp1: waiting for the probe pods failed for cp1: timed out" in command.text
    assert "delete namespace" in ran.ran[-1][1].text


@pytest.mark.parametrize(
    ("looks", "seconds", "found", "slept"),
    [
        ([[]], 60, [], 0),
        ([["a"], ["b"], []], 60, [], 2),
        ([["a"], ["b"], ["c"], ["d"]], 15, ["d"], 3),
        ([["a"]], 0, ["a"], 0),
    ],
    ids=["at-once", "in-time", "too-late", "no-time"],
)
def test_settling_looks_again_until_all_is_well_or_time_runs_out(
    monkeypatch: pytest.MonkeyPatch, looks: list[list[str]], seconds: int, found: list[str], slept: int
) -> None:
    sleeps: list[float] = []
    monkeypatch.setattr(workload.gevent, "sleep", sleeps.append)
    rest = iter(looks)
    assert workload.settled(lambda: next(rest), seconds) == found
    assert sleeps == [5] * slept
