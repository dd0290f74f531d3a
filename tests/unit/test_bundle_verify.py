"""A bundle against its lock, byte by byte. The bundle is a tiny one made here; its signature has tests of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.verify import HOW, BundleError, contradictions, read_lock, verify
from cluster.lock import Lock

BLOB = f"images/blobs/sha256/{hashlib.sha256(bytes(3)).hexdigest()}"
TEXTS = {"bin/kubeadm": b"kubeadm", BLOB: bytes(3), "packages/debian-12/Packages": b""}


def file(path: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"path": path, "size": len(data), "sha256": digest, "name": path, "version": "v1"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of three files, one of them empty."""
    files = []
    for path, data in TEXTS.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        files.append(file(path, data))
    lock = {"format": 2, "platform": "linux/amd64", "kubernetes_version": "v1.36.2", "components": {}, "images": []}
    (tmp_path / "bundle.lock").write_text(json.dumps({**lock, "packages": [], "package_sets": {}, "files": files}))
    return tmp_path


def test_a_whole_bundle_is_whole(bundle: Path) -> None:
    assert verify(bundle) == []
    assert read_lock(bundle).kubernetes_version == "v1.36.2"


def test_a_flipped_bit_is_found(bundle: Path) -> None:
    path = bundle / BLOB
    path.write_bytes(b"\0\0\4")
    found, wanted = (hashlib.sha256(data).hexdigest() for data in (b"\0\0\4", bytes(3)))
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


def make_socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may have 108 bytes only
    os.close(here)


def make_link(path: Path) -> None:
    path.symlink_to("kubelet")


def strange(path: Path, what: str) -> str:
    return f"{path}: is {what}; a bundle has files and directories alone. {HOW}"


KINDS: list[tuple[Callable[[Path], None], str]] = [
    (lambda path: os.mkfifo(path), "a pipe"), (make_socket, "a socket"), (make_link, "a symbolic link"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "what"), KINDS, ids=["pipe", "socket", "link"])
@pytest.mark.parametrize("path", ["bin/kubeadm", "bin/other"], ids=["locked", "not-locked"])
def test_what_is_no_file_is_found_and_not_opened(
    bundle: Path, path: str, make: Callable[[Path], None], what: str
) -> None:
    (bundle / path).unlink(missing_ok=True)
    make(bundle / path)
    assert verify(bundle) == [strange(bundle / path, what)]


def test_a_link_in_a_files_place_is_found_though_it_leads_to_the_right_bytes(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    (bundle / "bin/kubeadm").rename(elsewhere)
    (bundle / "bin/kubeadm").symlink_to(elsewhere)
    assert verify(bundle) == [strange(bundle / "bin/kubeadm", "a symbolic link")]


def test_a_link_in_a_directorys_place_is_found_though_it_leads_to_the_right_files(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    (bundle / "bin").rename(elsewhere)
    (bundle / "bin").symlink_to(elsewhere)
    assert verify(bundle) == [
        f"{bundle}/bin/kubeadm: is missing. {HOW}",
        strange(bundle / "bin", "a symbolic link"),
    ]


@pytest.mark.parametrize("name", ["bundle.lock", "bundle.lock.sig"])
def test_a_link_in_the_place_of_lock_or_signature_is_found(bundle: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    elsewhere.write_bytes((bundle / "bundle.lock").read_bytes())
    (bundle / name).unlink(missing_ok=True)
    (bundle / name).symlink_to(elsewhere)
    if name == "bundle.lock":
        with pytest.raises(BundleError, match=r"format 2: it is a symbolic link, not a file\. Build it"):
            verify(bundle)
    else:
        assert verify(bundle) == [strange(bundle / name, "a symbolic link")]


def test_a_pipe_in_the_locks_place_does_not_hold_up(bundle: Path) -> None:
    (bundle / "bundle.lock").unlink()
    os.mkfifo(bundle / "bundle.lock")
    with pytest.raises(BundleError, match="format 2: it is a pipe, not a file"):
        verify(bundle)


def test_a_lock_of_endless_size_is_not_read(bundle: Path) -> None:
    os.truncate(bundle / "bundle.lock", 1 << 40)  # takes no room on the disk
    with pytest.raises(BundleError, match=r"it has 1099511627776 bytes, and at most 67108864 are read"):
        verify(bundle)


def test_a_bundle_may_lie_behind_a_link_and_share_its_files(bundle: Path, tmp_path: Path) -> None:
    beside = tmp_path.with_name(f"{tmp_path.name}-beside")
    os.link(bundle / "bin/kubeadm", f"{beside}-file")
    beside.symlink_to(bundle)
    assert verify(beside) == []


def test_a_signature_is_a_known_file(bundle: Path) -> None:
    (bundle / "bundle.lock.sig").write_text("of no interest without a public key")
    assert verify(bundle) == []


def test_a_name_that_would_command_the_terminal_is_shown_and_not_obeyed(bundle: Path) -> None:
    Path(os.fsdecode(os.fsencode(bundle) + b"/\x1b[2J\xff")).write_text("x")
    assert verify(bundle) == [f"{bundle}/\\x1b[2J\\udcff: is not in bundle.lock. Remove it; nothing uses it."]


def test_a_disk_that_gives_no_bytes_is_told_of(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def broken(path: Any, *flags: Any, **more: Any) -> int:
        if Path(path).name == "kubeadm":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(path, *flags, **more)

    monkeypatch.setattr(os, "open", broken)
    assert verify(bundle) == [f"{bundle}/bin/kubeadm: cannot be read: Input/output error. {HOW}"]


def test_every_problem_is_found_at_once(bundle: Path) -> None:
    (bundle / "bin/kubeadm").unlink()
    (bundle / BLOB).write_bytes(b"")
    (bundle / "other").write_text("x")
    assert len(verify(bundle)) == 3


def test_problems_come_in_the_locks_order_however_many_hash(bundle: Path) -> None:
    paths = [f"many/{number}" for number in reversed(range(100))]
    (bundle / "many").mkdir()
    for path in paths:
        (bundle / path).write_bytes(bytes(100_000 if path.endswith("0") else 1))
    text = json.loads((bundle / "bundle.lock").read_text())
    text["files"] = [{**file(path, (bundle / path).read_bytes()), "sha256": "0" * 64} for path in paths]
    text["files"] += [file(path, data) for path, data in TEXTS.items()]
    (bundle / "bundle.lock").write_text(json.dumps(text))
    found = verify(bundle)
    assert [line.partition(": ")[0] for line in found] == [f"{bundle}/{path}" for path in paths]
    assert found == verify(bundle)


def test_it_is_reported_how_many_bytes_are_read(bundle: Path) -> None:
    data = bytes(2_500_000)
    text = json.loads((bundle / "bundle.lock").read_text())
    text["files"].append(file("bin/kubelet", data))
    (bundle / "bundle.lock").write_text(json.dumps(text))
    (bundle / "bin/kubelet").write_bytes(data)
    said: list[str] = []
    assert verify(bundle, report=said.append) == []
    assert said[-1] == "3 of 3 MB"  # 2.500010 of them
    assert {"1 of 3 MB", "2 of 3 MB"} <= set(said)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lock(**changes: Any) -> Lock:
    """A lock of one image with a manifest and a layer, and one package; true unless changed."""
    image = {"name": "pause:1", "digest": f"sha256:{sha('manifest')}", "size": 1}
    package = {"name": "runc", "version": "1", "architecture": "amd64", "release": "debian-12", "file": "runc.deb"}
    parts = [f"images/blobs/sha256/{sha(name)}" for name in ("manifest", "layer")]
    text = {
        "format": 2, "platform": "linux/amd64", "kubernetes_version": "v1", "components": {},
        "images": [{**image, "blobs": [f"sha256:{sha('manifest')}", f"sha256:{sha('layer')}"]}],
        "packages": [package], "package_sets": {},
        "files": [{**file(path, b""), "sha256": path[-64:]} for path in parts] + [file("runc.deb", b"")],
    }  # fmt: skip
    return Lock.model_validate(text | changes)


def test_a_true_lock_has_no_contradictions() -> None:
    assert contradictions(lock()) == []


def test_two_images_of_one_name_are_found() -> None:
    image = lock().images[0]
    assert contradictions(lock(images=[image, image, image])) == ["has 3 images of the name pause:1"]


def test_an_image_whose_manifest_is_none_of_its_blobs_is_found() -> None:
    image = {**lock().images[0].model_dump(), "digest": "sha256:" + "0" * 64}
    words = f"pause:1 has no blob sha256:{'0' * 64}, which is its manifest"
    assert contradictions(lock(images=[image])) == [words]


def test_a_blob_that_is_none_of_the_files_is_found() -> None:
    words = f"pause:1 has the blob sha256:{sha('layer')}, which is none of the files"
    assert contradictions(lock(files=[each for each in lock().files if sha("layer") not in each.path])) == [words]


def test_a_blob_whose_digest_is_not_its_name_is_found() -> None:
    files = [
        each.model_copy(update={"sha256": sha("other")} if sha("layer") in each.path else {}) for each in lock().files
    ]
    words = f"images/blobs/sha256/{sha('layer')} has the digest sha256:{sha('other')}, which is not its name"
    assert contradictions(lock(files=files)) == [words]


def test_a_package_whose_file_is_none_of_the_files_is_found() -> None:
    words = "the package runc is in runc.deb, which is none of the files"
    assert contradictions(lock(files=lock().files[:2])) == [words]


def test_contradictions_are_told_by_verify(bundle: Path) -> None:
    text = json.loads((bundle / "bundle.lock").read_text())
    package = lock().packages[0].model_dump()
    (bundle / "bundle.lock").write_text(json.dumps({**text, "packages": [package]}))
    words = f"{bundle}/bundle.lock: the package runc is in runc.deb, which is none of the files. {HOW}"
    assert verify(bundle) == [words]


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
        (b'{"format": 2', "Invalid JSON"),
        (b"\xff\xfe", "codec can't decode"),
        (b'{"format": 3}', "Input should be 2"),
        (b"", "Invalid JSON"),
    ],
    ids=["cut", "binary", "other-format", "empty"],
)
def test_a_damaged_lock_is_refused(bundle: Path, data: bytes, words: str) -> None:
    (bundle / "bundle.lock").write_bytes(data)
    with pytest.raises(BundleError) as caught:
        verify(bundle)
    said = str(caught.value)
    assert said.startswith(f"{bundle}/bundle.lock: cannot be read as a lock of format 2: ")
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
    with pytest.raises(BundleError, match="cannot be read as a lock of format 2: it is a directory, not"):
        verify(bundle)
