"""Preflight alone and before a deploy: what stops, what is shown, what is written, and who is asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, PYINFRA, ROOT, Deployed, Run, Site, make_site

from cluster.findings import Report, checks
from facts.hardware import Hardware

ALL = {name for members in GROUPS.values() for name in members}


def preflight(site: Site, *flags: str) -> Run:
    """`deploys/preflight.py` alone, with its report."""
    command = [PYINFRA, site.directory / "inventory.py", "deploys/preflight.py", *flags]
    (site.directory / "log.jsonl").write_text("")
    done = subprocess.run(
        [*command, "--data", f"preflight_json={site.directory / 'report.json'}"], cwd=ROOT, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYINFRA_PROGRESS": "off"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    records = tuple(json.loads(line) for line in (site.directory / "log.jsonl").read_text().splitlines())
    assert [each["command"] for each in records if each["kind"] == "unexpected"] == []
    return Run(done.returncode, done.stdout, done.stderr, records)


def report(site: Site) -> Report:
    return Report.model_validate_json((site.directory / "report.json").read_text())


def found(site: Site) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.check, each.hosts) for each in report(site).findings]


def change(site: Site, host: str, **state: object) -> None:
    with site.state() as machines:
        machines["nodes"][host].update(state)


def test_alone_it_shows_warnings_and_succeeds(site: Site) -> None:
    run = preflight(site, "-y")
    assert run.code == 0, run.words
    assert "Warning: cp1 to cp3, w1 to w3: swap is on (/dev/vda2). The kubelet does not start" in run.words
    assert f"Preflight: 8 hosts, {len(checks())} checks: no errors, 2 warnings, none waived" in run.words
    assert run.changes == []
    assert [each for each, _ in found(site)] == ["hostname", "swap"]
    assert set(report(site).asked) == ALL
    assert list(site.directory.glob("report.json.*")) == []


def test_alone_it_asks_every_host_once(site: Site) -> None:
    run = preflight(site, "-y")
    asked = Counter(each["host"] for each in run.log if each["command"] == Hardware().command())
    assert asked == dict.fromkeys(ALL, 1)
    assert run.words.count("Preflight: 8 hosts") == 1


def test_errors_of_all_hosts_stop_it_and_are_written(site: Site) -> None:
    change(site, "w2", held={"10250": "apache2"})
    for host in ALL - {"cp3"}:
        change(site, host, lost={"10.0.0.23:6443": "timeout"})
    change(site, "w3", ahead=30)
    run = preflight(site, "-y")
    assert run.code == 1
    assert "Nothing was changed on any host. Found:" in run.words
    assert "cp3: TCP 6443 (the API server) is not reached from any host that must: no answer." in run.words
    assert "w2: port 10250 of the kubelet is taken by apache2." in run.words
    assert "w3: the clock is 30.0 s ahead of the middle of all hosts" in run.words
    errors = [each.check for each in report(site).findings if each.severity == "error"]
    assert errors == ["clock-skew", "port-filtered", "port-taken"]


def test_what_is_waived_is_shown_and_stops_nothing(tmp_path: Path, bundle: Path) -> None:
    site = make_site(tmp_path / "site", bundle, waived_checks=["cpus", "swap"])
    change(site, "cp2", cpus=1)
    run = preflight(site, "-y")
    assert run.code == 0, run.words
    assert "Waived: cp2: 1 CPU, a control plane needs 2." in run.words
    assert "no errors, 1 warning, 2 waived" in run.words
    assert [each.check for each in report(site).findings if each.waived] == ["cpus", "swap"]


def test_under_a_limit_the_others_are_not_asked(site: Site) -> None:
    change(site, "cp1", cpus=1)
    change(site, "w1", lost={"10.0.0.21:6443": "timeout"})
    run = preflight(site, "-y", "--limit", "w1")
    assert run.code == 0, run.words
    assert {each["host"] for each in run.log} == {"w1"}
    assert found(site) == [("port-beyond-limit", ("cp1",)), ("swap", ("w1",))]
    assert report(site).asked == ("w1",)
    assert set(report(site).not_asked) == ALL - {"w1"}


def test_a_report_that_cannot_be_written_is_said(site: Site) -> None:
    (site.directory / "report.json.new").mkdir()
    run = preflight(site, "-y")
    assert run.code == 1
    assert "report.json: cannot be written (Is a directory). Name another file." in run.words


def test_a_cluster_that_is_deployed_gives_no_finding(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    run = preflight(site, "-y")
    assert run.code == 0, run.words
    assert found(site) == []


def half_initialised(nodes: dict[str, Any], cluster: dict[str, Any]) -> None:
    del nodes["cp1"]["files"]["/etc/kubernetes/admin.conf"]
    for host in set(nodes) - {"cp1"}:
        for path in [each for each in nodes[host]["files"] if each.startswith(("/etc/kubernetes", "/var/lib/etcd"))]:
            del nodes[host]["files"][path]
    cluster["nodes"] = {}


def half_joined(nodes: dict[str, Any], cluster: dict[str, Any]) -> None:
    del cluster["nodes"]["w2"]
    del nodes["w2"]["files"]["/etc/kubernetes/pki/ca.crt"]


def cleaned_up(nodes: dict[str, Any], cluster: dict[str, Any]) -> None:
    del cluster["nodes"]["w2"]
    nodes["w2"]["links"] = ["cni0", "flannel.1"]
    for path in [each for each in nodes["w2"]["files"] if each.startswith("/etc/kubernetes")]:
        del nodes["w2"]["files"][path]


@pytest.mark.parametrize("happen", [half_initialised, half_joined, cleaned_up])
def test_a_run_that_was_interrupted_is_no_finding(
    deployed: Deployed, tmp_path: Path, happen: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        happen(state["nodes"], state["cluster"])
    run = preflight(site, "-y")
    assert (run.code, found(site)) == (0, []), run.words


def test_a_node_of_another_cluster_is_an_error(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        state["nodes"]["w2"]["files"]["/etc/kubernetes/pki/ca.crt"]["text"] = "another CA\n"
    run = preflight(site, "-y")
    assert run.code == 1
    assert "w2: it has the CA of another cluster (sha256:" in run.words
    assert found(site) == [("foreign-cluster", ("w2",))]
