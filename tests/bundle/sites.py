"""A small site on loopback: a catalogue, upstreams that have all of it, and a bundle built from them in a second.

    def test_...(site: Site) -> None:
        lock = site.build()
        site.files.fault("/files.test/...", servers.wrong_bytes(b"other"))

`files` serves programs as their upstreams do, and the image PAUSE as a registry would; `images` is a real registry,
which has the image SERVER; `packages` is a signed archive of Debian packages. Each test has copies of its own. Test
files import the fixtures `world`, `site`, `undisturbed` and `built`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archives
import pytest
import registry
import servers
import yaml
from archives import Key
from registry import Registry
from servers import Certificates, Server

from bundle import build, cache, catalogue, download, repository_key, skopeo
from cluster.lock import Lock

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "debian-12"
SERVER, PAUSE = "images.test/kube-apiserver:v1.36.2", "static.test/pause:3.10.2"
KUBERNETES = "/files.test/release/v1.36.2/bin/linux/amd64"
KUBELET, CRICTL = f"{KUBERNETES}/kubelet", "/files.test/crictl-v1.36.0-linux-amd64.tar.gz"
KUBEADM = f"""\
#!/bin/sh
test "$*" = "config images list --kubernetes-version v1.36.2" || exit 2
echo {SERVER}
echo {PAUSE}
"""
CATALOGUE: dict[str, Any] = {
    "platform": "linux/amd64",
    "kubernetes_version": "v1.36.2",
    "sources": ["mirror"],
    "mirrors": {},
    "go": "1.26",
    "components": {
        "kubernetes": {
            "version": "v1.36.2",
            "licence": "Apache-2.0",
            "download": {
                "url": "https://files.test/release/{version}/bin/{os}/{arch}/{program}",
                "checksum": "{url}.sha256",
                "programs": {"kubeadm": "", "kubelet": ""},
            },
        },
        "etcd": {"version": "v3.6.8", "licence": "Apache-2.0"},
        "coredns": {"version": "v1.14.2", "licence": "Apache-2.0"},
        "crictl": {
            "version": "v1.36.0",
            "licence": "Apache-2.0",
            "download": {
                "url": "https://files.test/crictl-{version}-{os}-{arch}.tar.gz",
                "checksum": "{url}.sha256",
                "programs": {"crictl": "crictl"},
            },
        },
        "cni-plugins": {
            "version": "v1.9.1",
            "licence": "MIT",
            "download": {
                "url": "https://files.test/cni-plugins-{os}-{arch}-{version}.tgz",
                "checksum": "https://files.test/SHA256SUMS",
                "programs": {"bridge": "./bridge", "loopback": "./loopback"},
            },
        },
    },
    "programs": {"bin": ["kubeadm", "kubelet", "crictl"], "cni": ["bridge", "loopback"]},
    "recipes": {},
    "extra_images": [],
    "packages": {RELEASE: {"format": "deb", "sets": {"base": ["app"], "runtime": ["containerd"]}}},
}
# Builds in a process of its own, and stops for good when it comes to the function that is named, if one is.
BUILD = """
import pkgutil, signal, sys
from pathlib import Path
from bundle import build, catalogue

path, output, config, stop = sys.argv[1:]
catalogue.PATH = Path(path)
if stop:
    module, _, name = stop.rpartition(".")
    def stopped(*words, **more):
        print("stopped", flush=True)
        signal.pause()
    setattr(pkgutil.resolve_name(module), name, stopped)
build.build(Path(output), Path(config))
"""


@dataclass(frozen=True)
class World:
    """What every site of the tests starts from: directories to copy, and the keys of the archive and of the builder."""

    directory: Path
    certificates: Certificates
    key: Key

    @property
    def catalogue(self) -> Path:
        return self.directory / "catalogue.yaml"

    @property
    def builder(self) -> Path:
        """Stands for XDG_DATA_HOME."""
        return self.directory / "builder"

    @contextmanager
    def open(self, directory: Path, **more: Any) -> Iterator[Site]:
        """A site in a directory, with servers of its own and an empty cache; `more` is what its bundle.yaml says."""
        for name in ("files", "packages", "registry"):
            shutil.copytree(self.directory / name, directory / name)
        with (
            servers.serve(directory / "files", self.certificates.server) as files,
            archives.serve(directory / "packages") as packages,
            registry.run(directory / "registry", self.certificates) as images,
            tempfile.TemporaryDirectory(prefix="site-") as scratch,
        ):
            Path(scratch).chmod(0o755)
            registry.publish(files, self.directory / "pause", PAUSE, "pause", "3.10.2")
            files.requests.clear()
            site = Site(directory, self, files, images, packages, Path(scratch))
            site.configure(**more)
            yield site


@dataclass
class Site:
    """A site that builds a bundle. `scratch` is where processes of it have what they may leave when they are killed.

    It is not below pytest's directories, which only root may enter: apt reads keys there as another user.
    """

    directory: Path
    world: World
    files: Server
    images: Registry
    packages: archives.Served
    scratch: Path

    @property
    def output(self) -> Path:
        return self.directory / "dist" / "bundle"

    @property
    def config(self) -> Path:
        return self.directory / "bundle.yaml"

    @property
    def cache(self) -> Path:
        return self.directory / "cache" / "pyinfra-kubeadm"

    @property
    def mirrors(self) -> dict[str, str]:
        """Where its servers are, as bundle.yaml says it."""
        return {
            "files.test": f"{self.files.address}/files.test",
            "static.test": self.files.address,
            "images.test": self.images.address,
            "packages.test": self.packages.url,
        }

    def configure(self, **more: Any) -> None:
        """Write bundle.yaml: where the mirrors are, and what is given."""
        self.config.write_text(yaml.safe_dump({"mirrors": self.mirrors, **more}))

    def build(self, update: bool = False) -> Lock:
        return build.build(self.output, self.config, update)

    def start(self, *before: str | Path, stop: str = "", output: Path | None = None) -> subprocess.Popen[str]:
        """Build in a process group of its own, which `before` starts; its output is to be read.

        With `stop` it says `stopped` where it would call that function, and waits to be killed.
        """
        own = {
            "XDG_CACHE_HOME": str(self.cache.parent),
            "XDG_DATA_HOME": str(self.world.builder),
            "TMPDIR": str(self.scratch),
        }
        words = (self.world.catalogue, output or self.output, self.config, stop)
        return subprocess.Popen(
            [*before, sys.executable, "-c", BUILD, *words], cwd=ROOT, env={**os.environ, **own},
            text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def forget(self) -> None:
        """Empty the cache."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def publish(self, path: str, data: bytes) -> None:
        """Have a file at its upstream, and its sha256 beside it."""
        target = self.directory / "files" / path.lstrip("/")
        target.write_bytes(data)
        target.with_name(f"{target.name}.sha256").write_text(hashlib.sha256(data).hexdigest())

    def package(self, name: str, version: str, *fields: str, text: str = "") -> None:
        """Have a package in the archive, and its index written anew."""
        deb(self.directory / "packages", name, version, *fields, text=text)
        index(self.directory / "packages", self.world.key)

    def image(self, name: str, data: bytes, target: str, platform: str = "linux/amd64") -> None:
        """Push an image of one file to the registry."""
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            made = registry.layout(Path(directory, "layout"), {name: {"/program": data}}, platform)
            self.images.push(made, name, target)


def keypair(path: Path) -> Path:
    """A new SSH key; its public key is beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def packed(members: Mapping[str, bytes]) -> bytes:
    """A .tgz of files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return target.getvalue()


def noise(name: str, size: int) -> bytes:
    """Bytes that cannot be packed, always the same for a name."""
    return random.Random(name).randbytes(size)


def deb(root: Path, name: str, version: str, *fields: str, text: str = "") -> None:
    """Build a package that holds one file."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "DEBIAN").mkdir()
        control = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", *fields]
        control += ["Maintainer: A Test <test@example.org>", "Description: one of a test", ""]
        (top / "DEBIAN/control").write_text("\n".join(control))
        content = top / "usr/share" / name / "version"
        content.parent.mkdir(parents=True)
        content.write_text(text or version)
        archives.run("dpkg-deb", "--root-owner-group", "--build", top, root / f"{name}_{version}_amd64.deb")


def index(root: Path, key: Key) -> None:
    """Write the signed index of an archive."""
    for name in ("Packages", "Release", "InRelease"):
        (root / name).unlink(missing_ok=True)
    for name, command in (("Packages", "packages"), ("Release", "release")):
        text = archives.run("apt-ftparchive", command, ".", cwd=root)
        (root / name).write_text(text)
    key.clear_sign(root / "Release", root / "InRelease")
    archives.run("gpgconf", "--homedir", key.home, "--kill", "gpg-agent")


def _programs(root: Path) -> None:
    """What upstreams publish, below their hosts' names."""
    programs = root / KUBERNETES.lstrip("/")
    programs.mkdir(parents=True)
    for name, data in (("kubeadm", KUBEADM.encode()), ("kubelet", noise("kubelet", 300_000))):
        (programs / name).write_bytes(data)
        (programs / f"{name}.sha256").write_text(hashlib.sha256(data).hexdigest())
    crictl = packed({"crictl": b"the crictl"})
    target = root / CRICTL.lstrip("/")
    target.write_bytes(crictl)
    target.with_name(f"{target.name}.sha256").write_text(f"{hashlib.sha256(crictl).hexdigest()}  {target.name}\n")
    plugins, name = (
        packed({"./bridge": b"the bridge", "./loopback": b"the loopback"}),
        "cni-plugins-linux-amd64-v1.9.1.tgz",
    )
    target.with_name(name).write_bytes(plugins)
    target.with_name("SHA256SUMS").write_text(f"{hashlib.sha256(plugins).hexdigest()}  {name}\n")


@functools.cache
def _world(directory: Path, certificates: Certificates) -> World:
    """Made once for all test files: a fixture that several import is one of each."""
    for name in ("key", "packages", "builder"):
        (directory / name).mkdir(parents=True)
    _programs(directory / "files")
    with archives.make_key(directory / "key") as key:
        deb(directory / "packages", "libc", "2.36-9", "Essential: yes")
        deb(directory / "packages", "app", "1.0", "Depends: libc")
        deb(directory / "packages", "containerd", "2.2.1")
        index(directory / "packages", key)
    registry.layout(directory / "pause", {PAUSE: {"/pause": b"the pause"}})
    made = registry.layout(directory / "server", {SERVER: {"/kube-apiserver": noise("server", 50_000)}})
    with registry.run(directory / "registry", certificates) as running:
        running.push(made, SERVER, SERVER.partition("/")[2])
    text = {**CATALOGUE, "packages": {RELEASE: {**CATALOGUE["packages"][RELEASE]}}}
    text["packages"][RELEASE]["repositories"] = {"test": {"url": "http://packages.test ./", "key": str(key.public)}}
    (directory / "catalogue.yaml").write_text(yaml.safe_dump(text))
    return World(directory, certificates, key)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> World:
    return _world(tmp_path_factory.getbasetemp() / "world", certificates)


@pytest.fixture
def site(world: World, trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with an empty cache and no bundle yet; nothing that fails is tried again."""
    with world.open(tmp_path / "site") as opened:
        monkeypatch.setattr(catalogue, "PATH", world.catalogue)
        monkeypatch.setattr(cache, "ROOT", opened.cache)
        monkeypatch.setattr(repository_key, "DIRECTORY", world.builder / "pyinfra-kubeadm" / "repository-key")
        monkeypatch.setattr(skopeo, "RETRIES", 0)
        monkeypatch.setattr(download, "PAUSES", ())
        yield opened


@pytest.fixture
def undisturbed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`cache` and `dist` of a build to which nothing happened; made once."""
    kept = site.world.directory / "built"
    if not kept.exists():
        with site.world.open(tmp_path / "undisturbed") as other, monkeypatch.context() as patch:
            patch.setattr(cache, "ROOT", other.cache)
            other.build()
            for name in ("cache", "dist"):
                shutil.copytree(other.directory / name, kept / name)
    return kept


@pytest.fixture
def built(site: Site, undisturbed: Path) -> Site:
    """A site with a bundle, and the cache from its build."""
    for name in ("cache", "dist"):
        shutil.copytree(undisturbed / name, site.directory / name)
    return site
