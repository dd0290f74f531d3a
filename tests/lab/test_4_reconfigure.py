"""A setting that changes under the finished cluster: shown, on every control plane, and taken back."""

from __future__ import annotations

import json

import pytest

from tests.lab.nodes import CONTROL_PLANES, changes, deployed, everywhere, pyinfra, ssh

pytestmark = pytest.mark.usefixtures("cluster")
FLAGS = ("--data", "cluster_configuration=" + json.dumps({"scheduler": {"extraArgs": {"kube-api-burst": "150"}}}))


def test_an_argument_reaches_every_control_plane_and_a_second_run_has_nothing_to_do() -> None:
    dry = deployed("reconfigure", "--dry", *FLAGS)
    assert "Will write /etc/kubernetes/manifests/kube-scheduler.yaml: restarts kube-scheduler of cp2" in dry
    assert "+    - --kube-api-burst=150" in dry
    assert changes(dry) == changes(deployed("reconfigure", "-y", *FLAGS))

    def has_it(node: str) -> None:
        assert "--kube-api-burst=150" in ssh(node, "tr '\\0' ' ' < /proc/$(pgrep -x kube-scheduler)/cmdline")

    everywhere(has_it, CONTROL_PLANES)
    assert changes(deployed("reconfigure", "-y", *FLAGS)) == {}
    assert len(changes(deployed("reconfigure", "-y"))) == len(CONTROL_PLANES) + 1
    assert changes(deployed("reconfigure", "-y")) == {}


def test_another_range_of_pods_is_refused_before_the_first_change() -> None:
    done = pyinfra("reconfigure", "-y", "--data", "pod_subnet=10.9.0.0/16")
    assert done.returncode != 0
    assert "pod_subnet: the cluster has networking.podSubnet 10.244.0.0/16" in done.stdout
    assert "Nothing was changed on any host" in done.stdout
