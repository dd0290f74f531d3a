"""Hosts that are added, removed, replaced, reset, stopped and started: what is refused, what changes, and where."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site

REMOVE = "Remove node | "


@pytest.fixture
def cluster(deployed: Deployed, tmp_path: Path) -> Site:
    """A cluster of a test's own."""
    return deployed.site.copy(tmp_path / "site")


def remove(site: Site, *flags: str, names: str) -> Run:
    return site.run(*flags, "--data", f"remove={names}", layer="remove_node")


def both(site: Site, *flags: str, layer: str) -> tuple[Run, Run]:
    """The plan, and the run that must do what it says."""
    plan, run = site.run("--dry", "--json", *flags, layer=layer), site.run("-y", *flags, layer=layer)
    assert run.code == 0, run.words[-3000:]
    assert plan.differs(run) == []
    return plan, run


def again(site: Site, *flags: str, layer: str) -> None:
    run = site.run("-y", *flags, layer=layer)
    assert run.code == 0, run.words[-3000:]
    assert run.changes == []


def without(site: Site, name: str) -> None:
    """Delete a host's line from the inventory."""
    path = site.directory / "inventory.py"
    text = re.sub(rf'\("@fake/{name}", \{{"address": \S+, .*?\*\*\{{\}}\}}\)(, )?', "", path.read_text())
    assert f"@fake/{name}" not in text
    path.write_text(text)


def pod(name: str, node: str, owned: bool = True) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "labels": {"app": "web"}}
    owner = {"ownerReferences": [{"kind": "ReplicaSet", "name": "web"}]} if owned else {}
    return {"metadata": metadata | owner, "spec": {"nodeName": node}, "status": {"phase": "Running"}}


def budget(healthy: int, expected: int, allowed: int) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"desiredHealthy": healthy, "expectedPods": expected, "disruptionsAllowed": allowed},
    }


def test_a_worker_is_drained_deleted_and_cleaned_and_others_forget_it(cluster: Site) -> None:
    with cluster.state() as state:
        state["cluster"]["pods"] = [pod("web-1", "w2")]
    _, run = both(cluster, "--data", "remove=w2", layer="remove_node")
    steps = ("drain w2", "delete node", "kubeadm reset")
    drain, delete, reset = (run.like(each, "change")[0] for each in steps)
    assert drain["host"] == delete["host"] == "cp1"
    assert reset["host"] == "w2"
    assert drain["ended"] < delete["began"] < delete["ended"] < reset["began"]
    others = {(host, name) for host, name in run.made if host not in ("w2", "cp1")}
    hosts = {*GROUPS["load_balancer"], *GROUPS["control_plane"], *GROUPS["worker"]} - {"w2"}
    assert {host for host, name in run.made if name == f"{REMOVE}Name every node in /etc/hosts"} == hosts
    assert {name for _, name in others} == {
        f"{REMOVE}Name every node in /etc/hosts",
        f"{REMOVE}Write the server's configuration",
        f"{REMOVE}Serve the bundle",
    }
    with cluster.state() as state:
        assert "w2" not in state["cluster"]["nodes"]
        assert state["cluster"]["pods"] == []
        assert list(state["nodes"]["w2"]["files"]) == ["/etc/hosts"]
        assert state["nodes"]["w2"]["links"] == []
        assert "w2" not in state["nodes"]["w1"]["files"]["/etc/hosts"]["text"]
    again(cluster, "--data", "remove=w2", layer="remove_node")
    without(cluster, "w2")
    again(cluster, layer="cluster")


def test_a_removed_host_is_taken_in_again_by_the_whole_deploy(cluster: Site) -> None:
    assert remove(cluster, "-y", names="w2,cp2").code == 0
    _, run = both(cluster, layer="cluster")
    assert sorted(each["host"] for each in run.like("kubeadm join", "change")) == ["cp2", "w2"]
    again(cluster, layer="cluster")


def test_a_control_plane_leaves_etcd_before_its_node_is_deleted_and_backends_follow(cluster: Site) -> None:
    _, run = both(cluster, "--data", "remove=cp3", layer="remove_node")
    left, delete, reset = (run.like(each, "change")[0] for each in ("member remove", "delete node", "kubeadm reset"))
    assert left["ended"] < delete["began"] < delete["ended"] < reset["began"]
    assert "Warning: 2 control planes: etcd survives no more failures with 2 members than with 1" in run.words
    for name in GROUPS["load_balancer"]:
        assert (name, f"{REMOVE}Load balancers | Write HAProxy's configuration") in run.made
    with cluster.state() as state:
        assert "10.0.0.23" not in state["nodes"]["lb1"]["files"]["/etc/haproxy/haproxy.cfg"]["text"]
    again(cluster, "--data", "remove=cp3", layer="remove_node")
    # An even number of control planes is refused until it is waived.
    without(cluster, "cp3")
    run = cluster.run("-y")
    assert run.code == 1
    assert "2 control planes: etcd survives no more failures" in run.words
    assert "(check: even-control-planes)" in run.words
    run = cluster.run("-y", "--data", 'waived_checks=["even-control-planes"]')
    assert run.code == 0, run.words[-2000:]
    assert "Waived: 2 control planes" in run.words
    assert run.changes == []


def test_when_the_first_control_plane_goes_the_next_one_keeps_what_it_kept(cluster: Site) -> None:
    both(cluster, "--data", "remove=cp1", layer="remove_node")
    without(cluster, "cp1")
    again(cluster, "--data", 'waived_checks=["even-control-planes"]', layer="cluster")


def test_when_a_balancer_goes_the_other_hands_the_bundle_on_alone(cluster: Site) -> None:
    both(cluster, "--data", "remove=lb1", layer="remove_node")
    without(cluster, "lb1")
    again(cluster, layer="cluster")


def test_a_machine_that_is_gone_is_removed_and_replaced_without_being_asked(cluster: Site) -> None:
    with cluster.state() as state:
        state["nodes"]["cp3"]["dead"] = True
    flags = ("--exclude", "cp3", "--data", "gone=true", "--data", "remove=cp3")
    _, run = both(cluster, *flags, layer="remove_node")
    assert run.like("drain", "change") == []
    assert [each for each in run.log if each["host"] == "cp3"] == []
    again(cluster, *flags, layer="remove_node")
    new = make_site(cluster.directory.parent / "new", cluster.directory)
    with new.state() as bare, cluster.state() as state:
        state["nodes"]["cp3"] = bare["nodes"]["cp3"]
    _, run = both(cluster, layer="cluster")
    assert [each["host"] for each in run.like("kubeadm join", "change")] == ["cp3"]
    again(cluster, layer="cluster")


def test_a_node_joins_under_a_limit_while_the_first_control_plane_is_dead(cluster: Site) -> None:
    with cluster.state() as state:
        state["nodes"]["cp1"]["dead"] = True
        del state["cluster"]["nodes"]["w2"]
        del state["nodes"]["w2"]["files"]["/etc/kubernetes/pki/ca.crt"]
    run = cluster.run("-y", "--limit", "w2", layer="workers")
    assert run.code == 0, run.words[-2000:]
    assert [each["host"] for each in run.like("kubeadm join", "change")] == ["w2"]


def test_no_cluster_is_begun_while_other_control_planes_cannot_be_asked_for_one(cluster: Site) -> None:
    fresh = make_site(cluster.directory.parent / "fresh", cluster.directory)
    with fresh.state() as bare, cluster.state() as state:
        state["nodes"]["cp1"] = bare["nodes"]["cp1"]
        state["nodes"]["cp2"]["dead"] = state["nodes"]["cp3"]["dead"] = True
    run = cluster.run("-y", "--limit", "cp1", layer="control_plane")
    assert run.code == 1
    assert "cp3, cp2: cannot be reached, and no other control plane answers as initialised" in run.words
    assert run.changes == []


REFUSALS = {
    "nobody": ([], ["remove: names no host. Say which, as `--data remove=NAME[,NAME]`"]),
    "unknown": (["remove=w9"], ["remove: w9 is not in the inventory, which has lb1, lb2, cp1"]),
    "all control planes": (["remove=cp1,cp2,cp3"], ["is all there is of control planes", "deploys/reset.py"]),
    "all workers": (["remove=w1,w2,w3"], ["no host in group worker"]),
    "all balancers": (["remove=lb1,lb2"], ["no host in group load_balancer"]),
    "gone but reached": (["remove=w1", "gone=true"], ["w1: `gone=true` says that its machine is no more, and it was"]),
    "another deploy's option": (["reset=test"], ["reset: there is no such setting"]),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_removal_that_cannot_be_is_refused_before_anything_changes(deployed: Deployed, refusal: str) -> None:
    data, words = REFUSALS[refusal]
    run = deployed.site.run("-y", *(word for each in data for word in ("--data", each)), layer="remove_node")
    assert run.code == 1
    assert all(each in run.words for each in words), run.words[-2000:]
    assert run.changes == []


def test_a_host_outside_the_run_is_not_removed_unless_it_is_said_to_be_gone(cluster: Site) -> None:
    run = remove(cluster, "-y", "--exclude", "w1", names="w1")
    assert run.code == 1
    assert "w1: is to be removed and is not in this run" in run.words
    run = remove(cluster, "-y", "--exclude", "w1", "--data", "gone=true", names="w1")
    assert run.code == 1
    assert "w1: `gone=true` says that its machine is no more, and its kubelet still reports" in run.words


def test_no_host_is_cleaned_while_no_control_plane_that_stays_is_in_the_run(cluster: Site) -> None:
    for name in ("cp3", "w1"):
        run = remove(cluster, "-y", "--limit", name, names=name)
        assert run.code == 1
        assert "has the cluster and is not in this run" in run.words
        assert run.changes == []
    run = remove(cluster, "-y", "--limit", "cp3", "--limit", "cp2", names="cp3")
    assert run.code == 0, run.words[-2000:]
    assert [each["host"] for each in run.like("member remove", "change")] == ["cp2"]


def test_etcds_quorum_is_kept(cluster: Site) -> None:
    with cluster.state() as state:
        state["nodes"]["cp3"]["dead"] = True
    run = remove(cluster, "-y", "--exclude", "cp3", names="cp2")
    assert run.code == 1
    assert "cp2: without its etcd member 2 would be left, of which cp3 does not answer" in run.words
    assert run.changes == []


@pytest.mark.parametrize(
    ("pods", "budgets", "words"),
    [
        (
            [pod("web-1", "w1")],
            [budget(1, 1, 0)],
            "w1: budget shop/web asks for 1 healthy pods of 1, so shop/web-1 may",
        ),
        ([pod("web-1", "w1", owned=False)], [], "w1: nothing would make shop/web-1 anew on another node"),
    ],
)
def test_pods_that_can_never_leave_are_named_before_anything_changes(
    cluster: Site, pods: list[Any], budgets: list[Any], words: str
) -> None:
    with cluster.state() as state:
        state["cluster"] |= {"pods": pods, "budgets": budgets}
    run = remove(cluster, "-y", names="w1")
    assert run.code == 1
    assert words in run.words
    assert run.changes == []


def test_a_node_whose_pods_do_not_leave_in_time_takes_pods_again_and_stays(cluster: Site) -> None:
    with cluster.state() as state:
        state["cluster"] |= {"pods": [pod("web-1", "w1")], "budgets": [budget(1, 2, 0)]}
    run = remove(cluster, "-y", "--data", "drain_timeout=1", names="w1")
    assert run.code == 1
    assert "w1: not drained in 1 s, so it was not removed. Still there: shop/web-1 (budget shop/web holds" in run.words
    assert "It takes pods again" in run.words
    with cluster.state() as state:
        assert "w1" in state["cluster"]["nodes"]
        assert state["cluster"]["cordoned"] == []


def test_a_node_whose_drain_was_killed_takes_pods_again_when_the_next_is_out_of_time(cluster: Site) -> None:
    with cluster.state() as state:
        state["cluster"] |= {"pods": [pod("web-1", "w1")], "budgets": [budget(1, 2, 0)]}
        state["cluster"] |= {"cordoned": ["w1"], "drains": {"w1": "schedulable"}}
    run = remove(cluster, "-y", "--data", "drain_timeout=1", names="w1")
    assert run.code == 1
    assert "It takes pods again" in run.words
    with cluster.state() as state:
        assert (state["cluster"]["cordoned"], state["cluster"]["drains"]) == ([], {})


def test_reset_wants_the_clusters_name(cluster: Site) -> None:
    for data, words in {"": "add `--data reset=test`", "reset=prod": "reset: says prod, and the cluster"}.items():
        run = cluster.run("-y", *(("--data", data) if data else ()), layer="reset")
        assert run.code == 1
        assert words in run.words
        assert run.changes == []


def test_reset_does_not_take_a_node_from_a_living_cluster(cluster: Site) -> None:
    run = cluster.run("-y", "--data", "reset=test", "--limit", "w1", layer="reset")
    assert run.code == 1
    assert "w1: in the cluster that cp1 keeps, as a node or a member of etcd. Take it out with `deploys" in run.words
    assert run.changes == []


def test_reset_takes_no_member_of_etcd_whose_node_was_deleted_by_hand_and_a_removal_does(cluster: Site) -> None:
    with cluster.state() as state:
        del state["cluster"]["nodes"]["cp2"]
        state["cluster"]["ghosts"] = ["cp2"]
    run = cluster.run("-y", "--data", "reset=test", "--limit", "cp2", layer="reset")
    assert run.code == 1
    assert "cp2: in the cluster that cp1 keeps, as a node or a member of etcd" in run.words
    assert run.changes == []
    run = remove(cluster, "-y", names="cp2")
    assert run.code == 0, run.words[-2000:]
    assert [each["host"] for each in run.like("member remove", "change")] == ["cp1"]
    again(cluster, "--data", "reset=test", "--limit", "cp2", layer="reset")


@pytest.mark.parametrize("machines", [True, False], ids=["machines", "API servers"])
def test_reset_takes_no_member_from_a_cluster_that_does_not_answer_unless_it_is_said_to_be_gone(
    cluster: Site, machines: bool
) -> None:
    with cluster.state() as state:
        for name in ("cp1", "cp3"):
            state["nodes"][name] |= {"dead": True} if machines else {"pods": {}}
    flags = ("--data", "reset=test", "--limit", "cp2")
    run = cluster.run("-y", *flags, layer="reset")
    assert run.code == 1
    assert "cp2: may still be a node of a cluster" in run.words
    assert "Beyond this run, cp1, cp3 cannot be asked: no SSH, or no API server there. Bring it back" in run.words
    assert run.changes == []
    both(cluster, *flags, "--data", "gone=true", layer="reset")
    # A host that has nothing of a cluster may be cleaned at any time.
    again(cluster, *flags, layer="reset")


def test_gone_does_not_make_a_living_cluster_gone(cluster: Site) -> None:
    with cluster.state() as state:
        state["nodes"]["cp1"]["dead"] = True
    run = cluster.run("-y", "--data", "reset=test", "--data", "gone=true", "--limit", "cp2", layer="reset")
    assert run.code == 1
    assert "cp2: in the cluster that cp3 keeps" in run.words
    assert run.changes == []


def test_all_hosts_of_a_cluster_that_is_dead_are_reset(cluster: Site) -> None:
    with cluster.state() as state:
        for node in state["nodes"].values():
            node["pods"] = {}
    both(cluster, "--data", "reset=test", layer="reset")
    again(cluster, "--data", "reset=test", layer="reset")


def test_reset_leaves_nothing_on_any_host_and_finds_nothing_the_second_time(cluster: Site) -> None:
    both(cluster, "--data", "reset=test", layer="reset")
    with cluster.state() as state:
        for name, node in state["nodes"].items():
            assert set(node["files"]) <= {"/etc/hosts", "/etc/nginx/nginx.conf"}, name
            assert node["links"] == []
            assert not [unit for unit, each in node["units"].items() if each["active"] or each["enabled"]]
            assert not [package for package, each in node["packages"].items() if each["held"]]
        state["cluster"]["nodes"] = {}
    again(cluster, "--data", "reset=test", layer="reset")
    both(cluster, layer="cluster")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("namespace default", "containerd has containers of others here (default), so it, its data and its"),
        ("unknown", "containerd does not answer here, and its data may be others' too, so it, its data and its"),
    ],
)
def test_a_containerd_that_others_use_or_may_use_stays_with_its_package(cluster: Site, said: str, words: str) -> None:
    with cluster.state() as state:
        for node in state["nodes"].values():
            node["others"] = said
    flags = ("--data", "reset=test", "--data", "packages=true")
    _, run = both(cluster, *flags, layer="reset")
    assert f"[w1]  {words}" in run.words
    with cluster.state() as state:
        node = state["nodes"]["w1"]
        assert node["units"]["containerd.service"]["active"]
        assert "/etc/containerd/config.toml" in node["files"]
        assert "containerd" in node["packages"] and not node["packages"]["containerd"]["held"]
        assert "nginx" not in {name for each in state["nodes"].values() for name in each["packages"]}
    again(cluster, *flags, layer="reset")


def test_packages_go_when_that_is_asked(cluster: Site) -> None:
    both(cluster, "--data", "reset=test", "--data", "packages=true", layer="reset")
    with cluster.state() as state:
        left = {package for node in state["nodes"].values() for package in node["packages"]}
        assert left == {"conntrack", "curl", "openssl"}
        assert all(node["masked"] == [] for node in state["nodes"].values())


def test_stop_ends_workers_first_and_etcd_last_and_start_begins_them_again(cluster: Site) -> None:
    _, run = both(cluster, layer="stop")
    kubelets, pods = run.like("systemctl stop kubelet", "change"), run.like("crictl stopp", "change")
    workers = max(each["ended"] for each in run.changes if each["host"] in GROUPS["worker"])
    control_planes = [each for each in run.changes if each["host"] in GROUPS["control_plane"]]
    assert workers < min(each["began"] for each in control_planes)
    assert {each["host"] for each in kubelets} == {*GROUPS["control_plane"], *GROUPS["worker"]}
    steps = [each["operation"].removeprefix("Stop | ") for each in pods]
    assert list(dict.fromkeys(steps)) == [
        "End the worker's pods", "End ordinary pods", "End the API server, controllers and scheduler", "End etcd",
    ]  # fmt: skip
    for before, after in pairwise(pods):
        assert before["operation"] == after["operation"] or before["ended"] < after["began"]
    with cluster.state() as state:
        assert all(node["pods"] == {} for node in state["nodes"].values())
    again(cluster, layer="stop")
    # What has come up by itself until it is looked at needs no waiting for.
    plan, run = cluster.run("--dry", "--json", layer="start"), cluster.run("-y", layer="start")
    assert run.code == 0, run.words[-3000:]
    waits = {(name, "Start | Wait for etcd and the API server") for name in GROUPS["control_plane"]}
    assert run.made | waits == plan.planned
    assert all("Wait for etcd" in each for each in plan.differs(run))
    started = [each["host"] for each in run.like("systemctl restart kubelet", "change")]
    assert set(started[:3]) == set(GROUPS["control_plane"])
    assert set(started[3:]) == set(GROUPS["worker"])
    again(cluster, layer="start")
    again(cluster, layer="cluster")


def test_adding_a_host_changes_on_others_only_what_must_know_of_it(bundle: Path, tmp_path: Path) -> None:
    few = {group: dict(list(members.items())[:1]) for group, members in GROUPS.items()}
    site = make_site(tmp_path / "few", bundle, groups=few)
    assert site.run("-y").code == 0
    grown = make_site(tmp_path / "grown", bundle)
    with site.state() as old, grown.state() as new:
        new["nodes"] |= old["nodes"]
        new |= {"cluster": old["cluster"], "clock": old["clock"]}
    shutil.copytree(site.directory / "secrets", grown.directory / "secrets")
    _, run = both(grown, layer="cluster")
    old_hosts = {name for members in few.values() for name in members}
    told = {(host, name.rpartition(" | ")[2]) for host, name in run.made if host in old_hosts}
    assert {name for host, name in told if host in ("cp1", "w1")} <= {
        "Name every node in /etc/hosts",
        "Trust the bundle's servers",
        "Have containerd ask the bundle's servers for images",
    }
    again(grown, layer="cluster")
