"""Hosts on which firewalld or ufw is active: opened when that is asked, else said and left."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site

FIREWALLS = {"lb1": "firewalld", "lb2": "ufw", "cp1": "firewalld", "cp2": "ufw", "w1": "firewalld", "w2": "ufw"}
OPEN = {"host_firewall": "open"}
POLICY, UFW = "/etc/firewalld/policies/kubernetes.xml", "/etc/ufw/before.rules"
FORWARD, PODS = "/etc/firewalld/policies/kubernetes-fwd.xml", "/etc/firewalld/zones/kubernetes-pods.xml"
RELOAD = {"firewalld": "firewall-cmd -q --reload", "ufw": "ufw reload"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), bundle, firewalls=FIREWALLS, **OPEN)


@pytest.fixture(scope="module")
def planned(bare: Site) -> Run:
    return bare.run("--dry", "--json")


@pytest.fixture(scope="module")
def opened(bare: Site, planned: Run, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    site = bare.copy(tmp_path_factory.mktemp("opened") / "site")
    run = site.run("-y")
    assert run.code == 0, run.words
    return Deployed(site, run)


def test_a_cluster_comes_up_behind_firewalls_as_planned_on_bare_hosts(planned: Run, opened: Deployed) -> None:
    assert planned.code == 0, planned.words
    assert planned.changes == []
    assert planned.differs(opened.run) == []
    with opened.site.state() as state:
        assert set(state["cluster"]["nodes"]) == {*GROUPS["control_plane"], *GROUPS["worker"]}
    for host, firewall in FIREWALLS.items():
        (reload,) = [each for each in opened.run.like(RELOAD[firewall], "change") if each["host"] == host]
        assert all(each["began"] > reload["began"] for each in opened.run.like("tar -x", "change"))


def test_firewalls_let_in_what_the_roles_of_a_host_need(opened: Deployed) -> None:
    with opened.site.state() as state:
        files = {name: node["files"] for name, node in state["nodes"].items()}
    assert {path for path in files["cp1"] if "firewalld" in path} == {POLICY, FORWARD, PODS}
    assert {path for path in files["lb1"] if "firewalld" in path} == {POLICY}
    assert '<protocol value="112"/>' in files["lb1"][POLICY]["text"]
    assert '<port port="6443" protocol="tcp"/>' in files["lb1"][POLICY]["text"]
    assert 'port="2379"' in files["cp1"][POLICY]["text"] and 'port="2379"' not in files["w1"][POLICY]["text"]
    rules = files["lb2"][UFW]["text"].splitlines()
    assert "-A ufw-before-input -p tcp --dport 6443 -j ACCEPT" in rules
    assert "-A ufw-before-input -s 10.0.0.11 -p 112 -j ACCEPT" in rules
    assert not [line for line in rules if "10.244." in line]
    assert "-A ufw-before-forward -s 10.244.0.0/16 -j ACCEPT" in files["w2"][UFW]["text"].splitlines()
    assert files["w2"][UFW]["mode"] == "640"
    assert "30000" not in "".join(each["text"] for file in files.values() for each in file.values())


def test_nothing_is_left_to_do(opened: Deployed, tmp_path: Path) -> None:
    plan = opened.site.copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()


def test_rules_that_a_run_wrote_and_did_not_load_are_loaded(opened: Deployed, tmp_path: Path) -> None:
    site = opened.site.copy(tmp_path / "site")
    with site.state() as state:
        for host in ("cp1", "w2"):
            state["nodes"][host]["loaded"] = ""
    plan = site.run("--dry", "--json")
    assert plan.code == 0, plan.words
    what = "Firewall | Have {} let in what the cluster needs"
    assert plan.planned == {("cp1", what.format("firewalld")), ("w2", what.format("ufw"))}


def test_firewalls_that_are_left_stop_a_deploy_with_what_to_do(tmp_path: Path, bundle: Path) -> None:
    run = make_site(tmp_path / "site", bundle, firewalls=FIREWALLS).run("-y")
    assert (run.code, run.changes) == (1, [])
    assert "cp1: TCP 6443 (the API server) is not reached from any host that must: no route to host" in run.words
    assert "Warning: cp1, lb1, w1: firewalld is active." in run.words
    assert 'Set `host_firewall` to "open", which firewalld and ufw can be' in run.words


def test_what_is_filtered_by_another_is_found_whatever_will_be_opened(tmp_path: Path, bundle: Path) -> None:
    site = make_site(tmp_path / "site", bundle, firewalls={"cp1": "firewalld"}, **OPEN)
    with site.state() as state:
        state["nodes"]["w1"]["lost"] = {"10.0.0.22:6443": "timeout"}
    run = site.run("-y")
    assert (run.code, run.changes) == (1, [])
    assert "  - cp3: TCP 6443" not in run.words
    assert "TCP 6443 (the API server) is not reached from w1: no answer" in run.words


def test_node_ports_are_opened_when_that_is_asked(tmp_path: Path, bundle: Path) -> None:
    firewalls = {"w1": "firewalld", "w2": "ufw", "lb1": "ufw"}
    site = make_site(tmp_path / "site", bundle, firewalls=firewalls, **OPEN, host_firewall_node_ports=True)
    run = site.run("-y", layer="firewall")
    assert run.code == 0, run.words
    with site.state() as state:
        assert '<port port="30000-32767" protocol="udp"/>' in state["nodes"]["w1"]["files"][POLICY]["text"]
        assert "-p tcp --dport 30000:32767 -j ACCEPT" in state["nodes"]["w2"]["files"][UFW]["text"]
        assert "30000" not in state["nodes"]["lb1"]["files"][UFW]["text"]


def test_a_firewalld_without_policies_is_refused(tmp_path: Path, bundle: Path) -> None:
    site = make_site(tmp_path / "site", bundle, firewalls={"w1": "firewalld"}, **OPEN)
    with site.state() as state:
        state["nodes"]["w1"]["firewalld"] = "0.6.6"
    run = site.run("-y")
    assert (run.code, run.changes) == (1, [])
    assert (
        "  - w1: firewalld 0.6.6 has no policies, which came with 0.9. Open there what docs/ports.md names" in run.words
    )
