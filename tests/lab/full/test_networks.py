"""Pods on bridges with static routes, under a whole cluster: planned, deployed, verified, restarted, grown, and looked
at from within pods. And a cluster that waits for a network of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cluster import bridge
from lab import lab, layout
from tests.lab.nodes import BUNDLE, MEASURED, changes, deployed, everywhere, foretold, kubectl, on, ssh
from tests.lab.test_4_survival import wait_for

NODES = ("cp1", "cp2", "cp3", "w1")
DATA = ("--data", "cni=bridge")
NAMES = ["cp1", "cp2", "cp3", "w1", "w2"]
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"


@dataclass(frozen=True)
class Deployed:
    """What the dry run on bare nodes said, and the run that followed."""

    plan: str
    run: str


@pytest.fixture(scope="module")
def bridged(bundle: str) -> Iterator[Deployed]:
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    plan = deployed("cluster", "--dry", *DATA)
    yield Deployed(plan, deployed("cluster", "-y", *DATA))
    lab.down()


def nodes() -> dict[str, dict[str, Any]]:
    found = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item for item in found}


def subnets() -> dict[str, str]:
    return {name: item["spec"]["podCIDR"] for name, item in nodes().items()}


def routes(node: str) -> dict[str, str]:
    lines = ssh(node, f"ip -4 -o route show proto {bridge.PROTOCOL}").splitlines()
    return {line.split()[0]: line.split()[2] for line in lines}


def wanted(node: str) -> dict[str, str]:
    return {subnet: layout.node(name).address for name, subnet in subnets().items() if name != node}


def nothing_changes() -> None:
    for flags in (("--dry",), ("-y",)):
        output = deployed("cluster", *flags, *DATA)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"


def test_the_run_changes_what_the_plan_said_and_a_second_nothing(bridged: Deployed) -> None:
    """`cluster` ends with `verify`, which tries the way from pod to pod, DNS and Services."""
    assert foretold("cluster") == []
    assert changes(bridged.plan) != {}
    nothing_changes()


def test_every_node_has_routes_to_all_others_and_nothing_runs_for_it(bridged: Deployed) -> None:
    for name in NODES:
        assert routes(name) == wanted(name)
        plugin = json.loads(ssh(name, "cat /etc/cni/net.d/10-bridge.conflist"))["plugins"][0]
        assert plugin["ipam"]["ranges"] == [[{"subnet": subnets()[name]}]]
        assert on(name).service("pod-network").is_enabled
    pods = json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]
    assert not [pod["metadata"]["name"] for pod in pods if "flannel" in pod["metadata"]["name"]]


def run_pod(name: str, node: str, *, host: bool = False) -> str:
    """A pod that serves what it knows of its callers; its address."""
    spec = {
        "nodeName": node,
        "hostNetwork": host,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "agnhost", "image": AGNHOST, "args": ["netexec", "--http-port=8090"],
                        "imagePullPolicy": "Never"}],
    }  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
    ssh("cp1", f"echo '{json.dumps(pod)}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s", timeout=130)
    return kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")


def seen(caller: str, server: str) -> str:
    """The address that a server sees when the pod asks it."""
    ask = f"wget -qO- -T 5 http://{server}:8090/clientip || curl -s -m 5 http://{server}:8090/clientip"
    identity = ssh(layout_of(caller), f"crictl inspect $(crictl ps -q --label io.kubernetes.pod.name={caller})")
    pid = json.loads(identity)["info"]["pid"]
    found = ssh(layout_of(caller), f"nsenter -t {pid} -n sh -c '{ask}'")
    return found.rpartition(":")[0]


def layout_of(pod: str) -> str:
    return kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")


def test_pods_keep_their_addresses_among_themselves_and_have_the_nodes_outside(bridged: Deployed) -> None:
    here, there = run_pod("here", "w1"), run_pod("there", "cp2")
    beside, outside = run_pod("beside", "w1"), run_pod("outside", "cp3", host=True)
    try:
        assert seen("here", there) == here, "a pod of another node sees the pod's own address"
        assert seen("here", beside) == here, "so does one of the same node"
        assert seen("here", outside) == layout.node("w1").address, "what is no pod sees the node's"
    finally:
        kubectl("delete", "pod", "here", "there", "beside", "outside", "--now", timeout=120)


def test_what_is_lost_is_announced_and_mended(bridged: Deployed) -> None:
    lost = next(iter(routes("w1")))
    ssh("w1", f"ip route delete {lost}; iptables -t nat -F POD-NETWORK; ip route add 10.244.77.0/24 via 10.88.0.21 "
        f"proto {bridge.PROTOCOL}")  # fmt: skip
    plan = deployed("cluster", "--dry", *DATA)
    assert f"no route to {lost}" in plan
    assert "a route to 10.244.77.0/24, which is no node's" in plan
    assert (
        changes(deployed("cluster", "-y", *DATA))
        == changes(plan)
        == {"Cluster | Pod network | Have the routes, now and at boot": 1}
    )
    assert routes("w1") == wanted("w1")
    nothing_changes()


def test_routes_are_there_again_after_a_restart(bridged: Deployed) -> None:
    lab.stop("w1")
    lab.start("w1")
    wait_for(lambda: routes("w1") == wanted("w1"), "w1 to have its routes", limit=120)
    wait_for(
        lambda: "True" in [row["status"] for row in nodes()["w1"]["status"]["conditions"] if row["type"] == "Ready"],
        "w1 to be Ready", limit=180,
    )  # fmt: skip
    nothing_changes()


def test_a_node_that_is_added_gets_into_the_routes_of_the_others(bridged: Deployed) -> None:
    lab.up(NAMES, str(BUNDLE))
    deployed("cluster", "--dry", *DATA)
    run = deployed("cluster", "-y", *DATA)
    assert foretold("cluster") == []
    assert changes(run)["Cluster | Pod network | Write routes to other nodes' pods"] == len(NAMES)
    everywhere(lambda name: check_routes(name), NAMES)
    nothing_changes()
    MEASURED.append("bridge: three control planes and a worker, verified; another worker got into their routes")


def check_routes(name: str) -> None:
    assert routes(name) == wanted(name)


def test_without_a_network_the_run_ends_and_says_what_it_has_not_looked_at(bundle: str) -> None:
    lab.down()
    lab.up(layout.topology("single"), str(BUNDLE))
    output = deployed("cluster", "-y", "--data", "cni=none")
    assert "not checked, for these nodes have no pod network yet, and with cni none it is yours to install" in output
    assert changes(deployed("cluster", "-y", "--data", "cni=none")) == {}
    lab.down()
