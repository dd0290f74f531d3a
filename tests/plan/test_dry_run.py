"""`--dry` does nothing, says everything, and says what a run then does."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, Deployed, Run, Site, machine, make_site

from facts.time import TimeSynchronized

ALL = {name for members in GROUPS.values() for name in members}
FIRST, *OTHERS = GROUPS["control_plane"]
WORKERS = set(GROUPS["worker"])
NODES = {FIRST, *OTHERS, *WORKERS}
SERVER, OTHER_SERVER = GROUPS["load_balancer"]
# Steps that a reader of the plan must find, among others.
STEPS = {
    "Distribute | Carry the bundle, step 1": {SERVER},
    "Distribute | Carry the bundle, step 2": {SERVER, OTHER_SERVER},
    "Distribute | Carry the bundle, step 3": ALL,
    "Distribute | Install nginx": {SERVER, OTHER_SERVER},
    "Distribute | Make the server's certificate": {SERVER, OTHER_SERVER},
    "Distribute | Write the server's configuration": {SERVER, OTHER_SERVER},
    "Distribute | Serve the bundle": {SERVER, OTHER_SERVER},
    "Node | Turn swap off, now and at boot": NODES,
    "Runtime | Install containerd and what kubelet calls": NODES,
    "Runtime | Trust the bundle's servers": NODES,
    "Runtime | Have containerd ask the bundle's servers for images": NODES,
    "Runtime | Run containerd": NODES,
    "Images | Import images": NODES,
    "Packages | Install kubeadm, kubelet, kubectl and CNI plugins": NODES,
    "Load balancers | Install HAProxy and Keepalived": set(GROUPS["load_balancer"]),
    "Load balancers | Run Keepalived": set(GROUPS["load_balancer"]),
    "Control planes | Initialise the cluster on cp1": {FIRST},
    "Control planes | Join control plane cp3": {"cp3"},
    "Control planes | Join control plane cp2": {"cp2"},
    "Workers | Join the worker": WORKERS,
    "Pod network | Apply flannel and wait for it on every node": {FIRST},
    "Add-ons | Write the manifest of coredns": {FIRST},
    "Add-ons | Apply coredns and wait until it works": {FIRST},
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Site:
    return make_site(tmp_path_factory.mktemp("bare"), bundle)


@pytest.fixture(scope="module")
def dry(bare: Site) -> Run:
    """As a person types it."""
    return bare.run("--dry")


@pytest.fixture(scope="module")
def plan(bare: Site) -> Run:
    return bare.run("--dry", "--json")


def test_bare_hosts_are_asked_and_left_as_they_are(bare: Site, dry: Run) -> None:
    assert dry.code == 0, dry.words
    assert {(each["kind"], each["ok"]) for each in dry.log} == {("fact", True)}
    assert {each["host"] for each in dry.log} == ALL
    with bare.state() as state:
        assert state["nodes"] == {
            name: machine(address) for members in GROUPS.values() for name, address in members.items()
        }
    assert not (bare.directory / "secrets").exists()


def test_the_plan_for_bare_hosts_shows_every_step_and_its_hosts(dry: Run) -> None:
    rows = re.findall(r"^    Cluster \| (.+?)  +(?:\d+ \((.+?)\)|-)  +- *$", dry.words, re.MULTILINE)
    shown: dict[str, set[str]] = defaultdict(set)
    for name, names in rows:  # what one host does before another is in two rows
        shown[re.sub(r"(, step \d+) of \d+$", r"\1", name)].update(names.split(", ") if names else ())
    assert {name: shown[name] for name in STEPS} == STEPS


def test_the_plan_says_what_will_be_known_later(dry: Run) -> None:
    for name in GROUPS["load_balancer"]:
        assert re.search(rf"\[.*{name}.*\] create /etc/haproxy/kubernetes-ca.crt \(.* known once", dry.words)
    for name in (*OTHERS, *WORKERS):
        assert re.search(rf"\[.*{name}.*\] join .*known once", dry.words), f"{name}: nothing of what it waits for"


def test_the_plan_names_what_will_be_installed_and_imported(dry: Run) -> None:
    for name in NODES:
        assert re.search(rf"\[.*{name}.*\] install .*containerd none -> 2.0", dry.words)
        assert re.search(rf"\[.*{name}.*\] import registry.k8s.io/pause:1 ", dry.words)


def test_preflight_asks_every_host_once(plan: Run) -> None:
    asked = Counter(each["host"] for each in plan.log if each["command"] == TimeSynchronized().command())
    assert asked == dict.fromkeys(ALL, 1)


def test_a_run_on_bare_hosts_changes_what_the_plan_says(plan: Run, deployed: Deployed, confirmed: Deployed) -> None:
    assert plan.differs(deployed.run) == []
    assert plan.differs(confirmed.run) == []


def test_a_second_run_changes_nothing(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert (plan.code, run.code) == (0, 0), run.words
    assert plan.planned == run.made == set()
    assert plan.differs(run) == []
    assert plan.changes == run.changes == []


def test_nothing_is_left_to_do_after_a_run_that_was_planned(confirmed: Deployed, tmp_path: Path) -> None:
    plan = confirmed.site.copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()


def drift(nodes: dict[str, Any], now: int) -> None:
    def edit(host: str, path: str) -> None:
        nodes[host]["files"][path] |= {"text": "edited by hand\n", "changed": now}

    edit("w1", "/etc/containerd/config.toml")
    edit("cp2", "/etc/sysctl.d/90-kubernetes.conf")
    edit("cp3", "/usr/bin/kubectl")
    edit("lb2", "/etc/haproxy/haproxy.cfg")
    edit("lb1", "/etc/bundle-server/nginx.conf")
    edit("cp2", "/etc/containerd/certs.d/_default/hosts.toml")
    del nodes["lb2"]["files"]["/var/lib/pyinfra-kubeadm/bundle/bin/kubelet"]
    del nodes["w3"]["files"]["/var/lib/pyinfra-kubeadm/bundle/bin/kubelet"]
    nodes["lb2"]["units"]["bundle-server.service"]["active"] = False
    nodes["w2"]["swap"] = ["/dev/vda2"]
    del nodes["w3"]["images"]["registry.k8s.io/pause:1"]
    nodes["cp1"]["packages"]["containerd"]["held"] = False
    nodes["w1"]["units"]["kubelet.service"]["active"] = False
    nodes["lb1"]["units"]["keepalived.service"]["active"] = False


DRIFT = {
    ("lb1", "Distribute | Write the server's configuration"),
    ("lb1", "Distribute | Serve the bundle"),
    ("lb2", "Distribute | Serve the bundle"),
    ("cp2", "Runtime | Have containerd ask the bundle's servers for images"),
    ("w1", "Runtime | Write containerd's configuration"),
    ("w1", "Runtime | Run containerd"),
    ("w1", "Packages | Enable kubelet"),
    ("cp2", "Node | Write kernel settings"),
    ("cp2", "Node | Apply kernel settings"),
    ("cp3", "Packages | Install kubeadm, kubelet, kubectl and CNI plugins"),
    ("lb2", "Load balancers | Write HAProxy's configuration"),
    ("lb2", "Load balancers | Run HAProxy"),
    ("w2", "Node | Turn swap off, now and at boot"),
    ("w3", "Images | Import images"),
    ("cp1", "Runtime | Install containerd and what kubelet calls"),
    ("lb1", "Load balancers | Run Keepalived"),
}


def test_drift_is_announced_mended_and_gone(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        drift(state["nodes"], state["clock"])
    other = site.copy(tmp_path / "other")
    plan = site.run("--dry", "--json")
    pieces = {each for each in plan.planned if "Carry the bundle" in each[1]}
    assert plan.planned - pieces == DRIFT
    # Each lacks the same piece, which lb2 gets a step before others.
    before, after = (int(re.findall(r"step (\d+) of", dict(pieces)[name])[0]) for name in ("lb2", "w3"))
    assert (len(pieces), after) == (2, before + 1)
    for run in (site.run("-y"), other.run(answers="\n")):
        assert run.code == 0, run.words
        assert plan.differs(run) == []
    assert site.run("--dry", "--json").planned == set()


def stopped_containerd(state: dict[str, Any]) -> None:
    state["nodes"]["w3"]["units"]["containerd.service"]["active"] = False


def unloaded_module(state: dict[str, Any]) -> None:
    state["nodes"]["w1"]["modules"]["br_netfilter"] = "available"


def replaced_first_control_plane(state: dict[str, Any]) -> None:
    state["nodes"][FIRST] = machine(GROUPS["control_plane"][FIRST])


def replaced_load_balancer(state: dict[str, Any]) -> None:
    state["nodes"][SERVER] = machine(GROUPS["load_balancer"][SERVER])


def certificate_that_ends(state: dict[str, Any]) -> None:
    state["nodes"][SERVER]["files"]["/etc/bundle-server/server.crt"]["ending"] = True


@pytest.mark.parametrize(
    "happen",
    [
        stopped_containerd,
        unloaded_module,
        replaced_first_control_plane,
        replaced_load_balancer,
        certificate_that_ends,
    ],
)
def test_a_run_changes_what_the_plan_says_after_a(
    deployed: Deployed, tmp_path: Path, happen: Callable[[dict[str, Any]], None]
) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        happen(state)
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words
    assert plan.planned
    assert plan.differs(run) == []
    assert run.like("kubeadm init --", "change") == []
