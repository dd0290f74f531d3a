"""A setting that changes under the finished cluster: shown, or refused. tests/lab/full carries it."""

from __future__ import annotations

import json

import pytest

from tests.lab.nodes import CONTROL_PLANES, changes, deployed, pyinfra

pytestmark = pytest.mark.usefixtures("cluster")
FLAGS = ("--data", "cluster_configuration=" + json.dumps({"scheduler": {"extraArgs": {"kube-api-burst": "150"}}}))


def test_the_finished_cluster_is_as_kubeadm_would_write_it_and_a_changed_argument_is_shown() -> None:
    assert changes(deployed("reconfigure", "-y")) == {}
    dry = deployed("reconfigure", "--dry", "--diff", *FLAGS)
    assert "[cp2] write /etc/kubernetes/manifests/kube-scheduler.yaml: restarts kube-scheduler of cp2" in dry
    assert "+    - --kube-api-burst=150" in dry
    assert len(changes(dry)) == len(CONTROL_PLANES) + 1


def test_another_range_of_pods_is_refused_before_the_first_change() -> None:
    done = pyinfra("reconfigure", "-y", "--data", "pod_subnet=10.9.0.0/16")
    assert done.returncode != 0
    assert "pod_subnet: the cluster has networking.podSubnet 10.244.0.0/16" in done.stdout
    assert "Nothing was changed on any host" in done.stdout
