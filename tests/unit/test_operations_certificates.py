"""The shell that renews and restarts, run for real, and who may be restarted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml
from harness import Hosts, Machine
from pyinfra.context import ctx_host

from cluster.certificates import API_SERVER, BY_PATH, CONFIGS, KUBELET, PKI, Work
from cluster.kubeadm import api_server_names, certificate_documents
from cluster.settings import load
from cluster.topology import Node, Topology
from facts.etcd import Members
from facts.kubeadm import StoredConfiguration
from operations import certificates

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
SETTINGS = load({"vip": "10.88.0.10", "load_balancing": "control-planes"})
NODES = tuple(Node(f"cp{each}", IPv4Address(f"10.88.0.2{each}")) for each in (1, 2, 3))
TOPOLOGY = Topology(control_planes=NODES, workers=(), load_balancers=())
PEER, SCHEDULER = f"{PKI}/etcd/peer.crt", f"{CONFIGS}/scheduler.conf"
# It notes what it was asked, and renews as it is told.
KUBEADM = """
set -- "$@"; cat "$(for each in "$@"; do f=$each; done; echo "$f")" > {root}/config
echo "$1 $2 $3 $4" >> {root}/asked
case "$*" in "certs renew etcd-peer"*) echo new > {root}/etc/kubernetes/pki/etcd/peer.crt;;
"init phase certs apiserver"*) {made};; esac
"""


@pytest.fixture
def node(machine: Machine) -> Machine:
    for path in (API_SERVER, f"{PKI}/apiserver.key", PEER, f"{PKI}/etcd/peer.key", SCHEDULER):
        machine.file(path, f"old {path}\n")
    machine.path("/var/lib").mkdir(parents=True)
    return machine


def kubeadm(node: Machine, made: str = "true") -> None:
    node.program("kubeadm", KUBEADM.format(root=node.root, made=made))


def kept(node: Machine) -> dict[str, str]:
    """What was set aside, by path below the directory of that time."""
    (directory,) = node.path(certificates.REPLACED).iterdir()
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_what_is_replaced_is_set_aside_first_and_for_root_alone(node: Machine) -> None:
    kubeadm(node, f"echo new > {node.path(API_SERVER)}")
    script = certificates.renew_script(Work(anew=(BY_PATH[API_SERVER],), renewed=(BY_PATH[PEER],)))
    ran = node.sh(script, stdin="the configuration\n")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    asked = ["init phase certs apiserver", "certs renew etcd-peer --config"]
    assert node.path("asked").read_text().splitlines() == asked
    assert node.path("config").read_text() == "the configuration\n"
    assert (node.path(API_SERVER).read_text(), node.path(PEER).read_text()) == ("new\n", "new\n")
    assert kept(node) == {
        "pki/apiserver.crt": f"old {API_SERVER}\n",
        "pki/apiserver.key": f"old {PKI}/apiserver.key\n",
        "pki/etcd/peer.crt": f"old {PEER}\n",
        "pki/etcd/peer.key": f"old {PKI}/etcd/peer.key\n",
        "scheduler.conf": f"old {SCHEDULER}\n",
    }
    assert node.path(certificates.REPLACED).stat().st_mode & 0o777 == 0o700
    assert node.path(certificates.REPLACED).parent.stat().st_mode & 0o777 == 0o755
    assert list(node.path("/run").iterdir()) == []


def test_one_that_cannot_be_made_anew_is_put_back(node: Machine) -> None:
    kubeadm(node, "exit 1")
    ran = node.sh(certificates.renew_script(Work(anew=(BY_PATH[API_SERVER],), renewed=(BY_PATH[PEER],))))
    assert ran.returncode == 1
    assert node.path(API_SERVER).read_text() == f"old {API_SERVER}\n"
    assert node.path(f"{PKI}/apiserver.key").read_text() == f"old {PKI}/apiserver.key\n"
    assert node.path("asked").read_text() == "init phase certs apiserver\n", "nothing comes after a failure"


def test_a_kubeadm_that_renews_nothing_and_says_nothing_is_an_error(node: Machine) -> None:
    kubeadm(node)
    ran = node.sh(certificates.renew_script(Work(renewed=(BY_PATH[SCHEDULER],))))
    assert ran.returncode == 1
    words = "kubeadm has not renewed scheduler.conf: is the key of its CA in .*/etc/kubernetes/pki?"
    assert re.search(words, ran.stderr)


def crictl(node: Machine, containers: str, pods: str) -> None:
    lines = f'case "$1" in ps) echo "{containers}";; pods) echo "{pods}";; esac'
    node.program("crictl", f'echo "$@" >> {node.root}/asked; {lines}')


def test_a_static_pod_is_asked_to_stop_and_then_removed(node: Machine) -> None:
    crictl(node, "c1", "p1")
    assert node.sh(certificates.restart_script("etcd")).returncode == 0
    asked = node.path("asked").read_text().splitlines()
    assert [line for line in asked if line.split()[0] in ("stop", "rmp")] == ["stop --timeout 30 c1", "rmp -f p1"]
    assert "--name ^etcd$ --label io.kubernetes.pod.namespace=kube-system" in asked[0]


def test_a_static_pod_that_is_not_there_is_left_to_the_kubelet(node: Machine) -> None:
    crictl(node, "", "")
    assert node.sh(certificates.restart_script("etcd")).returncode == 0
    assert [line.split()[0] for line in node.path("asked").read_text().splitlines()] == ["ps", "pods"]


def members(*healthy: str) -> list[str]:
    names = [node.name for node in NODES]
    rows = [{"ID": name, "name": name, "clientURLs": [name], "peerURLs": []} for name in names]
    health = [{"endpoint": name, "health": name in healthy} for name in names]
    return ["running", json.dumps({"members": rows}), json.dumps(health)]


MEMBERS = Members().command()


def refused(ran: Hosts) -> str | None:
    ctx_host.set(ran.inventory.get_host("cp1"))
    return certificates.refusal(TOPOLOGY, NODES[0])


def test_etcd_is_restarted_while_all_others_are_healthy(hosts: Make) -> None:
    assert refused(hosts({"cp1": {}, "cp2": {MEMBERS: members("cp2", "cp3")}, "cp3": {MEMBERS: members()}})) is None


def test_etcd_is_not_restarted_while_another_is_not_healthy(hosts: Make) -> None:
    ran = hosts({"cp1": {}, "cp2": {MEMBERS: ["unreachable"]}, "cp3": {MEMBERS: members("cp1", "cp3")}})
    words = "cp1: its etcd is not restarted while that of cp2 is not healthy: the cluster might lose its quorum."
    assert (refused(ran) or "").startswith(words)


def test_etcd_is_not_restarted_while_no_other_can_be_asked(hosts: Make) -> None:
    ran = hosts({"cp1": {}, "cp2": {MEMBERS: ["unreachable"]}, "cp3": {MEMBERS: ["absent"]}})
    assert "while that of cp2 and cp3 is not healthy" in (refused(ran) or "")


def test_a_single_control_plane_has_nobody_to_ask() -> None:
    assert certificates.refusal(Topology((NODES[0],), (), ()), NODES[0]) is None


def test_names_are_laid_into_the_clusters_configuration_and_nothing_else(hosts: Make) -> None:
    stored = {
        "apiServer": {"certSANs": ["old"], "extraArgs": [{"name": "v", "value": "2"}]},
        "kubernetesVersion": "v1.36.1",
    }
    known = hosts({"cp1": {StoredConfiguration().command(): yaml.safe_dump(stored).splitlines()}})
    (command,) = known.execute(certificates.share_names, settings=SETTINGS, topology=TOPOLOGY)
    written = yaml.safe_load(yaml.safe_load(command.stdin)["data"]["ClusterConfiguration"])
    wanted = ["10.88.0.10", "cp1", "cp2", "cp3", "10.88.0.21", "10.88.0.22", "10.88.0.23"]
    assert written == {**stored, "apiServer": {**stored["apiServer"], "certSANs": wanted}}
    same = hosts({"cp1": {StoredConfiguration().command(): yaml.safe_dump(written).splitlines()}})
    assert same.execute(certificates.share_names, settings=SETTINGS, topology=TOPOLOGY) == []


def test_documents_are_of_the_node_and_hold_no_secret() -> None:
    init, cluster = yaml.safe_load_all(certificate_documents(SETTINGS, TOPOLOGY, NODES[1]))
    assert init["localAPIEndpoint"]["advertiseAddress"] == "10.88.0.22"
    assert init["nodeRegistration"]["name"] == "cp2"
    assert not {"bootstrapTokens", "certificateKey"} & set(init)
    assert set(cluster["apiServer"]["certSANs"]) < api_server_names(SETTINGS, TOPOLOGY, NODES[1])


def test_an_api_server_has_the_names_that_kubeadm_gives_it() -> None:
    settings = load({"vip": "10.88.0.10", "dns_domain": "k8s.test", "api_cert_extra_sans": ("2001:DB8:0::1",)})
    found = api_server_names(settings, TOPOLOGY, NODES[1])
    assert found == {
        "10.88.0.10", "cp1", "cp2", "cp3", "10.88.0.21", "10.88.0.22", "10.88.0.23", "2001:db8::1", "10.96.0.1",
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.k8s.test",
    }  # fmt: skip


def test_a_kubelet_makes_another_certificate_and_the_old_one_is_kept(node: Machine) -> None:
    key = KUBELET.replace(".crt", ".key")
    for path in (KUBELET, key):
        node.file(path, "old\n")
    node.program("systemctl", f"echo new > {node.path(KUBELET)}")
    node.program("curl", "exit 0")
    assert node.sh(certificates.kubelet_script()).returncode == 0
    assert node.path(KUBELET).read_text() == "new\n"
    assert kept(node) == {"kubelet.crt": "old\n", "kubelet.key": "old\n"}
