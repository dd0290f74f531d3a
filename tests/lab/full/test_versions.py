"""Whole clusters of other minors than the bundle's own: the bundle built, the cluster planned, deployed and verified.

With the bundle's own, which every other test has, there is one for each version of kubeadm's API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import lab, layout
from tests.lab.bundles import built
from tests.lab.nodes import MEASURED, changes, deployed, foretold, pyinfra, ssh

RELEASES = {"v1.21.14": "v1beta2", "v1.27.4": "v1beta3"}
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"


@dataclass(frozen=True)
class Cluster:
    """A cluster that was planned and deployed on bare nodes."""

    version: str
    plan: str
    run: str


@pytest.fixture(scope="module", params=RELEASES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    bundle = built(request.param, f"kubernetes_version: {request.param}\n")
    lab.down()
    lab.up(layout.topology("compact"), str(bundle))
    plan = deployed("cluster", "--dry")
    yield Cluster(request.param, plan, deployed("cluster", "-y"))
    lab.down()


def test_the_run_changes_what_the_plan_said(cluster: Cluster) -> None:
    assert foretold("cluster") == []
    assert changes(cluster.plan) != {}


def test_every_node_runs_that_version_and_kubeadm_has_kept_its_own_api(cluster: Cluster) -> None:
    nodes = json.loads(ssh("cp1", f"{KUBECTL} get nodes -o json"))["items"]
    found = {item["metadata"]["name"]: item["status"]["nodeInfo"]["kubeletVersion"] for item in nodes}
    assert found == dict.fromkeys(("cp1", "cp2", "cp3", "w1"), cluster.version)
    assert json.loads(ssh("cp1", f"{KUBECTL} version -o json"))["serverVersion"]["gitVersion"] == cluster.version
    kept = ssh("cp1", f"{KUBECTL} -n kube-system get configmap kubeadm-config -o jsonpath='{{.data}}'")
    assert f"kubeadm.k8s.io/{RELEASES[cluster.version]}" in kept


def test_the_cluster_is_verified_and_a_second_run_changes_nothing(cluster: Cluster) -> None:
    """`cluster` ends with `verify`, which fails the run when anything is not well."""
    for flags in (("--dry",), ("-y",)):
        output = deployed("cluster", *flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"
    MEASURED.append(f"{cluster.version}: three control planes and a worker, verified")


def test_a_hosts_own_kubelet_is_configured_otherwise(bundle: str) -> None:
    """By a patch of kubeadm, which 1.25 and later have for it."""
    lab.down()
    lab.up(layout.topology("small"))
    done = pyinfra("cluster", "-y", inventory="tests/lab/full/own_kubelet.py")
    assert done.returncode == 0, done.stdout[-10000:]
    asked = {
        name: json.loads(ssh("cp1", f"{KUBECTL} get --raw /api/v1/nodes/{name}/proxy/configz"))["kubeletconfig"]
        for name in ("cp1", "w1")
    }
    assert {name: found["maxPods"] for name, found in asked.items()} == {"cp1": 110, "w1": 77}
    again = pyinfra("cluster", "-y", inventory="tests/lab/full/own_kubelet.py")
    assert changes(again.stdout) == {}, again.stdout[-6000:]
    lab.down()
