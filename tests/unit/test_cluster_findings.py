"""Findings as a report: names of hosts, alike ones as one line, waivers, JSON, documents."""

from __future__ import annotations

import json

import pytest

from cluster.findings import Finding, Report, checks, markdown, names, report, unknown


@pytest.mark.parametrize(
    ("hosts", "shown"),
    [
        (["cp1"], "cp1"),
        (["w2", "w1"], "w1, w2"),
        ([f"w{number}" for number in range(50, 0, -1)], "w1 to w50"),
        (["w1", "w2", "w4", "w5", "w6", "cp1"], "cp1, w1, w2, w4 to w6"),
        (["w08", "w09", "w10"], "w08 to w10"),
        (["worker9.example.org", "worker10.example.org", "worker11.example.org"],
         "worker9.example.org to worker11.example.org"),
        (["n1.a", "n2.b", "n3.a"], "n1.a, n2.b, n3.a"),
        (["rack1-n1", "rack1-n2", "rack1-n3"], "rack1-n1, rack1-n2, rack1-n3"),
        (["a", "b", "c"], "a, b, c"),
        ([], ""),
    ],
)  # fmt: skip
def test_names_of_hosts_are_short_and_lose_none(hosts: list[str], shown: str) -> None:
    assert names(hosts) == shown


def whole(findings: list[Finding], *waived: str) -> Report:
    return Report(
        cluster_name="test",
        kubernetes_version="v1.36.2",
        time="2026-11-25T03:59:52+00:00",
        asked=("cp1", "w1"),
        not_asked=("w2",),
        findings=report(findings, waived),
    )


def test_fifty_hosts_alike_are_one_line_with_evidence_reason_and_remedy() -> None:
    found = whole([Finding("cpus", (f"w{number}",), "1 CPU, a control plane needs 2") for number in range(1, 51)])
    assert found.lines("error") == [
        "w1 to w50: 1 CPU, a control plane needs 2. kubeadm refuses a control plane with fewer. Add CPUs. (check: cpus)"
    ]


def test_a_finding_of_no_host_begins_with_its_evidence() -> None:
    (line,) = whole([Finding("clock-control", (), "the hosts' clocks are 100 s ahead of this machine's")]).lines(
        "warning"
    )
    assert line.startswith("the hosts' clocks are 100 s ahead of this machine's. To this machine")


def test_errors_come_first_then_by_check_and_host() -> None:
    given = [
        Finding("swap", ("w1",), "on"),
        Finding("memory", ("w10",), "little"),
        Finding("memory", ("w2",), "less"),
        Finding("cpus", ("cp1",), "one"),
    ]
    rows = [(each.severity, each.check, each.hosts) for each in whole(given).findings]
    assert rows == [
        ("error", "cpus", ("cp1",)),
        ("error", "memory", ("w2",)),
        ("error", "memory", ("w10",)),
        ("warning", "swap", ("w1",)),
    ]


def test_what_is_waived_is_still_reported_and_counted_apart() -> None:
    found = whole([Finding("cpus", ("cp1",), "one"), Finding("swap", ("w1",), "on")], "cpus", "swap")
    assert found.lines("error") == found.lines("warning") == []
    assert len(found.lines("error", waived=True)) == len(found.lines("warning", waived=True)) == 1
    assert (
        found.summary() == f"Preflight: 2 hosts, 1 not asked, {len(checks())} checks: no errors, no warnings, 2 waived"
    )


def test_the_summary_counts() -> None:
    some = [Finding("cpus", ("cp1",), "one"), Finding("swap", ("w1",), "on"), Finding("swap", ("w2",), "on too")]
    assert whole(some).summary().endswith("checks: 1 error, 2 warnings, none waived")


def test_the_json_has_the_documented_fields_and_no_other() -> None:
    found = json.loads(whole([Finding("cpus", ("cp1",), "one")], "cpus").model_dump_json())
    assert found == {
        "format": 1,
        "cluster_name": "test",
        "kubernetes_version": "v1.36.2",
        "time": "2026-11-25T03:59:52+00:00",
        "asked": ["cp1", "w1"],
        "not_asked": ["w2"],
        "findings": [
            {
                "check": "cpus",
                "severity": "error",
                "waived": True,
                "hosts": ["cp1"],
                "evidence": "one",
                "why": checks()["cpus"].why,
                "remedy": checks()["cpus"].remedy,
            }
        ],
    }
    described = markdown().partition("## All checks")[0]
    assert [name for name in [*found, *found["findings"][0]] if name != "findings" and name not in described] == []


def test_a_waiver_that_no_check_has_is_refused_with_the_nearest() -> None:
    assert unknown(("memory", "machine_id", "zzz")) == [
        "waived_checks: there is no check machine_id; did you mean machine-id? docs/preflight.md has all of them.",
        "waived_checks: there is no check zzz. docs/preflight.md has all of them.",
    ]


@pytest.mark.parametrize("name", checks())
def test_a_check_has_a_name_in_kebab_case_and_whole_sentences(name: str) -> None:
    assert name == name.lower() and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert checks()[name].why.endswith(".")
    assert checks()[name].remedy.endswith(".")
