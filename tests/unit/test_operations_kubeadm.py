"""`kubeadm init` and `join`. Nodes of a cluster answer as recorded; all other states are hand-written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml
from harness import Command, Hosts, InTurn, Machine, recorded
from pyinfra.api import OperationError

from cluster.endpoint import Endpoint
from cluster.kubeadm import ROLE, role_taints
from cluster.settings import Settings, load
from cluster.topology import Node, Topology
from facts.kubeadm import ClusterConfig, JoinInfo, KubeadmNode, Readable
from operations import kubeadm

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
SETTINGS = load({"vip": "10.88.0.10"})
CP1, CP2, W1 = (Node(name, IPv4Address(f"10.88.0.{last}")) for name, last in (("cp1", 21), ("cp2", 22), ("w1", 31)))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=())
CLUSTER, NODE = ClusterConfig().command(), KubeadmNode().command()
HASH = "sha256:273a7ee2ee86b8e26d2c2f153054cd714f44abb9510620148afbc5638f6fa141"
BARE = {CLUSTER: ["none", ""], NODE: []}
INITIALISED = {CLUSTER: recorded("ClusterConfig.cluster-cp1"), NODE: recorded("KubeadmNode.cluster-cp1")}
JOINED_WORKER = {CLUSTER: ["none", ""], NODE: recorded("KubeadmNode.cluster-w1")}
LEFT_BEHIND = {CLUSTER: ["none", ""], NODE: ["file kubelet.conf"]}
ENDPOINT = kubeadm.answers(Endpoint(IPv4Address("10.88.0.10"), 6443))
ISSUES = {
    ENDPOINT: [],
    JoinInfo().command(): [],
    "kubeadm token create": [],
    "upload-certs": [],
    "member remove": [],
}
# A cluster of the first control plane only, which other nodes may join.
ALONE = {**INITIALISED, **ISSUES, CLUSTER: ["initialised", '{"items": []}'], "member list -w json": ["absent"]}
READY = Command(kubeadm.ready(Endpoint.parse("10.88.0.21")))
RESET = Command("timeout 300 kubeadm reset -f --cri-socket unix:///run/containerd/containerd.sock")
CNI = Command("rm -rf /etc/cni/net.d/10-flannel.conflist /run/flannel /run/cilium/state")


@pytest.fixture(autouse=True)
def new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeadm, "_issued", set())


def arguments(node: Node, settings: Settings = SETTINGS, **others: Any) -> dict[str, Any]:
    return {"settings": settings, "topology": TOPOLOGY, "node": node, **others}


def documents(command: Command) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(command.stdin or "")}


def assert_no_secret_is_said(ran: Hosts, yielded: list[Command]) -> None:
    secrets = (kubeadm.bootstrap_token(), kubeadm.bootstrap_token().split(".")[1], kubeadm.certificate_key())
    texts = [command.text for command in yielded] + [command.text for _, command in ran.ran]
    for text in [*texts, *ran.said, *ran.announced, *ran.noops]:
        assert not [secret for secret in secrets if secret in text]


def test_token_and_key_have_kubeadms_form_and_are_one_for_the_run() -> None:
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", kubeadm.bootstrap_token())
    assert re.fullmatch(r"[0-9a-f]{64}", kubeadm.certificate_key())
    assert kubeadm.bootstrap_token() == kubeadm.bootstrap_token()
    assert kubeadm.certificate_key() == kubeadm.certificate_key()


def test_init_of_a_bare_cluster_runs_kubeadm_with_its_documents_on_standard_input(hosts: Make) -> None:
    bare = hosts({"cp1": BARE, "cp2": BARE, "w1": BARE})
    for run in (bare.plan, bare.execute):
        init, ready = run(kubeadm.init, "cp1", **arguments(CP1))
        assert init.text == kubeadm.with_config("kubeadm init --skip-token-print", 600)
        assert documents(init)["InitConfiguration"]["bootstrapTokens"][0]["token"] == kubeadm.bootstrap_token()
        assert documents(init)["InitConfiguration"]["certificateKey"] == kubeadm.certificate_key()
        assert ready == READY
        assert_no_secret_is_said(bare, [init, ready])


def test_init_passes_over_the_preflight_errors_that_settings_name(hosts: Make) -> None:
    settings = load({"vip": "10.88.0.10", "ignore_preflight_errors": ("SystemVerification", "Swap")})
    init, _ = hosts({"cp1": BARE, "cp2": BARE}).plan(kubeadm.init, "cp1", **arguments(CP1, settings))
    assert "--ignore-preflight-errors=SystemVerification,Swap --config" in init.text


def test_init_of_an_initialised_cluster_does_nothing(hosts: Make) -> None:
    done = hosts({"cp1": INITIALISED, "cp2": INITIALISED})
    assert done.plan(kubeadm.init, "cp1", **arguments(CP1)) == []
    assert done.execute(kubeadm.init, "cp1", **arguments(CP1)) == []
    assert done.noops == ["the cluster is initialised"] * 2


def test_init_takes_up_what_a_killed_init_left(hosts: Make) -> None:
    killed = {CLUSTER: ["unreachable", ""], NODE: ["file admin.conf", "file manifests/kube-apiserver.yaml"]}
    init, ready = hosts({"cp1": killed, "cp2": BARE}).execute(kubeadm.init, "cp1", **arguments(CP1))
    assert f"--ignore-preflight-errors={kubeadm.RESUME} --config" in init.text
    assert ready == READY


def test_init_is_not_run_again_over_etcd_data_whose_api_comes_up(hosts: Make) -> None:
    restarted = {**INITIALISED, CLUSTER: InTurn(["unreachable", ""], INITIALISED[CLUSTER])}
    assert hosts({"cp1": restarted, "cp2": BARE}).execute(kubeadm.init, "cp1", **arguments(CP1)) == [READY]


def test_init_waits_for_a_kubeadm_that_is_still_at_work(hosts: Make) -> None:
    busy = {CLUSTER: ["none", ""], NODE: InTurn(["file admin.conf", "busy"], [])}
    wait, init, _ = hosts({"cp1": busy, "cp2": BARE}).execute(kubeadm.init, "cp1", **arguments(CP1))
    assert "while pgrep -x kubeadm" in wait.text
    assert "ignore-preflight-errors" not in init.text


def test_init_does_not_start_a_second_cluster_beside_etcd_data(hosts: Make) -> None:
    down = {CLUSTER: ["unreachable", ""], NODE: recorded("KubeadmNode.cluster-cp1")}
    words = r"^cp1: no API server answers, yet cp2 holds etcd data of a cluster\. .* Bring the API on cp2 back"
    for run in ("plan", "execute"):
        with pytest.raises(OperationError, match=words):
            getattr(hosts({"cp1": BARE, "cp2": down}), run)(kubeadm.init, "cp1", **arguments(CP1))


def test_init_of_a_replaced_first_control_plane_joins_the_cluster_that_others_keep(hosts: Make) -> None:
    kept = {"cp1": BARE, "cp2": {**ALONE}}
    join, ready = hosts(kept).execute(kubeadm.init, "cp1", **arguments(CP1))
    assert "kubeadm join" in join.text
    assert documents(join)["JoinConfiguration"]["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "10.88.0.21"
    assert ready == READY


CONTROL_PLANE: Any = {"ready": True, "roles": ["control-plane"], "taints": ["control-plane"]}
WORKER: Any = {"ready": False, "roles": [], "taints": []}


@pytest.mark.parametrize(
    ("local", "known", "wanted", "action"),
    [
        ("none", None, "worker", "run"),
        ("none", None, "control-plane", "run"),
        ("none", WORKER, "worker", "clean-and-run"),
        ("partial", None, "worker", "clean-and-run"),
        ("partial", WORKER, "control-plane", "clean-and-run"),
        ("partial", CONTROL_PLANE, "control-plane", "refuse"),
        ("worker", None, "worker", "clean-and-run"),
        ("control-plane", None, "control-plane", "clean-and-run"),
        ("control-plane", WORKER, "control-plane", "clean-and-run"),
        ("worker", WORKER, "worker", "none"),
        ("control-plane", CONTROL_PLANE, "control-plane", "none"),
        ("worker", WORKER, "control-plane", "refuse"),
        ("control-plane", CONTROL_PLANE, "worker", "refuse"),
    ],
)
def test_join_action_follows_the_node_and_what_the_cluster_knows_of_it(
    local: str, known: Any, wanted: Any, action: str
) -> None:
    assert kubeadm.join_action(local, known, wanted) == action


def test_join_is_announced_on_bare_hosts_before_there_is_a_ca(hosts: Make) -> None:
    bare = hosts({"cp1": BARE, "cp2": BARE, "w1": BARE})
    announced = Command(kubeadm.with_config("kubeadm join", 600), "")
    assert bare.plan(kubeadm.join, "w1", **arguments(W1, control_plane=False)) == [announced]
    assert bare.plan(kubeadm.join, "cp2", **arguments(CP2, control_plane=True)) == [
        announced,
        Command(kubeadm.ready(Endpoint.parse("10.88.0.22"))),
    ]


def test_join_of_a_worker_gets_a_token_and_no_certificate_key(hosts: Make) -> None:
    ran = hosts({"cp1": ALONE, "cp2": BARE, "w1": BARE})
    (join,) = ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))
    document = documents(join)["JoinConfiguration"]
    assert document["discovery"]["bootstrapToken"]["token"] == kubeadm.bootstrap_token()
    assert document["discovery"]["bootstrapToken"]["caCertHashes"] == [
        f"sha256:{recorded('KubeadmNode.cluster-cp1')[-1][5:]}"
    ]
    assert "controlPlane" not in document
    assert kubeadm.certificate_key() not in (join.stdin or "")
    created = [command for name, command in ran.ran if name == "cp1" and "kubeadm token create" in command.text]
    assert [kubeadm.bootstrap_token() in (command.stdin or "") for command in created] == [True]
    assert not [command for _, command in ran.ran if "upload-certs" in command.text]
    assert_no_secret_is_said(ran, [join])


def test_join_of_a_control_plane_shares_certificates_and_waits_for_its_api(hosts: Make) -> None:
    ran = hosts({"cp1": ALONE, "cp2": BARE, "w1": BARE})
    join, ready = ran.execute(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
    assert documents(join)["JoinConfiguration"]["controlPlane"]["certificateKey"] == kubeadm.certificate_key()
    assert ready == Command(kubeadm.ready(Endpoint.parse("10.88.0.22")))
    uploaded = [command for _, command in ran.ran if "upload-certs" in command.text]
    assert [kubeadm.certificate_key() in (command.stdin or "") for command in uploaded] == [True]
    assert_no_secret_is_said(ran, [join, ready])


def test_credentials_are_issued_once_a_run(hosts: Make) -> None:
    ran = hosts({"cp1": ALONE, "cp2": BARE, "w1": BARE})
    for _ in range(2):
        ran.execute(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
        ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))
    issued = [
        command.text for _, command in ran.ran if "token create" in command.text or "upload-certs" in command.text
    ]
    assert len(issued) == 2


def test_nothing_is_issued_and_nobody_joins_where_the_endpoint_does_not_answer(hosts: Make) -> None:
    silent = {ENDPOINT: {"success": False, "stderr": "https://10.88.0.10:6443/readyz did not answer as this cluster"}}
    ran = hosts({"cp1": {**ALONE, **silent}, "w1": BARE})
    with pytest.raises(
        OperationError, match=r"^cp1: asking for the API where joining nodes will failed for w1: https:"
    ):
        ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))
    assert not [command for _, command in ran.ran if "token create" in command.text]


def test_the_endpoint_is_asked_once_a_run(hosts: Make) -> None:
    ran = hosts({"cp1": ALONE, "cp2": BARE, "w1": BARE})
    ran.execute(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
    ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))
    assert [name for name, command in ran.ran if "10.88.0.10:6443/readyz" in command.text] == ["cp1"]


def test_token_that_init_made_is_not_made_again(hosts: Make) -> None:
    known = {JoinInfo().command(): [f"token {kubeadm.bootstrap_token().split('.')[0]} 2026-11-24T13:09:34Z"]}
    ran = hosts({"cp1": {**ALONE, **known}, "w1": BARE})
    ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))
    assert not [command for _, command in ran.ran if "token create" in command.text]


@pytest.mark.parametrize(
    ("node", "control_plane", "said"),
    [(CP2, True, "cp2 is a control-plane of this cluster"), (W1, False, "w1 is a worker of this cluster")],
)
def test_join_of_a_member_does_nothing(hosts: Make, node: Node, control_plane: bool, said: str) -> None:
    done = hosts({"cp1": INITIALISED, "cp2": INITIALISED, "w1": JOINED_WORKER})
    assert done.plan(kubeadm.join, node.name, **arguments(node, control_plane=control_plane)) == []
    assert done.execute(kubeadm.join, node.name, **arguments(node, control_plane=control_plane)) == []
    assert done.noops == [said] * 2


def test_join_that_was_interrupted_is_forgotten_reset_and_done_again(hosts: Make) -> None:
    ran = hosts({"cp1": ALONE, "cp2": LEFT_BEHIND})
    assert ran.plan(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))[:2] == [CNI, RESET]
    assert not [command for _, command in ran.ran if "member remove" in command.text]
    cni, reset, join, ready = ran.execute(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
    assert (cni, reset) == (CNI, RESET)
    assert "kubeadm join" in join.text
    assert ready == Command(kubeadm.ready(Endpoint.parse("10.88.0.22")))
    (forgotten,) = [command.text for name, command in ran.ran if name == "cp1" and "member remove" in command.text]
    assert "https://10.88.0.22:2380" in forgotten
    assert "delete node cp2 --ignore-not-found" in forgotten


def test_etcds_member_of_a_machine_that_is_no_more_is_removed_before_the_new_one_joins(hosts: Make) -> None:
    member = {"ID": "a", "name": "cp2", "peerURLs": ["https://10.88.0.22:2380"], "clientURLs": ["x"]}
    ghost = {"member list -w json": ["running", json.dumps({"members": [member]}), "[]"]}
    ran = hosts({"cp1": {**ALONE, **ghost}, "cp2": BARE})
    ran.plan(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
    assert ran.announced == ["remove its old member from etcd and join cp2 as a control-plane"]
    assert not [command for _, command in ran.ran if "member remove" in command.text]
    join, _ = ran.execute(kubeadm.join, "cp2", **arguments(CP2, control_plane=True))
    assert "kubeadm join" in join.text
    (forgotten,) = [command.text for name, command in ran.ran if name == "cp1" and "member remove" in command.text]
    assert "https://10.88.0.22:2380" in forgotten


def test_join_in_another_role_is_refused(hosts: Make) -> None:
    words = r"^w1: the cluster has it as worker, its disk says worker, the inventory wants a control-plane\. Put back"
    with pytest.raises(OperationError, match=words):
        hosts({"cp1": INITIALISED, "cp2": BARE, "w1": JOINED_WORKER}).plan(
            kubeadm.join, "w1", **arguments(W1, control_plane=True)
        )


def test_join_does_not_take_a_node_from_another_cluster(hosts: Make) -> None:
    other = {CLUSTER: ["none", ""], NODE: ["file kubelet.conf", "file pki/ca.crt", "hash 0f"]}
    with pytest.raises(OperationError, match=r"^w1: holds the CA of another cluster \(sha256:0f, here sha256:273a7e"):
        hosts({"cp1": ALONE, "w1": other}).execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))


def test_join_stops_when_no_control_plane_answers(hosts: Make) -> None:
    down = {CLUSTER: ["unreachable", ""], NODE: recorded("KubeadmNode.cluster-cp1")}
    ran = hosts({"cp1": down, "cp2": down, "w1": LEFT_BEHIND})
    with pytest.raises(
        OperationError, match=r"^w1: no control plane answers as initialised, so there is nothing to join"
    ):
        ran.execute(kubeadm.join, "w1", **arguments(W1, control_plane=False))


def test_join_stops_when_the_clusters_ca_cannot_be_read(hosts: Make) -> None:
    words = r"^cp1: /etc/kubernetes/pki/ca\.crt cannot be read, so w1 cannot join\.$"
    with pytest.raises(OperationError, match=words):
        hosts({"cp1": {**ALONE, NODE: ["etcd"]}, "w1": BARE}).execute(
            kubeadm.join, "w1", **arguments(W1, control_plane=False)
        )


def cluster(*nodes: tuple[str, list[str], list[str]]) -> list[str]:
    items = [
        {
            "metadata": {"name": name, "labels": dict.fromkeys([f"{ROLE}{role}" for role in roles], "")},
            "spec": {"taints": [{"key": f"{ROLE}{role}", "effect": "NoSchedule"} for role in taints]},
            "status": {},
        }
        for name, roles, taints in nodes
    ]
    return ["initialised", json.dumps({"items": items})]


def test_control_planes_get_their_labels_and_taints_back(hosts: Make) -> None:
    own = ["control-plane"]
    ran = hosts({"cp1": {ClusterConfig().command(): cluster(("cp1", own, own), ("cp2", [], []), ("w1", [], []))}})
    (command,) = ran.execute(kubeadm.roles, wanted={"cp1": own, "cp2": own, "cp3": own})
    assert command.text == (
        f"{kubeadm.KUBECTL} label --overwrite node cp2 {ROLE}control-plane= && "
        f"{kubeadm.KUBECTL} taint --overwrite node cp2 {ROLE}control-plane:NoSchedule"
    )
    assert [each.partition(":")[0] for each in ran.announced] == [
        "label cp2 as a control plane", f"taint cp2 with {ROLE}control-plane",
    ]  # fmt: skip


def test_a_taint_that_is_not_wanted_any_more_is_taken_away(hosts: Make) -> None:
    own = ["control-plane"]
    ran = hosts({"cp1": {ClusterConfig().command(): cluster(("cp1", own, ["control-plane", "master"]))}})
    (command,) = ran.plan(kubeadm.roles, wanted={"cp1": own})
    assert command.text == f"{kubeadm.KUBECTL} taint node cp1 {ROLE}master:NoSchedule-"


@pytest.mark.parametrize("answer", [["none"], ["unreachable"], cluster(("cp1", ["control-plane"], ["control-plane"]))])
def test_labels_of_no_cluster_and_of_a_whole_one_need_nothing(hosts: Make, answer: list[str]) -> None:
    ran = hosts({"cp1": {ClusterConfig().command(): answer}})
    assert ran.plan(kubeadm.roles, wanted={"cp1": ["control-plane"], "cp2": ["control-plane"]}) == []
    assert ran.execute(kubeadm.roles, wanted={"cp1": ["control-plane"], "cp2": ["control-plane"]}) == []


def test_a_control_plane_whose_etcd_votes_is_not_made_anew_for_a_label(hosts: Make) -> None:
    assert kubeadm.join_action("control-plane", WORKER, "control-plane", votes=True) == "none"
    assert kubeadm.join_action("partial", WORKER, "control-plane", votes=True) == "clean-and-run"


@pytest.mark.parametrize(
    ("version", "data", "taints"),
    [
        ("v1.23.17", {}, ["master"]), ("v1.24.17", {}, ["master", "control-plane"]), ("v1.36.2", {}, ["control-plane"]),
        ("v1.36.2", {"allow_scheduling_on_control_planes": True}, []),
        ("v1.36.2", {"init_configuration": {"nodeRegistration": {"taints": []}}}, []),
        ("v1.36.2", {"init_configuration": {"nodeRegistration": {"taints": [
            {"key": f"{ROLE}control-plane", "effect": "NoExecute"}, {"key": "site/own", "effect": "NoSchedule"},
        ]}}}, []),
    ],
)  # fmt: skip
def test_taints_are_kubeadms_own_unless_settings_have_others(version: str, data: Any, taints: list[str]) -> None:
    settings = load({"vip": "10.0.0.100", "kubernetes_version": version, **data})
    assert role_taints(settings, first=True) == taints


def test_what_holds_secrets_and_is_open_is_closed(hosts: Make, machine: Machine) -> None:
    machine.program("chmod")
    opened = [machine.file(path) for path in ("/etc/kubernetes/pki/ca.key", "/etc/kubernetes/admin.conf",
              "/etc/kubernetes/pki/etcd/ca.key", "/etc/kubernetes/manifests/etcd.yaml")]  # fmt: skip
    machine.file("/etc/kubernetes/pki/ca.crt")
    for path in opened:
        path.chmod(0o644)
    found = machine.ask(Readable)
    assert found == {str(path): "644" for path in opened}
    ran = hosts({"cp1": {Readable().command(): [f"{mode} {path}" for path, mode in found.items()]}})
    (command,) = ran.execute(kubeadm.private)
    assert machine.sh(command.text).returncode == 0
    assert machine.ask(Readable) == {}
    assert {path.stat().st_mode & 0o777 for path in opened} == {0o600}
    assert hosts({"cp1": {Readable().command(): []}}).plan(kubeadm.private) == []
