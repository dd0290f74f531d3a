"""The shell that runs kubeadm and waits for what it starts, run for real."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from harness import Hosts, InTurn, Machine
from pyinfra.context import ctx_host

from cluster.endpoint import Endpoint
from cluster.settings import load
from cluster.topology import Node, Topology
from facts.kubeadm import ClusterConfig, KubeadmNode
from operations import kubeadm

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
SETTINGS = load({"vip": "10.88.0.10"})
CP1, CP2 = Node("cp1", IPv4Address("10.88.0.21")), Node("cp2", IPv4Address("10.88.0.22"))
TOPOLOGY = Topology(control_planes=(CP1,), workers=(), load_balancers=())


def test_config_is_private_while_kubeadm_reads_it_and_gone_afterwards(machine: Machine) -> None:
    machine.program("kubeadm", 'test "$1 $2" = "init --config" && stat -c %a "$3" && cat "$3"')
    ran = machine.sh(kubeadm.with_config("kubeadm init", 5), stdin="token: hunter2\n")
    assert (ran.returncode, ran.stdout) == (0, "600\ntoken: hunter2\n")
    assert list(machine.path("/run").iterdir()) == []


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("exec sleep 30", 124)], ids=["fails", "hangs"])
def test_config_is_gone_after_a_kubeadm_that_fails_and_the_failure_is_kept(
    machine: Machine, script: str, code: int
) -> None:
    machine.program("kubeadm", script)
    command = kubeadm.with_config("kubeadm init", 60).replace("timeout 60", "timeout 0.2")
    assert machine.sh(command, stdin="token: hunter2\n").returncode == code
    assert list(machine.path("/run").iterdir()) == []


def test_waiting_for_the_api_ends_when_it_answers(machine: Machine) -> None:
    machine.program("curl", f'echo "$@" > {machine.root}/asked')
    assert machine.sh(kubeadm.ready(Endpoint.parse("10.88.0.21"))).returncode == 0
    asked = machine.path("asked").read_text()
    assert f"--cacert {machine.root}/etc/kubernetes/pki/ca.crt https://10.88.0.21:6443/readyz" in asked


def test_waiting_for_the_api_fails_with_kubelets_words_when_time_runs_out(machine: Machine) -> None:
    machine.program("curl", "exit 7")
    machine.program("sleep", "exit 0")
    machine.program("journalctl", "echo 'kubelet: no such image'")
    machine.program("crictl", "echo 'CONTAINER STATE'")
    ran = machine.sh(kubeadm.ready(Endpoint.parse("10.88.0.21"), seconds=1))
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "https://10.88.0.21:6443/readyz did not answer in 1 s; kubelet says:",
        "kubelet: no such image",
        "CONTAINER STATE",
    ]


ENDPOINT = Endpoint("api.example.org", 6443)


def test_the_endpoint_is_asked_by_its_name_and_must_have_the_clusters_ca(machine: Machine) -> None:
    machine.program("curl", f'echo "$@" > {machine.root}/asked')
    assert machine.sh(kubeadm.answers(ENDPOINT)).returncode == 0
    asked = machine.path("asked").read_text()
    assert f"--cacert {machine.root}/etc/kubernetes/pki/ca.crt https://api.example.org:6443/readyz" in asked


def test_an_endpoint_that_does_not_answer_fails_with_the_last_reason(machine: Machine) -> None:
    machine.program("curl", "echo 'curl: (60) SSL certificate problem: self-signed certificate' >&2; exit 60")
    machine.program("sleep", "exit 0")
    ran = machine.sh(kubeadm.answers(ENDPOINT, seconds=2))
    assert ran.returncode == 1
    assert ran.stderr == (
        "https://api.example.org:6443/readyz did not answer as this cluster in 2 s, though its API server is up: curl: "
        "(60) SSL certificate problem: self-signed certificate. Mend the load balancer or DNS name, then run again.\n"
    )


def test_waiting_for_a_kubeadm_ends_with_it_and_fails_when_time_runs_out(hosts: Make, machine: Machine) -> None:
    answers = {ClusterConfig().command(): ["none", ""], KubeadmNode().command(): InTurn(["busy"], [])}
    wait, *_ = hosts({"cp1": answers}).execute(kubeadm.init, settings=SETTINGS, topology=TOPOLOGY, node=CP1)
    machine.program("sleep", "exit 0")
    machine.program("pgrep", f"test -e {machine.root}/over && exit 1; touch {machine.root}/over")
    assert machine.sh(wait.text).returncode == 0
    machine.program("pgrep", 'test "$1" = -x || echo "77 kubeadm init"')
    ran = machine.sh(wait.text.replace("timeout 1260", "timeout 0.2"))
    assert ran.returncode == 1
    assert ran.stderr.endswith("a kubeadm that this run did not start is still at work:\n77 kubeadm init\n")


FORGET = """\
case "$*" in
*'member list') {listing};;
*'member remove '*) echo "$@" >> {root}/removed;;
esac"""
LISTING = """cat <<"E"
7cc38a2eb9f67154, started, cp1, https://10.88.0.21:2380, https://10.88.0.21:2379, false
ab364b3bac85a9aa, unstarted, , https://10.88.0.22:2380, , true
E
"""


@pytest.fixture
def forget(hosts: Make, machine: Machine) -> str:
    """The shell that forgets cp2, with an etcdctl and a kubectl that note what they are asked to remove."""
    ran = hosts({"cp1": {"member remove": []}})
    ctx_host.set(ran.inventory.get_host("cp1"))
    kubeadm.forget(CP1, CP2)
    machine.program("etcdctl", FORGET.format(listing=LISTING, root=machine.root))
    machine.program("kubectl", f'echo "$@" >> {machine.root}/removed')
    return ran.ran[0][1].text


def test_forgetting_removes_the_nodes_member_by_its_address_then_its_node(machine: Machine, forget: str) -> None:
    assert machine.sh(forget).returncode == 0
    member, node = machine.path("removed").read_text().splitlines()
    assert member.endswith("member remove ab364b3bac85a9aa")
    assert node.endswith("delete node cp2 --ignore-not-found")


def test_forgetting_a_node_without_a_member_removes_the_node_only(machine: Machine, forget: str) -> None:
    machine.program("etcdctl", FORGET.format(listing="echo", root=machine.root))
    assert machine.sh(forget).returncode == 0
    assert machine.path("removed").read_text().endswith("delete node cp2 --ignore-not-found\n")


def test_forgetting_stops_when_etcd_does_not_say_who_is_a_member(machine: Machine, forget: str) -> None:
    machine.program("etcdctl", "echo 'context deadline exceeded' >&2; exit 1")
    assert machine.sh(forget).returncode != 0
    assert not machine.path("removed").exists()
