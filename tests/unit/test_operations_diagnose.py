"""What a diagnosis makes of hosts' answers, whatever these are, and the archive that it writes."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from harness import answer as fact_of
from harness import recorded

from cluster.eviction import Amount
from facts.haproxy import Backends
from facts.timer import Timer
from operations import ailments, diagnose
from operations.ailments import Case
from operations.interview import Answer, Seen, understand, unpack
from operations.questions import Question, ends_of, of_fact

CASE = Case(
    cluster="test", unreachable=(), not_asked=(), control_planes=("cp1", "cp2", "cp3"), nodes=("cp1", "cp2", "cp3"),
    balancers=("lb1", "lb2"), vips=("10.88.0.100",), endpoint="10.88.0.100:6443", warning_days=30, critical_days=7,
    bundle_port="5443", kept={"w1": Amount(share=0.1)},
)  # fmt: skip


def asked(script: str, seconds: int = 10, limit: int = 1000) -> Answer:
    """A question as a real shell answers it."""
    question = Question("x.txt", script, seconds, limit)
    done = subprocess.run(["sh", "-c", question.command], capture_output=True, text=True, timeout=60, check=True)
    return unpack(question, done.stdout.splitlines())


def said(file: str, text: str = "", status: int | None = 0, fact: Any = None) -> Answer:
    return Answer(Question(file, ""), text, status, fact=fact)


def evidence(answers: dict[str, list[Answer]], case: Case = CASE) -> list[str]:
    found = ailments.findings(Seen(answers), case)
    return [f"{', '.join(each.hosts)}: {each.evidence}" for each in found]


def test_words_of_a_script_come_with_its_exit_status() -> None:
    assert (asked("echo 'it''s'; echo bad >&2; exit 3").text, asked("exit 3").status) == ("its\nbad\n", 3)
    assert asked("true").text == ""


def test_a_script_that_does_not_end_is_ended_and_what_it_said_is_kept() -> None:
    found = asked("echo begun; sleep 30", seconds=1)
    assert (found.text, found.problem) == ("begun\n", "did not end within 1 s")


def test_of_a_hundred_megabytes_the_end_comes_and_is_said_to_be_cut() -> None:
    found = asked("head -c 100000000 /dev/zero | tr '\\0' a; echo end", limit=1000)
    assert found.text.endswith("aend\n") and len(found.text) < 1000 and found.cut
    assert diagnose.files(Seen({"w1": [found]}))["hosts/w1/x.txt"].startswith("# the last 1000 bytes\naaa")


def test_noise_comes_through() -> None:
    found = asked("head -c 3000 /dev/urandom", limit=5000)
    assert not found.problem and found.status == 0
    assert list(diagnose.files(Seen({"w1": [found]}))) == ["hosts/w1/x.txt"]


@pytest.mark.parametrize("lines", [["no base64!"], ["aGVsbG8="]])
def test_an_answer_that_is_none_is_a_problem_and_no_exception(lines: list[str]) -> None:
    assert unpack(Question("x.txt", ""), lines).problem == "what came is not what was sent"


def test_half_an_answer_is_taken_as_far_as_it_goes() -> None:
    question = Question("x.txt", "seq 5000", limit=100_000)
    done = subprocess.run(["sh", "-c", question.command], capture_output=True, text=True, timeout=60, check=True)
    text = "".join(done.stdout.splitlines())
    found = unpack(question, [text[: len(text) // 8 * 4]])
    assert found.text.startswith("1\n2\n3\n") and found.status is None


def test_a_fact_that_cannot_be_understood_is_unanswered() -> None:
    question = of_fact(Backends)
    assert understand(Answer(question, "\n".join(recorded("Backends.cluster")))).fact["state"] == "running"
    bad = understand(Answer(question, "running\n# a,b\n1,2"))
    assert (bad.fact, bad.problem) == (None, "cannot be understood (KeyError)")
    assert evidence({"lb1": [bad]}) == ["lb1: facts/Backends.txt: cannot be understood (KeyError)"]


def test_nothing_asked_is_nothing_found() -> None:
    assert evidence({}) == []
    assert evidence({"lb1": [], "cp1": [], "": []}) == []


def test_a_host_that_stops_answering_is_one_finding() -> None:
    lost = [said("a.txt"), *(Answer(Question(name, ""), error="no answer within 30 s") for name in ("b.txt", "c.txt"))]
    assert evidence({"w1": lost}) == ["w1: b.txt: no answer within 30 s"]


def test_logs_that_are_not_there_are_nothing_and_of_those_that_are_the_ends_come(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text("begin" + "x" * 100 + "end\n")
    assert asked(f"cd {tmp_path}; {ends_of('$(ls /none/*.log 2>/dev/null)', 9)}").text == ""
    assert asked(ends_of(f"/none/*.log {tmp_path}/*.log", 9)).text == f"==> {tmp_path}/0.log\nxxxxxend\n\n"


UNITS = """\
Id=kubelet.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
Result=exit-code
NRestarts=17

Id=containerd.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
NRestarts=0
"""


def test_a_unit_that_goes_round_in_a_loop_is_down() -> None:
    words = "w1: kubelet.service is activating (auto-restart), result exit-code, started again 17 times"
    failed = "kubelet.service loaded failed failed kubelet\nx.service loaded failed failed An example\n"
    assert evidence({"w1": [said("units.txt", UNITS), said("failed.txt", failed)]}) == [
        words,
        "w1: x.service has failed",
    ]


def held(holds: bool) -> Answer:
    return said("facts/Vrrp-10.88.0.100.txt", fact={"installed": True, "running": True, "holds_vip": holds})


def test_the_virtual_ip_is_on_one_host() -> None:
    assert evidence({"lb1": [held(True)], "lb2": [held(False)]}) == []
    assert evidence({"lb1": [held(True)], "lb2": [held(True)]}) == ["lb1, lb2: 10.88.0.100 is on 2 hosts at once"]
    assert evidence({"lb1": [held(False)], "lb2": [held(False)]}) == [": 10.88.0.100 is on no host that was asked"]
    assert evidence({"lb1": [held(False)]}) == [": 10.88.0.100 is on no host that was asked; lb2 could not be asked"]


def test_haproxys_reason_is_told_in_words() -> None:
    state = fact_of(Backends, recorded("Backends.cluster"))
    name = next(iter(next(iter(state["servers"].values()))))
    for backend in state["servers"].values():
        backend[name] |= {"status": "DOWN", "check": "L4CON"}
    (line,) = evidence({"lb1": [said("facts/Backends.txt", fact=state)]})
    assert line == f"lb1: HAProxy has server {name} DOWN (L4CON: nobody listens there, or the host is not reached)"


def test_what_a_real_api_server_without_etcd_says_is_told_by_its_bad_checks() -> None:
    said_by_it = (
        "Error from server (InternalError): an error on the server "
        '("[+]ping ok\\n[+]log ok\\n[-]etcd failed: reason withheld\\n[-]etcd-readiness failed: reason withheld\\n'
        '[+]informer-sync ok\\nreadyz check failed") has prevented the request from succeeding\n'
    )
    assert evidence({"cp1": [said("readyz.txt", said_by_it, status=1)]}) == [
        "cp1: no API server answers as ready",
        "cp1: /readyz: [-]etcd failed: reason withheld; [-]etcd-readiness failed: reason withheld",
    ]


def disk(free: int, inodes: int = 1000) -> Answer:
    row = {"path": "/", "mount": "/", "size_mib": 1000, "free_mib": free, "inodes": 1000, "inodes_free": inodes}
    return said("facts/FileSystems.txt", fact=[row | {"used_mib": 0}])


def test_a_disk_that_is_full_or_has_no_inodes() -> None:
    assert evidence({"w1": [disk(500)]}) == []
    for answer, check in ((disk(15), "disk-full"), (disk(90), "disk-filling"), (disk(500, 0), "disk-full")):
        assert [each.check for each in ailments.findings(Seen({"w1": [answer]}), CASE)] == [check]


def test_etcds_alarms_and_members_without_a_leader() -> None:
    status = [{"Endpoint": "https://10.88.0.21:2379", "Status": {"leader": 0}}]
    members = {"state": "running", "members": [
        {"id": name, "name": name, "learner": False, "peer_urls": [], "healthy": True} for name in CASE.control_planes
    ]}  # fmt: skip
    answers = [
        said("facts/Members.txt", fact=members),
        said("etcd-alarms.txt", "memberID:8630161756594109333 alarm:NOSPACE\n"),
        said("etcd-status.json", json.dumps(status)),
    ]
    assert evidence({"cp1": answers}) == [
        ": etcd has the alarm NOSPACE",
        ": the member at https://10.88.0.21:2379 knows no leader",
    ]


def test_many_pods_that_do_not_run_are_cut_short() -> None:
    pod = {"metadata": {"namespace": "default", "name": "a"}, "status": {"phase": "Pending"}}
    items = [{**pod, "metadata": {"namespace": "default", "name": f"a{n}"}} for n in range(25)]
    lines = evidence({"": [said("pods.json", json.dumps({"items": items}))]})
    assert len(lines) == 11 and lines[-1] == ": 15 more pods do not run"
    assert evidence({"": [said("pods.json", '{"items": [{"meta')]}) == []


def test_an_archive_is_the_owners_alone_and_leaves_nothing_beside_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "down" / "diagnosis-x.tar.gz"
    diagnose.write(path, {"report.md": "# ä\n", "hosts/w1/a.txt": ""})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["diagnosis-x/report.md", "diagnosis-x/hosts/w1/a.txt"]
    shutil.rmtree(tmp_path / "deep")
    monkeypatch.setattr(tarfile.TarFile, "addfile", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        diagnose.write(path, {"report.md": ""})
    assert list(path.parent.iterdir()) == []


def test_a_timer_of_renewal_that_has_failed_or_does_not_run_is_a_finding_and_none_at_all_is_not() -> None:
    why = "etcd has a member that is not healthy"
    failed = {**Timer.default(), "timer": "active", "result": "exit-code", "said": why}
    answers = {
        "cp1": [said("facts/Timer.txt", fact=Timer.default())],
        "cp2": [said("facts/Timer.txt", fact=failed)],
        "cp3": [said("facts/Timer.txt", fact={**Timer.default(), "timer": "inactive"})],
    }
    found = [line for line in evidence(answers) if "timer" in line]
    assert found == [
        f"cp2: the last renewal by timer failed (exit-code): {why}",
        "cp3: certificate-renewal.timer is there and does not run: systemctl status certificate-renewal.timer",
    ]
