"""What leads a node and the cluster to the API at another virtual IP: the shell run for real, and who is led."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
import yaml
from harness import Hosts, Machine, recorded

from cluster.endpoint import Endpoint
from cluster.topology import Node, Topology
from facts.reconfigure import ClusterInfo, Servers
from facts.service import Unit
from operations import endpoint
from operations.endpoint import KUBELET_CONF
from operations.reconfigure import REPLACED

CP1 = Node("cp1", ip_address("10.0.0.21"))
TOPOLOGY = Topology(control_planes=(CP1,), workers=(), load_balancers=())
OLD, NEW = Endpoint(ip_address("10.0.0.100"), 6443), Endpoint(ip_address("10.0.0.101"), 6443)
ADMIN, SCHEDULER = "/etc/kubernetes/admin.conf", "/etc/kubernetes/scheduler.conf"
CONF = "clusters:\n- cluster:\n    server: https://{}\n  name: test\n"
# It reports after every start by a kubeconfig that leads to where the API is.
STARTS = """
case "$1" in is-active) exit 0;; esac
grep -q "$(cat {root}/api)" {root}/etc/kubernetes/kubelet.conf || exit 0
n=$(cat {root}/starts 2>/dev/null || echo 0); echo $((n + 1)) > {root}/starts
"""


@pytest.fixture
def node(machine: Machine) -> Machine:
    for path in (ADMIN, KUBELET_CONF):
        machine.file(path, CONF.format(OLD)).chmod(0o600)
    machine.file(SCHEDULER, CONF.format("10.0.0.21:6443"))
    machine.path("/etc/kubernetes").chmod(0o755)
    machine.path("/var/lib").mkdir(parents=True)
    machine.file("/api", "10.0.0.101\n")
    machine.program("systemctl", STARTS.format(root=machine.root))
    machine.program("kubectl", f'echo "True $(cat {machine.root}/starts 2>/dev/null || echo 0)"')
    machine.program("curl", "true")
    machine.program("journalctl", "echo 'Unable to update node status'")
    machine.program("sleep", "true")
    return machine


def follow(node: Machine) -> tuple[int, str]:
    paths = [path for path, server in node.ask(Servers).items() if server == f"https://{OLD}"]
    ran = node.sh(endpoint.follow_script(CP1, [path.removeprefix(str(node.root)) for path in paths], OLD, NEW))
    return ran.returncode, ran.stderr


def test_kubeconfigs_that_lead_there_are_led_elsewhere_and_others_left(node: Machine) -> None:
    assert follow(node) == (0, "")
    for path in (ADMIN, KUBELET_CONF):
        assert node.path(path).read_text() == CONF.format(NEW)
        assert node.path(path).stat().st_mode & 0o777 == 0o600
    assert node.path(SCHEDULER).read_text() == CONF.format("10.0.0.21:6443")
    (kept,) = node.path(REPLACED).iterdir()
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "admin.conf": CONF.format(OLD), "kubelet.conf": CONF.format(OLD),
    }  # fmt: skip


def test_an_address_that_only_begins_alike_is_another(node: Machine) -> None:
    node.file(ADMIN, CONF.format("10.0.0.100:64430"))
    assert follow(node) == (0, "")
    assert node.path(ADMIN).read_text() == CONF.format("10.0.0.100:64430")


def test_a_kubelet_that_does_not_report_by_it_is_led_back(node: Machine) -> None:
    node.file("/api", "10.0.0.100\n")
    code, said = follow(node)
    assert code == 1
    assert "the kubelet of cp1 did not report ready by https://10.0.0.101:6443" in said
    assert (
        "Unable to update node status" in said and "Its kubeconfigs of before are back, and its node is ready" in said
    )
    assert node.path(KUBELET_CONF).read_text() == node.path(ADMIN).read_text() == CONF.format(OLD)
    assert node.path("/etc/kubernetes").stat().st_mode & 0o777 == 0o755


def test_nothing_is_led_to_where_the_api_does_not_answer(node: Machine) -> None:
    node.program("curl", "echo 'no alternative certificate subject name matches' >&2; exit 60")
    code, said = follow(node)
    assert code == 1 and "https://10.0.0.101:6443/readyz did not answer as this cluster" in said
    assert node.path(ADMIN).read_text() == CONF.format(OLD)
    assert not node.path(REPLACED).exists()


def test_where_kubeconfigs_of_a_real_control_plane_lead() -> None:
    found = Servers().process(recorded("Servers.cp1"))
    own, shared = "https://10.88.0.21:6443", "https://10.88.0.100:8443"
    assert found == {
        ADMIN: shared, "/etc/kubernetes/super-admin.conf": shared, KUBELET_CONF: own, SCHEDULER: own,
        "/etc/kubernetes/controller-manager.conf": own,
    }  # fmt: skip


def test_a_host_without_kubeconfigs_leads_nowhere(machine: Machine) -> None:
    machine.program("grep", "exit 2")
    assert machine.ask(Servers) == {}


Make = Callable[[dict[str, dict[str, Any]]], Hosts]


def cp1(hosts: Make, servers: dict[str, str], stale: bool = False, info: str = "") -> Hosts:
    unit = "LoadState=loaded\nActiveState=active\nActiveEnterTimestamp=@100\n" + ("changed=200.0" if stale else "")
    lines = [f"{path}:    server: {server}" for path, server in servers.items()]
    asked = Unit().command(unit="kubelet.service", files=(KUBELET_CONF,))
    answers = {
        Servers().command(): lines, asked: unit.splitlines(), ClusterInfo().command(): info.splitlines(),
    }  # fmt: skip
    told = {re.compile(f".*{re.escape(command)}.*"): {"stdout": said} for command, said in answers.items()}
    return hosts({"cp1": told})


def test_what_asks_by_another_kubeconfig_is_restarted_after_the_kubelet(hosts: Make) -> None:
    found = cp1(hosts, {KUBELET_CONF: f"https://{OLD}", SCHEDULER: f"https://{OLD}"})
    first, second = found.plan(endpoint.follow, topology=TOPOLOGY, node=CP1, old=OLD, new=NEW)
    assert first.text == endpoint.follow_script(CP1, [KUBELET_CONF, SCHEDULER], OLD, NEW)
    assert "label component=kube-scheduler" in second.text
    assert found.announced == [f"lead {KUBELET_CONF}, {SCHEDULER} to {NEW}: restarts kubelet of cp1"]


def test_a_kubelet_that_a_killed_run_has_not_restarted_is(hosts: Make) -> None:
    found = cp1(hosts, {KUBELET_CONF: f"https://{NEW}"}, stale=True)
    (only,) = found.plan(endpoint.follow, topology=TOPOLOGY, node=CP1, old=OLD, new=NEW)
    assert only.text == endpoint.follow_script(CP1, [], OLD, NEW) and "sed -i" not in only.text


def test_a_node_that_is_led_there_is_left_alone(hosts: Make) -> None:
    found = cp1(hosts, {KUBELET_CONF: f"https://{NEW}"})
    assert found.plan(endpoint.follow, topology=TOPOLOGY, node=CP1, old=OLD, new=NEW) == []


def test_cluster_info_leads_elsewhere_with_all_else_as_it_was(hosts: Make) -> None:
    info = {"clusters": [{"name": "", "cluster": {"server": f"https://{OLD}", "certificate-authority-data": "QQ=="}}]}
    found = cp1(hosts, {}, info=yaml.safe_dump(info))
    (patch,) = found.plan(endpoint.inform, old=OLD, new=NEW)
    assert patch.text.endswith("patch configmap cluster-info -n kube-public --type=merge --patch-file=/dev/stdin")
    text = yaml.safe_load(patch.stdin)["data"]["kubeconfig"]
    info["clusters"][0]["cluster"]["server"] = f"https://{NEW}"
    assert yaml.safe_load(text) == info
    again = cp1(hosts, {}, info=text)
    assert again.plan(endpoint.inform, old=OLD, new=NEW) == []
