"""Certificates that end on one control plane of the finished cluster: seen, renewed, and proved by what ports serve."""

from __future__ import annotations

import itertools
import stat
import subprocess

import pytest
import yaml

from tests.lab.nodes import CONTROL_PLANES, KUBECTL, MEASURED, ROOT, changes, deployed, everywhere, pyinfra, ssh
from tests.lab.test_5_interrupted import killed_when
from tests.lab.upgrades import kept, writes

pytestmark = pytest.mark.usefixtures("cluster")
NODE = "cp2"
REPLACED = "/var/lib/pyinfra-kubeadm/replaced-certificates"
# As a user could: kubeadm itself makes certificates that end in two days.
SHORT = """\
cat > /run/short.yaml <<EOF
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(kubeadm version -o short)
certificateValidityPeriod: 48h0m0s
EOF
for name in apiserver etcd-peer scheduler.conf; do kubeadm certs renew $name --config /run/short.yaml; done
rm /run/short.yaml
"""


def on_disk(node: str, path: str) -> str:
    return ssh(node, f"openssl x509 -noout -serial -in /etc/kubernetes/pki/{path}")


def served(node: str, port: int) -> str:
    at = f"10.88.0.2{node.removeprefix('cp')}:{port}"
    return ssh(node, f"openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -serial")


def test_certificates_are_checked_and_renewed_where_they_end_and_a_killed_renewal_is_finished() -> None:
    good = deployed("certificates", "-y")
    assert "no errors, no warnings" in good
    for node in CONTROL_PLANES:
        assert served(node, 6443) == on_disk(node, "apiserver.crt")
        assert served(node, 2380) == on_disk(node, "etcd/peer.crt")
    others = {node: served(node, 6443) for node in CONTROL_PLANES if node != NODE}

    ssh(NODE, SHORT)
    ending = {path: on_disk(NODE, path) for path in ("apiserver.crt", "etcd/peer.crt")}
    bad = pyinfra("certificates", "-y")
    assert bad.returncode == 1
    assert f"{NODE}: /etc/kubernetes/pki/etcd/peer.crt: ends in 1 day." in bad.stdout
    words = "kube-scheduler runs since before this was written. deploys/renew_certificates.py restarts"
    assert f"{NODE}: /etc/kubernetes/scheduler.conf: {words}" in bad.stdout

    planned = changes(pyinfra("renew_certificates", "--dry").stdout)
    killed_when("renew_certificates", NODE, f'test -n "$(find {REPLACED} -name scheduler.conf 2>/dev/null)"')
    done = changes(deployed("renew_certificates", "-y"))
    assert set(done) <= set(planned)
    assert sum(NODE in operation for operation in planned) == 2
    for port, path in {6443: "apiserver.crt", 2380: "etcd/peer.crt"}.items():
        assert served(NODE, port) == on_disk(NODE, path) != ending[path]
    assert {node: served(node, 6443) for node in others} == others
    assert stat.S_IMODE(int(ssh(NODE, f"stat -c %f {REPLACED}"), 16)) == 0o700
    assert changes(deployed("renew_certificates", "-y")) == {}
    assert "no errors, no warnings" in deployed("certificates", "-y")


TIMER = ("--data", "certificate_renewal_schedule=*-*-* 03:30:00")
UNIT = "certificate-renewal.service"
PATHS = {6443: "apiserver.crt", 2380: "etcd/peer.crt"}


def at_work(node: str) -> tuple[float, float]:
    """When a control plane's last run by timer began to renew and to restart, and when all of it was proved."""
    lines = ssh(node, f"journalctl -u {UNIT} -o short-unix --no-pager").splitlines()
    times = [[float(line.split()[0]) for line in lines if word in line] for word in (": renewing ", ": every port ")]
    return times[0][-1], times[1][-1]


def test_control_planes_that_renew_by_themselves_at_once_go_one_after_the_other() -> None:
    dry = changes(deployed("certificate_timer", "--dry", *TIMER))
    assert changes(deployed("certificate_timer", "-y", *TIMER)) == dry != {}
    assert changes(deployed("certificate_timer", "-y", *TIMER)) == {}
    everywhere(lambda node: ssh(node, f"systemctl is-active {UNIT.replace('service', 'timer')}"), CONTROL_PLANES)
    everywhere(lambda node: ssh(node, SHORT), CONTROL_PLANES)
    ending = {node: [on_disk(node, path) for path in PATHS.values()] for node in CONTROL_PLANES}
    with writes() as writer:
        everywhere(lambda node: ssh(node, f"systemctl start {UNIT}", timeout=900), CONTROL_PLANES)
        kept(writer, "renewal by timers")
    for node in CONTROL_PLANES:
        now = [on_disk(node, path) for path in PATHS.values()]
        assert [served(node, port) for port in PATHS] == now
        assert not set(now) & set(ending[node])
    spans = sorted(at_work(node) for node in CONTROL_PLANES)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans)), spans
    MEASURED.append(f"renewal by timers: {max(end - begin for begin, end in spans):.0f} s for a control plane at most")
    said = deployed("certificates", "-y", *TIMER)
    assert said.count("last run: success at") == 3 and "no errors, no warnings" in said
    everywhere(lambda node: ssh(node, f"systemctl start {UNIT}"), CONTROL_PLANES)  # nothing ends now
    assert sorted(at_work(node) for node in CONTROL_PLANES) == spans
    assert changes(deployed("certificate_timer", "-y")) == {"Certificate timer | Remove the timer of renewal": 3}


def test_a_user_is_let_in_by_a_kubeconfig_and_may_what_its_groups_may() -> None:
    flags = ("-y", "--data", "user=jane", "--data", "groups=dev", "--data", "days=2")
    said = deployed("kubeconfig", *flags)
    assert "CN=jane,O=dev" in said
    kept = ROOT / "secrets/lab/users/jane.conf"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kubectl, admin = KUBECTL[0], KUBECTL[1]

    def asked(*words: str) -> str:
        command = [kubectl, f"--kubeconfig={kept}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    who = yaml.safe_load(asked("auth", "whoami", "-o", "yaml"))["status"]["userInfo"]
    assert (who["username"], set(who["groups"])) == ("jane", {"dev", "system:authenticated"})
    assert asked("auth", "can-i", "list", "pods").strip() == "no"
    bind = ["create", "clusterrolebinding", "dev-view", "--clusterrole=view", "--group=dev"]
    subprocess.run([kubectl, admin, *bind], check=True, timeout=60)
    assert asked("auth", "can-i", "list", "pods").strip() == "yes"
    # Taken back: the certificate stays good, and may nothing.
    subprocess.run([kubectl, admin, "delete", "clusterrolebinding", "dev-view"], check=True, timeout=60)
    assert asked("auth", "can-i", "list", "pods").strip() == "no"
    assert changes(deployed("kubeconfig", *flags)) == {}
    # In one file of a person's own: both contexts, each with the certificate of its name.
    own = kept.with_name("own")
    own.unlink(missing_ok=True)
    for who in (flags, ("-y",)):
        deployed("kubeconfig", *who, "--data", f"merge={own}")
    for context, name in (("jane@lab", "jane"), ("kubernetes-admin@lab", "kubernetes-admin")):
        command = [kubectl, f"--kubeconfig={own}", f"--context={context}", "auth", "whoami", "-o", "yaml"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert yaml.safe_load(said)["status"]["userInfo"]["username"] == name
    assert changes(deployed("kubeconfig", *flags, "--data", f"merge={own}")) == {}
