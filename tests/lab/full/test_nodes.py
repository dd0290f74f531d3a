"""Machines that are gone and replaced, a cluster that is stopped and started, and hosts as they were before it."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

from lab import lab, layout
from tests.lab.nodes import (
    BUNDLE,
    ROOT,
    changes,
    deployed,
    everywhere,
    foretold,
    kubectl,
    pyinfra,
    pyinfra_command,
    ssh,
)
from tests.lab.test_5_interrupted import killed_when
from tests.lab.test_5_nodes import members, ruleset

NODES = layout.topology("compact")
RESET = ("--data", "reset=lab", "--data", "packages=true")
GONE = ("--exclude", "cp3", "--data", "remove=cp3", "--data", "gone=true")
# What is left of packages and of what hosts do by themselves: the packages' own, caches, logs and users; of packages
# that others brought along, which stay (docs/nodes.md), what they made; and directories on which the lab mounts others.
LEFT = re.compile(
    r"/(var/(log|cache|tmp|lib/(dpkg|apt|systemd|ucf|pam|polkit-1|NetworkManager|dbus|private))|tmp|root|home|usr/share|"
    r"usr/lib/(python3|locale|udev|modules)|usr/sbin/(ip6?|arp|eb)tables|etc/nginx|run|var/lib/dbus|"
    r"etc/networks|var/www|var/lib/(nginx|haproxy)|var/lib/(containerd|etcd)$|"
    r"var/mail|etc/(alternatives|ssl/certs|rc\d\.d|systemd/system/[\w.-]+\.wants|"
    r"(passwd|group|shadow|gshadow|subuid|subgid)-?$|ld\.so\.cache|\.pwd\.lock|mailcap|nsswitch))"
)
FILES = (
    "find / /var/lib/kubelet /var/lib/etcd /var/lib/containerd -xdev ! -type d -printf '%y %m %U:%G %s %p\\n'; "
    "find / -xdev -type d -printf '%y %m %U:%G - %p\\n'"
)
OWNED = "cat /var/lib/dpkg/info/*.list | sort -u"


def before_and_after(node: str) -> dict[str, set[str]]:
    """What a node is, by its own tools and from outside."""
    owned = {each for line in ssh(node, OWNED).splitlines() for each in (line, f"/usr{line}")}  # /bin is /usr/bin
    files = {line for line in ssh(node, FILES).splitlines() if not LEFT.match(line.split(" ", 4)[4])}
    units = ssh(node, "systemctl list-unit-files --no-legend --state=enabled,masked; systemctl list-units --no-legend "
                "--plain --type=service --state=active")  # fmt: skip
    rules = {line.strip() for line in ruleset(node).splitlines() if re.search(r"\b(jump|accept|drop|masq|mark)", line)}
    return {
        "files": {line for line in files if line.split(" ", 4)[4] not in owned},
        "units": {line.split()[0] for line in units.splitlines()},
        "mounts": set(ssh(node, "findmnt -rno TARGET,FSTYPE | grep -v '^/run/user'").splitlines()),
        "interfaces": set(ssh(node, "ip -br link | cut -d' ' -f1 | cut -d@ -f1").split()),
        "routes": set(ssh(node, "ip route").splitlines()),
        "rules": {line for line in rules if "policy" not in line},
        "hosts": set(ssh(node, "cat /etc/hosts /etc/fstab").splitlines()),
        "run": set(ssh(node, "ls /run | grep -E 'containerd|crio|flannel|calico|kube'; true").split()),
        "held": set(ssh(node, "apt-mark showhold").split()),
    }


@pytest.fixture(scope="module")
def bare(bundle: str) -> dict[str, dict[str, set[str]]]:
    """What nodes were before anything was done on them."""
    lab.down()
    lab.up(NODES, str(BUNDLE))
    return {node: before_and_after(node) for node in NODES}


@pytest.fixture(scope="module")
def compact(bare: object) -> None:
    deployed("cluster", "-y")


def wait_for_not_ready(node: str, limit: float = 120) -> None:
    begun = time.monotonic()
    while kubectl("get", "node", node, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}") == "True":
        assert time.monotonic() - begun < limit, f"{node} still reports after {limit} s"
        time.sleep(1)


def test_a_control_plane_that_is_gone_is_removed_and_replaced(compact: None) -> None:
    lab.stop("cp3")
    wait_for_not_ready("cp3")
    # Of the two that are left neither may go.
    done = pyinfra("remove_node", "-y", "--exclude", "cp3", "--data", "remove=cp2")
    assert done.returncode == 1
    assert "cp2: without its etcd member 2 would be left, of which cp3 does not answer" in done.stdout
    plan, _ = deployed("remove_node", "--dry", *GONE), deployed("remove_node", "-y", *GONE)
    assert foretold("remove_node") == []
    assert changes(plan) != {}
    assert members() == ["cp1", "cp2"]
    assert changes(deployed("remove_node", "-y", *GONE)) == {}
    lab.replace("cp3")
    deployed("cluster", "-y")
    assert members() == ["cp1", "cp2", "cp3"]
    assert changes(deployed("cluster", "-y")) == {}


def budgeted(replicas: int, available: int) -> str:
    """A Deployment that runs on the worker, and the budget that holds it."""
    container = {"name": "web", "image": "registry.k8s.io/pause:3.10.2"}
    labels = {"app": "web"}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [container], "nodeSelector": {
                "kubernetes.io/hostname": "w1"}, "terminationGracePeriodSeconds": 0}}},
    }  # fmt: skip
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": available, "selector": {"matchLabels": labels}},
    }  # fmt: skip
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment, budget]})


def test_a_worker_whose_pods_are_held_stays_and_takes_pods(compact: None) -> None:
    others = ("--data", "allow_scheduling_on_control_planes=true", "--data", "remove=w1")
    ssh("cp1", f"echo '{budgeted(2, 2)}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    done = pyinfra("remove_node", "-y", *others)
    assert done.returncode == 1
    assert "w1: budget default/web asks for 2 healthy pods of 2" in done.stdout
    # One may go; where it should come again it cannot, so the other is held until time is over.
    ssh("cp1", f"echo '{budgeted(2, 1)}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    budget = "{.status.disruptionsAllowed}"
    kubectl("wait", f"--for=jsonpath={budget}=1", "poddisruptionbudget/web", "--timeout=30s")
    done = pyinfra("remove_node", "-y", *others, "--data", "drain_timeout=10")
    assert done.returncode == 1
    assert "w1: not drained in 10 s, so it was not removed. Still there: default/web-" in done.stdout
    assert "budget default/web holds" in done.stdout
    assert "unschedulable" not in kubectl("get", "node", "w1", "-o", "json")
    kubectl("delete", "deployment/web", "poddisruptionbudget/web")


def test_a_removal_that_was_killed_is_completed_by_the_next_run(compact: None) -> None:
    with subprocess.Popen(
        pyinfra_command("remove_node", "-y", "--data", "remove=cp2"), cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        while len(members()) == 3:
            assert run.poll() is None, "it ended before it could be killed"
        run.kill()
    deployed("remove_node", "-y", "--data", "remove=cp2")
    assert "cp2" not in kubectl("get", "nodes", "-o", "name")
    deployed("cluster", "-y")
    assert members() == ["cp1", "cp2", "cp3"]


def test_a_cluster_is_stopped_and_started(compact: None) -> None:
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    plan, run = deployed("stop", "--dry"), deployed("stop", "-y")
    assert foretold("stop") == []
    assert changes(plan) != {}
    everywhere(
        lambda node: ssh(node, 'test -z "$(crictl pods -q --state ready)" && ! systemctl -q is-active kubelet'), NODES
    )
    assert changes(deployed("stop", "-y")) == {}
    for node in NODES:
        lab.stop(node)
    for node in NODES:
        lab.start(node)
    everywhere(lambda node: ssh(node, "systemctl is-system-running --wait", check=False), NODES)
    killed_when("stop", "w1", "! systemctl -q is-active kubelet")
    deployed("stop", "-y")
    assert changes(deployed("stop", "-y")) == {}
    plan, run = deployed("start", "--dry"), deployed("start", "-y")
    assert changes(run) == changes(plan) != {}
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    deployed("stop", "-y")
    killed_when("start", "cp1", "systemctl -q is-active kubelet")
    deployed("start", "-y")
    assert changes(deployed("start", "-y")) == {}
    assert changes(deployed("cluster", "-y")) == {}


def test_reset_leaves_hosts_as_they_were(compact: None, bare: dict[str, dict[str, set[str]]]) -> None:
    done = pyinfra("reset", "-y", "--data", "reset=production")
    assert done.returncode == 1
    assert "reset: says production, and the cluster of this inventory is lab" in done.stdout
    plan, _ = deployed("reset", "--dry", *RESET), deployed("reset", "-y", *RESET)
    assert foretold("reset") == []
    assert changes(plan) != {}
    as_they_were(bare)
    assert changes(deployed("reset", "-y", *RESET)) == {}
    deployed("cluster", "-y")
    killed_when("reset", "cp2", "! systemctl -q is-active kubelet", flags=RESET)
    deployed("reset", "-y", *RESET)
    as_they_were(bare)


def as_they_were(bare: dict[str, dict[str, set[str]]]) -> None:
    for node in NODES:
        after = before_and_after(node)
        more = {what: sorted(after[what] - bare[node][what]) for what in after}
        less = {what: sorted(bare[node][what] - after[what]) for what in after}
        assert {what: found for what, found in more.items() if found} == {}, node
        assert {what: found for what, found in less.items() if found} == {}, node
