"""What a backup says of itself, and whom a backup can be encrypted to. The order of parts, and their checksums."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.backup import BackupError, Manifest, read, recipient, unsuitable, whole

SAID: dict[str, Any] = {
    "cluster_name": "test", "kubernetes_version": "v1.36.2", "etcd_version": "3.6.8", "member": "cp1",
    "time": "2026-11-25T02:12:00Z", "revision": 4711, "keys": 900, "live_keys": 800, "hash": 1,
    "ca_cert_hash": "sha256:aa", "encrypted": True,
}  # fmt: skip
FILES = ("kubeadm-config.yaml.0000.cms", "pki.tar.0000.cms", "snapshot.db.0010.cms", "snapshot.db.0002.cms")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text(name)
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
    (tmp_path / "manifest.json").write_text(json.dumps(SAID | {"files": files}))
    return tmp_path


def test_parts_of_an_encrypted_file_are_in_their_order(directory: Path) -> None:
    assert read(directory).parts("snapshot.db") == ["snapshot.db.0002.cms", "snapshot.db.0010.cms"]


def test_every_damage_is_said_at_once(directory: Path) -> None:
    (directory / "pki.tar.0000.cms").write_text("another")
    (directory / "snapshot.db.0002.cms").unlink()
    with pytest.raises(BackupError, match=r"pki\.tar\.0000\.cms is damaged.*snapshot\.db\.0002\.cms is missing"):
        read(directory)


def test_manifest_that_leads_out_of_its_directory_is_none(directory: Path) -> None:
    (directory / "manifest.json").write_text(json.dumps(SAID | {"files": {"../secret": "0" * 64}}))
    with pytest.raises(BackupError, match="does not describe a backup"):
        read(directory)


@pytest.mark.parametrize("cut", [0, 1, 32, 512, 544])
def test_snapshot_that_was_cut_is_not_whole(tmp_path: Path, cut: int) -> None:
    body = b"bbolt" * 1024 * 512
    path = tmp_path / "snapshot.db"
    text = body + hashlib.sha256(body).digest()
    path.write_bytes(text[: len(text) - cut])
    assert whole(path) is (cut == 0)


def test_restore_of_one_minor_back_is_taken() -> None:
    manifest = Manifest(**SAID | {"files": {}, "etcd_version": "3.5.24", "kubernetes_version": "v1.36.9"})
    assert unsuitable(manifest, "test", "v1.36.2", "3.6.8", {"cp1": ["sha256:aa"], "cp2": []}) == []


def test_backup_of_the_ca_before_is_taken_while_it_is_rotated_and_no_other() -> None:
    manifest = Manifest(**SAID | {"files": {}})
    known = {"cp1": ["sha256:bb", "sha256:aa"], "cp2": ["sha256:bb"]}
    (found,) = unsuitable(manifest, "test", "v1.36.2", "3.6.8", known)
    assert found.startswith("cp2: holds another CA than the backup's (sha256:aa)")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (["-newkey", "rsa:2048"], None),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], None),
        (["-newkey", "ed25519"], "nothing can be encrypted to its kind of key"),
    ],
)
def test_certificate_of_a_kind_that_openssl_can_encrypt_to_is_taken(
    tmp_path: Path, kind: list[str], words: str | None
) -> None:
    command = ["openssl", "req", "-x509", *kind, "-nodes", "-subj", "/CN=backup", "-keyout", "key", "-out", "crt"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    if words is None:
        assert recipient(tmp_path / "crt") == (tmp_path / "crt").read_text().strip()
    else:
        with pytest.raises(BackupError, match=words):
            recipient(tmp_path / "crt")
    with pytest.raises(BackupError, match="has a private key in it, which would be sent to every control plane"):
        recipient(tmp_path / "key")


def test_what_is_no_certificate_is_said(tmp_path: Path) -> None:
    (tmp_path / "crt").write_text("nothing\n")
    with pytest.raises(BackupError, match=r"no X\.509 certificate in PEM"):
        recipient(tmp_path / "crt")
    with pytest.raises(BackupError, match="cannot be read"):
        recipient(tmp_path / "none")
