"""The CA, the administrator's kubeconfig, and commands on another host. All states of hosts are hand-written."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Command, Hosts, Machine, recorded
from pyinfra.api import OperationError
from pyinfra.context import ctx_host

from cluster.settings import load
from cluster.topology import Node, Topology
from facts.file import FileState
from facts.kubeadm import KubeadmNode
from operations import file, pki, remote, user

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
SETTINGS = load({"vip": "10.88.0.10"})
CP1, CP2 = Node("cp1", IPv4Address("10.88.0.21")), Node("cp2", IPv4Address("10.88.0.22"))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(), load_balancers=())
NODE, CA, DEST = KubeadmNode().command(), FileState().command(pki.CA), "/etc/haproxy/kubernetes-ca.crt"
ADMIN = FileState().command(pki.ADMIN, secret=True)
TEXT = "-----BEGIN CERTIFICATE-----\n"
ADDED = """\
clusters: [{name: lab, cluster: {server: https://192.0.2.100:6443, certificate-authority-data: Q0E=}}]
users: [{name: kubernetes-admin, user: {client-key-data: a2V5}}]
contexts: [{name: here, context: {cluster: lab, user: kubernetes-admin}}]
current-context: here
"""
KUBECONFIG = "apiVersion: v1\nclient-key-data: hunter2\n"


def shown(text: str) -> list[str]:
    return ["644 root root", base64.b64encode(text.encode()).decode()]


def summed(text: str) -> list[str]:
    return ["600 root root", f"{hashlib.sha256(text.encode()).hexdigest()}  -"]


def test_ca_is_made_on_a_bare_cluster_from_a_document_without_secrets(hosts: Make) -> None:
    bare = hosts({"cp1": {NODE: []}, "cp2": {NODE: []}})
    for run in (bare.plan, bare.execute):
        (command,) = run(pki.authority, "cp1", settings=SETTINGS, topology=TOPOLOGY)
        assert "kubeadm init phase certs ca --config" in command.text
        documents = list(yaml.safe_load_all(command.stdin))
        assert [document["kind"] for document in documents] == ["InitConfiguration", "ClusterConfiguration"]
        assert not {"bootstrapTokens", "certificateKey"} & set(documents[0])


def test_ca_on_any_control_plane_is_the_clusters(hosts: Make) -> None:
    done = hosts({"cp1": {NODE: []}, "cp2": {NODE: recorded("KubeadmNode.cluster-cp1")}})
    assert done.plan(pki.authority, "cp1", settings=SETTINGS, topology=TOPOLOGY) == []
    assert done.execute(pki.authority, "cp1", settings=SETTINGS, topology=TOPOLOGY) == []
    assert done.noops == ["the cluster has a CA"] * 2


@pytest.mark.parametrize(("certificate", "key"), [(False, False), (True, True)])
def test_ca_key_that_a_killed_run_left_is_removed_and_a_whole_ca_is_not(
    hosts: Make, machine: Machine, certificate: bool, key: bool
) -> None:
    (command,) = hosts({"cp1": {NODE: []}, "cp2": {NODE: []}}).execute(
        pki.authority, "cp1", settings=SETTINGS, topology=TOPOLOGY
    )
    machine.file("/etc/kubernetes/pki/ca.key", "key")
    if certificate:
        machine.file("/etc/kubernetes/pki/ca.crt", "certificate")
    machine.program("kubeadm", "exit 0")
    assert machine.sh(command.text, stdin=command.stdin).returncode == 0
    assert machine.path("/etc/kubernetes/pki/ca.key").exists() is key


def test_trust_is_announced_before_there_is_a_ca(hosts: Make) -> None:
    there = FileState().command(DEST, secret=True)
    for own, verb in (([], f"create {DEST}"), (["644 root root", f"{'0' * 64}  -"], f"modify {DEST} (content)")):
        bare = hosts({"lb1": {there: own}, "cp1": {CA: []}, "cp2": {CA: []}})
        assert bare.plan(pki.trust, "lb1", dest=DEST, topology=TOPOLOGY) == [Command("# the CA is not made yet")]
        assert bare.announced == [f"{verb} (its content is known once the CA is made)"]


def test_trust_stops_without_a_ca(hosts: Make) -> None:
    words = (
        r"^lb1: no control plane has /etc/kubernetes/pki/ca\.crt\. If one has failed above, mend it first; else run "
    )
    with pytest.raises(OperationError, match=words):
        hosts({"lb1": {}, "cp1": {CA: []}, "cp2": {CA: []}}).execute(pki.trust, "lb1", dest=DEST, topology=TOPOLOGY)


def test_trust_is_written_from_any_control_plane_and_kept(hosts: Make) -> None:
    bare = hosts({"lb1": {FileState().command(DEST): []}, "cp1": {CA: []}, "cp2": {CA: shown(TEXT)}})
    written = [Command(file.write_script(DEST, "644", "root", "root", None), TEXT)]
    assert bare.execute(pki.trust, "lb1", dest=DEST, topology=TOPOLOGY) == written
    done = hosts({"lb1": {FileState().command(DEST): shown(TEXT)}, "cp1": {CA: shown(TEXT)}})
    assert done.execute(pki.trust, "lb1", dest=DEST, topology=TOPOLOGY) == []
    assert done.noops == [f"{DEST} is as wanted"]


def test_kubeconfig_is_fetched_when_there_is_none_or_another(hosts: Make, tmp_path: Path) -> None:
    dest = tmp_path / "secrets" / "lab" / "admin.conf"
    ran = hosts({"cp1": {ADMIN: summed(KUBECONFIG), f"cat {pki.ADMIN}": KUBECONFIG}})
    for old in (None, "another\n"):
        if old:
            dest.write_text(old)
        (command,) = ran.execute(pki.kubeconfig, dest=str(dest))
        command.function()
        assert dest.read_text() == KUBECONFIG
        assert dest.stat().st_mode & 0o7777 == 0o600
        assert list(dest.parent.iterdir()) == [dest]
    assert "hunter2" not in repr((ran.said, ran.changes))


def test_kubeconfig_that_is_the_clusters_is_kept(hosts: Make, tmp_path: Path) -> None:
    dest = tmp_path / "admin.conf"
    dest.write_text(KUBECONFIG)
    done = hosts({"cp1": {ADMIN: summed(KUBECONFIG)}})
    assert done.plan(pki.kubeconfig, dest=str(dest)) == []
    assert done.execute(pki.kubeconfig, dest=str(dest)) == []
    assert done.noops == [f"{dest} is the cluster's"] * 2


def test_kubeconfig_that_this_run_renews_is_announced_and_kept_if_it_is_the_same_after_all(
    hosts: Make, tmp_path: Path
) -> None:
    dest = tmp_path / "admin.conf"
    dest.write_text(KUBECONFIG)
    done = hosts({"cp1": {ADMIN: summed(KUBECONFIG)}})
    assert len(done.plan(pki.kubeconfig, dest=str(dest), renewed=True)) == 1
    assert done.execute(pki.kubeconfig, dest=str(dest), renewed=True) == []


def test_kubeconfig_of_a_bare_cluster_is_announced(hosts: Make, tmp_path: Path) -> None:
    assert len(hosts({"cp1": {ADMIN: []}}).plan(pki.kubeconfig, dest=str(tmp_path / "admin.conf"))) == 1


def test_secrets_lie_in_directories_of_their_owner_alone(tmp_path: Path) -> None:
    pki.keep(tmp_path / "secrets" / "lab" / "admin.conf", KUBECONFIG)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes == {"secrets": 0o700, "lab": 0o700, "admin.conf": 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_persons_own_kubeconfig_stays_theirs_when_root_merges_into_it(hosts: Make, tmp_path: Path) -> None:
    added, own = tmp_path / "admin.conf", tmp_path / "home" / "config"
    added.write_text(ADDED)
    own.parent.mkdir()
    own.write_text("preferences: {}\n")
    os.chown(own, 1234, 1235)
    (command,) = hosts({"cp1": {}}).execute(user.merge, into=str(own), dest=str(added), cluster="lab", after=[])
    command.function()
    assert "kubernetes-admin@lab" in own.read_text()
    found = {(each.stat().st_uid, each.stat().st_gid, each.stat().st_mode & 0o777) for each in own.parent.iterdir()}
    assert (found, len(list(own.parent.iterdir()))) == ({(1234, 1235, 0o600)}, 2)


def test_where_nothing_can_be_written_a_merge_says_so_before_anything_is_done(hosts: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    own = tmp_path / "file" / "config"
    with pytest.raises(OperationError, match=f"^{own} is left as it is: nothing can be written beside it: "):
        hosts({"cp1": {}}).plan(user.merge, into=str(own), dest=str(tmp_path / "none"), cluster="lab", after=[])


def test_command_on_another_host_gives_its_lines_and_gets_its_standard_input(hosts: Make) -> None:
    ran = hosts({"cp1": {}, "cp2": {"echo": "one\ntwo"}})
    ctx_host.set(ran.inventory.get_host("cp1"))
    assert remote.on("cp2", "echo it's", stdin="hunter2", why="trying") == ["one", "two"]
    assert ran.ran == [("cp2", Command("sh -c 'echo it'\"'\"'s'", "hunter2"))]


def test_command_that_fails_on_another_host_says_where_why_and_for_whom(hosts: Make) -> None:
    ran = hosts({"cp1": {}, "cp2": {"false": {"success": False, "stderr": "no such token"}}})
    ctx_host.set(ran.inventory.get_host("cp1"))
    with pytest.raises(OperationError, match=r"^cp2: creating a token failed for cp1: no such token$"):
        remote.on("cp2", "false", why="creating a token")
