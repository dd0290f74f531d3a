"""A bundle built the way a site builds one, from servers on loopback that stand for upstream's.

They serve what dist/bundle was made of: programs as dl.k8s.io and GitHub have them, with their checksums, and images
in a registry. Packages come from Debian itself.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import registry
import servers
import yaml

from bundle import catalogue, components, references
from bundle.verify import read_lock
from tests.lab.nodes import ROOT

SOURCE = ROOT / "dist" / "bundle"
TASKS = [sys.executable, str(ROOT / "tasks.py")]


def publish(root: Path) -> None:
    """Lay programs out as their upstreams do: `root/host/path`."""
    wanted = catalogue.load()
    directories = {name: directory for directory, names in wanted.programs.items() for name in names}
    for component in wanted.components.values():
        for file in components.files_of(component, wanted, directories):
            programs = {name: SOURCE / directories[name] / name for name in file.programs}
            data = (
                _archive(file, programs) if any(file.programs.values()) else next(iter(programs.values())).read_bytes()
            )
            _write(root, file.url, data)
            line = f"{hashlib.sha256(data).hexdigest()}  {file.name}\n"
            _write(root, file.checksum, line.encode())


def _archive(file: components.File, programs: dict[str, Path]) -> bytes:
    """What a release of GitHub's is: programs in a .tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, path in programs.items():
            archive.add(path, file.programs[name])
    return packed.getvalue()


def _write(root: Path, url: str, data: bytes) -> None:
    parts = urlsplit(url)
    path = root / parts.netloc / parts.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def build(output: Path) -> str:
    """Build a bundle from these servers alone, by the task that people type; what it printed."""
    with tempfile.TemporaryDirectory(prefix="mirrored-", dir="/var/tmp") as scratch:
        here = Path(scratch)
        certificates = servers.make_certificates(here)
        publish(here / "www")
        with (
            servers.serve(here / "www", certificates.server) as www,
            registry.run(here / "registry", certificates) as images,
        ):
            hosts = {references.parse(image.name).host for image in read_lock(SOURCE).images}
            for image in read_lock(SOURCE).images:
                reference = references.parse(image.name)
                images.push(SOURCE / "images", image.name, f"{reference.path}:{reference.tag}")
            site = here / "bundle.yaml"
            files = {host: f"{www.url}/{host}" for host in ("dl.k8s.io", "github.com")}
            archives = {host: f"http://{host}" for host in ("deb.debian.org", "security.debian.org")}
            mirrors = {**files, **dict.fromkeys(hosts, images.address), **archives}
            site.write_text(yaml.safe_dump({"sources": ["mirror"], "mirrors": mirrors}))
            trust = {"SSL_CERT_FILE": str(certificates.ca), "CURL_CA_BUNDLE": str(certificates.ca)}
            done = subprocess.run(
                [*TASKS, "bundle", "build", "--site", str(site), "--output", str(output)],
                cwd=ROOT, env={**os.environ, **trust}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout
