"""A cluster whose certificates have all ended, as after a year without anybody: one run brings it back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from lab import lab, layout
from tests.lab.nodes import BUNDLE, CONTROL_PLANES, changes, deployed, everywhere, pyinfra, ssh
from tests.lab.test_4_certificates import NODE, PATHS, TIMER, UNIT, on_disk, served
from tests.lab.test_4_certificates import SHORT as ENDING
from tests.lab.test_4_survival import wait_for

# kubeadm itself makes certificates that end in minutes; then everything runs with them.
SHORT = """\
cat > /run/short.yaml <<EOF
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(kubeadm version -o short)
certificateValidityPeriod: 2m30s
EOF
kubeadm certs renew all --config /run/short.yaml
rm /run/short.yaml
for program in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    # The kubelet may be removing a container of it that has just failed.
    until crictl rmp -f $(crictl pods -q --label component=$program); do sleep 2; done
done
"""


def ended(node: str) -> bool:
    peer = "/etc/kubernetes/pki/etcd/peer.crt"
    return "over" in ssh(node, f"openssl x509 -noout -checkend 0 -in {peer} >/dev/null || echo over")


@pytest.fixture
def cluster(bundle: str) -> Iterator[None]:
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    deployed("cluster", "-y")
    yield
    lab.down()


@pytest.mark.usefixtures("cluster")
def test_a_cluster_whose_certificates_have_all_ended_is_brought_back_by_one_run() -> None:
    everywhere(lambda node: ssh(node, SHORT), CONTROL_PLANES)
    for node in CONTROL_PLANES:
        wait_for(partial(ended, node), f"the certificates of {node} to end", 240)
    checked = pyinfra("certificates", "-y")
    assert checked.returncode == 1
    for node in CONTROL_PLANES:
        assert f"{node}: /etc/kubernetes/pki/apiserver.crt: has ended, less than a day ago." in checked.stdout
    planned = changes(pyinfra("renew_certificates", "--dry").stdout)
    assert changes(deployed("renew_certificates", "-y")) == planned != {}
    assert changes(deployed("renew_certificates", "-y")) == {}
    assert "no errors, no warnings" in deployed("certificates", "-y")
    deployed("verify", "-y")


@pytest.mark.usefixtures("cluster")
def test_on_a_cluster_that_is_not_well_a_timer_renews_nothing_and_fails_with_the_reason() -> None:
    deployed("certificate_timer", "-y", *TIMER)
    ssh(NODE, ENDING)
    ending = [on_disk(NODE, path) for path in PATHS.values()]
    running = "crictl ps -q --name '^(etcd|kube-apiserver|kube-scheduler)$' | sort"
    before = ssh(NODE, running)
    gone = "while crictl ps -q --name '^etcd$' | grep -q .; do sleep 1; done"
    ssh("cp3", f"mv /etc/kubernetes/manifests/etcd.yaml /run/ && {gone}")
    try:
        ssh(NODE, f"systemctl start {UNIT}", check=False, timeout=900)
    finally:
        ssh("cp3", "mv /run/etcd.yaml /etc/kubernetes/manifests/")
    assert ([on_disk(NODE, path) for path in PATHS.values()], ssh(NODE, running)) == (ending, before)
    said = pyinfra("certificates", "-y", *TIMER).stdout
    assert f"Warning: {NODE}: the last renewal by timer failed (exit-code)" in said
    assert "etcd has a member that is not healthy" in said
    ssh(NODE, f"systemctl start {UNIT}", timeout=900)
    assert {port: served(NODE, port) for port in PATHS} == {port: on_disk(NODE, path) for port, path in PATHS.items()}
    assert changes(deployed("certificate_timer", "-y")) == {"Certificate timer | Remove the timer of renewal": 3}
    assert changes(deployed("cluster", "-y")) == {}
