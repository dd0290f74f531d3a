"""Who serves the bundle, and whether images are loaded or pulled."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site, together

NODES = {*GROUPS["control_plane"], *GROUPS["worker"]}
ALL = {*NODES, *GROUPS["load_balancer"]}
BLOBS = "/var/lib/pyinfra-kubeadm/bundle/images/blobs/"
WAYS = {
    "registry": {"image_delivery": "registry"},
    "servers": {"bundle_servers": ["w2", "lb1"], "bundle_port": 8443},
    "both": {"image_delivery": "registry", "bundle_servers": ["cp3"]},
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> dict[str, Site]:
    return {way: make_site(tmp_path_factory.mktemp(way), bundle, **settings) for way, settings in WAYS.items()}


@pytest.fixture(scope="module")
def runs(sites: dict[str, Site]) -> dict[str, Future[Run]]:
    return together({way: lambda site=site: site.run("-y") for way, site in sites.items()})


@pytest.mark.parametrize("way", WAYS)
def test_every_way_makes_a_whole_cluster(sites: dict[str, Site], runs: dict[str, Future[Run]], way: str) -> None:
    run = runs[way].result()
    assert run.code == 0, run.words
    with sites[way].state() as state:
        assert set(state["cluster"]["nodes"]) == NODES


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_to_do_by_any_way(
    sites: dict[str, Site], runs: dict[str, Future[Run]], way: str, tmp_path: Path
) -> None:
    assert runs[way].result().code == 0
    plan = sites[way].copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()


@pytest.mark.parametrize("way", ["registry", "both"])
def test_images_that_are_pulled_are_not_carried_to_nodes_and_not_loaded(
    sites: dict[str, Site], runs: dict[str, Future[Run]], way: str
) -> None:
    run = runs[way].result()
    assert run.like("images import", "change") == []
    servers = set(WAYS[way].get("bundle_servers", GROUPS["load_balancer"]))
    with sites[way].state() as state:
        having = {
            name for name, node in state["nodes"].items() if any(path.startswith(BLOBS) for path in node["files"])
        }
        pulled = {name for name, node in state["nodes"].items() if node["images"]}
    assert having == servers
    assert pulled == NODES


@pytest.mark.parametrize(("way", "servers"), [("servers", ["w2", "lb1"]), ("both", ["cp3"])])
def test_hosts_that_the_settings_name_serve_the_bundle_and_no_others(
    sites: dict[str, Site], runs: dict[str, Future[Run]], way: str, servers: list[str]
) -> None:
    run = runs[way].result()
    first, *others = servers
    carried, fetched = run.like("upload /", "change"), run.like("apt-helper", "change")
    assert {each["host"] for each in carried} == {first}
    assert [each["host"] for each in fetched][: len(others)] == others
    assert {each["host"] for each in fetched} == ALL - {first}
    started = run.like("systemctl restart bundle-server.service", "change")
    assert [each["host"] for each in started] == servers
    with sites[way].state() as state:
        assert {name for name, node in state["nodes"].items() if "nginx" in node["packages"]} == set(servers)


def test_hosts_that_have_their_turns_one_after_another_all_get_the_bundle(site: Site, deployed: Deployed) -> None:
    run = site.run("-y", "--parallel", "1")
    assert run.code == 0, run.words[-3000:]
    assert run.made == deployed.run.made


def test_one_host_alone_gets_what_it_lacks_from_servers_that_have_it(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        files = state["nodes"]["w1"]["files"]
        for path in [each for each in files if each.startswith("/var/lib/pyinfra-kubeadm/bundle/")]:
            del files[path]
    plan, run = site.run("--dry", "--json", "--limit", "w1"), site.run("-y", "--limit", "w1")
    assert run.code == 0, run.words[-3000:]
    assert plan.planned
    assert plan.differs(run) == []
    assert {each["host"] for each in run.changes} == {"w1"}
    assert site.run("--dry", "--json").planned == set()
