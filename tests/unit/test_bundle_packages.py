"""What a build decides about packages without asking an archive: pins of an earlier lock, mirrors, what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import debs, packages
from bundle.catalogue import Release, Repository
from bundle.command import BuildError
from bundle.download import Unavailable
from cluster.lock import File, Lock, Package

RELEASE = Release(
    format="deb", suite="bookworm", sets={"runtime": ("runc",), "time": ("chrony",)}, image_base=("nftables",)
)


def lock(*names: str, platform: str = "linux/amd64") -> Lock:
    """A lock of these packages, and of one of another release."""
    rows = [
        Package(name=name, version="1", architecture="amd64", release=release, file=f"packages/{release}/{name}.deb")
        for release, name in [*(("debian-12", name) for name in names), ("debian-13", "runc")]
    ]
    files = [
        File(path=row.file, size=1, sha256=f"{number:064}", name=row.name, version="1")
        for number, row in enumerate(rows)
    ]
    return Lock(
        format=2, platform=platform, kubernetes_version="v1.36.2", components={}, images=(), packages=tuple(rows),
        package_sets={"debian-12": dict(RELEASE.sets)}, files=tuple(files),
    )  # fmt: skip


def test_packages_of_a_lock_for_the_same_sets_are_pinned_with_their_checksums() -> None:
    found = packages.pins(lock("runc", "chrony", "nftables"), "debian-12", RELEASE, "linux/amd64")
    assert [(row.name, row.file, sha256) for row, sha256 in found.items()] == [
        ("runc", "packages/debian-12/runc.deb", f"{0:064}"),
        ("chrony", "packages/debian-12/chrony.deb", f"{1:064}"),
        ("nftables", "packages/debian-12/nftables.deb", f"{2:064}"),
    ]


@pytest.mark.parametrize(
    ("earlier", "release", "platform"),
    [
        (None, RELEASE, "linux/amd64"),
        (lock("runc", "nftables"), RELEASE.model_copy(update={"sets": {"runtime": ("crun",)}}), "linux/amd64"),
        (lock("runc", "chrony"), RELEASE, "linux/amd64"),
        (lock("runc", "nftables"), RELEASE, "linux/arm64"),
    ],
    ids=["no-lock", "other-sets", "other-image-base", "other-platform"],
)
def test_nothing_is_pinned_once_anything_that_decides_about_the_closure_has_changed(
    earlier: Lock | None, release: Release, platform: str
) -> None:
    assert packages.pins(earlier, "debian-12", release, platform) == {}


@pytest.mark.parametrize(
    ("mirrors", "url"),
    [
        ({}, "http://deb.debian.org/debian bookworm main"),
        ({"debian.org": "x", "deb.debian.org/deb": "x"}, "http://deb.debian.org/debian bookworm main"),
        ({"deb.debian.org": "mirror.example.org"}, "https://mirror.example.org/debian bookworm main"),
        ({"deb.debian.org": "http://10.0.0.1:3142/deb/"}, "http://10.0.0.1:3142/deb/debian bookworm main"),
        (
            {"deb.debian.org": "x", "deb.debian.org/debian": "http://snapshot.debian.org/archive/debian/20250520T000000Z"},
            "http://snapshot.debian.org/archive/debian/20250520T000000Z bookworm main",
        ),
    ],
    ids=["none", "other", "host", "scheme-port-and-path", "snapshot"],
)  # fmt: skip
def test_an_address_takes_the_place_of_a_host_or_of_the_beginning_of_a_path(mirrors: dict[str, str], url: str) -> None:
    assert packages.placed("http://deb.debian.org/debian bookworm main", mirrors) == url


@pytest.mark.parametrize(
    ("url", "mirrors"),
    [("https://me:secret@rpms.example.org/9", {}), ("https://x/9", {"x": "https://me:secret@rpms.example.org"})],
    ids=["own", "mirror"],
)
def test_an_address_with_a_password_is_refused_without_showing_it(url: str, mirrors: dict[str, str]) -> None:
    with pytest.raises(BuildError, match=r"^rpms\.example\.org: its address holds a user or password") as caught:
        packages.placed(url, mirrors)
    assert "secret" not in str(caught.value)


def test_a_release_with_a_suite_is_debians_and_its_own_repositories_come_with_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring, key = tmp_path / "debian.gpg", tmp_path / "k8s.asc"
    keyring.touch()
    key.touch()
    monkeypatch.setattr(debs, "KEYRING", keyring)
    repositories = {"k8s": Repository(url="https://pkgs.k8s.io/core:/stable:/v1.36/deb/ /", key=str(key))}
    release = RELEASE.model_copy(update={"repositories": repositories})
    assert debs.sources(release, {"security.debian.org": "mirror.example.org", "pkgs.k8s.io": "k8s.example.org"}) == [
        ("http://deb.debian.org/debian bookworm main", keyring),
        ("http://deb.debian.org/debian bookworm-updates main", keyring),
        ("https://mirror.example.org/debian-security bookworm-security main", keyring),
        ("https://k8s.example.org/core:/stable:/v1.36/deb/ /", key),
    ]
    assert debs.sources(release.model_copy(update={"suite": ""}), {}) == [
        ("https://pkgs.k8s.io/core:/stable:/v1.36/deb/ /", key)
    ]
    keyring.unlink()
    with pytest.raises(BuildError, match=r"/debian\.gpg, which .* is missing\. Install debian-archive-keyring\.$"):
        debs.sources(release, {})


def test_a_package_manager_that_is_not_there_is_named() -> None:
    with pytest.raises(BuildError, match=r"^packages of rocky-9: there is no no-such-dnf on this machine\. Install it"):
        packages.ask("packages of rocky-9", ["no-such-dnf"], ".", [("", "")])


def test_what_a_package_manager_says_is_cut_to_what_is_wrong_and_what_to_do() -> None:
    script = "echo Reading; echo E: one; echo E: two >&2; echo E: one; exit 100"
    with pytest.raises(BuildError) as caught:
        packages.ask("packages of x", ["sh", "-c", script], "^E:", [("three", "No."), ("two", "Do this."), ("", "No.")])
    assert str(caught.value) == "packages of x: sh exited with 100:\nE: one\nE: two\nDo this."


@pytest.mark.parametrize("todo", [packages.GONE, packages.SILENT], ids=["gone", "silent"])
def test_what_another_archive_may_have_is_unavailable_here(todo: str) -> None:
    script = "echo E: other; echo E: no a; echo E: no b; exit 1"
    with pytest.raises(Unavailable) as caught:
        packages.ask("packages of x", ["sh", "-c", script], "^E:", [("three", "No."), ("no [ab]", todo)])
    assert caught.value.reason == "packages of x: E: no a; E: no b"
    assert str(caught.value) == f"packages of x: E: no a; E: no b. {todo}"
