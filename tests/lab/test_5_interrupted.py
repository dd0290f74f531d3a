"""A deploy that is killed half-way, machines that are replaced: the next run mends it without anyone's help."""

from __future__ import annotations

import subprocess
import time

from lab import lab
from tests.lab.nodes import BUNDLE, ROOT, changes, deployed, kubectl, pyinfra_command, ssh


def killed_when(
    deploy: str, node: str, condition: str, power_cut: bool = False, limit: float = 600, flags: tuple[str, ...] = ()
) -> None:
    """Start a run and kill it, or the node, as soon as a shell condition holds there."""
    with subprocess.Popen(
        pyinfra_command(deploy, "-y", *flags), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as run:  # fmt: skip
        begun = time.monotonic()
        while ssh(node, f"{condition} && echo now || true").strip() != "now":
            assert run.poll() is None, f"the run ended before it could be killed:\n{run.stdout and run.stdout.read()}"
            assert time.monotonic() - begun < limit, f"{node}: {condition!r} did not come to hold in {limit} s"
            time.sleep(0.1)
        if power_cut:
            lab.stop(node)
        run.kill()
    if power_cut:
        lab.start(node)


def test_killed_runs_and_replaced_machines_are_taken_up_by_the_next_run() -> None:
    lab.down()
    lab.up(bundle=str(BUNDLE))
    # Between the certificates and the first static pod.
    killed_when("cluster", "cp1", "test -e /etc/kubernetes/pki/etcd/server.crt")
    # The power of the first control plane fails while its etcd comes up for the first time.
    killed_when("cluster", "cp1", "test -d /var/lib/etcd/member", power_cut=True)
    # A control plane's join, in the middle of becoming an etcd member.
    killed_when("cluster", "cp2", "test -e /etc/kubernetes/manifests/kube-apiserver.yaml")
    # The same with its power cut.
    killed_when("cluster", "cp3", "test -e /etc/kubernetes/manifests/kube-apiserver.yaml", power_cut=True)
    killed_when("cluster", "w1", "test -e /etc/kubernetes/bootstrap-kubelet.conf -o -e /etc/kubernetes/kubelet.conf")
    deployed("cluster", "-y")
    # A Node that someone deleted by hand: it joins anew, and is given other addresses for its pods than it had.
    kubectl("delete", "node", "w1")
    deployed("cluster", "-y")
    # A control plane, the first one, and a worker come back with empty disks: the others have kept the cluster.
    for node in ("cp1", "w1"):
        lab.replace(node)
    deployed("cluster", "-y")
    assert changes(deployed("cluster", "-y")) == {}
