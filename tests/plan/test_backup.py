"""Backups of etcd: by a timer on every control plane, and now, fetched to the control machine."""

from __future__ import annotations

import json
import os
import stat
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from runs import GROUPS, Deployed, Site

from cluster.backup import read

CONTROL_PLANES = list(GROUPS["control_plane"])
TIMER = "/etc/systemd/system/etcd-backup.timer"


@pytest.fixture
def cluster(deployed: Deployed, tmp_path: Path) -> Site:
    """Machines that have a cluster, of one test's own."""
    return deployed.site.copy(tmp_path / "site")


def backups(site: Site) -> list[Path]:
    return sorted((site.directory / "secrets/test/backups").glob("2*"))


def test_every_control_plane_has_the_timer_and_no_other_host(deployed: Deployed) -> None:
    with deployed.site.state() as state:
        timers = {name: node["units"].get("etcd-backup.timer") for name, node in state["nodes"].items()}
        texts = {node["files"][TIMER]["text"] for node in state["nodes"].values() if TIMER in node["files"]}
        modes = {state["nodes"][name]["files"]["/usr/local/sbin/etcd-backup"]["mode"] for name in CONTROL_PLANES}
    assert {name for name, unit in timers.items() if unit and unit["active"] and unit["enabled"]} == {*CONTROL_PLANES}
    assert ["OnCalendar=*-*-* 02:00:00" in text for text in texts] == [True]
    assert modes == {"700"}


def test_timer_goes_when_there_is_no_schedule_and_backups_stay(cluster: Site) -> None:
    assert cluster.run("-y", layer="etcd_backup").code == 0
    off = cluster.directory / "inventory.py"
    off.write_text(off.read_text().replace("'time_sync'", "'backup_schedule': None, 'time_sync'"))
    run = cluster.run("-y", layer="backup_timer")
    assert run.code == 0, run.words
    assert {each["host"] for each in run.changes} == {*CONTROL_PLANES}
    assert cluster.run("-y", layer="backup_timer").changes == []
    with cluster.state() as state:
        assert not any("etcd-backup" in path for node in state["nodes"].values() for path in node["files"])
        assert any("/var/backups/kubernetes/" in path for path in state["nodes"]["cp1"]["files"])


def test_schedule_that_systemd_does_not_take_leaves_the_timer_as_it_was(cluster: Site) -> None:
    inventory = cluster.directory / "inventory.py"
    inventory.write_text(inventory.read_text().replace("'time_sync'", "'backup_schedule': 'Nonsense', 'time_sync'"))
    run = cluster.run("-y", layer="backup_timer")
    assert run.code != 0
    assert "Failed to parse calendar specification Nonsense" in run.words
    with cluster.state() as state:
        assert "OnCalendar=*-*-* 02:00:00" in state["nodes"]["cp1"]["files"][TIMER]["text"]


def test_backup_is_taken_on_one_member_and_fetched_with_its_checksums_and_each_run_makes_another(cluster: Site) -> None:
    planned = cluster.run("--json", "--dry", layer="etcd_backup")
    assert planned.planned == {("cp1", "etcd backup | Back up etcd")}
    assert not planned.changes and not backups(cluster)
    killed, other = (cluster.directory / f"secrets/test/backups/.{name}.partial" for name in ("killed", "other"))
    killed.parent.mkdir(mode=0o700, parents=True)
    killed.mkdir()
    other.mkdir()
    os.utime(killed, (0, 0))
    for count in (1, 2):
        run = cluster.run("-y", layer="etcd_backup")
        assert run.code == 0, run.words
        assert {each["host"] for each in run.like("sh -s -- asked", "change")} == {"cp1"}
        assert len(backups(cluster)) == count
    assert other.exists() and not killed.exists()
    newest = backups(cluster)[-1]
    assert f"{newest} is the backup of 2026-11-25T02:12:00Z by cp1: 800 keys at revision 4711" in run.words
    assert read(newest).files.keys() == {"snapshot.db", "pki.tar", "kubeadm-config.yaml"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in newest.iterdir()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (newest, newest.parent)} == {0o700}
    assert "Fetching snapshot.db: 0.0 of 0.0 MB" in run.words


def test_backup_is_taken_on_the_host_that_the_run_is_limited_to(cluster: Site) -> None:
    run = cluster.run("-y", "--limit", "cp2", layer="etcd_backup")
    assert {each["host"] for each in run.like("sh -s -- asked", "change")} == {"cp2"}
    refused = cluster.run("-y", "--limit", "w1", layer="etcd_backup")
    assert refused.code != 0 and "no control plane is among the hosts of this run: widen --limit." in refused.words


def test_no_backup_is_begun_where_no_member_is_healthy(site: Site) -> None:
    run = site.run("-y", layer="etcd_backup")
    assert run.code != 0 and not run.changes
    for name in CONTROL_PLANES:
        assert f"{name}: its etcd is absent, and its member not healthy" in run.words


def test_what_the_program_says_of_a_failure_is_said_and_nothing_is_kept(cluster: Site) -> None:
    cluster.break_command("cp1", "sh -s -- asked", "cp1: the snapshot does not end in its own sha256: it was cut.")
    run = cluster.run("-y", layer="etcd_backup")
    assert run.code != 0
    assert "cp1: backing up etcd failed for cp1: cp1: the snapshot does not end in its own sha256" in run.words
    assert backups(cluster) == []


def test_failure_of_the_timers_last_run_is_told_by_verify(cluster: Site) -> None:
    with cluster.state() as state:
        state["nodes"]["cp3"]["failed"] = {"etcd-backup": "cp3: /var/backups/kubernetes: 10 KiB free, 90000 needed."}
    run = cluster.run("-y", layer="verify")
    assert run.code == 0, run.words
    assert "the last backup by timer failed (exit-code): cp3: /var/backups/kubernetes: 10 KiB free" in run.words


def test_backup_is_encrypted_on_the_node_and_a_certificate_that_cannot_be_is_refused(
    cluster: Site, tmp_path: Path, bundle: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backup")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(datetime(2026, 1, 1)).not_valid_after(datetime(2036, 1, 1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "backup.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    inventory = cluster.directory / "inventory.py"
    inventory.write_text(
        inventory.read_text().replace("'time_sync'", f"'backup_certificate': {str(path)!r}, 'time_sync'")
    )
    run = cluster.run("-y", layer="etcd_backup")
    assert run.code == 0, run.words
    (backup,) = backups(cluster)
    assert read(backup).encrypted
    assert sorted(path.name for path in backup.iterdir())[-1] == "snapshot.db.0000.cms"
    assert not json.loads((backup / "manifest.json").read_text())["files"].get("snapshot.db")
    path.write_bytes(path.read_bytes() + private)
    refused = cluster.run("-y", layer="etcd_backup")
    assert refused.code != 0 and not refused.changes
    assert f"backup_certificate: {path} has a private key in it" in refused.words
    assert private.decode().splitlines()[1] not in refused.words
