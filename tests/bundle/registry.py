"""A real registry on loopback (https://distribution.github.io/distribution/), and one made of files that can fail.

    with registry.run(tmp_path / "registry", certificates) as running:
        layout = registry.layout(tmp_path / "layout", {"registry.k8s.io/pause:3.10": {"/pause": b"program"}})
        running.push(layout, "registry.k8s.io/pause:3.10", "pause:3.10")
        ... f"{running.address}/pause:3.10" ...

Clients must trust the certificates, to which the fixture `trusted` in conftest.py sees.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers

from bundle import oci

INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
# bcrypt of "right": the only form that the registry reads.
HTPASSWD = "user:$2b$04$Pafm0Kf0wXojnZUBzp1CCej6dLO2RwkDgJ0a5OdrQ1HCkmyNG3G2K\n"


@dataclass
class Registry:
    """A registry, running or stopped, whose data stays. `address` is host:port; `pair` is its certificate."""

    directory: Path
    ca: Path
    pair: servers.Pair
    password: bool = False
    address: str = "127.0.0.1:0"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at the address that it had before if it had one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "htpasswd").write_text(HTPASSWD)
        config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}, "delete": {"enabled": True}},
            "http": {
                "addr": self.address,
                "tls": {"certificate": str(self.pair.certificate), "key": str(self.pair.key)},
            },
        }
        if self.password:
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.directory / "htpasswd")}}
        (self.directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        log = self.directory / "log"
        with log.open("wb") as output:
            command = ["docker-registry", "serve", str(self.directory / "config.yml")]
            # What is named so in the environment is a setting of its own to it.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.02)
        self.address = found.group(1)

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def push(self, layout: Path, name: str, target: str, *flags: str) -> None:
        """Push an image of a layout as `path:tag`, with more flags of `skopeo copy`."""
        skopeo("copy", "--quiet", *flags, f"oci:{layout}:{name}", f"docker://{self.address}/{target}", ca=self.ca)

    def digest(self, target: str) -> str:
        """The digest that `path:tag` has."""
        return str(self._ask("GET", target).headers["Docker-Content-Digest"])

    def index(self, target: str, platforms: Mapping[str, str]) -> str:
        """Make `path:tag` an index of manifests that are there (platform -> digest); its digest."""
        rows = []
        for platform, digest in platforms.items():
            answer = self._ask("GET", f"{target.partition(':')[0]}:{digest}")
            system, architecture = platform.split("/")
            described = {"mediaType": answer.headers["Content-Type"], "digest": digest, "size": len(answer.read())}
            rows.append({**described, "platform": {"os": system, "architecture": architecture}})
        self._ask("PUT", target, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode())
        return self.digest(target)

    def delete(self, path: str, digest: str) -> None:
        """Forget a manifest, and every tag of it."""
        self._ask("DELETE", f"{path}:{digest}")

    def _ask(self, method: str, target: str, data: bytes | None = None) -> Any:
        path, _, reference = target.partition(":")
        url = f"https://{self.address}/v2/{path}/manifests/{reference}"
        headers = {"Accept": f"{INDEX}, {oci.MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"}
        request = urllib.request.Request(
            url, data, {**headers, **({"Content-Type": INDEX} if data else {})}, method=method
        )
        context = ssl.create_default_context(cafile=str(self.ca))
        return urllib.request.urlopen(request, context=context)


@contextmanager
def run(directory: Path, certificates: servers.Certificates, password: bool = False) -> Iterator[Registry]:
    """A running registry with its data in a directory; user `user` with password `right`, if it asks for one."""
    registry = Registry(directory, certificates.ca, certificates.server, password)
    try:
        registry.start()
        yield registry
    finally:
        registry.stop()


def layout(directory: Path, images: Mapping[str, Mapping[str, bytes]], platform: str = "linux/amd64") -> Path:
    """A layout of small images: reference -> programs (path in the image -> bytes), each program a layer."""
    made = oci.Layout(directory)
    for name, programs in images.items():
        layers = []
        for path, data in programs.items():
            program = directory.parent / f"{directory.name}-program"
            program.write_bytes(data)
            program.chmod(0o755)
            layers.append(made.layer({path: program}))
        made.image(name, platform, layers, list(programs)[:1], "")
    made.finish()
    return directory


def publish(server: servers.Server, made: Path, name: str, path: str, tag: str) -> dict[str, Any]:
    """Serve an image of a layout as a registry would, from files whose requests can be told to fail; its manifest."""
    digest = next(row["digest"] for row in oci.images(made) if row["name"] == name)
    blobs = server.root / "v2" / path / "blobs"
    blobs.mkdir(parents=True)
    data = (made / "blobs" / digest.replace(":", "/")).read_bytes()
    for blob in json.loads(data)["layers"] + [json.loads(data)["config"]]:
        (blobs / blob["digest"]).write_bytes((made / "blobs" / blob["digest"].replace(":", "/")).read_bytes())
    server.fault("/v2/", servers.status(200))
    for reference in (tag, digest):
        server.fault(
            f"/v2/{path}/manifests/{reference}",
            lambda handler, _: handler.answer(200, data, {"Content-Type": oci.MANIFEST}),
        )
    return dict(json.loads(data))


def plain(layout: Path, name: str, target: Path) -> str:
    """Copy an image of a layout with its layers unpacked, as tools need it that know no zstd; what skopeo calls it."""
    skopeo("copy", "--quiet", "--dest-decompress", f"oci:{layout}:{name}", f"dir:{target}")
    return f"dir:{target}"


def skopeo(*words: str, ca: Path | None = None) -> str:
    """Run skopeo and return what it prints."""
    environment = {**os.environ, **({"SSL_CERT_FILE": str(ca)} if ca else {})}
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
