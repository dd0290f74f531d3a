"""RPM packages by dnf itself, from a signed repository on loopback: fetched, locked, and given to dnf again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import Key, Served, flip, make_key, run, serve, tree

from bundle import cache, packages, repository_key, rpms
from bundle.catalogue import Release, Repository
from bundle.command import BuildError
from bundle.download import Unavailable
from cluster.lock import Package
from facts.package import Packages, PackageState
from operations import package

NAME, PLATFORM = "rocky-9", "linux/amd64"
SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: 1
Summary: one of a test
License: MIT
BuildArch: noarch
{more}
%description
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo '{text}' > %{{buildroot}}/usr/share/{name}/version
%files
/usr/share/{name}
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Key, Key]]:
    """The key of the repository, and one of somebody else."""
    with make_key(tmp_path_factory.mktemp("key")) as right, make_key(tmp_path_factory.mktemp("key")) as other:
        yield right, other


@pytest.fixture(scope="module", autouse=True)
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A builder's key of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository_key, "DIRECTORY", tmp_path_factory.mktemp("builder") / "repository-key")
        yield


@dataclass
class Archive:
    """A repository of RPM packages that is served, and what a catalogue says of it."""

    root: Path
    key: Key
    served: Served

    def add(
        self, name: str, version: str, *fields: str, epoch: int = 0, text: str = "", key: Key | None = None
    ) -> None:
        """Build and sign a package that holds one file; it is in the repository once that is indexed."""
        work = self.root.parent / "rpmbuild"
        work.mkdir(exist_ok=True)
        spec = work / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, epoch=epoch, version=version, more="\n".join(fields), text=text))
        # This machine's own database of packages, and its macros, are left alone.
        own = ("--define", f"_dbpath {work}/db", "--define", f"_topdir {work}", "--define", f"_rpmdir {self.root}")
        flat = ("--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm")
        run("rpmbuild", "-bb", "--quiet", *own, *flat, spec)
        home = (key or self.key).home
        gpg = ("--define", "__gpg /usr/bin/gpg", "--define", f"_gpg_path {home}", "--define", "_gpg_name an archive")
        run("rpmsign", *own, *gpg, "--addsign", self.root / f"{name}-{version}-1.noarch.rpm")

    def index(self, key: Key | None = None) -> None:
        shutil.rmtree(self.root / "repodata", ignore_errors=True)
        run("createrepo_c", "--quiet", self.root)
        repomd = self.root / "repodata/repomd.xml"
        (key or self.key).detach_sign(repomd, self.root / "repodata/repomd.xml.asc")

    def release(self, url: str = "") -> Release:
        return Release(
            format="rpm",
            repositories={"test": Repository(url=url or self.served.url, key=str(self.key.public))},
            sets={"base": ("app",), "load_balancer": ("proxy", "app")},
        )

    def repository(self, pins: Mapping[Package, str] | None = None, url: str = "") -> Path:
        return rpms.repository(NAME, self.release(url), PLATFORM, {}, pins or {})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Key, Key], builder: None) -> tuple[Path, Path]:
    """A repository of five packages, of which four are the closure of what is wanted, and the one made of it."""
    directory = tmp_path_factory.mktemp("template")
    root = directory / "archive"
    root.mkdir()
    with serve(root) as served, pytest.MonkeyPatch.context() as patch:
        without_proxy(patch)
        patch.setattr(cache, "ROOT", directory / "cache")
        made = Archive(root, keys[0], served)
        made.add("lib", "2.0", epoch=1)
        made.add("app", "1.0", "Requires: lib >= 1:1", "Recommends: other")
        made.add("proxy", "2.6")
        made.add("other", "9")
        made.add(rpms.VERSIONLOCK, "4.3")
        made.index()
        return root, made.repository()


def without_proxy(patch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        patch.delenv(name, raising=False)
        patch.delenv(name.upper(), raising=False)


@pytest.fixture
def archive(
    tmp_path: Path, keys: tuple[Key, Key], template: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archive]:
    """The archive, served; the cache is empty."""
    without_proxy(monkeypatch)
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    root = shutil.copytree(template[0], tmp_path / "archive")
    with serve(root) as served:
        yield Archive(root, keys[0], served)


def pins(repository: Path) -> dict[Package, str]:
    """What a lock of a bundle with this repository says of its packages."""
    sha256 = packages.digests(repository, ".rpm")
    return {row: sha256[row.file.rpartition("/")[2]] for row in rpms.listed(repository, NAME)}


def forget() -> None:
    shutil.rmtree(cache.ROOT)


def test_the_closure_is_what_is_wanted_all_it_needs_and_the_plugin_that_holds(archive: Archive) -> None:
    made = archive.repository()
    rows = rpms.listed(made, NAME)
    assert sorted((row.name, row.version, row.architecture, row.file) for row in rows) == [
        ("app", "1.0-1", "noarch", "packages/rocky-9/app-1.0-1.noarch.rpm"),
        ("lib", "1:2.0-1", "noarch", "packages/rocky-9/lib-2.0-1.noarch.rpm"),
        ("proxy", "2.6-1", "noarch", "packages/rocky-9/proxy-2.6-1.noarch.rpm"),
        (rpms.VERSIONLOCK, "4.3-1", "noarch", f"packages/rocky-9/{rpms.VERSIONLOCK}-4.3-1.noarch.rpm"),
    ]
    others = {path.name for path in made.iterdir()} - {row.file.rpartition("/")[2] for row in rows}
    assert others == {"repodata", "repository.asc", "key-test.asc"}
    assert (made / "key-test.asc").read_bytes() == archive.key.public.read_bytes()


def test_a_second_build_from_the_same_lock_has_the_same_bytes_whatever_is_new(archive: Archive) -> None:
    first = archive.repository()
    before, locked = tree(first), pins(first)
    forget()
    archive.add("app", "1.1", "Requires: lib")
    archive.add("lib", "3.0", epoch=1)
    archive.index()
    assert tree(archive.repository(locked)) == before
    newest = {row.name: row.version for row in rpms.listed(archive.repository(), NAME)}
    assert (newest["app"], newest["lib"]) == ("1.1-1", "1:3.0-1")


def test_packages_that_are_pinned_and_in_the_cache_need_no_archive(archive: Archive) -> None:
    first = archive.repository()
    archive.served.asked.clear()
    assert archive.repository(pins(first)) == first
    assert archive.served.asked == []


def test_versions_that_the_repository_has_no_longer_are_named(archive: Archive) -> None:
    locked = pins(archive.repository())
    forget()
    for name in ("app-1.0", "proxy-2.6"):
        (archive.root / f"{name}-1.noarch.rpm").unlink()
    archive.add("app", "1.1", "Requires: lib")
    archive.index()
    with pytest.raises(Unavailable) as caught:
        archive.repository(locked)
    missing = "Error: Unable to find a match: app-1.0-1.noarch proxy-2.6-1.noarch"
    assert caught.value.reason == f"packages of rocky-9: {missing}"
    said = str(caught.value)
    assert "`python3 tasks.py bundle build --update` takes present versions" in said
    assert list(cache.ROOT.iterdir()) == []


def test_other_bytes_under_a_pinned_version_are_refused(archive: Archive) -> None:
    locked = pins(archive.repository())
    forget()
    archive.add("app", "1.0", "Requires: lib >= 1:1", text="not what it was")
    archive.index()
    words = r"^packages of rocky-9: what was fetched is not what bundle\.lock has: app-1\.0-1\.noarch\.rpm\. The same "
    with pytest.raises(BuildError, match=words):
        archive.repository(locked)


def test_a_package_that_is_not_as_the_repository_signed_it_is_refused(archive: Archive) -> None:
    flip(archive.root / "app-1.0-1.noarch.rpm")
    with pytest.raises(BuildError, match=r"checksum doesn't match") as caught:
        archive.repository()
    assert "What came is not what the archive's signed index says" in str(caught.value)


def test_a_package_that_another_has_signed_is_refused(archive: Archive, keys: tuple[Key, Key]) -> None:
    archive.add("app", "1.0", "Requires: lib >= 1:1", key=keys[1])
    archive.index()
    with pytest.raises(BuildError, match=r"GPG check FAILED\nA package or an index is not signed by its repository's"):
        archive.repository()


def test_a_repository_that_another_has_signed_is_refused(archive: Archive, keys: tuple[Key, Key]) -> None:
    archive.index(keys[1])
    with pytest.raises(BuildError, match=r"(?s)signature.*\nA package or an index is not signed by its repository's"):
        archive.repository()


def test_an_unknown_package_is_named(archive: Archive) -> None:
    (archive.root / "proxy-2.6-1.noarch.rpm").unlink()
    archive.index()
    with pytest.raises(Unavailable, match=r"Unable to find a match: proxy\. .*Otherwise correct the names\.$"):
        archive.repository()


def test_a_need_that_nothing_meets_is_named(archive: Archive) -> None:
    (archive.root / "lib-2.0-1.noarch.rpm").unlink()
    archive.index()
    with pytest.raises(
        BuildError, match=r"(?s)nothing provides lib >= 1:1 needed by app-1\.0-1\.noarch.*\nCorrect the"
    ):
        archive.repository()


def test_a_repository_that_does_not_answer_is_named_with_what_to_do(archive: Archive) -> None:
    with serve(archive.root) as gone:
        url = gone.url
    with pytest.raises(Unavailable, match=r"Failed to download metadata for repo 'test'") as caught:
        archive.repository(url=url)
    assert "set http_proxy and https_proxy, or name a mirror that answers" in str(caught.value)


def test_a_repository_is_asked_through_the_proxy_of_the_environment(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", archive.served.url)
    assert (archive.repository(url="http://packages.example.org/") / "app-1.0-1.noarch.rpm").exists()
    assert all(path.startswith("http://packages.example.org/") for path in archive.served.asked)


def test_this_machines_own_packages_are_neither_read_nor_written(archive: Archive) -> None:
    before = own_state()
    archive.repository()
    assert own_state() == before


def own_state() -> dict[str, list[tuple[str, int]]]:
    """What dnf and rpm would leave on this machine, with the times of its last changes."""
    kept = {
        "/var/lib": ["rpm/**/*", "dnf/**/*"],
        "/var/cache": ["dnf/**/*"],
        "/var/log": ["dnf*", "hawkey*"],
        str(Path.home()): [".rpmdb/**/*"],
    }
    return {
        top: [(str(path), path.stat().st_mtime_ns) for each in patterns for path in sorted(Path(top).glob(each))]
        for top, patterns in kept.items()
    }


@pytest.fixture
def node(template: tuple[Path, Path], tmp_path: Path) -> Path:
    """A node's /var/lib/pyinfra-kubeadm with the repository in it, and programs that see an empty machine only."""
    top = tmp_path / "node"
    shutil.copytree(template[1], top / "bundle/packages" / NAME)
    for name in ("programs", "plugins", "root"):
        (top / name).mkdir()
    (top / "plugins/versionlock.conf").write_text(f"[main]\nenabled = 1\nlocklist = {top}/plugins/versionlock.list\n")
    (top / "plugins/versionlock.list").touch()
    dnf = f"/usr/bin/dnf --installroot={top}/root --setopt=pluginconfpath={top}/plugins --releasever=9"
    for name, words in (("dnf", dnf), ("rpm", f"/usr/bin/rpm --root={top}/root")):
        (top / "programs" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (top / "programs" / name).chmod(0o755)
    return top


def sh(node: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command of the operation or the fact, led to the node's directory."""
    led = command.replace("/var/lib/pyinfra-kubeadm", str(node)).replace("/etc/dnf/plugins", f"{node}/plugins")
    path = f"{node}/programs:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", led], env={"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def installed(node: Path) -> dict[str, PackageState]:
    """What the fact says."""
    names = ("app", "lib", "proxy", rpms.VERSIONLOCK, "no-such")
    done = sh(node, Packages().command(names, format="rpm"))
    assert done.returncode == 0
    return Packages().process(done.stdout.splitlines())


def test_what_another_package_provides_in_its_place_counts_as_installed(node: Path, archive: Archive) -> None:
    archive.add("app-minimal", "1.1", "Provides: app = 1.1-1", "Conflicts: app")
    done = sh(node, f"rpm -i --nodeps --nosignature {archive.root}/app-minimal-1.1-1.noarch.rpm")
    assert (done.returncode, installed(node)) == (0, {"app": {"version": "1.1-1", "held": False}}), done.stderr
    assert "conflicts with app" in sh(node, package.dnf_install(NAME, ["app-1.0-1"])).stderr


def test_dnf_takes_packages_from_the_signed_repository(node: Path, archive: Archive) -> None:
    assert installed(node) == {}
    archive.served.asked.clear()
    done = sh(node, package.dnf_install(NAME, ["app-1.0-1", f"{rpms.VERSIONLOCK}-4.3-1"]))
    assert (done.returncode, done.stdout) == (0, "")
    assert installed(node) == {
        "app": {"version": "1.0-1", "held": False},
        "lib": {"version": "1:2.0-1", "held": False},
        rpms.VERSIONLOCK: {"version": "4.3-1", "held": False},
    }
    assert archive.served.asked == []


def test_dnf_holds_the_version_that_is_installed_until_the_next_bundle_has_another(
    node: Path, archive: Archive
) -> None:
    assert sh(node, package.dnf_install(NAME, ["app-1.0-1", "lib-1:2.0-1"])).returncode == 0
    assert sh(node, package.dnf_hold(NAME, ["app", "lib"])).returncode == 0
    assert {name: row["held"] for name, row in installed(node).items()} == {"app": True, "lib": True}

    shutil.copytree(node / "bundle/packages" / NAME, node / "earlier")
    archive.add("app", "1.1", "Requires: lib")
    archive.index()
    shutil.rmtree(node / "bundle/packages" / NAME)
    shutil.copytree(archive.repository(), node / "bundle/packages" / NAME)
    assert sh(node, f'{package.dnf(NAME)} && "$@" upgrade').returncode == 0
    assert installed(node)["app"] == {"version": "1.0-1", "held": True}
    done = sh(node, package.dnf_install(NAME, ["app-1.1-1"]))
    assert (done.returncode, installed(node)["app"]) == (0, {"version": "1.1-1", "held": False}), done.stderr
    assert sh(node, package.dnf_hold(NAME, ["app"])).returncode == 0
    assert installed(node)["app"] == {"version": "1.1-1", "held": True}

    shutil.rmtree(node / "bundle/packages" / NAME)
    (node / "earlier").rename(node / "bundle/packages" / NAME)
    done = sh(node, package.dnf_install(NAME, ["app-1.0-1"]))
    assert (done.returncode, installed(node)["app"]["version"]) == (0, "1.0-1"), done.stderr


def test_dnf_reads_no_other_repository(node: Path) -> None:
    other = node / "root/etc/yum.repos.d/other.repo"
    other.parent.mkdir(parents=True)
    other.write_text("[other]\nname=other\nbaseurl=http://127.0.0.1:1/\nenabled=1\ngpgcheck=0\n")
    assert sh(node, package.dnf_install(NAME, ["proxy-2.6-1"])).returncode == 0
    done = sh(node, f'{package.dnf(NAME)} && "$@" repolist --all')
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["repo", "bundle"]


@pytest.mark.parametrize(
    ("file", "within", "words"),
    [
        ("repodata/repomd.xml", b"<revision>", "GPG"),
        ("repodata/repomd.xml.asc", b"\n\niQ", "GPG"),
        ("repodata/*-primary.xml.gz", b"", "-primary.xml.gz - Cannot download"),
        ("app-1.0-1.noarch.rpm", b"", "incorrect checksum"),
        ("key-test.asc", b"\n\nmQ", "key"),
        ("repository.asc", b"\n\nmQ", "GPG"),
    ],
)
def test_dnf_refuses_a_repository_after_one_bit_of_it_has_changed(
    node: Path, file: str, within: bytes, words: str
) -> None:
    (path,) = (node / "bundle/packages" / NAME).glob(file)
    flip(path, within)
    done = sh(node, package.dnf_install(NAME, ["app-1.0-1"]))
    assert done.returncode == 1
    assert words in done.stderr, done.stderr
    assert installed(node) == {}
