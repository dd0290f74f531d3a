"""A cluster on upstream's containerd, built from source: another major than the distribution's, which all labs have."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bundle.verify import read_lock
from lab import lab, layout
from tests.lab.bundles import built
from tests.lab.nodes import MEASURED, changes, deployed, foretold, ssh

NODES = ("cp1", "cp2", "cp3", "w1")


@pytest.fixture(scope="module")
def version() -> Iterator[str]:
    """The containerd of a cluster that was planned and deployed on bare nodes as it was planned."""
    bundle = built("upstream", "runtime: upstream\n")
    lab.down()
    lab.up(layout.topology("compact"), str(bundle))
    plan = deployed("cluster", "--dry")
    deployed("cluster", "-y")
    assert foretold("cluster") == []
    assert changes(plan) != {}
    yield read_lock(bundle).components["containerd"]
    lab.down()


def test_pods_run_on_it(version: str) -> None:
    nodes = json.loads(ssh("cp1", "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o json"))["items"]
    found = {item["metadata"]["name"]: item["status"]["nodeInfo"]["containerRuntimeVersion"] for item in nodes}
    assert found == dict.fromkeys(NODES, f"containerd://{version.removeprefix('v')}")


def test_the_daemon_has_the_configuration_that_kubernetes_needs(version: str) -> None:
    for node in NODES:
        info = json.loads(ssh(node, "crictl info"))["config"]
        assert info["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
        assert "containerd" not in ssh(node, "dpkg-query -W -f '${Package}\\n'").split()


def test_a_second_run_changes_nothing(version: str) -> None:
    for flags in (("--dry",), ("-y",)):
        output = deployed("cluster", *flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"
    MEASURED.append(f"containerd {version}: three control planes and a worker, verified")


def test_a_stopped_containerd_is_started_and_pods_go_on(version: str) -> None:
    before = ssh("w1", "crictl ps -q | sort")
    ssh("w1", "systemctl stop containerd")
    deployed("cluster", "-y")
    assert ssh("w1", "crictl ps -q | sort") == before
