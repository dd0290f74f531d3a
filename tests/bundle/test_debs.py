"""Debian packages by apt itself, from a signed archive on loopback: fetched, locked, and given to apt again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import Key, Served, flip, make_key, run, serve, tree

from bundle import cache, debs, packages, repository_key
from bundle.catalogue import Release, Repository
from bundle.command import BuildError
from bundle.download import Unavailable
from cluster.lock import Package
from operations import package

NAME, PLATFORM = "debian-12", "linux/amd64"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Key, Key]]:
    """The key of the archive, and one of somebody else."""
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
    """A flat archive of Debian packages that is served, and what a catalogue says of it."""

    root: Path
    key: Key
    served: Served

    def add(self, name: str, version: str, *fields: str, text: str = "") -> None:
        """Build a package that holds one file; it is in the archive once that is indexed."""
        path = self.root / f"{name}_{version.partition(':')[2] or version}_amd64.deb"
        with tempfile.TemporaryDirectory() as directory:
            top = Path(directory)
            (top / "DEBIAN").mkdir()
            control = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", *fields]
            control += ["Maintainer: A Test <test@example.org>", "Description: one of a test", ""]
            (top / "DEBIAN/control").write_text("\n".join(control))
            content = top / "usr/share" / name / "version"
            content.parent.mkdir(parents=True)
            content.write_text(text or version)
            run("dpkg-deb", "--root-owner-group", "--build", top, path)

    def index(self, key: Key | None = None) -> None:
        for name in ("Packages", "Release", "InRelease"):
            (self.root / name).unlink(missing_ok=True)
        (self.root / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=self.root))
        (self.root / "Release").write_text(run("apt-ftparchive", "release", ".", cwd=self.root))
        (key or self.key).clear_sign(self.root / "Release", self.root / "InRelease")

    def release(self, url: str = "") -> Release:
        return Release(
            format="deb",
            repositories={"test": Repository(url=f"{url or self.served.url} ./", key=str(self.key.public))},
            sets={"base": ("app",), "load_balancer": ("proxy", "app")},
            image_base=("filter",),
        )

    def repository(self, pins: Mapping[Package, str] | None = None, url: str = "") -> Path:
        return debs.repository(NAME, self.release(url), PLATFORM, {}, pins or {})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Key, Key], builder: None) -> tuple[Path, Path]:
    """An archive of six packages, of which five are the closure of what is wanted, and the repository made of it."""
    directory = tmp_path_factory.mktemp("template")
    root = directory / "archive"
    root.mkdir()
    with serve(root) as served, pytest.MonkeyPatch.context() as patch:
        without_proxy(patch)
        patch.setattr(cache, "ROOT", directory / "cache")
        made = Archive(root, keys[0], served)
        made.add("libc", "2.36-9", "Essential: yes")
        made.add("lib", "1:2.0-1", "Depends: libc")
        made.add("app", "1.0", "Depends: lib (>= 1:1)", "Recommends: other")
        made.add("proxy", "2.6")
        made.add("filter", "1.0.6")
        made.add("other", "9")
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
    sha256 = packages.digests(repository, ".deb")
    return {row: sha256[row.file.rpartition("/")[2]] for row in debs.listed(repository, NAME)}


def forget() -> None:
    shutil.rmtree(cache.ROOT)


def test_the_closure_is_what_is_wanted_all_it_needs_and_what_every_machine_has(archive: Archive) -> None:
    made = archive.repository()
    assert [(row.name, row.version, row.file) for row in debs.listed(made, NAME)] == [
        ("app", "1.0", "packages/debian-12/app_1.0_amd64.deb"),
        ("filter", "1.0.6", "packages/debian-12/filter_1.0.6_amd64.deb"),
        ("lib", "1:2.0-1", "packages/debian-12/lib_1.2.0-1_amd64.deb"),
        ("libc", "2.36-9", "packages/debian-12/libc_2.36-9_amd64.deb"),
        ("proxy", "2.6", "packages/debian-12/proxy_2.6_amd64.deb"),
    ]
    files = {path.name for path in made.iterdir()} - {row.file.rpartition("/")[2] for row in debs.listed(made, NAME)}
    assert files == {"Packages", "Release", "InRelease", "repository.asc"}


def test_a_second_build_from_the_same_lock_has_the_same_bytes_whatever_is_new(archive: Archive) -> None:
    first = archive.repository()
    before, locked = tree(first), pins(first)
    forget()
    archive.add("app", "1.1", "Depends: lib")
    archive.add("lib", "1:3.0-1")
    archive.index()
    assert tree(archive.repository(locked)) == before
    newest = {row.name: row.version for row in debs.listed(archive.repository(), NAME)}
    assert (newest["app"], newest["lib"]) == ("1.1", "1:3.0-1")


def test_packages_that_are_pinned_and_in_the_cache_need_no_archive(archive: Archive) -> None:
    first = archive.repository()
    archive.served.asked.clear()
    assert archive.repository(pins(first)) == first
    assert archive.served.asked == []


def test_versions_that_the_archive_has_no_longer_are_named(archive: Archive) -> None:
    locked = pins(archive.repository())
    forget()
    for path in archive.root.glob("app_*.deb"):
        path.unlink()
    for path in archive.root.glob("filter_*.deb"):
        path.unlink()
    archive.add("app", "1.1", "Depends: lib")
    archive.index()
    with pytest.raises(Unavailable) as caught:
        archive.repository(locked)
    missing = "E: Version '1.0' for 'app' was not found; E: Unable to locate package filter"
    assert caught.value.reason == f"packages of debian-12: {missing}"
    said = str(caught.value)
    assert "name a mirror that keeps old versions" in said
    assert "`deb.debian.org/debian: http://snapshot.debian.org/archive/debian/<time>`" in said
    assert "`python3 tasks.py bundle build --update` takes present versions" in said
    assert list(cache.ROOT.iterdir()) == []


def test_other_bytes_under_a_pinned_version_are_refused(archive: Archive) -> None:
    locked = pins(archive.repository())
    forget()
    archive.add("app", "1.0", "Depends: lib (>= 1:1)", text="not what it was")
    archive.index()
    words = r"^packages of debian-12: what was fetched is not what bundle\.lock has: app_1\.0_amd64\.deb\. The same "
    with pytest.raises(BuildError, match=words):
        archive.repository(locked)
    assert list(cache.ROOT.iterdir()) == []


def test_cached_packages_that_have_changed_are_refused(archive: Archive) -> None:
    made = archive.repository()
    locked = pins(made)
    flip(made / "app_1.0_amd64.deb")
    with pytest.raises(BuildError, match=r"archives-debian-12-\w+: app_1\.0_amd64\.deb changed since it was made\."):
        archive.repository(locked)


def test_a_package_that_is_not_as_the_archive_signed_it_is_refused(archive: Archive) -> None:
    flip(archive.root / "app_1.0_amd64.deb")
    with pytest.raises(BuildError, match=r"Hash Sum mismatch") as caught:
        archive.repository()
    assert "What came is not what the archive's signed index says" in str(caught.value)


def test_an_archive_that_another_has_signed_is_refused(archive: Archive, keys: tuple[Key, Key]) -> None:
    archive.index(keys[1])
    with pytest.raises(BuildError, match=r"InRelease' is not signed\.") as caught:
        archive.repository()
    assert "The archive is not signed by the key it must be signed by." in str(caught.value)


def test_an_unknown_package_is_named(archive: Archive) -> None:
    (archive.root / "proxy_2.6_amd64.deb").unlink()
    archive.index()
    with pytest.raises(Unavailable, match=r"E: Unable to locate package proxy\. .*Otherwise correct the names\.$"):
        archive.repository()


def test_an_archive_that_does_not_answer_is_named_with_what_to_do(archive: Archive) -> None:
    with serve(archive.root) as gone:
        url = gone.url
    with pytest.raises(Unavailable, match=rf"Failed to fetch {url}/\./InRelease  Could not connect") as caught:
        archive.repository(url=url)
    assert "set http_proxy and https_proxy, or name a mirror that answers" in str(caught.value)


def test_an_archive_is_asked_through_the_proxy_of_the_environment(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", archive.served.url)
    assert (archive.repository(url="http://packages.example.org/debian/..") / "app_1.0_amd64.deb").exists()
    assert all(path.startswith("http://packages.example.org/") for path in archive.served.asked)


def test_a_key_that_is_not_there_is_named(archive: Archive, tmp_path: Path) -> None:
    release = archive.release().model_copy(update={"repositories": {"k8s": Repository(url="x", key=f"{tmp_path}/k")}})
    with pytest.raises(BuildError, match=r"/k: the key of repository k8s is not there\. Correct its `key`"):
        debs.repository(NAME, release, PLATFORM, {}, {})


def test_the_images_base_is_made_of_the_repository_alone(archive: Archive) -> None:
    made = archive.repository()
    archive.served.asked.clear()
    root = debs.base_root(NAME, archive.release(), PLATFORM, made)
    assert (root / "usr/share/filter/version").read_text() == "1.0.6"
    assert not (root / "usr/share/app").exists()
    assert os.readlink(root / "usr/sbin/ip6tables-save") == "xtables-nft-multi"
    assert archive.served.asked == []


@pytest.fixture
def node(template: tuple[Path, Path]) -> Iterator[Path]:
    """A node's /var/lib/pyinfra-kubeadm with the repository in it, which apt's own user may read."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        top.chmod(0o755)
        shutil.copytree(template[1], top / "bundle/packages" / NAME)
        (top / "dpkg/info").mkdir(parents=True)
        (top / "dpkg/updates").mkdir()
        (top / "dpkg/status").touch()
        yield top


def install(node: Path, *chosen: str) -> subprocess.CompletedProcess[str]:
    """The operation's own command, by this machine's apt and dpkg on the node's directory."""
    config = node / "apt.conf"
    config.write_text(
        'Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null"; Dir::Etc::trusted "/dev/null";\n'
        'Dir::Etc::trustedparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null"; APT::Architecture "amd64";\n'
        f'Dir::State "{node}/state"; Dir::State::status "{node}/dpkg/status"; Dir::Log "{node}/log";\n'
        f'DPkg::Options {{ "--root={node}/root"; "--admindir={node}/dpkg"; "--log={node}/dpkg.log"; }};\n'
    )
    for name in ("root", "log"):
        (node / name).mkdir(exist_ok=True)
    command = package.apt_install(NAME, chosen).replace("/var/lib/pyinfra-kubeadm", str(node))
    return subprocess.run(
        ["sh", "-c", command], env={"PATH": os.environ["PATH"], "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def installed(node: Path) -> dict[str, str]:
    shown = run("dpkg-query", f"--admindir={node}/dpkg", "-W", "-f", "${Package} ${Version}\n")
    return dict(line.split() for line in shown.splitlines())


def test_apt_takes_packages_from_the_signed_repository(node: Path) -> None:
    done = install(node, "app=1.0", "lib=1:2.0-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert installed(node) == {"app": "1.0", "lib": "1:2.0-1", "libc": "2.36-9"}
    assert (node / "root/usr/share/lib/version").read_text() == "1:2.0-1"


def test_apt_goes_back_to_the_version_of_an_earlier_bundle(node: Path, archive: Archive) -> None:
    assert install(node, "app=1.0").returncode == 0
    shutil.copytree(node / "bundle/packages" / NAME, node / "earlier")
    archive.add("app", "1.1", "Depends: lib")
    archive.index()
    shutil.rmtree(node / "bundle/packages" / NAME)
    shutil.copytree(archive.repository(), node / "bundle/packages" / NAME)
    assert install(node, "app=1.1").returncode == 0
    assert installed(node)["app"] == "1.1"
    shutil.rmtree(node / "bundle/packages" / NAME)
    (node / "earlier").rename(node / "bundle/packages" / NAME)
    done = install(node, "app=1.0")
    assert (done.returncode, done.stderr, installed(node)["app"]) == (0, "", "1.0")


@pytest.mark.parametrize(
    ("file", "within", "words"),
    [
        ("InRelease", b"SHA256:", "is not signed"),
        ("Packages", b"Version: 1.0\n", "Hash Sum mismatch"),
        ("app_1.0_amd64.deb", b"", "Hash Sum mismatch"),
        ("repository.asc", b"\n\nmQ", "is not signed"),
    ],
)
def test_apt_refuses_a_repository_after_one_bit_of_it_has_changed(
    node: Path, file: str, within: bytes, words: str
) -> None:
    flip(node / "bundle/packages" / NAME / file, within)
    done = install(node, "app=1.0")
    assert done.returncode == 100
    assert words in done.stderr
    assert installed(node) == {}


def test_apt_refuses_a_repository_that_another_has_signed(node: Path, keys: tuple[Key, Key]) -> None:
    repository = node / "bundle/packages" / NAME
    keys[1].clear_sign(repository / "Release", repository / "InRelease")
    done = install(node, "app=1.0")
    assert done.returncode == 100
    assert "is not signed" in done.stderr
    assert installed(node) == {}
