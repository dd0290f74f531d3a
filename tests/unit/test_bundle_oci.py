"""Images written into one OCI layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from bundle import oci
from bundle.command import BuildError

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


def unpacked(layer: Path) -> bytes:
    target = io.BytesIO()
    oci.unpack(layer, target)
    return target.getvalue()


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
    packed = blob(tmp_path / "layout", descriptor["digest"])
    assert plain == f"sha256:{hashlib.sha256(unpacked(packed)).hexdigest()}"
    assert descriptor["size"] == packed.stat().st_size
    assert descriptor["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert packed.read_bytes()[:4] == bytes.fromhex("28b52ffd"), "RFC 8878, section 3.1.1"


def test_a_layer_has_roots_files_without_dates_parents_first(tmp_path: Path, tree: Path) -> None:
    layout = oci.Layout(tmp_path / "layout")
    descriptor, _ = layout.layer({"/opt/bin/flanneld": program(tmp_path, "flanneld")}, tree)
    plain = io.BytesIO(unpacked(blob(tmp_path / "layout", descriptor["digest"])))
    with tarfile.open(fileobj=plain) as archive:
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


# More than zstd gives one thread at level 19, 32 MB, and quickly packed.
LARGE = b"".join(number.to_bytes(4, "big") * 4096 for number in range(2200))


def test_threads_do_not_change_a_layers_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    for threads in ("-T1", "-T3"):
        monkeypatch.setattr(oci, "PACK", tuple(threads if word == "-T0" else word for word in oci.PACK))
        packed.append(oci.pack(lambda target: target.write(LARGE), tmp_path / "layer"))
        monkeypatch.undo()
    assert packed[0] == packed[1]
    assert unpacked(tmp_path / "layer") == LARGE


def test_packing_says_how_far_it_is(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    data = bytes(1 << 20)
    oci.pack(
        lambda target: [target.write(data) for _ in range(3)], tmp_path / "layer", lambda *now: said.append(now)
    )  # fmt: skip
    assert said == [(number << 20, 3 << 20) for number in (1, 2, 3)]


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "not at all"])
def test_a_layer_is_unpacked_whatever_it_is_packed_by(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "layer").write_bytes(pack(LARGE[:100_000]))
    target = io.BytesIO()
    digest = oci.unpack(tmp_path / "layer", target)
    assert (target.getvalue(), digest) == (LARGE[:100_000], f"sha256:{hashlib.sha256(LARGE[:100_000]).hexdigest()}")


def test_a_damaged_layer_is_told_in_zstds_words(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(gzip.compress(LARGE)[:1000])
    with pytest.raises(BuildError, match=r"(?s)^`zstd -d .*layer` exited with \d+:\n.*(end|premature)"):
        oci.unpack(tmp_path / "layer", io.BytesIO())


def test_what_fails_while_it_is_packed_fails_the_packing(tmp_path: Path) -> None:
    def fail(target: IO[bytes]) -> None:
        target.write(b"half")
        raise BuildError("the other half is missing")

    with pytest.raises(BuildError, match=r"^the other half is missing$"):
        oci.pack(fail, tmp_path / "layer")


def test_a_writer_that_changes_its_mind_is_found(tmp_path: Path) -> None:
    texts = iter([b"first", b"another"])
    with pytest.raises(BuildError, match=r"(?s)^`zstd -19 .*` exited with \d+:\n"):
        oci.pack(lambda target: target.write(next(texts)), tmp_path / "layer")


def test_a_machine_without_zstd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"^zstd, which images are packed with, is not installed\. Install it\.$"):
        oci.pack(lambda target: target.write(b"x"), tmp_path / "layer")


def test_a_blob_from_elsewhere_is_linked(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"blob")
    layout = oci.Layout(tmp_path / "layout")
    digest = oci.digest_of(tmp_path / "blob")
    layout.take(tmp_path / "blob", digest)
    layout.take(tmp_path / "blob", digest)
    assert blob(tmp_path / "layout", digest).samefile(tmp_path / "blob")


def test_a_blob_from_elsewhere_that_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"blob")
    digest = oci.digest_of(tmp_path / "blob")
    (tmp_path / "blob").write_bytes(b"blub")
    layout = oci.Layout(tmp_path / "layout")
    with pytest.raises(BuildError) as caught:
        layout.take(tmp_path / "blob", digest)
    found = oci.digest_of(tmp_path / "blob")
    assert str(caught.value) == f"{tmp_path}/blob: its digest is {found}, not {digest}: it was damaged or changed."
    assert list(layout.blobs.iterdir()) == []


def test_layouts_become_one(tmp_path: Path, tree: Path) -> None:
    whole = build(tmp_path / "whole", tree)
    parts = []
    for name in (PROXY, FLANNEL, PAUSE):
        part = oci.Layout(tmp_path / name.rpartition("/")[2])
        part.include(whole, [name])
        part.finish()
        parts.append(part.directory)
        assert [row["name"] for row in oci.images(part.directory)] == [name]
    again = oci.Layout(tmp_path / "again")
    for part in reversed(parts):
        again.include(part)
    again.finish()
    assert content(tmp_path / "again") == content(whole)


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64/v8"),
        ({"os": "linux", "architecture": "amd64", "variant": ""}, "linux/amd64"),
        ({}, ""),
    ],
)
def test_a_config_says_its_platform(config: dict[str, str], platform: str) -> None:
    assert oci.platform_of(config) == platform
