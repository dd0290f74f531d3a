"""A cluster of both families whose control planes balance themselves: deployed, verified, and asked in each family."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from lab import lab, layout, network
from lab.layout import VIP, VIP6
from tests.lab.nodes import BUNDLE, MEASURED, changes, foretold, kubectl, pyinfra, ssh
from tests.lab.test_4_survival import wait_for

INVENTORY = "tests/lab/full/dual.py"
BALANCERS = ("cp1", "cp2", "cp3")
PORT = 8443
# Pods of two nodes, and a Service of both families before them.
OBJECTS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: echo, namespace: default}}
spec:
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      tolerations: [{{operator: Exists}}]
      containers:
        - {{name: echo, image: "{image}", args: [netexec, --http-port=8080]}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: default}}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


def deployed(*flags: str) -> str:
    done = pyinfra("cluster", *flags, inventory=INVENTORY)
    assert done.returncode == 0, done.stdout[-10000:]
    return done.stdout


@pytest.fixture(scope="module")
def runs(bundle: str) -> Iterator[tuple[str, str]]:
    """The words of a dry run on bare nodes, and of the run that followed."""
    assert network.has_ipv6(), "this machine's kernel has no IPv6, and this test is of it"
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    plan = deployed("--dry")
    yield plan, deployed("-y")
    lab.down()


def holders() -> dict[str, set[str]]:
    """The virtual addresses that each balancing node has now; a node that is off has none."""
    shown = {node: ssh(node, "ip -o addr show dev eth0", check=False) for node in BALANCERS}
    return {
        node: found
        for node, text in shown.items()
        if (found := {address for address in (VIP, VIP6) if f" {address}/" in text})
    }


def answers(address: str, ca: str) -> bool:
    """Whether an API server of the cluster answers at an address, by its CA."""
    context = ssl.create_default_context(cadata=ca)
    try:
        with (
            socket.create_connection((address, PORT), timeout=1) as plain,
            context.wrap_socket(plain, server_hostname=address) as secure,
        ):
            secure.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in secure.recv(100)
    except OSError:
        return False


def away(address: str, ca: str, event: Callable[[], object]) -> float:
    """Seconds from an event until the address answers again."""
    begun = time.monotonic()
    event()
    wait_for(lambda: answers(address, ca), f"{address} to answer")
    return time.monotonic() - begun


def test_the_run_changes_what_the_plan_said_and_a_second_run_nothing(runs: tuple[str, str]) -> None:
    plan, _ = runs
    assert foretold("cluster") == []
    assert changes(plan) != {}
    for flags in ("--dry", "-y"):
        assert changes(deployed(flags)) == {}


def test_every_node_has_an_address_and_a_part_of_the_pod_network_in_each_family(runs: tuple[str, str]) -> None:
    for item in json.loads(kubectl("get", "nodes", "-o", "json"))["items"]:
        node = layout.node(item["metadata"]["name"])
        internal = [row["address"] for row in item["status"]["addresses"] if row["type"] == "InternalIP"]
        assert internal == [node.address, node.address6]
        assert [":" in each for each in item["spec"]["podCIDRs"]] == [False, True]


def test_a_service_is_reached_by_its_addresses_of_both_families(runs: tuple[str, str]) -> None:
    """From a pod on a control plane and from one on the worker."""
    images = ssh("cp1", "crictl images | awk '/agnhost/ {print $1 \":\" $2; exit}'").strip()
    manifest = OBJECTS.format(image=images)
    ssh("cp1", f"printf '%s' '{manifest}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    kubectl("rollout", "status", "daemonset/echo", "--timeout=120s", timeout=130)
    addresses = json.loads(kubectl("get", "service", "echo", "-o", "json"))["spec"]["clusterIPs"]
    pods = kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert (len(addresses), len(pods)) == (2, 4)
    for pod in pods:
        for address in addresses:
            at = f"[{address}]:80" if ":" in address else f"{address}:80"
            kubectl("exec", pod, "--", "/agnhost", "connect", "--timeout=5s", at)
    kubectl("delete", "service/echo", "daemonset/echo", "--wait=false")


def test_both_virtual_addresses_are_on_one_node_and_answer(runs: tuple[str, str]) -> None:
    (found,) = holders().values()
    assert found == {VIP, VIP6}
    ca = ssh("cp1", "cat /etc/kubernetes/pki/ca.crt")
    assert answers(VIP, ca) and answers(VIP6, ca)


@pytest.mark.parametrize("how", ["haproxy stops", "the node loses power"])
def test_both_addresses_move_together(runs: tuple[str, str], how: str) -> None:
    (before,) = holders()
    ca = ssh("cp1", "cat /etc/kubernetes/pki/ca.crt")
    if how == "haproxy stops":
        seconds = away(VIP6, ca, lambda: ssh(before, "systemctl stop haproxy"))
    else:
        seconds = away(VIP6, ca, lambda: lab.stop(before))
    wait_for(lambda: answers(VIP, ca), f"{VIP} to answer")
    wait_for(lambda: set(holders()) - {before} != set() and len(holders()) == 1, "one node to have both")
    assert list(holders().values()) == [{VIP, VIP6}]
    MEASURED.append(f"both families, {how}: {VIP6} answered again after {seconds:.2f} s")
    if how == "the node loses power":
        lab.start(before)
    deployed("-y")
    assert before not in holders(), "addresses that have moved stay where they are"
