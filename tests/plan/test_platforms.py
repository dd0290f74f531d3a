"""Hosts of several releases in one cluster, each by its own packages, units and paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import Deployed, Run, Site, make_bundle, make_site

RELEASES = ("debian-13", "ubuntu-24.04", "rocky-9")
SYSTEMS = {
    "lb1": "rocky-9.4", "lb2": "ubuntu-24.04", "cp1": "rocky-9.4", "cp2": "debian-13", "cp3": "ubuntu-24.04",
    "w1": "rocky-9.6", "w2": "debian-13", "w3": "ubuntu-24.04",
}  # fmt: skip
ROCKY = [name for name, system in SYSTEMS.items() if system.startswith("rocky")]
TIME = {"time_sync": "chrony", "ntp_servers": ("10.0.0.1",)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), "upstream", RELEASES)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), bundle, systems=SYSTEMS, **TIME)


@pytest.fixture(scope="module")
def planned(bare: Site) -> Run:
    return bare.run("--dry", "--json")


@pytest.fixture(scope="module")
def mixed(bare: Site, planned: Run, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    site = bare.copy(tmp_path_factory.mktemp("mixed") / "site")
    run = site.run("-y")
    assert run.code == 0, run.words
    return Deployed(site, run)


def installed(run: Run, host: str) -> str:
    return " ".join(each["command"] for each in run.like(" install ", "change") if each["host"] == host)


def test_each_host_installs_packages_of_its_own_release_and_holds_them(mixed: Deployed) -> None:
    for host, system in SYSTEMS.items():
        release, commands = system.partition(".")[0] if "rocky" in system else system, installed(mixed.run, host)
        assert f"/packages/{release}" in commands
        assert not [each for each in RELEASES if each != release and f"/packages/{each}" in commands]
        assert ("dnf" in commands, "apt-get" in commands) == (host in ROCKY, host not in ROCKY)
    with mixed.site.state() as state:
        held = {
            name: sorted(each for each, row in node["packages"].items() if row["held"])
            for name, node in state["nodes"].items()
        }
    assert held == {name: ["haproxy", "keepalived"] if name.startswith("lb") else [] for name in SYSTEMS}


def test_each_host_has_units_and_paths_of_its_own_family(mixed: Deployed) -> None:
    with mixed.site.state() as state:
        nodes = state["nodes"]
    for host in SYSTEMS:
        files, units, rocky = nodes[host]["files"], nodes[host]["units"], host in ROCKY
        unit, path = ("chronyd.service", "/etc/chrony.conf") if rocky else ("chrony.service", "/etc/chrony/chrony.conf")
        assert units[unit]["active"] and "server 10.0.0.1" in files[path]["text"]
        assert f"driftfile /var/lib/chrony/{'drift' if rocky else 'chrony.drift'}\n" in files[path]["text"]
        if host.startswith("lb"):
            check = "/usr/libexec/keepalived/check-api" if rocky else "/etc/keepalived/check-api"
            assert check in files and f'script "{check}"' in files["/etc/keepalived/keepalived.conf"]["text"]
            assert nodes[host]["masked"] == ([] if rocky else ["nginx.service"])
        else:
            text = files["/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"]["text"]
            assert f"EnvironmentFile=-/etc/{'sysconfig' if rocky else 'default'}/kubelet\n" in text


def test_what_was_planned_on_bare_hosts_is_what_was_done_and_nothing_is_left(
    planned: Run, mixed: Deployed, tmp_path: Path
) -> None:
    assert planned.code == 0, planned.words
    assert planned.changes == []
    assert planned.differs(mixed.run) == []
    plan = mixed.site.copy(tmp_path / "site").run("--dry", "--json")
    assert plan.code == 0, plan.words
    assert plan.planned == set()


def test_a_server_has_packages_of_all_releases_and_another_host_those_of_its_own(mixed: Deployed) -> None:
    def releases(host: str) -> set[str]:
        with mixed.site.state() as state:
            parts = [path.split("/packages/") for path in state["nodes"][host]["files"]]
        return {part[1].split("/")[0] for part in parts if len(part) > 1}

    assert releases("lb1") == releases("lb2") == set(RELEASES)
    assert releases("w1") == {"rocky-9"}
    assert releases("cp2") == {"debian-13"}


@pytest.mark.parametrize("flags", [("--dry", "--json"), ("-y",)])
def test_hosts_of_which_the_bundle_has_no_packages_are_named_together_and_nothing_is_changed(
    tmp_path: Path, bundle: Path, flags: tuple[str, ...]
) -> None:
    systems = SYSTEMS | {"w1": "debian-12", "w2": "kylin-V10", "w3": "kylin-V10"}
    run = make_site(tmp_path / "site", bundle, systems=systems).run(*flags)
    assert run.code == 1
    there = "the bundle has packages for debian-13, ubuntu-24.04, rocky-9."
    assert f"w1: it is debian-12, {there}" in run.words
    assert f"w2, w3: it is kylin-V10, {there}" in run.words
    assert run.changes == []


def test_nodes_whose_release_has_no_runtime_are_named_and_load_balancers_need_none(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", releases=("debian-12", "rocky-9"))
    site = make_site(tmp_path / "site", bundle, systems={"w1": "rocky-9.4", "lb1": "rocky-9.4"})
    run = site.run("-y")
    assert (run.code, run.changes) == (1, [])
    assert "  - w1: it is rocky-9.4. container_runtime: is containerd, and the bundle has no runtime." in run.words
    assert "  - lb1" not in run.words


def test_a_layer_alone_refuses_them_too(tmp_path: Path, bundle: Path) -> None:
    site = make_site(tmp_path / "site", bundle, systems=dict.fromkeys(SYSTEMS, "rocky-9.4") | {"w1": "debian-12"})
    run = site.run("-y", layer="packages")
    assert (run.code, run.changes) == (1, [])
    assert "Nothing was changed on any host. Found:\n  - w1: it is debian-12, the bundle has packages for" in run.words
