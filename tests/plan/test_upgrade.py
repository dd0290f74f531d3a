"""`upgrade` takes one node after the other, says so before, stops where it fails, and goes on from there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, VERSION, Deployed, Run, Site, machine, make_bundle, make_site

OLD = "v1.35.6"
NODES = [*GROUPS["control_plane"], *GROUPS["worker"]]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("older"), kubernetes=OLD)


def switch(site: Site, old: tuple[str, object], new: tuple[str, object]) -> Site:
    """The same machines with another bundle, and its version in the settings."""
    inventory = site.directory / "inventory.py"
    text = inventory.read_text()
    for before, after in zip(old, new, strict=True):
        assert repr(str(before)) in text
        text = text.replace(repr(str(before)), repr(str(after)))
    inventory.write_text(text)
    return site


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, older: Path, bundle: Path) -> Deployed:
    """A cluster of the older version, with the inventory of the newer one."""
    site = make_site(tmp_path_factory.mktemp("upgrade"), older, kubernetes_version=OLD)
    run = site.run("-y")
    assert run.code == 0, run.words
    return Deployed(switch(site, (OLD, older), (VERSION, bundle)), run)


@pytest.fixture
def site(deployed: Deployed, tmp_path: Path) -> Site:
    """The same, of one test's own."""
    return deployed.site.copy(tmp_path / "site")


def versions(site: Site) -> dict[str, set[str]]:
    """What each node runs: kubelet and API server."""
    with site.state() as state:
        return {
            name: {
                state["nodes"][name]["running"],
                *(
                    image.rpartition(":")[2]
                    for pod, image in state["nodes"][name].get("static_pods", {}).items()
                    if pod != "etcd"
                ),
            }
            for name in NODES
        }


def said(run: Run, host: str, words: str) -> bool:
    return re.search(rf"\[.*{host}.*\] {re.escape(words)}", run.words) is not None


def upgraded(run: Run) -> list[str]:
    """Nodes whose kubelet was restarted, in their order."""
    return [each["host"] for each in run.like("systemctl restart kubelet.service", "change")]


@pytest.mark.parametrize("layer", ["cluster", "control_plane", "packages", "reconfigure"])
def test_a_deploy_refuses_to_take_all_nodes_to_another_version_at_once(site: Site, layer: str) -> None:
    run = site.run("-y", layer=layer)
    assert run.code == 1
    assert f"it runs Kubernetes {OLD}. Nodes are taken to another version one by one" in run.words
    assert "Run deploys/upgrade.py" in run.words
    assert run.changes == []


def test_a_host_does_not_join_a_cluster_of_another_version(site: Site) -> None:
    """Its kubelet would be newer than the API servers, which are not asked by the preflight of this host alone."""
    path = site.directory / "inventory.py"
    path.write_text(
        path.read_text().replace('("@fake/w1"', '("@fake/w9", {"address": "10.0.0.39", **_settings}), ("@fake/w1"')
    )
    with site.state() as state:
        state["nodes"]["w9"] = machine("10.0.0.39")
    run = site.run("-y", "--limit", "w9", "--limit", "load_balancer")
    assert (run.code, run.changes) == (1, [])
    assert f"cp1: it runs Kubernetes {OLD}. Nodes are taken to another version one by one" in run.words


def test_a_control_plane_that_is_yet_to_join_is_left_out_and_the_others_are_upgraded(site: Site) -> None:
    """Such as one whose machine was replaced."""
    with site.state() as state:
        state["nodes"]["cp2"] = machine(GROUPS["control_plane"]["cp2"])
        del state["cluster"]["nodes"]["cp2"]
    for flag in ("--dry", "-y"):
        run = site.run(flag, layer="upgrade")
        assert (run.code, run.changes) == (1, [])
        assert "cp2: is no node of the cluster yet. Leave it out with --exclude cp2, and have it join" in run.words
    run = site.run("-y", "--exclude", "cp2", "--data", "verify_timeout=1", layer="upgrade")
    assert upgraded(run) == [name for name in NODES if name != "cp2"]
    assert (run.code, "node cp2 is not in the cluster" in run.words) == (1, True)
    assert site.run("-y").code == 0
    assert versions(site) == {name: {VERSION} for name in NODES}


def test_the_plan_is_what_the_run_then_does_and_a_second_run_does_nothing(site: Site) -> None:
    plan = site.run("--dry", "--json", layer="upgrade")
    assert plan.code == 0, plan.words
    run = site.run("-y", layer="upgrade")
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    assert {(name, f"Upgrade {name} to {VERSION}") for name in NODES} <= run.made
    assert versions(site) == {name: {VERSION} for name in NODES}
    with site.state() as state:
        assert (state["cluster"]["marks"], state["cluster"]["cordoned"]) == ({}, [])
    for layer in ("upgrade", "cluster"):
        again = site.run("-y", layer=layer)
        assert again.code == 0, again.words
        assert again.made == set()


def test_a_worker_is_not_upgraded_before_the_control_planes_and_alone_after_them(site: Site) -> None:
    early = site.run("-y", "--limit", "w1", layer="upgrade")
    assert early.code == 1
    assert "cp2: is not in this run, and not known to be upgraded" in early.words
    assert early.changes == []
    assert site.run("-y", "--limit", "control_plane", "--limit", "load_balancer", layer="upgrade").code == 0
    late = site.run("-y", "--limit", "w1", layer="upgrade")
    assert late.code == 0, late.words
    assert versions(site) == {name: {OLD if name in ("w2", "w3") else VERSION} for name in NODES}


def test_workers_alone_are_not_upgraded_beside_one_that_is_not_ready(site: Site) -> None:
    assert site.run("-y", "--limit", "control_plane", "--limit", "load_balancer", layer="upgrade").code == 0
    with site.state() as state:
        state["nodes"]["w2"]["dead"] = True
    run = site.run("-y", "--limit", "w1", layer="upgrade")
    assert run.code == 1
    assert "node w2 is not Ready" in run.words
    assert run.changes == []


def test_a_node_is_not_passed_over_because_the_api_does_not_answer(site: Site) -> None:
    with site.state() as state:
        state["nodes"]["cp1"]["api_hangs"] = True
    run = site.run("-y", layer="upgrade")
    assert run.code == 1
    assert "cp1: its API server lists no nodes, so nothing is upgraded." in run.words
    assert run.changes == []


def test_a_kubeadm_that_a_killed_run_left_at_work_is_waited_for(site: Site) -> None:
    with site.state() as state:
        state["nodes"]["cp2"]["busy"] = True
    run = site.run("-y", layer="upgrade")
    assert run.code == 0, run.words
    assert len(run.like("while pgrep -x kubeadm", "change")) == 1


@pytest.mark.parametrize(("dead", "code"), [("cp2", 0), ("cp3", 1)])
def test_only_the_member_of_a_node_that_was_interrupted_may_be_unhealthy(site: Site, dead: str, code: int) -> None:
    with site.state() as state:
        state["cluster"].setdefault("marks", {})["cp2"] = "schedulable"
        state["cluster"]["unhealthy"] = [dead]
    run = site.run("--dry", layer="upgrade")
    assert run.code == code, run.words
    assert (f"etcd member {dead} is not healthy" in run.words) == bool(code)


def test_a_node_that_was_interrupted_is_not_left_as_it_is_while_others_are_upgraded(site: Site) -> None:
    """Two nodes would be away at once, or two members of etcd."""
    assert site.run("-y", "--limit", "control_plane", "--limit", "load_balancer", layer="upgrade").code == 0
    with site.state() as state:
        state["cluster"]["marks"] = {"cp2": "schedulable", "w2": "schedulable"}
        state["cluster"]["unhealthy"] = ["cp2"]
        state["nodes"]["w2"]["dead"] = True
    run = site.run("-y", "--limit", "w1", layer="upgrade")
    assert (run.code, run.changes) == (1, [])
    assert "node w2 is not Ready" in run.words and "etcd member cp2 is not healthy" in run.words


def test_nodes_are_upgraded_one_after_the_other_control_planes_first(site: Site) -> None:
    run = site.run("-y", layer="upgrade")
    assert upgraded(run) == NODES
    first, *others = (each["command"] for each in run.like("kubeadm upgrade", "change"))
    assert f"kubeadm upgrade apply {VERSION} -y" in first
    assert all("kubeadm upgrade node" in each for each in others)
    assert len(others) == len(NODES) - 1
    loaded = max(each["ended"] for each in run.like("ctr ", "change"))
    assert loaded < run.like("kubeadm upgrade", "change")[0]["began"]


def test_etcds_data_is_not_left_beside_it_once_the_upgrade_of_its_node_is_proved(site: Site) -> None:
    """kubeadm copies it all, with every secret, each time that it upgrades a control plane, and keeps it."""

    def left() -> list[str]:
        with site.state() as state:
            return [name for name in NODES for path in state["nodes"][name]["files"] if "kubeadm-backup-etcd" in path]

    site.break_command("cp3", "restart kubelet", "it broke")
    assert site.run("-y", layer="upgrade").code == 1
    assert left() == ["cp3"]
    site.mend("cp3")
    assert site.run("-y", layer="upgrade").code == 0
    assert left() == []


def test_manifests_of_the_new_version_have_the_sites_patches_too(site: Site) -> None:
    own = [f'{kind}_configuration={{"patches": {{"directory": "/etc/own-{kind}"}}}}' for kind in ("init", "join")]
    run = site.run("-y", "--data", own[0], "--data", own[1], layer="upgrade")
    first, *others = (each["command"] for each in run.like("kubeadm upgrade", "change"))
    assert " --patches=/etc/own-init " in first
    assert len(others) == len(NODES) - 1 and all(" --patches=/etc/own-join " in each for each in others)


def test_an_audit_policy_is_there_before_an_api_server_of_the_new_version_reads_it(site: Site) -> None:
    policy = 'audit_policy={"rules": [{"level": "Metadata"}]}'
    plan = site.run("--dry", "--json", "--data", policy, layer="upgrade")
    run = site.run("-y", "--data", policy, layer="upgrade")
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    written = run.like("/etc/kubernetes/audit/policy-", "change")
    assert sorted(each["host"] for each in written) == sorted(GROUPS["control_plane"])
    assert max(each["ended"] for each in written) < run.like("kubeadm upgrade apply", "change")[0]["began"]


def test_a_name_that_certificates_lack_is_not_taken_for_one_that_they_have_by_the_next_deploy(site: Site) -> None:
    """kubeadm renews certificates on the way, for the names that are in them."""
    named = ("-y", "--data", 'api_cert_extra_sans=["api.example.org"]')
    assert site.run(*named, layer="upgrade").code == 0
    run = site.run(*named)
    assert run.code == 0, run.words
    made = [name for name, operation in run.made if "Make the API server's certificate" in operation]
    assert sorted(made) == sorted(GROUPS["control_plane"])
    assert site.run(*named).made == set()


def test_the_dry_run_names_what_is_replaced(site: Site) -> None:
    run = site.run("--dry", layer="upgrade")
    assert run.code == 0, run.words
    for name in NODES:
        assert said(run, name, f"upgrade <host> from {OLD} to {VERSION}: drains <host>") or said(
            run, name, f"upgrade {name} from {OLD} to {VERSION}: drains {name}"
        )
    assert said(run, "cp1", f"replace kube-apiserver: {OLD} -> {VERSION}")
    assert said(run, "w1", "replace /usr/bin/kubelet")
    assert run.changes == []


@pytest.mark.parametrize(
    ("host", "command", "left"),
    [
        ("cp1", "kubeadm upgrade apply", NODES[1:]),
        ("cp2", "kubeadm upgrade node", NODES[2:]),
        ("cp1", " drain w2 ", NODES[4:]),
        ("w1", "restart kubelet", NODES[4:]),
    ],
)
def test_it_stops_where_it_fails_and_goes_on_from_there(site: Site, host: str, command: str, left: list[str]) -> None:
    site.break_command(host, command, "it broke")
    run = site.run("-y", layer="upgrade")
    assert run.code == 1
    assert "it broke" in run.words
    assert {name for name, found in versions(site).items() if found == {OLD}} >= set(left)
    site.mend(host)
    run = site.run("-y", layer="upgrade")
    assert run.code == 0, run.words
    assert versions(site) == {name: {VERSION} for name in NODES}
    with site.state() as state:
        assert state["cluster"]["marks"] == {}
        assert state["cluster"]["cordoned"] == []


def held(**status: int) -> dict[str, Any]:
    """A pod of w1 and the budget that holds it."""
    labels = {"app": "web"}
    pod = {
        "metadata": {
            "namespace": "shop", "name": "web-1", "labels": labels,
            "ownerReferences": [{"kind": "ReplicaSet", "controller": True}],
        },
        "spec": {"nodeName": "w1"}, "status": {"phase": "Running"},
    }  # fmt: skip
    budget = {
        "metadata": {"namespace": "shop", "name": "web"}, "spec": {"selector": {"matchLabels": labels}},
        "status": {"disruptionsAllowed": 0, "desiredHealthy": 1, "expectedPods": 2, "currentHealthy": 2, **status},
    }  # fmt: skip
    return {"pods": [pod], "budgets": [budget]}


def test_pods_of_a_node_are_asked_for_once_however_many_hosts_plan(site: Site) -> None:
    """They are asked for at one control plane."""
    run = site.run("--dry", layer="upgrade")
    assert run.code == 0, run.words
    assert [len(run.like(f"spec.nodeName={name} ", "fact")) for name in NODES] == [1] * len(NODES)


def test_pods_that_can_never_leave_stop_it_before_any_change(site: Site) -> None:
    with site.state() as state:
        state["cluster"] |= held(expectedPods=1)
    run = site.run("-y", layer="upgrade")
    assert run.code == 1
    assert "w1: budget shop/web asks for 1 healthy pods of 1, so shop/web-1 may never be evicted." in run.words
    assert run.changes == []


def test_pods_that_may_not_leave_stop_it_and_their_node_is_given_back(site: Site) -> None:
    with site.state() as state:
        state["cluster"] |= held()
    run = site.run("-y", "--data", "drain_timeout=1", layer="upgrade")
    assert run.code == 1
    assert "not drained in 1 s, so its kubelet was not upgraded. Still there:" in run.words
    with site.state() as state:
        assert (state["cluster"]["marks"], state["cluster"]["cordoned"]) == ({}, [])


def test_a_node_that_was_cordoned_before_stays_so(site: Site) -> None:
    with site.state() as state:
        state["cluster"]["cordoned"] = ["w1"]
    run = site.run("-y", layer="upgrade")
    assert run.code == 0, run.words
    with site.state() as state:
        assert (state["cluster"]["marks"], state["cluster"]["cordoned"]) == ({}, ["w1"])


def test_what_an_upgrade_would_break_stops_it_before_any_change(site: Site) -> None:
    with site.state() as state:
        state["cluster"]["metrics"] = (
            'apiserver_requested_deprecated_apis{group="batch",removed_release="1.36",resource="cronjobs",'
            'subresource="",version="v1beta1"} 1'
        )
    run = site.run("-y", layer="upgrade")
    assert run.code == 1
    assert "batch/v1beta1/cronjobs was asked for, which Kubernetes 1.36 removes" in run.words
    assert run.changes == []


def test_an_older_bundle_is_refused(site: Site, older: Path, bundle: Path) -> None:
    assert site.run("-y", layer="upgrade").code == 0
    switch(site, (VERSION, bundle), (OLD, older))
    for layer in ("upgrade", "cluster"):
        run = site.run("-y", layer=layer)
        assert run.code == 1
        assert f"it runs Kubernetes {VERSION}. Kubernetes does not go back" in run.words
        assert run.changes == []


def test_an_upgrade_waits_for_the_end_of_a_rotation_of_cas(site: Site) -> None:
    with site.state() as state:
        file = {"text": "a CA\n", "mode": "600", "owner": "root:root", "changed": 0}
        state["nodes"]["cp2"]["files"]["/etc/kubernetes/pki/rotation/new/ca.crt"] = file
    run = site.run("-y", layer="upgrade")
    assert (run.code, run.changes) == (1, [])
    assert "cp2: a rotation of CAs is under way. End it first: deploys/rotate_ca.py goes on with it." in run.words


@pytest.mark.parametrize("changed", [("service_subnet", "10.97.0.0/16"), ("pod_subnet", "10.9.0.0/16")])
def test_settings_that_the_cluster_cannot_follow_stop_it_before_any_change(
    site: Site, changed: tuple[str, str]
) -> None:
    """kubeadm would write them into the manifests of the new version."""
    name, subnet = changed
    run = site.run("-y", "--data", f"{name}={subnet}", layer="upgrade")
    assert (run.code, run.changes) == (1, [])
    assert f"{name}: the cluster has networking." in run.words
