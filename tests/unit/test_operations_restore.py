"""The steps of a restore, decided by what the members are. States are hand-written; the shell is run for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Hosts, Machine
from pyinfra.api import OperationError

from cluster.backup import Manifest, sha256
from facts.checksum import Checksums
from facts.restore import Restoration
from operations import restore
from operations.restore import (
    PODS,
    STOP,
    Restore,
    controllers_script,
    etcd_script,
    put_back,
    restore_script,
    swap_script,
)

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
ID = "20261125T150000Z-1a2b3c4d"
MANIFEST = Manifest(
    cluster_name="test", kubernetes_version="v1.36.2", etcd_version="3.6.8", member="cp1", time="2026-11-25T02:12:00Z",
    revision=4711, keys=900, live_keys=800, hash=1, ca_cert_hash="sha256:aa", encrypted=False, files={},
)  # fmt: skip
ASK = Restoration().command()
PLACED = ["placed etcd", "name NAME", "peer_url https://NAME:2380", "version 3.6.8", "program bumps"]
SUMS = Checksums().command(paths=(f"/var/lib/etcd/restore-{ID}/snapshot.db",))


@pytest.fixture
def wanted(tmp_path: Path) -> Restore:
    (tmp_path / "snapshot.db").write_text("a snapshot")
    return Restore(ID, MANIFEST, tmp_path / "snapshot.db", ("cp1", "cp2"))


def members(cp1: list[str], cp2: list[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {ASK: [line.replace("NAME", name) for line in PLACED] + lines, SUMS: []}
        for name, lines in {"cp1": cp1, "cp2": cp2}.items()
    }


def test_later_restore_has_later_revisions_whichever_backup_it_is_of(wanted: Restore) -> None:
    def restored(day: str, revision: int) -> int:
        manifest = MANIFEST.model_copy(update={"revision": revision})
        return revision + Restore(f"{day}T150000Z-1a2b3c4d", manifest, wanted.snapshot, wanted.members).bump

    written = 10**9
    first = restored("20260125", MANIFEST.revision)
    second = restored("20260601", first + written)
    assert first + written < second
    assert second + written < restored("20260602", MANIFEST.revision)
    assert second + written <= restored("20200101", second), "where the clock went back"


def test_all_members_are_made_with_the_same_cluster_and_token(hosts: Make, wanted: Restore) -> None:
    for name in wanted.members:
        make, send, command = hosts(members([], [])).execute(restore.prepare, name, restore=wanted)
        assert make.text == f"umask 077; mkdir -p /var/lib/etcd/restore-{ID}"
        assert send.args == (wanted.snapshot, f"/var/lib/etcd/restore-{ID}/snapshot.db")
        flags = f"--initial-cluster cp1=https://cp1:2380,cp2=https://cp2:2380 --initial-cluster-token {ID} "
        assert f"--name {name} {flags}--initial-advertise-peer-urls https://{name}:2380" in command.text


@pytest.mark.parametrize(("mine", "other"), [("begun", "begun"), ("prepared", "begun"), ("prepared", "prepared")])
def test_data_that_no_member_uses_yet_is_made_again(hosts: Make, wanted: Restore, mine: str, other: str) -> None:
    run = hosts(members([f"{mine} {ID}"], [f"{other} {ID}"])).execute(restore.prepare, "cp1", restore=wanted)
    assert "etcdutl snapshot restore" in run[-1].text


def test_member_that_is_ready_waits_for_no_other_copy_when_another_has_its_data(hosts: Make, wanted: Restore) -> None:
    half = hosts(members([f"prepared {ID}"], [f"begun {ID}", f"before {ID}"]))
    assert half.execute(restore.prepare, "cp1", restore=wanted) == []
    assert half.execute(restore.prepare, "cp2", restore=wanted) == []
    assert half.execute(restore.swap, "cp2", restore=wanted) == []
    assert [each.text for each in half.execute(restore.swap, "cp1", restore=wanted)] == [swap_script(wanted)]
    assert [each.text for each in half.execute(restore.stop, "cp2", restore=wanted)] == [STOP]


def test_member_that_was_never_made_ready_is_not_joined_to_those_that_have_their_data(
    hosts: Make, wanted: Restore
) -> None:
    with pytest.raises(OperationError, match="cp2 already have the data of this restore, and cp1 was not made ready"):
        hosts(members([], [f"before {ID}"])).execute(restore.prepare, "cp1", restore=wanted)


def test_nothing_is_stopped_once_every_member_has_its_data(hosts: Make, wanted: Restore) -> None:
    done = hosts(members([f"begun {ID}", f"before {ID}"], [f"before {ID}"]))
    assert done.execute(restore.stop, "cp1", restore=wanted) == []
    assert done.noops == ["every member has its new data"]


UTL = """
test "$*" = "snapshot restore --help" && { echo "HELP"; exit 0; }
test "$2" = status && exit 0
echo "$@" > ran; while test "$1" != --data-dir; do shift; done; mkdir -p "$2/member"
"""


@pytest.mark.parametrize(
    ("told", "more"), [("--bump-revision uint", "--bump-revision 1795618799995289 --mark-compacted"), ("--wal-dir", "")]
)
def test_data_is_made_beside_and_revisions_move_where_etcdutl_can(
    machine: Machine, wanted: Restore, told: str, more: str
) -> None:
    machine.program("etcdutl", UTL.replace("HELP", told))
    work = machine.file(f"{wanted.work}/snapshot.db", "a snapshot").parent
    machine.file(f"{wanted.work}/data/member/half", "what a killed run left")
    peers = {"cp1": "https://10.0.0.21:2380"}
    ran = machine.sh(restore_script(wanted, "cp1", peers, sha256(wanted.snapshot)))
    assert ran.returncode == 0, ran.stderr
    assert (
        (work / "ran")
        .read_text()
        .strip()
        .endswith(f"--initial-advertise-peer-urls https://10.0.0.21:2380 {more}".strip())
    )
    assert list((work / "data/member").iterdir()) == []
    cut = machine.sh(restore_script(wanted, "cp1", peers, "0" * 64))
    assert (cut.returncode, cut.stderr) == (1, "the snapshot did not come whole: run again\n")


def test_no_data_is_made_of_a_snapshot_that_etcdutl_does_not_read(machine: Machine, wanted: Restore) -> None:
    machine.program("etcdutl", UTL.replace("exit 0\n", "{ echo 'bad snapshot' >&2; exit 1; }\n"))
    work = machine.file(f"{wanted.work}/snapshot.db", "a snapshot").parent
    ran = machine.sh(restore_script(wanted, "cp1", {"cp1": "https://10.0.0.21:2380"}, sha256(wanted.snapshot)))
    assert (ran.returncode, ran.stderr) == (1, "bad snapshot\n")
    assert not (work / "data").exists()


def test_old_data_is_set_aside_once_whenever_the_exchange_was_stopped(machine: Machine, wanted: Restore) -> None:
    member, before = machine.path("/var/lib/etcd/member"), machine.path(f"{wanted.before}/member")
    machine.file("/var/lib/etcd/member/old")
    machine.file(f"{wanted.work}/data/member/new")
    machine.program("mv", f'case "$*" in */data/member*) exit 1;; esac; exec {machine.root}/mv "$@"')
    (machine.root / "mv").write_text('#!/bin/sh\nexec /bin/mv "$@"\n')
    (machine.root / "mv").chmod(0o755)
    assert machine.sh(swap_script(wanted)).returncode == 1
    assert (list(before.iterdir()), member.exists()) == ([before / "old"], False)
    machine.program("mv")
    assert machine.sh(swap_script(wanted)).returncode == 0
    assert (list(before.iterdir()), list(member.iterdir())) == ([before / "old"], [member / "new"])
    assert machine.ask(Restoration)["befores"] == [ID]


def test_what_a_restore_holds_that_was_begun_is_room_for_it_when_it_is_gone_on_with(
    machine: Machine, wanted: Restore
) -> None:
    machine.program("df", "printf 'h\\nd 1 1 200 1 /\\n'")
    machine.path("/var/lib/etcd/member").mkdir(parents=True)
    assert machine.ask(Restoration)["room_mib"] == 200
    machine.file(f"{wanted.work}/snapshot.db", b"x" * (3 << 20))
    machine.file(f"{wanted.work}/data.new/member/snap/db", b"x" * (4 << 20))
    machine.file(f"{wanted.before}/member/snap/db", b"x" * (8 << 20))
    assert 207 <= machine.ask(Restoration)["room_mib"] <= 208


def test_static_pods_are_waited_for_and_stopped_where_no_kubelet_does(machine: Machine) -> None:
    for pod in PODS:
        machine.file(f"/etc/kubernetes/manifests/{pod}.yaml", pod)
    machine.program("sleep", "exit 0")
    left = machine.file("/run/left", "c1\n")
    machine.program("crictl", f'case $1 in pods) cat {left};; stopp) echo "$@" > {left}.stopped; : > {left};; esac')
    ran = machine.sh(STOP)
    assert ran.returncode == 0, ran.stderr
    assert machine.path("/run/left.stopped").read_text() == "stopp c1\n"
    assert sorted(path.stem for path in machine.path("/etc/kubernetes/manifests.restore").iterdir()) == sorted(PODS)
    assert list(machine.path("/etc/kubernetes/manifests").iterdir()) == []
    machine.program("crictl", "exit 1")
    assert machine.sh(STOP).returncode == 1, "a runtime that does not answer does not say that nothing runs"
    machine.program("systemctl", "exit 0")
    assert machine.sh(put_back("etcd")).returncode == 0
    assert machine.sh(put_back("etcd")).returncode == 0
    assert [path.name for path in machine.path("/etc/kubernetes/manifests").iterdir()] == ["etcd.yaml"]


@pytest.mark.parametrize(
    ("count", "said"), [(800, ""), (799, "etcd has 799 keys, the backup 800: API servers stay off\n")]
)
def test_keys_are_counted_at_the_restored_revision_before_an_api_server_runs(
    machine: Machine, wanted: Restore, count: int, said: str
) -> None:
    machine.program("systemctl", "exit 0")
    machine.program("etcdutl", "echo --bump-revision")
    machine.program("etcdctl", f'echo "$@" >> {machine.root}/asked; echo \'"Count" : {count}\'')
    for pod in ("etcd", "kube-apiserver"):
        machine.file(f"/etc/kubernetes/manifests.restore/{pod}.yaml")
    machine.path("/etc/kubernetes/manifests").mkdir()
    ran = machine.sh(etcd_script(wanted))
    assert (ran.returncode, ran.stderr) == (1 if said else 0, said)
    assert "--rev=1795618800000000" in (machine.root / "asked").read_text()


CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
CRICTL = 'case "$*" in *Running*) RUNNING;; ps*) echo "$5";; logs*) echo "panic of $4";; esac'


@pytest.fixture
def stopped(machine: Machine) -> Machine:
    """A control plane whose controllers are all that is set aside."""
    for pod in CONTROLLERS:
        machine.file(f"/etc/kubernetes/manifests.restore/{pod}.yaml")
    machine.path("/etc/kubernetes/manifests").mkdir()
    machine.program("rmdir")
    for name in ("systemctl", "sleep"):
        machine.program(name, "exit 0")
    return machine


@pytest.mark.parametrize(
    ("running", "code"),
    [
        ("echo s; echo c", 0),
        # The scheduler takes its time.
        ("test -e later && echo s; touch later; echo c", 0),
        ("echo c", 1),
        # One that fails is another container each time.
        ("echo c; date +%N", 1),
        ("exit 1", 1),
    ],
)
def test_controllers_are_waited_for_until_both_stay_up(stopped: Machine, running: str, code: int) -> None:
    stopped.program("crictl", CRICTL.replace("RUNNING", running))
    ran = stopped.sh(controllers_script())
    assert ran.returncode == code, ran.stderr
    assert not stopped.path("/etc/kubernetes/manifests.restore").exists()
    if code:
        assert ran.stderr == (
            "kube-controller-manager and kube-scheduler do not both stay up within 120 s; they say:\n"
            "panic of ^kube-controller-manager$\npanic of ^kube-scheduler$\n"
        )


@pytest.mark.parametrize("broken", ["mv", "systemctl"])
def test_controllers_that_cannot_be_run_fail_the_restore(stopped: Machine, broken: str) -> None:
    stopped.program("crictl", CRICTL.replace("RUNNING", "echo s; echo c"))
    stopped.program(broken, "exit 1")
    assert stopped.sh(controllers_script()).returncode == 1
