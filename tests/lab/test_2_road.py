"""The whole road on bare nodes: dry run, run, dry run, run. A plan is the truth, a second run finds nothing to do."""

from __future__ import annotations

import re

import pytest

from tests.lab.nodes import NODES, changes, deployed, foretold, kubectl, on, ssh

LAYERS = (
    "preflight", "distribute", "node", "runtime", "images", "packages", "load_balancer", "control_plane", "workers",
    "network", "verify",
)  # fmt: skip

# Name, mode, owner, size and time of everything that lasts. What logging in and systemd itself write is left out.
SNAPSHOT = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o -path /var/tmp "
    "-o -path /var/lib/systemd -o -path /var/lib/private -o -path /var/cache/ldconfig -o -path /dev \\) -prune -o "
    "-not -type d -printf '%p %m %U:%G %s %T@\\n' | sort; "
    "systemctl list-units --all --plain --no-legend --type=service,swap,mount | cut -d' ' -f1 | sort; "
    "sysctl -a 2>/dev/null | grep -E '^net.(ipv4.ip_forward|bridge)|^vm.over|^kernel.panic'"
)


def snapshot() -> dict[str, str]:
    return {node: ssh(node, SNAPSHOT) for node in NODES}


@pytest.fixture(scope="module")
def plan(bare: None) -> str:
    """A dry run on bare nodes, with what it left on them compared."""
    before = snapshot()
    output = deployed("cluster", "--dry", "--diff")
    after = snapshot()
    for node in NODES:
        new = set(after[node].splitlines()) ^ set(before[node].splitlines())
        assert not new, f"{node}: a dry run changed {sorted(new)[:20]}"
    return output


def test_a_dry_run_of_bare_nodes_names_every_step(plan: str) -> None:
    assert len(changes(plan)) > 20
    for step in (
        ", containerd none -> 1.6.20", ", haproxy none -> 2.6.12", "import registry.k8s.io/kube-apiserver:v1.36.2",
        "install /usr/bin/kubeadm", "write /etc/containerd/config.toml", "SystemdCgroup = true",
        "write /etc/haproxy/haproxy.cfg", "server cp3 10.88.0.23:6443",
        "write /etc/keepalived/keepalived.conf",
        "Initialise the cluster on cp1", "Join control plane cp2", "Join control plane cp3", "Join the worker",
        "create /etc/kubernetes/addons/flannel.yaml", "its content is known once the CA is made",
    ):  # fmt: skip
        assert step in re.sub(r"\x1b\[[0-9;]*m", "", plan), f"the plan does not say: {step}"


def test_a_dry_run_leaves_no_question_open(plan: str) -> None:
    assert changes(plan, column=2) == {}


def test_the_run_changes_what_the_plan_said(plan: str, cluster: str) -> None:
    assert foretold("cluster") == []


def test_a_second_dry_run_and_run_change_nothing(cluster: str) -> None:
    before, objects = snapshot_of_configuration(), versions()
    for flags in (("--dry", "--diff"), ("-y",)):
        output = deployed("cluster", *flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"
        if "--dry" in flags:
            assert versions() == objects
    assert snapshot_of_configuration() == before


def versions() -> set[str]:
    """Objects that a run could make or write, with the revision of etcd at which each was written last.

    Leases and status are written all the time by others; so are ConfigMaps of leader election.
    """
    kinds = "secrets,configmaps,serviceaccounts,csr,clusterroles,clusterrolebindings,roles,rolebindings,crd,namespaces"
    columns = "K:.kind,N:.metadata.namespace,M:.metadata.name,R:.metadata.resourceVersion"
    return set(kubectl("get", kinds, "-A", "--no-headers", "-o", f"custom-columns={columns}").splitlines())


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_changes_nothing_more(cluster: str, layer: str) -> None:
    output = deployed(layer, "-y")
    assert changes(output) == {}, output[-4000:]


def snapshot_of_configuration() -> dict[str, str]:
    """Files of ours and kubeadm's, and when daemons were started."""
    found = "find /etc /opt /usr/bin /var/lib/pyinfra-kubeadm -type f -printf '%p %m %U:%G %s %T@\\n' | sort; "
    units = "systemctl show -p ExecMainStartTimestamp containerd kubelet haproxy keepalived"
    return {node: ssh(node, found + units) for node in NODES}


def test_no_secret_is_left_where_others_can_read_it(cluster: str) -> None:
    for node in NODES:
        readable = on(node).check_output(
            "find /etc/kubernetes /var/lib/kubelet /run /tmp /etc/keepalived /etc/haproxy -xdev -type f -perm /044 "
            "\\( -name '*.key' -o -name '*.conf' -path '/etc/kubernetes/*' -o -name 'kubeadm.*' \\) 2>/dev/null || true"
        )
        assert readable == "", f"{node}: others can read {readable}"
        assert ssh(node, "ls /run/kubeadm.* 2>/dev/null || true") == ""
    secret = ssh("cp1", "cat /etc/kubernetes/pki/ca.key /etc/kubernetes/admin.conf")
    lines = [line for line in secret.splitlines() if len(line) > 60]
    tokens = re.findall(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", cluster)
    assert lines and not tokens
    assert not [line for line in lines if line in cluster]
