"""SELinux and NetworkManager on hosts: told what the cluster needs when that is asked, else said and left."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site, make_bundle, make_site

ROCKY = {name: "rocky-9.4" for members in GROUPS.values() for name in members}
NODES = {*GROUPS["control_plane"], *GROUPS["worker"]}
ASKED = {"selinux": "configure", "network_manager": "unmanage"}
MANAGER, UNMANAGED = "NetworkManager.service", "/etc/NetworkManager/conf.d/90-kubernetes.conf"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), "upstream", ["rocky-9"])


def rocky(directory: Path, bundle: Path, **settings: object) -> Site:
    """Hosts as Rocky is installed: SELinux enforces, NetworkManager runs."""
    site = make_site(directory, bundle, systems=ROCKY, **settings)
    with site.state() as state:
        for node in state["nodes"].values():
            node["selinux"] = ["enforcing"]
            node["units"][MANAGER] = {"active": True, "enabled": True, "since": 0}
    return site


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Site:
    return rocky(tmp_path_factory.mktemp("site"), bundle, **ASKED)


@pytest.fixture(scope="module")
def planned(bare: Site) -> Run:
    return bare.run("--dry", "--json")


@pytest.fixture(scope="module")
def told(bare: Site, planned: Run, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    site = bare.copy(tmp_path_factory.mktemp("told") / "site")
    run = site.run("-y")
    assert run.code == 0, run.words
    return Deployed(site, run)


def test_a_cluster_comes_up_where_selinux_enforces_as_planned_on_bare_hosts(planned: Run, told: Deployed) -> None:
    assert planned.code == 0, planned.words
    assert planned.changes == []
    assert planned.differs(told.run) == []
    with told.site.state() as state:
        assert set(state["cluster"]["nodes"]) == NODES
        selinux = {name: sorted(node["selinux"]) for name, node in state["nodes"].items()}
    for name in ROCKY:
        expected = ["enforcing", "haproxy_connect_any", "mapping", "port 5443"] if name[0] == "l" else ["enforcing"]
        assert selinux[name] == expected


def test_programs_have_their_labels_before_they_are_run(told: Deployed) -> None:
    with told.site.state() as state:
        files = state["nodes"]["cp1"]["files"]
    for path in ("/usr/bin/containerd", "/usr/bin/runc", "/usr/bin/kubelet", "/opt/cni/bin/bridge"):
        assert files[path]["labelled"] >= files[path]["changed"]


def test_network_manager_is_told_on_nodes(told: Deployed) -> None:
    with told.site.state() as state:
        nodes = state["nodes"]
    assert {name for name in nodes if nodes[name]["units"][MANAGER].get("unmanaged")} == NODES
    assert {name for name in nodes if UNMANAGED in nodes[name]["files"]} == NODES
    assert "unmanaged-devices+=interface-name:veth*;" in nodes["w1"]["files"][UNMANAGED]["text"]


def test_neither_is_a_finding_then_and_nothing_is_left_to_do(told: Deployed, tmp_path: Path) -> None:
    plan = told.site.copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()
    for words in ("SELinux is enforcing", "NetworkManager runs"):
        assert words not in plan.words + told.run.words


def test_a_label_that_was_lost_is_given_again(told: Deployed, tmp_path: Path) -> None:
    site = told.site.copy(tmp_path / "site")
    with site.state() as state:
        state["nodes"]["w1"]["files"]["/usr/bin/kubelet"]["labelled"] = 0
    plan = site.run("--dry", "--json")
    assert plan.planned == {("w1", "Packages | Label programs of Kubernetes for SELinux")}


def test_what_is_left_alone_is_said(tmp_path: Path, bundle: Path) -> None:
    site = rocky(tmp_path / "site", bundle)
    run = site.run("--dry", "--json")
    assert run.code == 0, run.words
    assert "SELinux is enforcing" in run.words
    assert 'Set `selinux` to "configure"' in run.words
    assert "cp1 to cp3, w1 to w3: NetworkManager runs and is not told to leave pods' interfaces alone" in run.words
    assert not [name for _, name in run.planned if "SELinux" in name or "NetworkManager" in name]


def test_hosts_that_have_neither_are_left_as_they_are(tmp_path: Path, bundle: Path) -> None:
    run = make_site(tmp_path / "site", bundle, systems=ROCKY, **ASKED).run("--dry", "--json")
    assert run.code == 0, run.words
    assert not [name for _, name in run.planned if "SELinux" in name or "NetworkManager" in name]
