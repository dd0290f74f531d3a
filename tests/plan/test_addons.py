"""Add-ons: planned whole on bare machines, applied once, followed by what the setting says later."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from runs import GROUPS, Deployed, Run, Site, make_bundle, make_site

from cluster.addons import OFFERED
from facts.kubelet import CERTIFICATE, CONFIG

FIRST = "cp1"
NODES = {*GROUPS["control_plane"], *GROUPS["worker"]}
SHOP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\ndata: {a: b}\n"
ADDONS = ("coredns", "metrics-server", "local-path", "shop")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the images of every offered add-on, and an add-on of the site's own."""
    images = tuple(f"{repository}:1" for each in OFFERED.values() for repository in each.images.values())
    return make_bundle(tmp_path_factory.mktemp("whole"), more=images, addons={"shop": ("shop", SHOP)})


@pytest.fixture(scope="module")
def plan(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_site(tmp_path_factory.mktemp("bare"), whole, addons=ADDONS).run("--dry", "--json", "--diff")


@pytest.fixture(scope="module")
def applied(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    site = make_site(tmp_path_factory.mktemp("applied"), whole, addons=ADDONS)
    run = site.run("-y")
    assert run.code == 0, run.words
    return Deployed(site, run)


def with_addons(site: Site, directory: Path, before: tuple[str, ...], after: tuple[str, ...]) -> Site:
    """A copy of machines whose setting is another one."""
    copy = site.copy(directory)
    path = copy.directory / "inventory.py"
    text = path.read_text()
    assert f"'addons': {before!r}" in text
    path.write_text(text.replace(f"'addons': {before!r}", f"'addons': {after!r}"))
    return copy


def addon_steps(changes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(host, name.removeprefix("Add-ons | ")) for host, name in changes if name.startswith("Add-ons | ")}


def test_every_step_of_every_add_on_is_planned_on_bare_machines_and_made(plan: Run, applied: Deployed) -> None:
    steps = addon_steps(plan.planned)
    assert steps == addon_steps(applied.run.made)
    assert {name for _, name in steps} == {
        "Approve serving certificates of kubelets",
        "Make metrics-server's certificate",
        "Write where shop is",
        *(f"Write the manifest of {name}" for name in ADDONS),
        *(f"Apply {name} and wait until it works" for name in ADDONS),
    }
    assert {host for host, _ in steps} == {FIRST}


def test_the_diff_shows_what_will_be_applied_before_there_is_a_cluster(plan: Run) -> None:
    for line in (
        "kind: StorageClass",
        "Corefile: |",
        "namespace: shop",
        "--kubelet-preferred-address-types=InternalIP",
    ):
        assert line in plan.stderr, f"{line} is not in the plan"


def test_they_are_applied_in_the_order_of_the_setting_after_the_network(applied: Deployed) -> None:
    commands = [each["command"] for each in applied.run.like(" apply --server-side", "change")]
    found = [re.search(r" -f /etc/kubernetes/\S+/(\S+)\.yaml", command) for command in commands]
    assert [each[1] for each in found if each] == ["flannel", *ADDONS]


def test_every_kubelet_has_a_certificate_of_the_clusters_ca_before_metrics_server_asks_it(applied: Deployed) -> None:
    with applied.site.state() as state:
        assert {name for name, node in state["nodes"].items() if CERTIFICATE in node["files"]} == NODES
        assert state["cluster"]["requests"] == {}
        assert yaml.safe_load(state["cluster"]["kubelet"])["serverTLSBootstrap"] is True
    (last_approval, *_) = [each["ended"] for each in reversed(applied.run.like("certificate approve", "change"))]
    (server,) = applied.run.like("addons.d/metrics-server.yaml", "change")[-1:]
    assert last_approval < server["began"]


def test_a_second_run_changes_nothing(applied: Deployed, tmp_path: Path) -> None:
    site = applied.site.copy(tmp_path / "site")
    again, run = site.run("--dry", "--json"), site.run("-y")
    assert (again.code, run.code) == (0, 0), run.words
    assert again.planned == run.made == set()
    assert again.differs(run) == []


def test_what_is_no_longer_wanted_is_left_and_said_with_the_way_to_remove_it(applied: Deployed, tmp_path: Path) -> None:
    site = with_addons(applied.site, tmp_path / "site", ADDONS, ("coredns", "metrics-server"))
    for flags in (("--dry",), ("-y",)):
        run = site.run(*flags)
        assert run.code == 0, run.words
        assert run.changes == []
        words = " ".join(run.words.split())
        for name in ("local-path", "shop"):
            said = f"add-on {name} is no longer in `addons`. It is left as it is; as root on cp1: kubectl delete -f"
            assert f"{said} /etc/kubernetes/addons.d/{name}.yaml" in words
        assert "add-on coredns" not in words


def test_metrics_server_comes_to_a_cluster_whose_kubelets_serve_by_their_own_certificates(
    whole: Path, tmp_path: Path
) -> None:
    site = make_site(tmp_path / "site", whole, addons=())
    assert site.run("-y").code == 0
    with site.state() as state:
        assert "serverTLSBootstrap" not in "".join(state["nodes"][name]["files"][CONFIG]["text"] for name in NODES)
    later = with_addons(site, tmp_path / "later", (), ("metrics-server",))
    planned, run = later.run("--dry", "--json"), later.run("-y")
    assert run.code == 0, run.words
    steps = addon_steps(run.made)
    assert steps == addon_steps(planned.planned)
    assert {host for host, name in steps if name.startswith("Have kubelet ask")} == NODES
    assert (FIRST, "Have the cluster's configuration of kubelets ask for serving certificates") in steps
    again = later.run("-y")
    assert again.made == set()


def test_an_add_on_that_does_not_come_up_ends_the_run_and_names_it(whole: Path, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", whole, addons=("shop",))
    site.break_command(FIRST, r"apply .*addons\.d/shop\.yaml", "The ConfigMap is invalid")
    run = site.run("-y")
    assert run.code != 0
    assert "The ConfigMap is invalid" in run.words


def test_an_add_on_that_the_bundle_has_not_is_refused_before_anything_is_changed(bundle: Path, tmp_path: Path) -> None:
    run = make_site(tmp_path / "site", bundle, addons=("coredns", "local-path", "shop")).run("-y")
    assert run.code != 0
    assert run.changes == []
    words = " ".join(run.words.split())
    assert "addons: local-path needs docker.io/rancher/local-path-provisioner, docker.io/library/busybox" in words
    assert "addons: there is no shop: neither" in words


def test_addons_are_not_waited_for_before_there_is_a_network(bundle: Path, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", bundle, cni="none")
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words
    assert run.made == plan.planned >= {(FIRST, "Add-ons | Apply coredns")}
    assert run.like("get --ignore-not-found -o json", "read") == []
    assert site.run("--dry", "--json").planned == set()
