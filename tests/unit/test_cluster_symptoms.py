"""Lines of logs that are recognised, and when they count."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from harness import recorded

from cluster.findings import Finding
from cluster.symptoms import Log, recognise, reported, symptoms

NOW = datetime(2026, 11, 25, 18, 0, 0, tzinfo=UTC).timestamp()
CNI = (
    'kubelet[700]: E1125 "Container runtime network not ready" networkReady="NetworkReady=false '
    'reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"'
)
# As the programs write them, by symptom; hand-written where the lab has not shown one.
LINES = {
    "cni-missing": ("journal/kubelet.log", CNI),
    "cni-address": (
        "journal/kubelet.log",
        'plugin type="bridge" failed (add): failed to set bridge addr: "cni0" already has an IP address different from '
        "10.244.1.1/24",
    ),
    "cilium-agent": (
        "journal/kubelet.log",
        'plugin type="cilium-cni" failed (add): unable to connect to Cilium agent: failed to create cilium agent '
        "client after 30.000000 seconds timeout",
    ),
    "image-refused": (
        "journal/kubelet.log",
        '"Failed to pull image" err="failed to resolve reference: dial tcp: lookup registry.example.org: no such host"',
    ),
    "cgroup-driver": (
        "journal/kubelet.log",
        "runc create failed: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups",
    ),
    "swap-on": (
        "journal/kubelet.log",
        "failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag",
    ),
    "x509-ended": (
        "pods/kube-apiserver.log",
        "x509: certificate has expired or is not yet valid: current time 2026-11-25T18:00:00Z is after 2026-11-20",
    ),
    "etcd-slow-disk": ("pods/etcd.log", '{"level":"warn","msg":"slow fdatasync","took":"2.1s"}'),
    "etcd-no-leader-said": ("pods/kube-apiserver.log", 'err="etcdserver: no leader"'),
    "etcd-space-said": ("pods/etcd.log", "etcdserver: mvcc: database space exceeded"),
    "address-in-use": ("journal/haproxy.log", "Starting frontend kube-apiserver: cannot bind socket (Address already in use)"),  # noqa: E501
    "oom": ("kernel.log", "kernel: Out of memory: Killed process 812 (etcd) total-vm:11000kB"),
}  # fmt: skip


def log(file: str, *lines: str) -> Log:
    return Log("cp1", file, "\n".join(lines), NOW)


def at(seconds: int, line: str) -> str:
    return f"{datetime.fromtimestamp(NOW - seconds, UTC):%Y-%m-%dT%H:%M:%S}+0000 cp1 {line}"


@pytest.mark.parametrize("symptom", LINES)
def test_a_line_is_recognised_where_it_belongs(symptom: str) -> None:
    file, line = LINES[symptom]
    found, past = recognise([log(file, *[at(1, line)] * symptoms()[symptom].least)])
    assert symptom in [each.check for each in found]
    assert [each for each in past if each.symptom == symptom] == []
    (finding,) = (each for each in found if each.check == symptom)
    assert finding.hosts == ("cp1",)
    assert line[:50] in finding.evidence


def test_recorded_lines_are_told_apart() -> None:
    """Of a control plane while it was made, and of an API server whose etcd has no quorum."""
    kubelet, server = recorded("KubeletLog.cluster-cp1"), recorded("ApiServerLog.cluster-cp1")
    logs = [
        Log("cp1", "journal/kubelet.log", "\n".join(kubelet), seconds("2026-11-25T18:29:31Z")),
        Log("cp1", "pods/kube-apiserver.log", "\n".join(server), seconds("2026-11-25T18:34:54Z")),
    ]
    found, past = recognise(logs)
    assert [each.check for each in found] == ["flannel-subnet", "etcd-no-leader-said"]
    assert "open /run/flannel/subnet.env: no such file or directory" in found[0].evidence
    # That there is no CRI-O is nothing.
    assert [(each.symptom, each.count) for each in past] == [("kubelet-without-api", 3)]
    later = [replace(each, now=each.now + 300) for each in logs]
    assert recognise(later)[0] == []


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_half_a_line_at_the_beginning_of_a_cut_log_is_as_old_as_the_next() -> None:
    cut = "ntime network not ready: cni plugin not initialized"
    assert recognise([log("journal/kubelet.log", cut, at(900, "and so on"))])[0] == []
    assert recognise([log("journal/kubelet.log", cut)])[0]


def test_events_have_their_time_in_one_of_two_fields() -> None:
    line = "Warning default/Pod/a Failed: Error: ErrImagePull (x3)"
    for stamp in ("2026-11-25T17:59:30Z null", "null 2026-11-25T17:59:30.123456Z"):
        found, _ = recognise([Log("", "cluster/events.txt", f"{stamp} {line}", NOW)])
        assert [(each.check, each.hosts) for each in found] == [("image-refused", ())]
        assert recognise([Log("", "cluster/events.txt", f"{stamp} {line}", NOW + 600)])[0] == []


def test_of_what_several_logs_of_a_host_say_the_one_that_says_it_most_is_told() -> None:
    line = at(1, "write /x: no space left on device")
    found, _ = recognise([log("warnings.log", line), log("journal/kubelet.log", line, line)])
    assert [each.evidence for each in found] == [f"journal/kubelet.log, 2 times, at last: {line}"]


def test_what_is_no_longer_said_is_past() -> None:
    found, past = recognise([log("journal/kubelet.log", at(500, CNI), at(400, CNI), at(3, "all is well"))])
    assert found == []
    assert [(each.symptom, each.count, each.last) for each in past] == [("cni-missing", 2, at(400, CNI))]


def test_few_lines_of_a_symptom_that_needs_many_are_past() -> None:
    line = LINES["etcd-slow-disk"][1]
    assert recognise([log("pods/etcd.log", at(1, line))])[0] == []
    assert recognise([log("pods/etcd.log", *[at(1, line)] * 5)])[0]


def test_times_of_pods_logs_are_read_too_and_lines_without_one_have_the_one_before() -> None:
    old = "2026-11-25T17:00:00.123456789Z stderr F start"
    assert recognise([log("pods/others.log", old, "panic: too many open files")])[0] == []
    new = "2026-11-25T17:59:59.123456789Z stderr F panic: too many open files"
    assert [each.check for each in recognise([log("pods/others.log", old, new)])[0]] == ["too-many-files"]


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\ufffd\x1b[0m", "9999-99-99T99:99:99Z"])
def test_odd_logs_are_nothing(text: str) -> None:
    assert recognise([Log("cp1", "journal/kubelet.log", text, NOW)]) == ([], [])


def test_a_pattern_is_of_its_own_file_only() -> None:
    assert recognise([log("journal/haproxy.log", at(1, CNI))]) == ([], [])


def test_errors_come_first_and_of_those_causes_first() -> None:
    checks = ["node-not-ready", "unit-failed", "host-unreachable", "unit-down"]
    rows = reported([Finding(check, (), "seen") for check in checks])
    assert [row.check for row in rows] == ["host-unreachable", "unit-down", "node-not-ready", "unit-failed"]


def test_every_symptom_ends_its_sentences_and_patterns_have_logs() -> None:
    for name, symptom in symptoms().items():
        assert symptom.why.endswith("."), name
        assert re.search(r"[.)]$", symptom.remedy), name
        assert (symptom.pattern is None) == (not symptom.logs) == (symptom.lasts == 0), name
