"""The shell that lays CAs, run for real on files of a machine, and the fact that reads them."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import Machine, answer

from cluster import rotation as phases
from cluster.certificates import PKI
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBELET_CONF, PHASES, ROTATION, SIGNING
from facts.authority import Authorities, Published
from operations import rotation_scripts as scripts

ADMIN = "/etc/kubernetes/admin.conf"
MANIFEST = """\
spec:
  containers:
  - command:
    - kube-controller-manager
    - --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt
    - --cluster-signing-key-file=/etc/kubernetes/pki/ca.key
    - --root-ca-file=/etc/kubernetes/pki/ca.crt
"""
CONFIG = "clusters:\n- cluster:\n    certificate-authority-data: {data}\n    server: https://10.0.0.100:6443\n"


def make(directory: Path) -> None:
    """A CA and its key for each name."""
    for name in AUTHORITIES:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             "/CN=kubernetes", "-keyout", f"{path}.key", "-out", f"{path}.crt"], check=True, capture_output=True,
        )  # fmt: skip


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A control plane with both CAs, before the first phase."""
    machine.program("openssl")
    machine.program("pgrep", "exit 1")
    for which in ("old", "new"):
        make(machine.path(f"{ROTATION}/{which}"))
    for name in AUTHORITIES:
        for suffix in ("crt", "key"):
            target = machine.path(f"{PKI}/{name}.{suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(machine.path(f"{ROTATION}/old/{name}.{suffix}"), target)
    data = base64.b64encode(machine.path(f"{PKI}/ca.crt").read_bytes()).decode()
    for path in (ADMIN, KUBELET_CONF):
        machine.file(path, CONFIG.format(data=data))
    machine.file(CONTROLLER_MANAGER, MANIFEST)
    return machine


def look(node: Machine) -> phases.State:
    """The fact, with the directory in which the machine is taken off its paths."""
    found = node.sh(str(Authorities().command()))
    assert found.returncode == 0, found.stderr
    state: phases.State = answer(Authorities, found.stdout.replace(str(node.root), "").splitlines())
    return state


def pairs(node: Machine) -> phases.Pairs:
    found = phases.pairs(look(node))
    assert found
    return found


def test_every_phase_is_laid_as_it_is_wanted_and_a_second_time_nothing_is_written(node: Machine) -> None:
    both = pairs(node)
    assert phases.phase(look(node), both) == 0
    for phase in PHASES:
        ran = node.sh(scripts.lay(phase))
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        state = look(node)
        assert (phases.phase(state, both), phases.differs(state, phase, both, True)) == (phase, [])
        before = {path: path.stat().st_mtime_ns for path in node.path("/etc").rglob("*") if path.is_file()}
        node.sh(scripts.lay(phase))
        assert {path: path.stat().st_mtime_ns for path in node.path("/etc").rglob("*") if path.is_file()} == before
        text = node.path(CONTROLLER_MANAGER).read_text()
        assert f"--cluster-signing-cert-file={SIGNING[phase]}.crt\n" in text
        assert f"--cluster-signing-key-file={SIGNING[phase]}.key\n" in text
        assert "--root-ca-file=/etc/kubernetes/pki/ca.crt\n" in text


def test_keys_and_kubeconfigs_are_for_root_alone(node: Machine) -> None:
    node.sh(scripts.lay(2))
    secret = [f"{PKI}/{name}.key" for name in AUTHORITIES] + [ADMIN, KUBELET_CONF, CONTROLLER_MANAGER]
    assert {oct(node.path(path).stat().st_mode & 0o777) for path in secret} == {"0o600"}
    assert node.path(f"{PKI}/ca.crt").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in node.path(CONTROLLER_MANAGER).parent.iterdir()] == ["kube-controller-manager.yaml"]


def test_a_worker_gets_the_cas_that_it_is_told(node: Machine) -> None:
    both = pairs(node)
    node.sh(scripts.lay_on_worker(), stdin="".join(both["ca"].bundle(1)))
    state = look(node)
    assert state["certificates"][f"{PKI}/ca.crt"] == state["certificates"][KUBELET_CONF] == both["ca"].bundle(1)


def test_both_cas_arrive_on_another_control_plane_as_they_left(node: Machine) -> None:
    sent = node.sh(scripts.SEND).stdout
    before = pairs(node)
    shutil.rmtree(node.path(ROTATION))
    ran = node.sh(scripts.RECEIVE, stdin=sent)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert pairs(node) == before
    assert node.path(ROTATION).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", [0, 1 / 3, 1 / 2, 0.51])
def test_a_part_of_both_cas_is_none(node: Machine, part: float) -> None:
    sent = node.sh(scripts.SEND).stdout
    shutil.rmtree(node.path(ROTATION))
    assert node.sh(scripts.RECEIVE, stdin=sent[: int(len(sent) * part)]).returncode != 0
    assert not node.path(ROTATION).exists()


def test_new_cas_are_made_beside_the_old_and_a_kubeadm_that_fails_leaves_nothing(node: Machine) -> None:
    shutil.rmtree(node.path(ROTATION))
    node.program("kubeadm", "exit 3")
    assert node.sh(scripts.begin(), stdin="configuration\n").returncode == 3
    assert not node.path(ROTATION).exists()
    new = node.path(f"{scripts.MAKING}/new")
    node.program("kubeadm", f'echo "$4" >> {node.root}/asked; echo new > {new}/"$4".crt')
    assert node.sh(scripts.begin(), stdin="configuration\n").returncode == 0
    assert (node.root / "asked").read_text().split() == ["ca", "front-proxy-ca", "etcd-ca"]
    for name in AUTHORITIES:
        assert node.path(f"{ROTATION}/old/{name}.key").read_bytes() == node.path(f"{PKI}/{name}.key").read_bytes()


def test_keys_do_not_leave_a_host_by_the_fact(node: Machine) -> None:
    words = node.sh(str(Authorities().command())).stdout
    assert "PRIVATE" not in words
    assert words.count("BEGIN PUBLIC KEY") == 3 * len(AUTHORITIES)


def test_what_the_cluster_is_told_and_who_was_begun_anew_is_read() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----"
    lines = ["published", *pem.split("\n"), "", "namespace default", *pem.split("\n"), *pem.split("\n")]
    lines += ["workload 0123 kube-system Deployment/coredns", "workload  kube-flannel DaemonSet/flannel"]
    lines += ["workload  shop Deployment/till"]
    assert answer(Published, lines) == {
        "state": "published", "cluster_info": [f"{pem}\n"], "namespaces": {"default": [f"{pem}\n"] * 2},
        "workloads": {"kube-system deployment/coredns": "0123", "kube-flannel daemonset/flannel": ""},
    }  # fmt: skip
    assert answer(Published, [])["state"] == "unreachable"


def test_the_configmap_by_which_nodes_join_is_patched_and_stays_yaml(node: Machine) -> None:
    node.file("/run/info", "apiVersion: v1\n" + CONFIG.format(data="b2xk") + "kind: Config\n")
    kubectl = f'case "$*" in *" get "*) cat {node.path("/run/info")};; *) cat > {node.path("/run/patch")};; esac'
    node.program("kubectl", kubectl)
    assert node.sh(scripts.inform(), stdin="both\n").returncode == 0
    data = base64.b64encode(b"both\n").decode()
    wanted = ["data:", "  kubeconfig: |", "    apiVersion: v1", "    clusters:", "    - cluster:"]
    wanted += [f"        certificate-authority-data: {data}", "        server: https://10.0.0.100:6443"]
    assert node.path("/run/patch").read_text().splitlines() == [*wanted, "    kind: Config"]
