"""Clusters on each container runtime, and runtimes that are not what they should be."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site, machine, make_bundle, make_site, together

NODES = {*GROUPS["control_plane"], *GROUPS["worker"]}
CONFIG, CRIO = "/etc/containerd/config.toml", "/etc/crio/crio.conf.d/10-kubernetes.conf"
WAYS = {
    "upstream": ("upstream", {}),
    "cri-o": ("cri-o", {"container_runtime": "cri-o"}),
    "cri-o pulling": ("cri-o", {"container_runtime": "cri-o", "image_delivery": "registry"}),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_bundle(tmp_path_factory.mktemp("bundle"), name) for name in ("upstream", "cri-o")}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> dict[str, Site]:
    return {
        way: make_site(tmp_path_factory.mktemp("site"), bundles[bundle], **settings)
        for way, (bundle, settings) in WAYS.items()
    }


@pytest.fixture(scope="module")
def runs(sites: dict[str, Site]) -> dict[str, Future[Run]]:
    return together({way: lambda site=site: site.run("--json", "-y") for way, site in sites.items()})


@pytest.mark.parametrize("way", WAYS)
def test_a_cluster_comes_up_on_each_runtime_as_planned_on_bare_hosts(
    sites: dict[str, Site], runs: dict[str, Future[Run]], way: str
) -> None:
    run = runs[way].result()
    assert run.code == 0, run.words
    with sites[way].state() as state:
        assert set(state["cluster"]["nodes"]) == NODES
        assert {name for name, node in state["nodes"].items() if node["images"]} == NODES
        texts = {name: node["files"] for name, node in state["nodes"].items() if name in NODES}
        installed = {package for node in state["nodes"].values() for package in node["packages"]}
    assert "containerd" not in installed
    for files in texts.values():
        assert (
            f"unix://{'/var/run/crio/crio' if 'cri-o' in way else '/run/containerd/containerd'}.sock"
            in (files["/etc/crictl.yaml"]["text"])
        )
        assert (CONFIG in files, CRIO in files) == ("cri-o" not in way, "cri-o" in way)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_to_do_on_any_runtime(
    sites: dict[str, Site], runs: dict[str, Future[Run]], way: str, tmp_path: Path
) -> None:
    assert runs[way].result().code == 0
    plan = sites[way].copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()


def test_containerd_of_the_bundle_has_the_configuration_of_its_release_and_a_unit(
    sites: dict[str, Site], runs: dict[str, Future[Run]]
) -> None:
    assert runs["upstream"].result().code == 0
    with sites["upstream"].state() as state:
        files = state["nodes"]["w1"]["files"]
    assert "\nversion = 4\n" in files[CONFIG]["text"]
    assert "ExecStart=/usr/bin/containerd\n" in files["/etc/systemd/system/containerd.service"]["text"]


def test_images_of_cri_o_are_copied_by_skopeo_or_pulled(runs: dict[str, Future[Run]]) -> None:
    assert {each["host"] for each in runs["cri-o"].result().like("skopeo", "change")} == NODES
    assert runs["cri-o pulling"].result().like("skopeo --policy", "change") == []


@pytest.mark.parametrize(("bundle", "there"), [("package", "containerd 2.0"), ("upstream", "containerd v2.3.7")])
def test_a_bundle_without_the_runtime_that_is_set_is_refused(
    tmp_path: Path, bundles: dict[str, Path], bundle: str, there: str
) -> None:
    directory = bundles.get(bundle) or make_bundle(tmp_path / "bundle")
    run = make_site(tmp_path / "site", directory, container_runtime="cri-o").run("-y")
    assert run.code == 1
    assert f"container_runtime: is cri-o, and the bundle has {there}. Choose `runtime` in bundle.yaml" in run.words
    assert run.changes == []


def test_packages_beside_a_runtime_of_the_bundle_are_refused_on_all_hosts_at_once(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    site = make_site(tmp_path / "site", bundles["upstream"])
    with site.state() as state:
        for name in ("cp3", "w2"):
            state["nodes"][name]["packages"]["containerd"] = {"version": "1.6.20", "held": True}
    run = site.run("-y")
    assert run.code == 1
    said = "cp3, w2: it has the package containerd 1.6.20, and the bundle has containerd of its own"
    assert said in run.words
    assert run.changes == []


def test_the_package_is_refused_beside_a_runtime_of_an_earlier_bundle(
    sites: dict[str, Site], runs: dict[str, Future[Run]], tmp_path: Path, bundle: Path
) -> None:
    assert runs["upstream"].result().code == 0
    site = make_site(tmp_path / "site", bundle)
    with sites["upstream"].state() as before, site.state() as state:
        state.update(before)
    run = site.run("-y")
    assert run.code == 1
    assert "it has /etc/systemd/system/containerd.service, and the bundle has a package" in run.words
    assert run.changes == []


def test_a_node_is_not_given_another_runtime_alive(
    deployed: Deployed, tmp_path: Path, bundles: dict[str, Path]
) -> None:
    site = make_site(tmp_path / "site", bundles["cri-o"], container_runtime="cri-o")
    with deployed.site.state() as before, site.state() as state:
        state.update(before)
    run = site.run("-y")
    assert run.code == 1
    assert "its kubelet uses /run/containerd/containerd.sock, and container_runtime is cri-o" in run.words
    assert run.changes == []


def test_a_runtime_that_runs_with_another_configuration_than_its_file_is_restarted(
    deployed: Deployed, tmp_path: Path
) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        state["nodes"]["w2"]["units"]["containerd.service"]["config"] = "# as before\n"
    plan = site.run("--dry", "--json")
    assert plan.planned == {("w2", "Runtime | Run containerd")}
    assert "restart containerd.service, for containerd runs with the cgroup driver cgroupfs, not systemd" in plan.words
    run = site.run("-y")
    assert run.code == 0, run.words
    assert [(each["host"], each["command"].split(" || ")[0]) for each in run.like("systemctl restart", "change")] == [
        ("w2", "timeout 90 systemctl restart containerd.service")
    ]
    assert site.run("--dry", "--json").planned == set()


def test_a_file_of_the_sites_that_is_newer_than_the_runtime_restarts_it(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        state["clock"] += 1
        own = {"text": "oom_score = -5\n", "mode": "644", "owner": "root:root", "changed": state["clock"]}
        state["nodes"]["cp1"]["files"]["/etc/containerd/conf.d/50-site.toml"] = own
    assert site.run("--dry", "--json").planned == {("cp1", "Runtime | Run containerd")}


def test_a_runtime_that_a_restart_does_not_mend_fails_its_host_with_what_it_does(
    deployed: Deployed, tmp_path: Path
) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        state["clock"] += 1
        own = {"text": "SystemdCgroup = false\n", "mode": "644", "owner": "root:root", "changed": state["clock"]}
        state["nodes"]["w1"]["files"]["/etc/containerd/conf.d/50-site.toml"] = own
    run = site.run("-y")
    assert run.code == 1
    assert "w1: the container runtime does not run as it is configured to:" in run.words
    assert "- containerd runs with the cgroup driver cgroupfs, not systemd" in run.words
    assert "- the kubelet is configured with the cgroup driver systemd, containerd with cgroupfs" in run.words


@pytest.mark.parametrize("added", [False, True])
def test_a_runtime_that_does_not_come_back_on_one_node_ends_the_run_before_other_nodes_have_it(
    deployed: Deployed, tmp_path: Path, added: bool
) -> None:
    """One of the cluster's, also where the last host of the inventory is yet to join."""
    site = deployed.site.copy(tmp_path / "site")
    if added:
        path = site.directory / "inventory.py"
        last = '("@fake/w9", {"address": "10.0.0.39", **_settings})'
        path.write_text(re.sub(r"^(worker = \[.*)\]$", rf"\1, {last}]", path.read_text(), flags=re.MULTILINE))
    with site.state() as state:
        for node in state["nodes"].values():
            if containerd := node["files"].get("/etc/containerd/config.toml"):
                containerd["text"] = "# of an earlier version of this project\n"
        if added:
            state["nodes"]["w9"] = machine("10.0.0.39")
    site.break_command("w3", "restart containerd.service", "it does not start")
    run = site.run("-y")
    assert (run.code, "it does not start" in run.words) == (1, True)
    assert {each["host"] for each in run.like("restart containerd.service", "change")} == {"w3"}
