"""Clusters that are balanced by their control planes, by the site or by nobody: planned, deployed, grown."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, VIP, Groups, Run, Site, make_site, together

BALANCERS, CONTROL_PLANES, WORKERS = GROUPS.values()
FIRST, *OTHERS = CONTROL_PLANES
ONE = {FIRST: CONTROL_PLANES[FIRST]}
NAME = "k8s.example.org"


def groups(control_planes: dict[str, str], workers: dict[str, str]) -> Groups:
    return {"load_balancer": {}, "control_plane": control_planes, "worker": workers}


@dataclass(frozen=True)
class Case:
    """A topology, and what is to come of it."""

    groups: Groups
    settings: dict[str, Any]
    endpoint: str
    balancers: set[str]
    servers: set[str]
    site: str = ""

    def make(self, directory: Path, bundle: Path) -> Site:
        return make_site(directory, bundle, self.groups, site=self.site, **self.settings)

    @property
    def nodes(self) -> dict[str, str]:
        roles = dict.fromkeys(self.groups["control_plane"], "control-plane")
        return roles | dict.fromkeys(self.groups["worker"], "worker")


CASES = {
    "control planes that balance": Case(
        groups(CONTROL_PLANES, WORKERS), {"load_balancing": "control-planes"}, f"{VIP}:8443",
        balancers=set(CONTROL_PLANES), servers={"cp1", "cp3"},
    ),
    "control planes that balance and take pods": Case(
        groups(CONTROL_PLANES, {}),
        {"load_balancing": "control-planes", "allow_scheduling_on_control_planes": True,
         "control_plane_endpoint": f"{NAME}:8443"}, f"{NAME}:8443",
        balancers=set(CONTROL_PLANES), servers={"cp1", "cp3"},
    ),
    "a site that balances": Case(
        groups(CONTROL_PLANES, WORKERS), {"load_balancing": "external", "control_plane_endpoint": NAME, "vip": None},
        f"{NAME}:6443", balancers=set(), servers={"cp1", "cp3"}, site=f"{NAME}:6443",
    ),
    "one control plane": Case(
        groups(ONE, WORKERS), {"load_balancing": "none", "vip": None}, "10.0.0.21:6443",
        balancers=set(), servers={"cp1"},
    ),
    "one machine": Case(
        groups(ONE, {}),
        {"load_balancing": "none", "allow_scheduling_on_control_planes": True, "control_plane_endpoint": NAME},
        f"{NAME}:6443", balancers=set(), servers={"cp1"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """A dry run on bare machines, the run that followed, and the machines after it."""

    site: Site
    plan: Run
    run: Run


def whole(site: Site) -> Any:
    plan = site.run("--dry", "--json")
    return Runs(site, plan, site.run("-y"))


@pytest.fixture(scope="module")
def futures(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> dict[str, Future[Any]]:
    sites = {what: case.make(tmp_path_factory.mktemp("topology"), bundle) for what, case in CASES.items()}
    return together({what: lambda site=site: whole(site) for what, site in sites.items()})


@pytest.fixture(params=CASES)
def what(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def case(what: str) -> Case:
    return CASES[what]


@pytest.fixture
def runs(futures: dict[str, Future[Any]], what: str) -> Runs:
    found: Runs = futures[what].result()
    assert found.run.code == 0, found.run.words[-3000:]
    return found


def test_the_run_changes_what_the_plan_says(runs: Runs) -> None:
    assert runs.plan.code == 0, runs.plan.words[-3000:]
    assert runs.plan.changes == []
    assert runs.plan.planned
    assert runs.plan.differs(runs.run) == []


def test_every_node_is_in_the_cluster_at_the_one_endpoint(case: Case, runs: Runs) -> None:
    host, _, port = case.endpoint.rpartition(":")
    with runs.site.state() as state:
        assert state["cluster"]["nodes"] == case.nodes
        assert state["cluster"]["endpoint"] == case.endpoint
        (manifest,) = (
            node["files"]["/etc/kubernetes/addons/flannel.yaml"]["text"]
            for name, node in state["nodes"].items()
            if name == FIRST
        )
    assert f'{{name: KUBERNETES_SERVICE_HOST, value: "{host}"}}' in manifest
    assert f'{{name: KUBERNETES_SERVICE_PORT, value: "{port}"}}' in manifest


def test_a_second_run_changes_nothing(runs: Runs, tmp_path: Path) -> None:
    site = runs.site.copy(tmp_path / "site")
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert (plan.code, run.code) == (0, 0), run.words[-3000:]
    assert plan.planned == run.made == set()
    assert plan.differs(run) == []


def test_hosts_that_balance_have_what_it_takes_and_no_others(case: Case, runs: Runs) -> None:
    with runs.site.state() as state:
        for program in ("haproxy", "keepalived"):
            assert {name for name, node in state["nodes"].items() if program in node["packages"]} == case.balancers
            assert {
                name
                for name, node in state["nodes"].items()
                if node["units"].get(f"{program}.service", {}).get("active")
            } == case.balancers
        assert {name for name, node in state["nodes"].items() if "nginx" in node["packages"]} == case.servers


def test_hosts_that_balance_do_so_before_there_is_an_api_and_know_its_ca(case: Case, runs: Runs) -> None:
    (init,) = runs.run.like("kubeadm init --", "change")
    authority = runs.run.like("kubeadm init phase certs ca", "change")
    assert [each["host"] for each in authority] == ([FIRST] if case.balancers else [])
    for unit in ("haproxy", "keepalived"):
        started = runs.run.like(f"systemctl restart {unit}.service", "change")
        assert {each["host"] for each in started} == case.balancers
        assert all(authority[0]["ended"] < each["began"] < each["ended"] < init["began"] for each in started)


def test_nobody_joins_before_the_endpoint_answers(case: Case, runs: Runs) -> None:
    joins = runs.run.like("kubeadm join", "change")
    asked = runs.run.like(f"/etc/kubernetes/pki/ca.crt https://{case.endpoint}/readyz", "read")
    seen = [each for each in asked if "did not answer as this cluster" in each["command"]]
    assert len(joins) == len(case.nodes) - 1
    assert [each["host"] for each in seen] == ([FIRST] if joins else [])
    assert all(seen[0]["ended"] < join["began"] for join in joins)


def test_nodes_know_the_endpoints_name_without_a_dns_server(case: Case, runs: Runs) -> None:
    address = VIP if case.balancers else CONTROL_PLANES[FIRST]
    managed = NAME in case.endpoint and not case.site
    with runs.site.state() as state:
        for name, node in state["nodes"].items():
            text = node["files"]["/etc/hosts"]["text"]
            assert (f"{address} {NAME}\n" in text) == managed, name
            assert NAME not in text or managed


def test_a_balancer_that_leads_to_another_cluster_stops_before_any_join(tmp_path: Path, bundle: Path) -> None:
    site = CASES["a site that balances"].make(tmp_path / "site", bundle)
    words = "did not answer as this cluster in 60 s, though its API server is up: curl: (60) SSL certificate problem"
    run = site.break_command(FIRST, "did not answer as this cluster", words).run("-y")
    assert run.code == 1
    assert f"asking for the API where joining nodes will failed for {OTHERS[0]}: {words}" in run.words
    assert run.like("kubeadm join", "change") == []


def test_a_control_plane_that_was_alone_gets_load_balancers_others_and_a_name_by_its_endpoints_name(
    tmp_path: Path, bundle: Path
) -> None:
    before = make_site(
        tmp_path / "before", bundle, groups(ONE, WORKERS), load_balancing="none", control_plane_endpoint=NAME
    )
    assert before.run("-y").code == 0
    site = make_site(tmp_path / "after", bundle, control_plane_endpoint=NAME, api_cert_extra_sans=["api.example.org"])
    with before.state() as old, site.state() as state:
        state["cluster"], state["clock"] = old["cluster"], old["clock"]
        state["nodes"].update(old["nodes"])
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words[-3000:]
    assert plan.differs(run) == []
    assert run.like("kubeadm init --", "change") == []
    assert {each["host"] for each in run.like("kubeadm join", "change")} == set(OTHERS)
    with site.state() as state:
        assert set(state["cluster"]["nodes"]) == {*CONTROL_PLANES, *WORKERS}
        assert all(f"{VIP} {NAME}\n" in node["files"]["/etc/hosts"]["text"] for node in state["nodes"].values())
    assert site.run("--dry", "--json").planned == set()
