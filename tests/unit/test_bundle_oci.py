"""Images written into one OCI layout."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bundle import oci

PROXY, FLANNEL, PAUSE = "registry.k8s.io/kube-proxy:v1.36.2", "ghcr.io/flannel-io/flannel:v1", "registry.k8s.io/pause:3"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small root file system, with a link, a directory and modes that matter."""
    root = tmp_path / "root"
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/nft").write_text("nft")
    (root / "usr/sbin/nft").chmod(0o4755)
    (root / "usr/sbin/iptables").symlink_to("xtables-nft-multi")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


def program(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_text(f"program {name}")
    path.chmod(0o755)
    return path


def build(directory: Path, tree: Path) -> Path:
    """A layout of three images, two of which stand on the same base."""
    layout = oci.Layout(directory)
    base = layout.layer({}, tree)
    for name, path in ((PROXY, "/usr/local/bin/kube-proxy"), (FLANNEL, "/opt/bin/flanneld")):
        own = layout.layer({path: program(tree.parent, Path(path).name)})
        layout.image(name, "linux/amd64", [base, own], ["/opt/bin/flanneld"] if name == FLANNEL else [], "")
    layout.image(PAUSE, "linux/amd64", [layout.layer({"/pause": program(tree.parent, "pause")})], ["/pause"], "65535")
    layout.finish()
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def blob(directory: Path, digest: str) -> Path:
    return directory / "blobs" / digest.replace(":", "/")


def document(directory: Path, digest: str) -> Any:
    return json.loads(blob(directory, digest).read_text())


def test_two_builds_of_the_same_files_are_byte_for_byte_the_same(tmp_path: Path, tree: Path) -> None:
    one = content(build(tmp_path / "one", tree))
    for path in (tree / "usr/sbin/nft", tree):
        os.utime(path, (0, 0))
    assert content(build(tmp_path / "two", tree)) == one


def test_a_changed_file_changes_its_image_and_no_other(tmp_path: Path, tree: Path) -> None:
    before = {row["name"]: row["digest"] for row in oci.images(build(tmp_path / "one", tree))}
    (tree / "usr/sbin/nft").write_text("another nft")
    after = {row["name"]: row["digest"] for row in oci.images(build(tmp_path / "two", tree))}
    assert {name for name in before if before[name] != after[name]} == {PROXY, FLANNEL}


def test_every_blob_is_named_by_its_content_and_nothing_else_is_left(tmp_path: Path, tree: Path) -> None:
    layout = build(tmp_path / "layout", tree)
    blobs = list((layout / "blobs/sha256").iterdir())
    assert all(path.name == hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs)
    used = {digest for row in oci.images(layout) for digest in row["blobs"]}
    assert {f"sha256:{path.name}" for path in blobs} == used
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_images_of_a_layout_are_read_with_sizes_and_shared_blobs(tmp_path: Path, tree: Path) -> None:
    layout = build(tmp_path / "layout", tree)
    found = {row["name"]: row for row in oci.images(layout)}
    assert list(found) == [FLANNEL, PROXY, PAUSE]
    for row in found.values():
        assert row["blobs"][0] == row["digest"]
        assert row["size"] == sum(blob(layout, digest).stat().st_size for digest in row["blobs"])
    shared = set(found[PROXY]["blobs"]) & set(found[FLANNEL]["blobs"])
    assert len(shared) == 1
    assert not shared & set(found[PAUSE]["blobs"])


def test_an_image_says_how_it_starts_and_for_which_platform(tmp_path: Path, tree: Path) -> None:
    layout = build(tmp_path / "layout", tree)
    (pause,) = [row for row in json.loads((layout / "index.json").read_text())["manifests"] if "pause" in str(row)]
    assert pause["platform"] == {"architecture": "amd64", "os": "linux"}
    assert pause["annotations"]["org.opencontainers.image.ref.name"] == PAUSE
    manifest = document(layout, pause["digest"])
    config = document(layout, manifest["config"]["digest"])
    assert config["config"] == {
        "Env": [f"PATH={oci.PATH}"],
        "WorkingDir": "/",
        "Entrypoint": ["/pause"],
        "User": "65535",
    }
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 1


def test_layers_are_told_by_what_they_are_when_unpacked(tmp_path: Path, tree: Path) -> None:
    layout = oci.Layout(tmp_path / "layout")
    descriptor, plain = layout.layer({}, tree)
    packed = blob(tmp_path / "layout", descriptor["digest"]).read_bytes()
    assert plain == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"
    assert descriptor["size"] == len(packed)
    assert packed[4:8] == bytes(4), "gzip keeps a date there"


def test_a_layer_has_roots_files_without_dates_parents_first(tmp_path: Path, tree: Path) -> None:
    layout = oci.Layout(tmp_path / "layout")
    descriptor, _ = layout.layer({"/opt/bin/flanneld": program(tmp_path, "flanneld")}, tree)
    with tarfile.open(blob(tmp_path / "layout", descriptor["digest"])) as archive:
        entries = {entry.name: entry for entry in archive.getmembers()}
        flanneld = archive.extractfile("opt/bin/flanneld")
        assert flanneld is not None
        assert flanneld.read() == b"program flanneld"
    assert list(entries) == [
        "opt",
        "opt/bin",
        "opt/bin/flanneld",
        "tmp",
        "usr",
        "usr/sbin",
        "usr/sbin/iptables",
        "usr/sbin/nft",
    ]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}
    assert entries["usr/sbin/iptables"].linkname == "xtables-nft-multi"
    assert entries["opt/bin/flanneld"].mode == 0o755
    assert entries["usr/sbin/nft"].mode == 0o4755
    assert entries["tmp"].mode == 0o1777
    assert (entries["opt/bin"].isdir(), entries["opt/bin"].mode) == (True, 0o755)


def test_a_layout_that_is_not_finished_is_no_layout(tmp_path: Path, tree: Path) -> None:
    layout = oci.Layout(tmp_path / "layout")
    layout.image(PAUSE, "linux/amd64", [layout.layer({}, tree)], [], "")
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        oci.images(tmp_path / "layout")
