"""A bundle against its lock, byte by byte. The bundle is a tiny one made here."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from bundle.verify import HOW, BundleError, read_lock, verify

TEXTS = {"bin/kubeadm": b"kubeadm", "images/blobs/sha256/0f": b"\0\1\2", "packages/debian-12/Packages": b""}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of three files, one of them empty."""
    files = []
    for path, data in TEXTS.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        files.append({"path": path, "size": len(data), "sha256": digest, "name": path, "version": "v1"})
    lock = {"format": 1, "platform": "linux/amd64", "kubernetes_version": "v1.36.2", "components": {}, "images": []}
    (tmp_path / "bundle.lock").write_text(json.dumps({**lock, "packages": [], "package_sets": {}, "files": files}))
    return tmp_path


def test_a_whole_bundle_is_whole(bundle: Path) -> None:
    assert verify(bundle) == []
    assert read_lock(bundle).kubernetes_version == "v1.36.2"


def test_a_flipped_bit_is_found(bundle: Path) -> None:
    path = bundle / "images/blobs/sha256/0f"
    path.write_bytes(b"\0\1\3")
    found, wanted = (hashlib.sha256(data).hexdigest() for data in (b"\0\1\3", b"\0\1\2"))
    assert verify(bundle) == [f"{path}: sha256 is {found}, bundle.lock says {wanted}: it was damaged or changed. {HOW}"]


@pytest.mark.parametrize("data", [b"kube", b"", b"kubeadm and more"], ids=["short", "empty", "long"])
def test_a_file_of_another_size_is_found(bundle: Path, data: bytes) -> None:
    (bundle / "bin/kubeadm").write_bytes(data)
    assert verify(bundle) == [f"{bundle}/bin/kubeadm: has {len(data)} bytes, bundle.lock says 7. {HOW}"]


def test_a_missing_file_is_found(bundle: Path) -> None:
    (bundle / "bin/kubeadm").unlink()
    assert verify(bundle) == [f"{bundle}/bin/kubeadm: is missing. {HOW}"]


def test_a_directory_in_a_files_place_is_found(bundle: Path) -> None:
    (bundle / "bin/kubeadm").unlink()
    (bundle / "bin/kubeadm").mkdir()
    assert verify(bundle) == [f"{bundle}/bin/kubeadm: is missing. {HOW}"]


def test_a_file_that_is_not_locked_is_found(bundle: Path) -> None:
    (bundle / "bin/kubectl").write_text("x")
    (bundle / "empty").mkdir()
    assert verify(bundle) == [f"{bundle}/bin/kubectl: is not in bundle.lock. Remove it; nothing uses it."]


def test_a_pipe_that_is_not_locked_is_found_and_not_read(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")
    assert verify(bundle) == [f"{bundle}/pipe: is not in bundle.lock. Remove it; nothing uses it."]


def test_a_link_in_a_files_place_is_found_whatever_it_leads_to(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    (bundle / "bin/kubeadm").rename(elsewhere)
    (bundle / "bin/kubeadm").symlink_to(elsewhere)
    found = verify(bundle)
    assert found[0] == f"{bundle}/bin/kubeadm: is missing. {HOW}"
    assert f"{bundle}/bin/kubeadm: is not in bundle.lock. Remove it; nothing uses it." in found[1:]


def test_a_link_in_a_directorys_place_is_found(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    (bundle / "bin").rename(elsewhere)
    (bundle / "bin").symlink_to(elsewhere)
    assert any(line.startswith(f"{bundle}/bin: is ") for line in verify(bundle))


def test_every_problem_is_found_at_once(bundle: Path) -> None:
    (bundle / "bin/kubeadm").unlink()
    (bundle / "images/blobs/sha256/0f").write_bytes(b"")
    (bundle / "other").write_text("x")
    assert len(verify(bundle)) == 3


def test_a_directory_without_a_lock_is_no_bundle(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(BundleError) as caught:
            verify(directory)
        assert str(caught.value) == f"{directory}/bundle.lock: there is no bundle here. {HOW}"


def test_a_file_in_a_bundles_place_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="there is no bundle here"):
        read_lock(tmp_path / "file")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"format": 1', "Invalid JSON"),
        (b"\xff\xfe", "codec can't decode"),
        (b'{"format": 2}', "Input should be 1"),
        (b"", "Invalid JSON"),
    ],
    ids=["cut", "binary", "other-format", "empty"],
)
def test_a_damaged_lock_is_refused(bundle: Path, data: bytes, words: str) -> None:
    (bundle / "bundle.lock").write_bytes(data)
    with pytest.raises(BundleError) as caught:
        verify(bundle)
    said = str(caught.value)
    assert said.startswith(f"{bundle}/bundle.lock: cannot be read as a lock of format 1: ")
    assert words in said
    assert said.endswith(HOW)


def test_a_lock_that_leads_out_of_the_bundle_is_refused(bundle: Path) -> None:
    text = (bundle / "bundle.lock").read_text().replace('"path": "bin/kubeadm"', '"path": "../kubeadm"')
    (bundle / "bundle.lock").write_text(text)
    with pytest.raises(BundleError, match="must be a relative path"):
        verify(bundle)


def test_a_directory_in_the_locks_place_is_refused(bundle: Path) -> None:
    (bundle / "bundle.lock").unlink()
    (bundle / "bundle.lock").mkdir()
    with pytest.raises(BundleError, match=r"cannot be read as a lock of format 1: .*Is a directory"):
        verify(bundle)
