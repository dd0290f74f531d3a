"""The shell that changes static pods and kubelets, run for real: what works stays, what does not is put back."""

from __future__ import annotations

import base64
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from harness import SYSTEM_PATH, Machine

from cluster.pieces import NODE_DIRECTORY
from cluster.reconfiguration import KUBELET, MANIFESTS
from cluster.topology import Node
from facts.reconfigure import NodeFiles, SharedConfiguration
from operations import reconfigure

CP1 = Node("cp1", IPv4Address("10.0.0.1"))
SERVER = f"{MANIFESTS}/kube-apiserver.yaml"
# Ready by the manifest that is there, if that is not a bad one; the digest of a pod is its text.
KUBECTL = """
grep -q bad {root}{path} && exit 1
echo "$(cat {root}{path}) True"
"""
KUBEADM = """
cat "$(for each in "$@"; do f=$each; done; echo "$f")" > {root}{path}
echo "$*" >> {root}/asked
"""


@pytest.fixture
def node(machine: Machine) -> Machine:
    machine.file(SERVER, "old\n")
    machine.file(KUBELET, "old\n")
    machine.program("crictl", "echo 'unknown flag: --bad'")
    machine.program("journalctl", "echo 'unknown field \"bad\"'")
    # A wait is over at once.
    machine.program("sleep", "true")
    machine.program("kubeadm", KUBEADM.format(root=machine.root, path=SERVER))
    return machine


def kept(node: Machine) -> list[Path]:
    return [path for path in node.path(reconfigure.REPLACED).rglob("*") if path.is_file()]


def test_a_manifest_is_written_by_kubeadm_and_the_one_of_before_is_kept(node: Machine) -> None:
    node.program("kubectl", KUBECTL.format(root=node.root, path=SERVER))
    ran = node.sh(reconfigure.manifest_script("kube-apiserver", CP1), stdin="new\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert node.path(SERVER).read_text() == "new\n"
    assert "init phase control-plane apiserver --config" in node.path("/asked").read_text()
    assert [path.read_text() for path in kept(node)] == ["old\n"]
    assert list(node.path("/run").iterdir()) == []


def test_a_manifest_whose_pod_does_not_become_ready_is_put_back(node: Machine) -> None:
    node.program("kubectl", KUBECTL.format(root=node.root, path=SERVER))
    ran = node.sh(reconfigure.manifest_script("kube-apiserver", CP1), stdin="bad\n")
    assert ran.returncode == 1
    assert "kube-apiserver of cp1 did not become ready by its new manifest within 180 s" in ran.stderr
    assert "unknown flag: --bad" in ran.stderr
    assert "The manifest of before is back, and its pod is ready." in ran.stderr
    assert node.path(SERVER).read_text() == "old\n"
    assert [path.name for path in node.path(MANIFESTS).iterdir()] == ["kube-apiserver.yaml"]


def test_a_manifest_is_left_alone_while_the_api_does_not_show_its_pod(node: Machine) -> None:
    node.program("kubectl", "exit 1")
    ran = node.sh(reconfigure.manifest_script("kube-apiserver", CP1), stdin="new\n")
    assert ran.returncode == 1
    assert "the API does not show kube-apiserver-cp1" in ran.stderr
    assert node.path(SERVER).read_text() == "old\n"


# It says Ready and when it said so last: after every start that its configuration lets it have.
STARTS = """
case "$1" in is-active) exit 0;; esac
grep -q bad {root}{path} || {{ n=$(cat {root}/starts 2>/dev/null || echo 0); echo $((n + 1)) > {root}/starts; }}
"""
SEEN = 'echo "True $(cat {root}/starts 2>/dev/null || echo 0)"'


def test_a_kubelet_is_configured_and_reports_ready_anew(node: Machine) -> None:
    node.program("systemctl", STARTS.format(root=node.root, path=KUBELET))
    node.program("kubectl", SEEN.format(root=node.root))
    ran = node.sh(reconfigure.kubelet_script(CP1), stdin="new\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert node.path(KUBELET).read_text() == "new\n"
    assert [path.read_text() for path in kept(node)] == ["old\n"]


def test_a_kubelet_that_does_not_report_again_gets_its_configuration_of_before(node: Machine) -> None:
    node.program("systemctl", STARTS.format(root=node.root, path=KUBELET))
    node.program("kubectl", SEEN.format(root=node.root))
    ran = node.sh(reconfigure.kubelet_script(CP1), stdin="bad\n")
    assert ran.returncode == 1
    assert 'unknown field "bad"' in ran.stderr
    assert "Its configuration of before is back, and its node is ready." in ran.stderr
    assert node.path(KUBELET).read_text() == "old\n"


@pytest.mark.parametrize(
    "command",
    [NodeFiles().command(control_plane=True), SharedConfiguration().command(kubelet="kubelet-config")],
    ids=["node", "cluster"],
)
def test_a_bare_machine_reads_the_documents_that_it_is_sent(machine: Machine, command: str) -> None:
    """Else SSH finds a closed channel, now and then, and pyinfra gives up the host."""
    led = SYSTEM_PATH.sub(f"{machine.root}/", command)
    with subprocess.Popen(
        [machine.programs / "sh", "-c", led], stdin=subprocess.PIPE, env={"PATH": str(machine.programs)}
    ) as process:
        assert process.stdin
        process.stdin.write(b"x" * (1 << 20))
        process.stdin.close()
    assert process.returncode == 0


def test_a_kubeadm_that_cannot_run_is_the_bundles_for_a_look(machine: Machine) -> None:
    for path in ("/etc/kubernetes/kubelet.conf", KUBELET, "/etc/kubernetes/kubelet.conf"):
        machine.file(path, "old\n")
    machine.program("kubeadm", "exit 126")
    wanted = machine.path(KUBELET)
    text = f"#!/bin/sh\nmkdir -p $2{wanted.parent}; echo new > $2{wanted}\n"
    piece = machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", text)
    command = NodeFiles().command(control_plane=False)
    done = machine.sh(command, "documents")
    assert done.returncode == 0, done.stderr
    assert f"wanted {wanted} {base64.b64encode(b'new' + bytes([10])).decode()}" in done.stdout
    assert [each.name for each in machine.path("/var/lib/pyinfra-kubeadm").iterdir()] == ["bundle"]
    piece.unlink()
    assert machine.sh(command, "documents").returncode != 0
