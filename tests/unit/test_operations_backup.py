"""The program of backups run for real, with etcd's programs played; openssl is the real one."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Machine
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cluster.backup import PRIVATE_DIRECTORY, BackupError, read
from cluster.settings import load
from facts.backup import Backups
from facts.etcd import ETCDCTL
from facts.timer import Timer
from operations.backup import asked, opened, problem, words

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Environment(
    loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
STATUS = '[{"Status":{"header":{"revision":9},"version":"3.6.8","dbSize":20480,"storageVersion":"3.6.0"}}]'
CTL = f"""
case "$*" in
*"endpoint health"*) exit 0;;
*"endpoint status"*) echo '{STATUS}';;
*"snapshot save"*) for f; do :; done; head -c 2048 /dev/zero > "$f"; openssl dgst -sha256 -binary "$f" >> "$f";;
*--count-only*) printf '"Revision" : 9\\n"Count" : 5\\n';;
esac
"""
UTL = """echo '{"hash":77,"revision":8,"totalKey":6,"totalSize":20480,"version":"3.6.0"}'"""
KUBECTL = r"printf 'clusterName: kubernetes\nkubernetesVersion: v1.36.2\n'"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def control_plane(machine: Machine) -> Machine:
    for name in ("flock", "hostname", "od", "openssl", "split"):
        machine.program(name)
    machine.program("etcdctl", CTL)
    machine.program("etcdutl", UTL)
    machine.program("kubectl", KUBECTL)
    # Its tar begins at its own root.
    machine.program("tar", f'shift 2; exec {shutil.which("tar")} -C {machine.root} "$@"')
    machine.file(
        "/etc/kubernetes/manifests/etcd.yaml", "    - --name=cp1\n    - --listen-client-urls=https://127.0.0.1:1\n"
    )
    machine.file("/etc/kubernetes/manifests/kube-apiserver.yaml", "")
    machine.file("/etc/kubernetes/pki/etcd/healthcheck-client.key", "key")
    ca = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=ca",
    ]
    files = ["-keyout", machine.path("/etc/kubernetes/pki/ca.key"), "-out", machine.path("/etc/kubernetes/pki/ca.crt")]
    subprocess.run([*ca, *files], check=True, capture_output=True)
    machine.path("/var").mkdir(exist_ok=True)
    return machine


def back_up(machine: Machine, kind: str = "asked", certificate: str | None = None) -> subprocess.CompletedProcess[str]:
    script = ENVIRONMENT.get_template("backup/etcd-backup.j2").render(
        settings=load({"vip": "10.0.0.1", "backup_keep": 2, "cluster_name": "test"}),
        directory="/var/backups/kubernetes", private=PRIVATE_DIRECTORY, etcdctl=ETCDCTL, certificate=certificate,
    )  # fmt: skip
    return machine.sh(f"set -- {kind}\n{script}")


def kept(machine: Machine) -> list[Path]:
    return sorted(machine.path("/var/backups/kubernetes").glob("2*"))


def test_backup_is_whole_and_says_what_it_is(control_plane: Machine) -> None:
    ran = back_up(control_plane)
    assert ran.returncode == 0, ran.stderr
    (directory,) = kept(control_plane)
    assert ran.stdout.split() == [str(directory)]
    manifest = read(directory)
    assert (manifest.revision, manifest.keys, manifest.live_keys, manifest.hash) == (8, 6, 5, 77)
    assert (manifest.cluster_name, manifest.kubernetes_version, manifest.etcd_version) == ("test", "v1.36.2", "3.6.8")
    assert (manifest.member, manifest.encrypted) == ("cp1", False)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent)] == [0o700] * 2
    assert opened(directory, None).pki == directory / "pki.tar"
    listed = subprocess.run(["tar", "-tf", directory / "pki.tar"], check=True, capture_output=True, text=True).stdout
    assert "etc/kubernetes/pki/ca.key" in listed.split()


def test_key_of_encryption_at_rest_is_in_it(control_plane: Machine) -> None:
    path = control_plane.path("/srv/keys.yaml").relative_to(control_plane.root)
    control_plane.path("/srv").mkdir()
    control_plane.path("/srv/keys.yaml").symlink_to(control_plane.file("/srv/of-today.yaml", "keys"))
    flag = f"    - --encryption-provider-config=/{path}\n"
    control_plane.file("/etc/kubernetes/manifests/kube-apiserver.yaml", flag)
    ran = back_up(control_plane)
    assert ran.returncode == 0, ran.stderr
    command = ["tar", "-xOf", kept(control_plane)[0] / "pki.tar", "srv/keys.yaml"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "keys"


@pytest.mark.parametrize(
    ("program", "script", "said"),
    [
        ("etcdctl", CTL.replace("-sha256", "-sha3-256"), "the snapshot does not end in its own sha256"),
        (
            "etcdctl",
            CTL.replace("head -c", "echo no space left >&2; exit 1; head -c"),
            "snapshot save failed: no space",
        ),
        ("etcdctl", CTL.replace('"Count" : 5', '"Count" : 0'), "the snapshot is empty"),
        (
            "etcdctl",
            CTL.replace("printf", "echo 'required revision has been compacted' >&2; exit 1; printf"),
            "etcd does not count the keys of revision 8, which the snapshot is of.",
        ),
        ("etcdutl", "exit 1", "etcdutl does not read the snapshot"),
        ("kubectl", "exit 1", "kubeadm's configuration cannot be read"),
        ("df", "printf 'h\\nd 1 1 10 1 /\\n'", "10 KiB free, 65556 needed. Make room, or lower backup_keep."),
    ],
)
def test_what_fails_is_said_and_leaves_nothing(control_plane: Machine, program: str, script: str, said: str) -> None:
    control_plane.program(program, script)
    ran = back_up(control_plane)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert [path.name for path in control_plane.path("/var/backups/kubernetes").iterdir()] == [".lock"]


def test_why_etcd_is_not_healthy_is_said(control_plane: Machine) -> None:
    why = "https://127.0.0.1:1 is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE"
    control_plane.program("etcdctl", f"printf '%s\\n' '{why} ' 'Error: unhealthy cluster' >&2; exit 1")
    at = control_plane.file("/clock", "0")
    control_plane.program("date", f"echo $(($(cat {at}) + 200)) > {at}; cat {at}")
    ran = back_up(control_plane)
    assert ran.returncode == 1
    assert f"etcd here is not healthy, so it is not what to back up: {why}" in ran.stderr


def test_the_newest_of_each_kind_are_kept_and_what_a_killed_run_left_is_not(control_plane: Machine) -> None:
    for name in ("20260101T000000Z-cp1-timer", "20260102T000000Z-cp1-timer", "20260101T000000Z-cp1-asked"):
        control_plane.file(f"/var/backups/kubernetes/{name}/manifest.json", "{}")
    control_plane.file("/var/backups/kubernetes/.partial.abcdefgh/backup/snapshot.db", "half")
    assert back_up(control_plane, "timer").returncode == 0
    names = [path.name for path in kept(control_plane)]
    assert names[:2] == ["20260101T000000Z-cp1-asked", "20260102T000000Z-cp1-timer"]
    assert len(names) == 3 and names[2].endswith("-cp1-timer")
    assert not list(control_plane.path("/var/backups/kubernetes").glob(".partial*"))


def test_two_of_one_second_have_names_of_their_own(control_plane: Machine) -> None:
    at = control_plane.file("/clock", "1795572000")
    shown = f'test "$*" != +%s || {{ cat {at}; exit; }}; exec {shutil.which("date")} "$@"'
    control_plane.program("date", shown)
    control_plane.program("sleep", f"echo 1795572001 > {at}")
    for _ in range(2):
        ran = back_up(control_plane)
        assert ran.returncode == 0, ran.stderr
    names = ["20261125T020000Z-cp1-asked", "20261125T020001Z-cp1-asked"]
    assert [path.name for path in kept(control_plane)] == names
    assert [read(path).time for path in kept(control_plane)] == ["2026-11-25T02:00:00Z", "2026-11-25T02:00:01Z"]


def test_the_newest_is_never_removed_for_those_of_a_clock_that_was_ahead(control_plane: Machine) -> None:
    old, ahead = "20260101T000000Z-cp1-timer", ("20990101T000000Z-cp1-timer", "20990102T000000Z-cp1-timer")
    for name in (old, *ahead):
        control_plane.file(f"/var/backups/kubernetes/{name}/manifest.json", "{}")
    ran = back_up(control_plane, "timer")
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in kept(control_plane)] == [old, Path(ran.stdout.strip()).name]


def make_certificate(path: Path) -> str:
    """A certificate to encrypt to, with its key in `path`."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=backup"]
    subprocess.run([*command, "-keyout", path, "-out", path.with_suffix(".pem")], check=True, capture_output=True)
    return path.with_suffix(".pem").read_text().strip()


def test_what_is_not_encrypted_yet_is_never_where_backups_are_collected(control_plane: Machine, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "own.key")
    control_plane.program("kubectl", "kill -9 $PPID")
    assert back_up(control_plane, certificate=certificate).returncode == -9
    collected, private = (control_plane.path(path) for path in ("/var/backups/kubernetes", PRIVATE_DIRECTORY))
    assert [path.name for path in collected.rglob("*") if path.is_file()] == [".lock"]
    assert (private / "plain/snapshot.db").exists()
    assert private.stat().st_mode & 0o777 == 0o700
    # The next one, encrypted or not, sweeps it.
    control_plane.program("kubectl", KUBECTL)
    assert back_up(control_plane, "timer").returncode == 0
    assert not private.exists()
    assert back_up(control_plane, certificate=certificate).returncode == 0
    assert not private.exists() and not list(collected.glob(".partial*"))


@pytest.mark.parametrize(
    ("private", "collected", "said"),
    [
        ("a 65557", "b 65557", ""),
        ("a 65556", "b 65557", "/var/lib/pyinfra-kubeadm/backup: 65556 KiB free, 65556 needed. Make room."),
        ("a 65557", "b 65556", "/var/backups/kubernetes: 65556 KiB free, 65556 needed. Make room, or lower"),
        ("a 65576", "a 65576", "/var/lib/pyinfra-kubeadm/backup: 65576 KiB free, 65576 needed. Make room."),
        ("a 65577", "a 65577", ""),
    ],
)
def test_room_is_looked_for_where_it_is_needed(
    control_plane: Machine, tmp_path: Path, private: str, collected: str, said: str
) -> None:
    def shown(text: str) -> str:
        device, free = text.split()
        return f"printf 'h\\n{device} 1 1 {free} 1 /\\n'"

    answers = f"*{PRIVATE_DIRECTORY}) {shown(private)};; *) {shown(collected)}"
    control_plane.program("df", f'case "$*" in {answers};; esac')
    ran = back_up(control_plane, certificate=make_certificate(tmp_path / "own.key"))
    assert ran.returncode == (1 if said else 0)
    assert said in ran.stderr.replace(str(control_plane.root), "")


def test_encrypted_backup_is_opened_by_its_key_and_by_no_other(control_plane: Machine, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "own.key")
    make_certificate(tmp_path / "other.key")
    ran = back_up(control_plane, certificate=certificate)
    assert ran.returncode == 0, ran.stderr
    (directory,) = kept(control_plane)
    assert read(directory).encrypted
    assert sorted(path.name for path in directory.iterdir()) == [
        "kubeadm-config.yaml.0000.cms", "manifest.json", "pki.tar.0000.cms", "snapshot.db.0000.cms",
    ]  # fmt: skip
    found = opened(directory, tmp_path / "own.key")
    assert found.snapshot.stat().st_size == 2048 + 32
    assert found.snapshot.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(BackupError, match=r"cannot be decrypted by .*other\.key"):
        opened(directory, tmp_path / "other.key")
    with pytest.raises(BackupError, match="is encrypted: name the file of the private key by --data backup_key=FILE"):
        opened(directory, None)
    # An authenticated cipher: one bit is enough, also where the manifest agrees.
    part = directory / "snapshot.db.0000.cms"
    text = bytearray(part.read_bytes())
    text[-600] ^= 1
    part.write_bytes(text)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][part.name] = hashlib.sha256(text).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match=r"snapshot\.db\.0000\.cms cannot be decrypted"):
        opened(directory, tmp_path / "own.key")


def test_backup_that_was_asked_for_says_what_its_program_says(machine: Machine) -> None:
    ran = machine.sh(asked(), "echo /var/backups/kubernetes/one; echo cut >&2; exit 3")
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "/var/backups/kubernetes/one\n", "cut\n")
    assert list(machine.path("/run").iterdir()) == []


def test_backup_that_does_not_end_is_stopped_and_nobody_waits_for_what_cannot_be(machine: Machine) -> None:
    machine.program("setsid")
    began = time.monotonic()
    ran = machine.sh(asked(1), "setsid sleep 20 & echo begun; sleep 20")
    assert time.monotonic() - began < 15
    assert (ran.returncode, ran.stdout) == (124, "begun\n")
    assert (
        "It did not end within 1 s and was stopped: etcd or a disk there does not keep up. Look at dmesg" in ran.stderr
    )
    assert list(machine.path("/run").iterdir()) == []


SYSTEMCTL = """
case "$*" in
*NextElapse*) echo 'Wed 2026-11-25 02:00:00 UTC';;
*etcd-backup.timer*) printf 'LoadState=loaded\\nActiveState=active\\n';;
is-failed*) exit FAILED;;
*) printf 'LoadState=loaded\\nActiveState=STATE\\nResult=RESULT\\nExecMainExitTimestamp=ENDED\\n';;
esac
"""


def timer(machine: Machine, failed: bool, state: str, result: str, ended: str) -> None:
    text = SYSTEMCTL.replace("FAILED", "0" if failed else "1").replace("STATE", state)
    machine.program("systemctl", text.replace("RESULT", result).replace("ENDED", ended))
    machine.program("journalctl", "echo 'cp1: 10 KiB free, 65556 needed.'")


def test_fact_of_a_timer_that_has_not_run_since_the_boot_says_so(control_plane: Machine) -> None:
    timer(control_plane, False, "inactive", "success", "")
    found = control_plane.ask(Backups)
    assert (found["timer"], found["next"], found["result"], found["ended"]) == ("active", 1795572000, "none", None)
    assert (found["kept"], found["newest"], problem(found)) == (0, None, None)
    assert words(found) == "0 backups; a timer, next at 2026-11-25 02:00 UTC; it has not run since the last boot"


def test_fact_of_a_run_that_failed_has_its_words_and_the_newest_backup(control_plane: Machine) -> None:
    assert back_up(control_plane).returncode == 0
    timer(control_plane, True, "failed", "exit-code", "@1795485600")
    found = control_plane.ask(Backups)
    assert (found["result"], found["ended"], found["kept"]) == ("exit-code", 1795485600, 1)
    assert found["newest"]["live_keys"] == 5
    assert problem(found) == "the last backup by timer failed (exit-code): cp1: 10 KiB free, 65556 needed."


def test_fact_of_any_timer_says_the_same_of_it(control_plane: Machine) -> None:
    timer(control_plane, True, "failed", "timeout", "@1795485600")
    found, backups = control_plane.ask(Timer, timer="etcd-backup"), control_plane.ask(Backups)
    assert found == {name: value for name, value in backups.items() if name not in ("kept", "newest")}
    assert (found["timer"], found["result"], found["said"]) == ("active", "timeout", "cp1: 10 KiB free, 65556 needed.")


def test_fact_of_a_host_without_any_of_it(machine: Machine) -> None:
    machine.program("systemctl", "exit 1")
    assert machine.ask(Backups) == Backups.default()
    assert machine.ask(Timer, timer="etcd-backup") == Timer.default()
