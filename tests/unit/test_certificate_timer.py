"""The program that renews certificates by a timer, run for real, with Kubernetes' programs played; openssl is real."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import SYSTEM_PATH, Machine
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cluster.certificates import ADMIN, API_SERVER, CA, KINDS, KUBELET, OPTIONAL, PKI, PROGRAMS
from cluster.rotation import ROTATION
from cluster.settings import load
from cluster.topology import Node
from facts.certificate import RENEWAL
from operations.certificates import REPLACED, on_the_node

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"/usr/local/sbin/{RENEWAL}"
PEER, SCHEDULER = f"{PKI}/etcd/peer.crt", "/etc/kubernetes/scheduler.conf"
OWN, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
# Which static pod serves at a port, and the file of what it serves.
PORTS: dict[str, tuple[str, str | None]] = {
    "6443": ("kube-apiserver", API_SERVER), "2379": ("etcd", f"{PKI}/etcd/server.crt"), "2380": ("etcd", PEER),
    "loopback": ("kube-apiserver", None), "10257": ("kube-controller-manager", None),
    "10259": ("kube-scheduler", None),
}  # fmt: skip
MEMBERS = "".join(
    f"{each}, started, cp{each}, https://10.0.0.{each}:2380, https://10.0.0.{each}:2379, false\\n" for each in (1, 2, 3)
)
# A backslash may be anywhere in an argument, such as a regular expression of origins.
STORED = {
    "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
    "apiServer": {"extraArgs": [{"name": "cors-allowed-origins", "value": r"\bexample\.org\b"}]},
}  # fmt: skip
SAID = 'echo "$(basename "$0") $*" >> {root}/asked\n'
ETCDCTL = f"""
case "$*" in
*"member list"*) printf '{MEMBERS}'; cat {{root}}/members 2>/dev/null || true;;
*"endpoint health --cluster"*) exit $(cat {{root}}/sick 2>/dev/null || echo 0);;
*" lock "*) echo "lock $*" >> {{root}}/asked; while test "$1" != lock; do shift; done; shift 3; exec "$@";;
esac
"""
CRICTL = """
for p in etcd kube-apiserver kube-controller-manager kube-scheduler; do case "$*" in *"$p"*) break;; esac; done
case "$*" in
*"-o json") test ! -e {root}/started/$p || echo '  "createdAt": "'$(cat {root}/started/$p)'000000000",';;
pods*) echo pod-$p;;
"rmp -f"*) echo "restart $p" >> {root}/asked; test -e {root}/deaf || {root}/start $p;;
esac
"""
# A program reads what is on disk, and makes what it has in no file.
START = """
date +%s > {root}/started/$1
while read -r port program file; do test "$program" = "$1" || continue
    if test "$file" = -; then cp {root}/fresh {root}/served/$port; else cp "$file" {root}/served/$port; fi
done < {root}/ports
"""
OPENSSL = """
test "$1" = s_client || exec {openssl} "$@"
case "$*" in *loopback*) port=loopback;; *) port=${{3##*:}};; esac
cat {root}/served/$port
"""
KUBEADM = """
for f in "$@"; do :; done
cat "$f" > {root}/configuration
echo "kubeadm $1 $2 $3" >> {root}/asked
test -e {root}/renewed/$3 && cp {root}/renewed/$3 $(cat {root}/paths/$3) || true
"""


def made(days: float, key: ec.EllipticCurvePrivateKey = OWN) -> str:
    """A certificate that ends in so many days."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(400)).not_valid_after(now + timedelta(days))
    return builder.sign(OWN, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def text(path: str, pem: str) -> str:
    """The certificate as a file has it."""
    packed = base64.b64encode(pem.encode()).decode()
    return f"users:\n- user:\n    client-certificate-data: {packed}\n" if path.endswith(".conf") else pem


class ControlPlane:
    """A machine with the certificates of a control plane, all good for 300 days."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        for name in ("awk", "hostname", "paste"):
            machine.program(name)
        known = {"root": machine.root, "openssl": shutil.which("openssl")}
        played = {"etcdctl": ETCDCTL, "crictl": CRICTL, "openssl": OPENSSL, "kubeadm": KUBEADM, "sleep": "true",
                  "pgrep": "exit 1", "journalctl": "true", "systemctl": SAID + "cp {root}/fresh {root}" + KUBELET,
                  "kubectl": "cat {root}/stored",
                  "curl": SAID + 'case "$*" in *"$(cat {root}/away 2>/dev/null || echo none)"*) exit 7;; esac',
                  "seq": "echo 1 2"}  # fmt: skip
        for name, script in played.items():
            machine.program(name, script.format(**known))
        key = OWN.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for kind in KINDS:
            self.has(kind.path, 300)
            machine.file(f"/paths/{kind.name}", str(machine.path(kind.path)))
            machine.file(f"/renewed/{kind.name}", text(kind.path, made(365)))
            if kind.path.endswith(".crt"):
                machine.file(f"{kind.path.removesuffix('.crt')}.key", key)
        for path in (CA, "/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/manifests/kube-apiserver.yaml"):
            machine.file(path)
        machine.file("/fresh", made(365))
        machine.file("/stored", yaml.safe_dump(STORED))
        rows = [f"{port} {program} {machine.path(file) if file else '-'}" for port, (program, file) in PORTS.items()]
        machine.file("/ports", "\n".join([*rows, ""]))
        machine.file("/start", f"#!/bin/sh\n{START.format(**known)}").chmod(0o755)
        for directory in ("started", "served"):
            machine.path(directory).mkdir()
        machine.path("/var/lib/kubelet").mkdir(parents=True)
        for program in PROGRAMS:
            subprocess.run([machine.path("/start"), program], check=True)
        script = environment().get_template(f"certificates/{RENEWAL}.j2").render(
            settings=load({"vip": "10.0.0.100", "certificate_renewal_days": 60}),
            **on_the_node(load({"vip": "10.0.0.100"}), Node("cp1", IPv4Address("10.0.0.1"))),
        )  # fmt: skip
        machine.file(PROGRAM, SYSTEM_PATH.sub(f"{machine.root}/", script)).chmod(0o755)

    def has(self, path: str, days: float, key: ec.EllipticCurvePrivateKey = OWN) -> None:
        """Have a certificate, from before its program was started."""
        file = self.machine.file(path, text(path, made(days, key)))
        os.utime(file, (time.time() - 1000,) * 2)

    def run(self) -> subprocess.CompletedProcess[str]:
        self.machine.path("/asked").unlink(missing_ok=True)
        return self.machine.sh(PROGRAM)

    def asked(self, *words: str) -> list[str]:
        """What was asked of kubeadm and restarted, in order, or what begins with these words."""
        path = self.machine.path("/asked")
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(words or ("kubeadm", "restart"))]


def environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@pytest.fixture
def node(machine: Machine) -> ControlPlane:
    return ControlPlane(machine)


def test_where_nothing_ends_nothing_is_asked_of_others(node: ControlPlane) -> None:
    ran = node.run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "no certificate here ends within 60 days\n", "")
    assert node.asked("lock", "kubeadm", "restart", "curl") == []


def test_what_ends_is_renewed_under_a_lock_and_what_has_it_restarted_one_after_the_other(node: ControlPlane) -> None:
    for path in (SCHEDULER, PEER, ADMIN):
        node.has(path, 59)
    ran = node.run()
    assert ran.returncode == 0, ran.stderr
    (lock,) = node.asked("lock")
    assert "--endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379 lock --ttl=120" in lock
    assert node.asked() == [
        "kubeadm certs renew etcd-peer", "kubeadm certs renew admin.conf", "kubeadm certs renew scheduler.conf",
        "restart etcd", "restart kube-scheduler",
    ]  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "every port serves what is on disk"
    cluster, own = yaml.safe_load_all(node.machine.path("/configuration").read_text())
    assert cluster == STORED
    assert own == {
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": "10.0.0.1", "bindPort": 6443},
        "nodeRegistration": {"name": "cp1", "criSocket": "unix:///run/containerd/containerd.sock"},
    }  # fmt: skip
    (old,) = node.machine.path(REPLACED).iterdir()
    assert (old / "pki/etcd/peer.crt").exists() and old.stat().st_mode & 0o777 == 0o700
    assert list(node.machine.path("/run").iterdir()) == []
    again = node.run()
    assert again.stdout == "no certificate here ends within 60 days\n" and node.asked() == []


def test_a_run_that_was_killed_before_it_restarted_is_ended_by_the_next(node: ControlPlane) -> None:
    os.utime(node.machine.path(API_SERVER), (time.time() + 100,) * 2)
    start = node.machine.path("/start")
    start.write_text(start.read_text().replace("date +%s", "echo $(($(date +%s) + 200))"))
    ran = node.run()
    assert ran.returncode == 0, ran.stderr
    assert node.asked() == ["restart kube-apiserver"]


def test_what_a_program_has_in_no_file_is_made_anew_by_its_restart(node: ControlPlane) -> None:
    node.machine.file("/served/loopback", made(20))
    node.machine.file("/served/10259", made(20))
    ran = node.run()
    assert ran.returncode == 0, ran.stderr
    assert node.asked() == ["restart kube-apiserver", "restart kube-scheduler"]


def test_a_certificate_whose_key_is_anothers_is_renewed(node: ControlPlane) -> None:
    node.has(f"{PKI}/front-proxy-client.crt", 300, OTHER)
    assert node.run().returncode == 0
    assert node.asked() == ["kubeadm certs renew front-proxy-client", "restart kube-apiserver"]


def test_the_kubelets_own_is_renewed_and_one_of_the_clusters_left_to_it(node: ControlPlane) -> None:
    node.has(KUBELET, 20)
    node.machine.file(f"{KUBELET.removesuffix('.crt')}.key")
    node.machine.file("/var/lib/kubelet/pki/kubelet-server-current.pem", made(20))
    assert node.run().stdout == "no certificate here ends within 60 days\n"
    node.machine.path("/var/lib/kubelet/pki/kubelet-server-current.pem").unlink()
    ran = node.run()
    assert ran.returncode == 0, ran.stderr
    assert node.asked("systemctl", "restart") == ["systemctl restart kubelet.service"]
    assert node.machine.path(KUBELET).read_text() == node.machine.path("/fresh").read_text()


SICK = [
    ("/members", "f4, unstarted, , https://10.0.0.4:2380, , false\n", "etcd has a member that has not started; look"),
    ("/sick", "1", "etcd has a member that is not healthy;"),
    ("/away", "10.0.0.3:6443", "https://10.0.0.3:6443/readyz does not answer;"),
    ("/programs/pgrep", "#!/bin/sh\nexit 0\n", "a kubeadm is at work;"),
]


@pytest.mark.parametrize(("path", "content", "said"), SICK)
def test_nothing_is_touched_on_a_cluster_that_is_not_well(
    node: ControlPlane, path: str, content: str, said: str
) -> None:
    node.has(PEER, 20)
    node.machine.file(path, content)
    ran = node.run()
    assert ran.returncode == 1
    assert f"no certificate is renewed and nothing restarted while {said}" in ran.stderr
    assert node.asked() == [] and not node.machine.path(REPLACED).exists()


def test_nothing_is_restarted_while_a_static_pod_does_not_run(node: ControlPlane) -> None:
    node.has(PEER, 20)
    node.machine.path("/started/kube-scheduler").unlink()
    ran = node.run()
    assert ran.returncode == 1 and "kube-scheduler does not run here;" in ran.stderr and node.asked() == []


def test_a_kubeadm_that_renews_nothing_is_seen_and_nothing_restarted(node: ControlPlane) -> None:
    node.has(PEER, 20)
    node.machine.path("/renewed/etcd-peer").unlink()
    ran = node.run()
    assert ran.returncode == 1
    assert "kubeadm has not renewed etcd-peer: is the key of its CA in" in ran.stderr
    assert node.asked("restart") == []


def test_certificates_that_last_less_than_the_setting_are_not_restarted_for_each_night(node: ControlPlane) -> None:
    node.has(PEER, 20)
    node.machine.file("/renewed/etcd-peer", made(30))
    ran = node.run()
    assert ran.returncode == 1 and "for less than certificate_renewal_days, so nothing is restarted" in ran.stderr
    assert node.asked("restart") == []


def test_a_port_that_goes_on_with_the_old_one_fails_the_run_with_words(node: ControlPlane) -> None:
    node.has(PEER, 20)
    node.machine.file("/deaf")
    ran = node.run()
    assert ran.returncode == 1
    assert "etcd port 2380 did not serve the certificates on disk within 300 s" in ran.stderr


@pytest.mark.parametrize("path", [API_SERVER, ADMIN])
def test_what_cannot_be_read_is_left_to_a_person(node: ControlPlane, path: str) -> None:
    node.machine.file(path, "half of i")
    ran = node.run()
    assert ran.returncode == 1
    assert f"{path}: no certificate can be read there. Run deploys/renew_certificates.py" in ran.stderr
    assert node.asked() == []


def test_during_a_rotation_of_cas_nothing_is_renewed(node: ControlPlane) -> None:
    node.has(PEER, 20)
    node.machine.path(ROTATION).mkdir()
    ran = node.run()
    assert ran.returncode == 1 and "CAs are being replaced: end that with deploys/rotate_ca.py" in ran.stderr
    assert node.asked() == []


def test_a_super_administrators_kubeconfig_is_none_of_every_control_plane(node: ControlPlane) -> None:
    for path in OPTIONAL:
        node.machine.path(path).unlink()
    assert node.run().returncode == 0
