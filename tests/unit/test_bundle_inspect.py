"""What is in a bundle, and what differs between two: pure, from small locks written here."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from bundle.compare import Change, difference, show
from bundle.inspect import Amount, Share, directories, licences, shares, size_text, sources, tree
from cluster.lock import File, Image, Lock, Package

URL = "https://dl.k8s.io/release/{}/bin/linux/amd64/{}"
GO = "go:sigs.k8s.io/cri-tools/cmd/crictl@v1.36.0 go1.26.6 linux/amd64"
BASE = "0" * 64
DEB = "packages/debian-12/{}_{}_amd64.deb"


def digest(sign: str) -> str:
    return (sign * 64)[:64]


def file(path: str, size: int, sha256: str, version: str = "-", source: str = "", licence: str = "") -> File:
    name = path.rpartition("/")[2]
    return File(path=path, size=size, sha256=sha256, name=name, version=version, source=source, licence=licence)


def blob(sha256: str, size: int) -> File:
    return file(f"images/blobs/sha256/{sha256}", size, sha256, licence="Apache-2.0")


def image(name: str, *blobs: str, origin: str | None = None) -> Image:
    names = tuple(f"sha256:{each}" for each in blobs)
    return Image(name=name, digest=names[0], size=1, blobs=names, origin=f"sha256:{origin}" if origin else None)


def package(name: str, version: str) -> Package:
    path = DEB.format(name, version)
    return Package(name=name, version=version, architecture="amd64", release="debian-12", file=path)


def make(version: str, kubeadm: str, proxy: str, runc: str, **more: Any) -> Lock:
    """A bundle of two images over one base layer, two programs, two packages; the arguments tell its content."""
    values = {
        "format": 2, "platform": "linux/amd64", "kubernetes_version": version,
        "components": {"kubernetes": version, "crictl": "v1.36.0"},
        "images": (
            image(f"registry.k8s.io/kube-proxy:{version}", digest(proxy), BASE, origin=digest("9")),
            image("ghcr.io/flannel-io/flannel:v0.28.4", digest("f"), BASE),
        ),
        "packages": (package("runc", runc), package("curl", "7.88.1")),
        "package_sets": {"debian-12": {"base": ("curl",), "runtime": ("runc",)}},
        "files": (
            file("bin/crictl", 28_000_000, digest("c"), "v1.36.0", GO, "Apache-2.0"),
            file("bin/kubeadm", 70_000_000, digest(kubeadm), version, URL.format(version, "kubeadm"), "Apache-2.0"),
            blob(digest(proxy), 20_000_000), blob(digest("f"), 15_000_000), blob(BASE, 12_000_000),
            file("images/index.json", 3913, digest(proxy + "1")),
            file(DEB.format("runc", runc), 2_900_000, digest(runc[-1] + "2"), runc, licence="Apache-2.0 AND MIT"),
            file(DEB.format("curl", "7.88.1"), 315_800, digest("e"), "7.88.1", licence="curl"),
        ),
    }  # fmt: skip
    return Lock.model_validate({**values, **more})


OLD = make("v1.36.1", kubeadm="a", proxy="5", runc="1.1.5")
NEW = make("v1.36.2", kubeadm="b", proxy="6", runc="1.1.6")
EMPTY = Lock(
    format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=(), packages=(),
    package_sets={}, files=(),
)  # fmt: skip


def printed(what: RenderableType, width: int = 100) -> list[str]:
    """Lines of what a pipe gets, without the spaces that fill them."""
    output = io.StringIO()
    Console(file=output, width=width).print(what)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert max(len(line) for line in lines) <= width
    assert "\x1b" not in output.getvalue()
    return lines


def section(lines: list[str], title: str) -> list[str]:
    start = lines.index(title) + 1
    return lines[start : lines.index("", start)] if "" in lines[start:] else lines[start:]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (579_910_191, "579.9 MB"),
        (2e9, "2.0 GB"), (999_960, "1.0 MB"),
    ],
)  # fmt: skip
def test_a_number_of_bytes_in_words(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_directory_has_what_is_below_it() -> None:
    found = directories(OLD)
    assert found["."] == Amount(8, 148_219_713)
    assert found["bin"] == Amount(2, 98_000_000)
    assert found["images"] == Amount(4, 47_003_913)
    assert found["images/blobs"] == found["images/blobs/sha256"] == Amount(3, 47_000_000)


def test_a_layer_of_two_images_is_shared() -> None:
    assert shares(OLD) == {
        "registry.k8s.io/kube-proxy:v1.36.1": Share(own=20_000_000, shared=12_000_000),
        "ghcr.io/flannel-io/flannel:v0.28.4": Share(own=15_000_000, shared=12_000_000),
    }


def test_a_layer_that_an_image_has_twice_is_its_own_and_counted_once() -> None:
    lock = OLD.model_copy(update={"images": (image("pause:1", digest("f"), BASE, BASE),)})
    assert shares(lock) == {"pause:1": Share(own=27_000_000, shared=0)}


def test_files_by_licence_and_by_source() -> None:
    assert licences(OLD) == {
        "Apache-2.0": Amount(5, 145_000_000),
        "Apache-2.0 AND MIT": Amount(1, 2_900_000),
        "curl": Amount(1, 315_800),
        "not said": Amount(1, 3913),
    }
    assert sources(OLD) == {
        "dl.k8s.io": Amount(1, 70_000_000),
        "not said": Amount(6, 50_219_713),
        "built with go1.26.6 linux/amd64": Amount(1, 28_000_000),
    }


def test_a_bundle_is_shown_whole() -> None:
    lines = printed(tree(OLD))
    assert lines[0] == "Kubernetes v1.36.1 for linux/amd64: 2 images, 2 packages, 8 files, 148.2 MB"
    assert section(lines, "Directories") == [
        "bundle/  8 files, 148.2 MB",
        "├── bin/  2 files, 98.0 MB",
        "├── images/  4 files, 47.0 MB",
        "│   └── blobs/  3 files, 47.0 MB",
        "│       └── sha256/  3 files, 47.0 MB",
        "└── packages/  2 files, 3.2 MB",
        "    └── debian-12/  2 files, 3.2 MB",
    ]
    assert section(lines, "Programs and other files") == [
        "file         version     size  licence",
        "bin/crictl   v1.36.0  28.0 MB  Apache-2.0",
        "bin/kubeadm  v1.36.1  70.0 MB  Apache-2.0",
    ]
    assert section(lines, "Images: bytes of their own, shared with others; digest here and where from") == [
        "ghcr.io/flannel-io/flannel:v0.28.4",
        "     27.0 MB, own  15.0 MB, shared  12.0 MB, ffffffffffff, made here",
        "registry.k8s.io/kube-proxy:v1.36.1",
        "     32.0 MB, own  20.0 MB, shared  12.0 MB, 555555555555, from 999999999999",
    ]
    assert section(lines, "Packages of debian-12") == [
        "2 files, 3.2 MB; asked for are, and the rest is what they need:",
        "base: curl",
        "runtime: runc",
        "package  version  architecture      size",
        "curl     7.88.1   amd64         315.8 kB",
        "runc     1.1.5    amd64           2.9 MB",
    ]
    assert section(lines, "Added by the site") == ["nothing"]
    assert section(lines, "Programs and other files are from") == [
        GO,
        "    bin/crictl",
        "https://dl.k8s.io/release/v1.36.1/bin/linux/amd64/kubeadm",
        "    bin/kubeadm",
    ]
    assert section(lines, "Licences")[:2] == [
        "licence             files      size",
        "Apache-2.0              5  145.0 MB",
    ]


def test_what_the_site_has_added_is_shown_as_it_is_written() -> None:
    lines = printed(tree(OLD.model_copy(update={"extras": ("files/[bold]site.conf", "example.org/app:1")})))
    assert section(lines, "Added by the site") == ["files/[bold]site.conf", "example.org/app:1"]


def test_no_reference_of_an_image_is_broken_in_a_narrow_pipe() -> None:
    name = "registry.k8s.io/e2e-test-images/kube-controller-manager:v1.36.2"
    lock = OLD.model_copy(update={"images": (image(name, digest("f"), origin=digest("8")),)})
    assert name in printed(tree(lock), width=80)


def test_an_empty_bundle_is_shown() -> None:
    lines = printed(tree(EMPTY))
    assert lines[0] == "Kubernetes v1.36.2 for linux/amd64: 0 images, 0 packages, 0 files, 0 B"


def test_a_bundle_does_not_differ_from_itself() -> None:
    found = difference(OLD, OLD)
    assert found.empty
    assert found.carried == 0
    assert printed(show(found)) == ["Nothing differs: both bundles have the same 148.2 MB. Nothing must be carried."]


def test_a_patch_upgrade_is_told_by_what_people_know() -> None:
    found = difference(OLD, NEW)
    assert found.settings == (
        Change("Kubernetes", "v1.36.1", "v1.36.2"),
        Change("component kubernetes", "v1.36.1", "v1.36.2"),
    )
    assert found.images == (Change("registry.k8s.io/kube-proxy", "v1.36.1", "v1.36.2"),)
    assert found.packages == (Change("debian-12: runc (amd64)", "1.1.5", "1.1.6"),)
    assert [file.path for file in found.added] == [
        f"images/blobs/sha256/{digest('6')}",
        DEB.format("runc", "1.1.6"),
    ]
    assert [file.path for file in found.removed] == [
        f"images/blobs/sha256/{digest('5')}",
        DEB.format("runc", "1.1.5"),
    ]
    assert [(old.version, new.version, new.path) for old, new in found.changed] == [
        ("v1.36.1", "v1.36.2", "bin/kubeadm"),
        ("-", "-", "images/index.json"),
    ]
    assert found.carried == 70_000_000 + 20_000_000 + 3913 + 2_900_000
    assert found.total == 148_219_713


def test_a_patch_upgrade_is_shown() -> None:
    assert printed(show(difference(OLD, NEW))) == [
        "   Bundle                old      new",
        "~  Kubernetes            v1.36.1  v1.36.2",
        "~  component kubernetes  v1.36.1  v1.36.2",
        "",
        "   Images                      old      new",
        "~  registry.k8s.io/kube-proxy  v1.36.1  v1.36.2",
        "",
        "   Packages                 old    new",
        "~  debian-12: runc (amd64)  1.1.5  1.1.6",
        "",
        "   Other files        old           new",
        "~  bin/kubeadm        v1.36.1       v1.36.2",
        "~  images/index.json  515151515151  616161616161",
        "",
        "To carry: 92.9 MB of 148.2 MB; the old bundle has the rest, under whatever name.",
    ]


def test_two_bundles_with_nothing_in_common() -> None:
    found = difference(EMPTY, OLD)
    assert found.images == (
        Change("ghcr.io/flannel-io/flannel", "", "v0.28.4"),
        Change("registry.k8s.io/kube-proxy", "", "v1.36.1"),
    )
    assert [change.new for change in found.packages] == ["7.88.1", "1.1.5"]
    assert found.added == OLD.files
    assert not (found.removed or found.changed)
    assert found.carried == found.total == 148_219_713
    back = difference(OLD, EMPTY)
    assert back.removed == OLD.files
    assert back.images == tuple(Change(change.name, change.new, "") for change in found.images)
    assert back.carried == back.total == 0
    assert "-  registry.k8s.io/kube-proxy  v1.36.1  -" in printed(show(back))
    assert "+  bin/kubeadm        -    v1.36.1" in printed(show(found))


def test_bytes_that_the_old_bundle_has_under_another_name_are_not_carried() -> None:
    moved = OLD.files[1].model_copy(update={"path": "bin/other"})
    new = OLD.model_copy(update={"files": (OLD.files[0], moved, *OLD.files[2:])})
    found = difference(OLD, new)
    assert ([file.path for file in found.added], found.carried) == (["bin/other"], 0)


def test_the_same_bytes_twice_are_carried_once() -> None:
    twice = tuple(file(f"bin/{name}", 10, digest("7")) for name in ("one", "two"))
    assert difference(EMPTY, EMPTY.model_copy(update={"files": twice})).carried == 10


def test_an_image_that_was_made_anew_under_its_old_tag_is_told_by_its_digests() -> None:
    new = OLD.model_copy(update={"images": (OLD.images[0], image("ghcr.io/flannel-io/flannel:v0.28.4", digest("d")))})
    words = Change("ghcr.io/flannel-io/flannel", "v0.28.4 (ffffffffffff)", "v0.28.4 (dddddddddddd)")
    assert difference(OLD, new).images == (words,)


def test_a_file_that_was_made_anew_under_its_old_version_is_told_by_its_digests() -> None:
    files = [each.model_copy(update={"sha256": digest("d")}) if each.name == "crictl" else each for each in OLD.files]
    lines = printed(show(difference(OLD, OLD.model_copy(update={"files": tuple(files)}))))
    assert "~  bin/crictl   v1.36.0 (cccccccccccc)  v1.36.0 (dddddddddddd)" in lines


def test_a_registrys_port_is_no_tag() -> None:
    old, new = (
        EMPTY.model_copy(update={"images": tuple(image(name, digest("d")) for name in names)})
        for names in ((), ("localhost:5000/app", "localhost:5000/app:2"))
    )
    assert difference(old, new).images == (Change("localhost:5000/app", "", "2, untagged"),)


def test_what_the_site_asks_for_is_compared() -> None:
    sets = {"debian-12": {"base": ("curl", "socat"), "runtime": ("runc",)}}
    found = difference(OLD, OLD.model_copy(update={"package_sets": sets, "extras": ("files/site.conf",)}))
    assert found.settings == (
        Change("added by the site", "", "files/site.conf"),
        Change("packages asked for, debian-12: base", "", "socat"),
    )
