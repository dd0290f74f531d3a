"""The finished cluster, looked at by testinfra and kubectl: each trap of the guide and what was done about it."""

from __future__ import annotations

import json
import stat

import pytest

from tests.lab.nodes import (
    CONTROL_PLANES,
    KUBECTL,
    KUBERNETES_NODES,
    LOAD_BALANCERS,
    NODES,
    ROOT,
    VIP,
    changes,
    deployed,
    holders,
    kubectl,
    on,
    pyinfra,
    ssh,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.mark.parametrize("node", KUBERNETES_NODES)
def test_containerd_runs_with_our_configuration_and_not_only_its_file(node: str) -> None:
    machine = on(node)
    dumped = machine.check_output("containerd config dump")
    assert "SystemdCgroup = true" in dumped
    assert 'sandbox_image = "registry.k8s.io/pause:3.10.2"' in dumped
    assert 'bin_dir = "/opt/cni/bin"' in dumped
    assert "cri" not in machine.check_output("containerd config dump | grep disabled_plugins")
    info = json.loads(machine.check_output("crictl info"))
    assert {row["type"]: row["status"] for row in info["status"]["conditions"]}["RuntimeReady"] is True
    assert machine.service("containerd").is_enabled
    assert set(machine.check_output("apt-mark showhold").split()) == {"containerd", "runc"}


@pytest.mark.parametrize("node", KUBERNETES_NODES)
def test_kubelet_and_runtime_agree_on_the_cgroup_driver(node: str) -> None:
    configured = ssh(node, "cat /var/lib/kubelet/config.yaml")
    assert "cgroupDriver: systemd" in configured
    # Where the kubelet has really put its pods.
    assert ".slice" in ssh(node, "cat /proc/$(pgrep -x kube-proxy | head -1)/cgroup")
    assert on(node).service("kubelet").is_running
    assert on(node).service("kubelet").is_enabled


@pytest.mark.parametrize("node", KUBERNETES_NODES)
def test_kernel_settings_hold_now_and_at_the_next_boot(node: str) -> None:
    machine = on(node)
    needed = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")
    for key, value in {**dict.fromkeys(needed, 1), "net.ipv4.tcp_keepalive_time": 600}.items():
        assert machine.sysctl(key) == value
        assert f"{key} = {value}" in machine.file("/etc/sysctl.d/90-kubernetes.conf").content_string
    assert machine.file("/etc/modules-load.d/kubernetes.conf").content_string.split() == ["overlay", "br_netfilter"]
    assert machine.check_output("tail -n +2 /proc/swaps") == ""


@pytest.mark.parametrize("node", NODES)
def test_every_node_knows_every_other_by_name(node: str) -> None:
    known = on(node).check_output("getent ahostsv4 lb1 lb2 >/dev/null; cat /etc/hosts")
    assert all(f" {name}" in known for name in NODES)
    assert on(node).check_output("hostname") == node


@pytest.mark.parametrize("node", KUBERNETES_NODES)
def test_nodes_are_known_by_their_own_address_and_not_the_virtual_one(node: str) -> None:
    found = json.loads(kubectl("get", "node", node, "-o", "json"))
    internal = [row["address"] for row in found["status"]["addresses"] if row["type"] == "InternalIP"]
    assert internal == [ssh(node, "ip -4 -o addr show dev eth0 | head -1").split()[3].partition("/")[0]]


@pytest.mark.parametrize("node", LOAD_BALANCERS)
def test_haproxy_asks_each_api_server_whether_it_is_ready(node: str) -> None:
    machine = on(node)
    assert machine.service("haproxy").is_running
    assert machine.service("haproxy").is_enabled
    machine.run_test("haproxy -c -q -f /etc/haproxy/haproxy.cfg")
    rows = ssh(node, "echo show stat | socat - /run/haproxy/admin.sock").splitlines()
    header = rows[0].removeprefix("# ").split(",")
    stats = [dict(zip(header, row.split(","), strict=False)) for row in rows[1:] if row]
    own = [row for row in stats if row["svname"] in CONTROL_PLANES]
    # The star says that the next check is under way (HAProxy's management guide, 9.1, check_status).
    servers = {row["svname"]: (row["status"], row["check_status"].removeprefix("* ")) for row in own}
    assert servers == dict.fromkeys(CONTROL_PLANES, ("UP", "L7OK"))
    assert set(machine.check_output("apt-mark showhold").split()) == {"haproxy", "keepalived"}


def test_one_load_balancer_carries_the_virtual_address() -> None:
    assert len(holders()) == 1
    for node in LOAD_BALANCERS:
        assert on(node).service("keepalived").is_running
        on(node).run_test("keepalived -t -f /etc/keepalived/keepalived.conf")


def test_three_etcd_members_and_no_learner() -> None:
    listing = ssh(
        "cp2",
        "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt "
        "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt "
        "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key member list -w json",
    )
    members = json.loads(listing)["members"]
    assert sorted(member["name"] for member in members) == list(CONTROL_PLANES)
    assert not [member for member in members if member.get("isLearner")]


def test_nodes_are_ready_and_run_this_version() -> None:
    items = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert sorted(item["metadata"]["name"] for item in items) == sorted(KUBERNETES_NODES)
    assert {item["status"]["nodeInfo"]["kubeletVersion"] for item in items} == {"v1.36.2"}
    ready = {c["type"]: c["status"] for item in items for c in item["status"]["conditions"]}
    assert ready["Ready"] == "True"


def test_images_come_from_the_bundle_and_no_registry_is_asked() -> None:
    for node in KUBERNETES_NODES:
        assert "PullImage" not in ssh(node, "journalctl -u containerd --no-pager -o cat | grep PullImage || true")


def test_the_kubeconfig_is_its_owners_alone() -> None:
    path = ROOT / "secrets/lab/admin.conf"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert f"server: https://{VIP}:6443" in path.read_text()
    assert KUBECTL and "ok" in kubectl("get", "--raw=/readyz")


def test_verify_fails_and_says_what_is_wrong() -> None:
    ssh("lb2", "systemctl stop haproxy")
    try:
        done = pyinfra("verify", "-y", "--data", "verify_timeout=10")
        assert done.returncode != 0
        assert "lb2: HAProxy is unreachable" in done.stdout, done.stdout[-4000:]
    finally:
        ssh("lb2", "systemctl start haproxy")


@pytest.mark.parametrize("node", [*LOAD_BALANCERS, "cp2", "w1"])
def test_a_run_limited_to_one_host_finds_nothing_to_do(node: str) -> None:
    """Also on the load balancer that lacks the virtual address: the one beyond the limit has it."""
    assert changes(deployed("cluster", "-y", "--limit", node)) == {}
