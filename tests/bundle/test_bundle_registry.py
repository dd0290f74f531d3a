"""Images pulled from a host that serves the bundle: real nginx, asked by skopeo, and by curl as containerd asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import nginx
import pytest
import registry

from bundle import oci
from cluster.lock import Image, Lock
from deploys.plan import TEMPLATES

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGES = {
    "registry.k8s.io/pause:3.10.2": {"/pause": b"pause" * 1000},
    "registry.k8s.io/coredns/coredns:v1.14.2": {"/coredns": b"coredns" * 1000, "/base": b"base"},
    "ghcr.io/flannel-io/flannel:v0.28.4": {"/flannel": b"flannel" * 1000, "/base": b"base"},
    "registry.example.org:5000/own/app:1.0_rc1": {"/app": b"app" * 1000},
}
PAUSE, COREDNS, FLANNEL, OWN = IMAGES
SECRET = "the server's key"


@dataclass(frozen=True)
class Served:
    """A server of a bundle of these images."""

    server: nginx.Server
    layout: Path
    images: dict[str, Image]
    certificates: Path

    def blob(self, digest: str) -> bytes:
        return oci.blob(self.layout, digest).read_bytes()

    def ask(self, path: str, *words: str) -> Answer:
        """Have curl ask for a path, which it sends as it stands."""
        command: tuple[str | Path, ...] = (
            "curl", "--disable", "-sS", "--include", "--noproxy", "*", "--path-as-is", "--globoff", "--cacert",
            self.certificates / "ca.crt", *words, f"{self.server.url}{path}",
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status, *headers = head.decode().splitlines()
        rows = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
        return Answer(int(status.split()[1]), rows, body)

    def copy(self, reference: str, target: Path) -> subprocess.CompletedProcess[str]:
        """Have skopeo copy an image to a directory."""
        return subprocess.run(
            ["skopeo", "copy", "--quiet", "--src-cert-dir", self.certificates,
             f"docker://127.0.0.1:{self.server.port}/{reference}", f"dir:{target}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("registry")
    layout = registry.layout(root / "bundle" / "images", IMAGES)
    images = {row["name"]: Image(**row) for row in oci.images(layout)}
    lock = Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=tuple(images.values()),
        packages=(), package_sets={}, files=(),
    )  # fmt: skip
    (root / "secret").write_text(SECRET)
    (root / "certificates").mkdir()
    with nginx.serve(root / "lb1", root / "bundle", lock) as server:
        (root / "certificates" / "ca.crt").write_text(server.certificate)
        yield Served(server, layout, images, root / "certificates")


@pytest.mark.parametrize("name", [PAUSE, COREDNS, FLANNEL])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_every_image_is_pulled_with_its_bytes(served: Served, tmp_path: Path, name: str, by: str) -> None:
    image = served.images[name]
    reference = name if by == "tag" else f"{name.rpartition(':')[0]}@{image.digest}"
    done = served.copy(reference, tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    manifest, *blobs = image.blobs
    assert (tmp_path / "copy/manifest.json").read_bytes() == served.blob(manifest)
    assert sha256(served.blob(manifest)).hexdigest() == manifest.removeprefix("sha256:")
    for blob in blobs:
        assert (tmp_path / "copy" / blob.removeprefix("sha256:")).read_bytes() == served.blob(blob)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_pulled_by_its_own_name_as_cri_o_is_told(served: Served, tmp_path: Path, name: str) -> None:
    """skopeo and CRI-O read the same files by the same library; the first server here is none."""
    registries = sorted({image.partition("/")[0] for image in IMAGES})
    for silent_first in (True, False):
        servers = [f"127.0.0.1:{served.server.port}"]
        servers.insert(0 if silent_first else 1, "127.0.0.1:9")
        (tmp_path / "registries.conf").write_text(
            TEMPLATES.get_template("crio/registries.conf.j2").render(registries=registries, servers=servers)
        )
        done = subprocess.run(
            ["skopeo", "--registries-conf", tmp_path / "registries.conf", "copy", "--quiet", "--src-cert-dir",
             served.certificates, f"docker://{name}", f"dir:{tmp_path}/{silent_first}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        manifest = (tmp_path / str(silent_first) / "manifest.json").read_bytes()
        assert f"sha256:{sha256(manifest).hexdigest()}" == served.images[name].digest


@pytest.mark.parametrize(
    "reference",
    [
        "registry.k8s.io/pause:3.9",
        "registry.k8s.io/coredns:v1.14.2",
        "coredns/coredns:v1.14.2",
        "ghcr.io/coredns/coredns:v1.14.2",
        f"registry.k8s.io/pause@sha256:{'0' * 64}",
    ],
)
def test_an_image_that_the_bundle_does_not_have_is_not_found(served: Served, tmp_path: Path, reference: str) -> None:
    done = served.copy(reference, tmp_path / "copy")
    assert done.returncode != 0
    assert "404" in done.stderr
    assert not (tmp_path / "copy/manifest.json").exists()


def test_a_pull_without_the_servers_certificate_is_refused_by_the_client(served: Served, tmp_path: Path) -> None:
    command = ["skopeo", "copy", f"docker://127.0.0.1:{served.server.port}/{PAUSE}", f"dir:{tmp_path}/copy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "x509: certificate signed by unknown authority" in done.stderr


def test_the_servers_version_of_the_protocol_is_told(served: Served) -> None:
    answer = served.ask("/v2/")
    assert (answer.status, answer.headers["content-type"], json.loads(answer.body)) == (200, "application/json", {})


# containerd writes `ns` by Go's url.Values.Encode.
ASKED = {
    PAUSE: "/v2/pause/manifests/3.10.2?ns=registry.k8s.io",
    COREDNS: "/v2/coredns/coredns/manifests/v1.14.2?ns=registry.k8s.io",
    FLANNEL: "/v2/flannel-io/flannel/manifests/v0.28.4?ns=ghcr.io",
    OWN: "/v2/own/app/manifests/1.0_rc1?ns=registry.example.org%3A5000",
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_manifest_is_found_as_containerd_asks_for_it(served: Served, name: str) -> None:
    image = served.images[name]
    head, answer = served.ask(ASKED[name], "--head"), served.ask(ASKED[name])
    for each in (head, answer):
        assert each.status == 200
        assert each.headers["content-type"] == MANIFEST
        assert each.headers["docker-content-digest"] == image.digest
        assert each.headers["content-length"] == str(len(served.blob(image.digest)))
    assert (head.body, answer.body) == (b"", served.blob(image.digest))


@pytest.mark.parametrize("name", IMAGES)
def test_everything_else_is_found_by_its_digest(served: Served, name: str) -> None:
    image = served.images[name]
    repository, _, query = ASKED[name].partition("?")
    repository = repository.partition("/manifests/")[0]
    manifest = served.ask(f"{repository}/manifests/{image.digest}?{query}")
    assert (manifest.status, manifest.headers["content-type"]) == (200, MANIFEST)
    assert manifest.headers["docker-content-digest"] == image.digest
    for blob in image.blobs:
        answer = served.ask(f"{repository}/blobs/{blob}?{query}")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
        assert answer.body == served.blob(blob)


def test_a_blob_can_be_continued(served: Served) -> None:
    blob = served.images[PAUSE].blobs[-1]
    answer = served.ask(f"/v2/pause/blobs/{blob}?ns=registry.k8s.io", "--range", "10-")
    assert (answer.status, answer.body) == (206, served.blob(blob)[10:])


@pytest.mark.parametrize(
    "path",
    [
        "/v2/pause/manifests/3.9?ns=registry.k8s.io",
        "/v2/pause/manifests/3.10.2?ns=ghcr.io",
        "/v2/pause/manifests/3.10.2",
        "/v2/pause/manifests/none?ns=registry.k8s.io",
        f"/v2/pause/manifests/sha256:{'0' * 64}?ns=registry.k8s.io",
        f"/v2/pause/blobs/sha256:{'0' * 64}?ns=registry.k8s.io",
        "/v2/pause/blobs/sha256:../../../secret",
        "/v2/pause/tags/list?ns=registry.k8s.io",
        "/v2/_catalog",
        "/v1/",
        "/",
    ],
)
def test_what_there_is_not_is_not_found(served: Served, path: str) -> None:
    for words in ((), ("--head",)):
        answer = served.ask(path, *words)
        assert answer.status == 404
        assert "docker-content-digest" not in answer.headers


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", [ASKED[PAUSE], "/v2/", "/v2/pause/blobs/uploads/", "/pieces/images/index.json"])
def test_nothing_can_be_written(served: Served, method: str, path: str) -> None:
    before = sorted(served.layout.rglob("*"))
    assert served.ask(path, "--request", method, "--data", "x").status == 405
    assert sorted(served.layout.rglob("*")) == before


@pytest.mark.parametrize(
    "path",
    [
        "/pieces/../secret",
        "/pieces/../../../../../../../../etc/passwd",
        "/pieces/images/../../secret",
        "/pieces../secret",
        "/pieces/%2e%2e/secret",
        "/pieces/..%2fsecret",
        "/pieces/images/%2e%2e%2f%2e%2e%2fsecret",
        "/pieces//../secret",
        "//secret",
        "//../secret",
        "/pieces//etc/passwd",
        "/pieces/..%5csecret",
        "/pieces/%00/../secret",
        "/v2/a/blobs/sha256:%2e%2e/secret",
        "/v2/a/manifests/../../../../secret",
        "/v2/a/manifests/..%2f..%2f..%2f..%2fsecret",
        "/secret",
        "/images/index.json",
        "/pieces/",
        "/pieces/images/",
    ],
)
def test_nothing_outside_is_given_and_no_directory_is_listed(served: Served, path: str) -> None:
    answer = served.ask(path)
    assert answer.status in (400, 403, 404)
    assert SECRET.encode() not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "path", ["/pieces/images/index.json", ASKED[PAUSE], f"/v2/pause/blobs/sha256:{'0' * 64}?ns=registry.k8s.io"]
)
def test_a_client_that_is_no_host_of_the_inventory_gets_nothing(served: Served, path: str) -> None:
    assert served.ask(path, "--interface", "127.0.0.1").status in (200, 404)
    answer = served.ask(path, "--interface", "127.0.0.2")
    assert answer.status == 403
    assert "docker-content-digest" not in answer.headers


def test_plain_http_is_not_spoken(served: Served) -> None:
    command = ["curl", "-sS", "--noproxy", "*", "--include", f"http://127.0.0.1:{served.server.port}/v2/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "400 The plain HTTP request was sent to HTTPS port" in done.stdout
