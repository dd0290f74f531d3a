"""A control plane that is taken out while the cluster works, and taken in again."""

from __future__ import annotations

import json

import pytest

from lab import layout
from lab.shell import run as here
from tests.lab.nodes import LOAD_BALANCERS, NODES, changes, deployed, kubectl, pyinfra, ssh

pytestmark = pytest.mark.usefixtures("cluster")
REMOVE = ("--data", "remove=cp3")
ETCDCTL = (
    "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt "
    "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt --key=/etc/kubernetes/pki/etcd/healthcheck-client.key"
)


def members() -> list[str]:
    """Names of etcd's members that vote and are healthy, as etcdctl on the first control plane has them."""
    listed = json.loads(ssh("cp1", f"{ETCDCTL} member list -w json"))["members"]
    ssh("cp1", f"{ETCDCTL} endpoint health --cluster")
    return sorted(each["name"] for each in listed if not each.get("isLearner"))


def ruleset(node: str) -> str:
    """The packet filter of a node, asked from outside it."""
    return here("ip", "netns", "exec", layout.node(node).namespace, "nft", "list", "ruleset")


def test_a_control_plane_leaves_and_comes_back() -> None:
    plan, run = deployed("remove_node", "--dry", *REMOVE), deployed("remove_node", "-y", *REMOVE)
    assert changes(run) == changes(plan) != {}
    assert "cp3" not in kubectl("get", "nodes", "-o", "name")
    assert members() == ["cp1", "cp2"]
    for node in LOAD_BALANCERS:
        assert "10.88.0.23" not in ssh(node, "cat /etc/haproxy/haproxy.cfg")
    for node in NODES:
        assert "cp3" not in ssh(node, "sed '/^127/d' /etc/hosts"), node
    assert (
        ssh("cp3", "ls -d /etc/kubernetes /usr/bin/kubeadm /var/lib/pyinfra-kubeadm 2>&1 | grep -v 'No such'; true")
        == ""
    )
    assert ssh("cp3", "ls -A /var/lib/etcd /var/lib/kubelet | grep -v :; true").strip() == ""
    assert "cni0" not in ssh("cp3", "ip -br link")
    assert "KUBE-" not in ruleset("cp3")
    assert changes(deployed("remove_node", "-y", *REMOVE)) == {}
    deployed("cluster", "-y")
    assert members() == ["cp1", "cp2", "cp3"]
    assert changes(deployed("cluster", "-y")) == {}


def test_the_only_worker_is_not_removed() -> None:
    done = pyinfra("remove_node", "-y", "--data", "remove=w1")
    assert done.returncode == 1
    assert "no host in group worker" in done.stdout
    assert "w1" in kubectl("get", "nodes", "-o", "name")
