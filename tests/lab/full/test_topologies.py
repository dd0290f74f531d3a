"""Every topology of the lab but the default one: raised, planned, deployed, verified, and found as described.

Where control planes balance themselves, the one that carries the virtual address loses power.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import lab, layout
from tests.lab.nodes import BUNDLE, MEASURED, ROOT, VIP, changes, deployed, everywhere, foretold, holders, kubectl, ssh
from tests.lab.test_4_survival import Client, outage, wait_for

ENDPOINTS = {
    "large": f"https://{VIP}:6443",
    "compact": f"https://{VIP}:8443",
    "small": "https://10.88.0.21:6443",
    "single": "https://10.88.0.21:6443",
}
# A name that the site's DNS has for its API; here every node has it in a file.
NAME = "api.lab.test"
EXTERNAL = ("--data", "load_balancing=external", "--data", f"control_plane_endpoint={NAME}:6443")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "ordinary", "namespace": "default"},
    "spec": {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.2"}]},
}


@dataclass(frozen=True)
class Raised:
    """A topology on whose bare nodes a cluster was planned and deployed."""

    name: str
    plan: str
    run: str

    @property
    def nodes(self) -> list[str]:
        return list(layout.topology(self.name))

    @property
    def balancers(self) -> list[str]:
        return [node for node in self.nodes if node.startswith("lb")] or [
            node for node in self.nodes if node.startswith("cp")
        ]


def fresh(name: str) -> None:
    lab.down()
    lab.up(layout.topology(name), str(BUNDLE))


@pytest.fixture(scope="module", params=ENDPOINTS)
def raised(request: pytest.FixtureRequest, bundle: str) -> Iterator[Raised]:
    name = request.param
    fresh(name)
    plan = deployed("cluster", "--dry")
    yield Raised(name, plan, deployed("cluster", "-y"))
    lab.down()


def ready(listing: str) -> list[str]:
    """Names of Ready nodes in `kubectl get nodes -o json`."""
    return sorted(
        item["metadata"]["name"]
        for item in json.loads(listing)["items"]
        for row in item["status"]["conditions"]
        if (row["type"], row["status"]) == ("Ready", "True")
    )


def test_the_run_changes_what_the_plan_said(raised: Raised) -> None:
    assert foretold("cluster") == []
    assert changes(raised.plan) != {}


def test_the_cluster_is_verified_and_a_second_run_changes_nothing(raised: Raised) -> None:
    """`cluster` ends with `verify`, which fails the run when anything is not well."""
    for flags in (("--dry",), ("-y",)):
        output = deployed("cluster", *flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"


def test_everyone_finds_the_api_at_the_topologys_endpoint(raised: Raised) -> None:
    kubernetes = [node for node in raised.nodes if not node.startswith("lb")]
    assert f"server: {ENDPOINTS[raised.name]}" in (ROOT / "secrets/lab/admin.conf").read_text()
    assert ready(kubectl("get", "nodes", "-o", "json")) == sorted(kubernetes)
    workers = [node for node in kubernetes if node.startswith("w")]
    everywhere(
        lambda node: ssh(node, f"grep -q 'server: {ENDPOINTS[raised.name]}' /etc/kubernetes/kubelet.conf"), workers
    )


def test_the_virtual_address_is_on_one_host_where_there_is_one(raised: Raised) -> None:
    assert len(holders(raised.balancers)) == (1 if VIP in ENDPOINTS[raised.name] else 0)


def test_ordinary_pods_run_where_there_is_room_for_them(raised: Raised) -> None:
    """Without tolerations: on a worker, or on a control plane when there is no worker."""
    ssh("cp1", f"echo '{json.dumps(POD)}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    kubectl("wait", "pod/ordinary", "--for=condition=Ready", "--timeout=120s", timeout=130)
    where = kubectl("get", "pod", "ordinary", "-o", "jsonpath={.spec.nodeName}")
    assert where == ("cp1" if raised.name == "single" else "w1")
    kubectl("delete", "pod/ordinary", "--now")


def test_the_api_answers_after_the_host_with_the_virtual_address_has_lost_power(raised: Raised) -> None:
    if VIP not in ENDPOINTS[raised.name]:
        assert holders(raised.balancers) == []
        return
    (node,) = holders(raised.balancers)
    client = Client(ssh("cp1", "cat /etc/kubernetes/pki/ca.crt"), int(ENDPOINTS[raised.name].rpartition(":")[2]))
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        wait_for(lambda: client.well(1.0), "the API to answer at all")
        outage(client, lambda: lab.stop(node), f"{raised.name}-{node}-stopped")
    finally:
        client.over.set()
        thread.join()
    (other,) = holders(each for each in raised.balancers if each != node)
    lab.start(node)
    deployed("cluster", "-y")
    assert holders(raised.balancers) == [other], "an address that has moved stays where it is"
    assert changes(deployed("cluster", "-y")) == {}


def test_a_name_that_the_site_has_for_its_api_is_taken(bundle: str) -> None:
    """Three addresses for one name, as a DNS server gives them: whoever connects tries one after the other."""
    fresh("compact")
    addresses = [layout.node(name).address for name in ("cp1", "cp2", "cp3")]
    rows = "".join(f"{address} {NAME}\\n" for address in addresses)
    everywhere(lambda node: ssh(node, f"printf '{rows}' >> /etc/hosts"), layout.topology("compact"))
    deployed("cluster", "--dry", *EXTERNAL)
    deployed("cluster", "-y", *EXTERNAL)
    assert foretold("cluster") == []
    assert changes(deployed("cluster", "-y", *EXTERNAL)) == {}
    assert f"server: https://{NAME}:6443" in ssh("w1", "cat /etc/kubernetes/kubelet.conf")
    assert "haproxy" not in ssh("cp1", "dpkg-query -W -f '${Package}\\n'").split()
    lab.stop("cp2")
    nodes = "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o json --request-timeout=30s"
    wait_for(lambda: "cp2" not in ready(ssh("cp1", nodes)), "cp2 to be known as away", limit=180)
    assert ready(ssh("cp1", nodes)) == ["cp1", "cp3", "w1"]
    MEASURED.append(f"external: {NAME} led to the API with one of three addresses dead")
    lab.down()
