"""The CycloneDX document of a bundle: valid by its schema, and the same from the same lock."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from bundle import sbom
from cluster.lock import File, Image, Lock, Package

MANIFEST, LAYER, ORIGIN = ("1" * 64, "2" * 64, "3" * 64)
CRICTL = (
    "https://github.com/kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-amd64.tar.gz#crictl"
)
KUBEADM = "https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubeadm"
BUILT = "go:github.com/containernetworking/plugins/plugins/main/bridge@v1.9.1 go1.26.6 linux/amd64"
KUBERNETES = "pkg:golang/k8s.io/kubernetes@v1.36.2#cmd/kubeadm"
BRIDGE = "pkg:golang/github.com/containernetworking/plugins@v1.9.1#plugins/main/bridge"
RUNC = "packages/debian-12/runc_1.1.5_amd64.deb"
CURL = "packages/rocky-9/curl-7.76.1-31.el9.x86_64.rpm"
LIBC = "packages/debian-12/libc6_2.36-9+deb12u10_amd64.deb"


def file(path: str, version: str = "-", source: str = "", licence: str = "", sha256: str = "a" * 64) -> File:
    name = path.rpartition("/")[2]
    return File(path=path, size=1, sha256=sha256, name=name, version=version, source=source, licence=licence)


FILES = (
    file("bin/crictl", "v1.36.0", CRICTL, "Apache-2.0"),
    file("bin/kubeadm", "v1.36.2", KUBEADM, "Apache-2.0", sha256="b" * 64),
    file("cni/bridge", "v1.9.1", BUILT, "Apache-2.0"),
    file("files/site.conf"),
    file(f"images/blobs/sha256/{MANIFEST}", source="registry.k8s.io", licence="apache-2.0", sha256=MANIFEST),
    file(f"images/blobs/sha256/{LAYER}", sha256=LAYER),
    file("images/index.json"),
    file(LIBC, "2.36-9+deb12u10", licence="LGPL-2.1-or-later AND GPL-2.0-only", sha256="c" * 64),
    file(RUNC, "1.1.5", licence="see its copyright file"),
    file("packages/debian-12/Packages"),
    file(CURL, "0:7.76.1-31.el9"),
)
LOCK = Lock(
    format=2,
    platform="linux/amd64",
    kubernetes_version="v1.36.2",
    components={"kubernetes": "v1.36.2"},
    images=(
        Image(
            name="registry.k8s.io/etcd:3.6.8-0", digest=f"sha256:{MANIFEST}", size=2,
            blobs=(f"sha256:{MANIFEST}", f"sha256:{LAYER}"), origin=f"sha256:{ORIGIN}",
        ),
        Image(name="localhost:5000/Site/App", digest=f"sha256:{LAYER}", size=1, blobs=(f"sha256:{LAYER}",)),
    ),
    packages=(
        Package(name="libc6", version="2.36-9+deb12u10", architecture="amd64", release="debian-12", file=LIBC),
        Package(name="runc", version="1:1.1.5", architecture="amd64", release="debian-12", file=RUNC),
        Package(name="curl", version="2:7.76.1-31.el9", architecture="x86_64", release="rocky-9", file=CURL),
    ),
    package_sets={},
    files=FILES,
    extras=("localhost:5000/Site/App", "files/site.conf"),
)  # fmt: skip


def document(lock: Lock = LOCK) -> dict[str, Any]:
    read = json.loads(sbom.text(lock))
    assert isinstance(read, dict)
    return read


def components(lock: Lock = LOCK) -> dict[str, dict[str, Any]]:
    return {row["bom-ref"]: row for row in document(lock)["components"]}


def test_it_is_valid_by_the_schema_of_cyclonedx_1_6() -> None:
    text = sbom.text(LOCK)
    assert json.loads(text)["specVersion"] == "1.6"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"type": "container"', '"type": "box"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_an_empty_bundle_is_valid_too() -> None:
    text = sbom.text(LOCK.model_copy(update={"files": (), "images": (), "packages": ()}))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_same_lock_gives_the_same_bytes_and_no_date() -> None:
    assert sbom.text(LOCK) == sbom.text(Lock.model_validate_json(LOCK.model_dump_json()))
    assert sbom.text(LOCK).endswith("}\n")
    assert "timestamp" not in sbom.text(LOCK)


def test_the_document_that_is_in_the_lock_is_not_in_itself() -> None:
    with_it = LOCK.model_copy(update={"files": (*FILES, file(sbom.NAME, sha256="f" * 64))})
    assert sbom.text(with_it) == sbom.text(LOCK)


def test_another_lock_has_another_serial_number() -> None:
    numbers = [document(lock)["serialNumber"] for lock in (LOCK, LOCK.model_copy(update={"files": FILES[1:]}))]
    assert len(set(numbers)) == 2
    assert [UUID(number.removeprefix("urn:uuid:")).version for number in numbers] == [5, 5]


def test_the_bundle_itself_is_named_with_what_it_is_for() -> None:
    subject = document()["metadata"]["component"]
    assert (subject["name"], subject["version"]) == ("pyinfra-kubeadm-bundle", "v1.36.2")
    assert subject["properties"] == [{"name": "pyinfra-kubeadm:platform", "value": "linux/amd64"}]


def test_the_bundle_depends_on_every_component_and_they_on_nothing() -> None:
    rows = {row["ref"]: row.get("dependsOn", []) for row in document()["dependencies"]}
    assert rows.pop("bundle") == sorted(components())
    assert set(rows) == set(components())
    assert not any(rows.values())


def test_parts_of_images_and_indexes_are_no_components() -> None:
    assert sorted(components()) == sorted(
        [
            "file:bin/crictl", "file:bin/kubeadm", "file:cni/bridge", "file:files/site.conf",
            "image:localhost:5000/Site/App", "image:registry.k8s.io/etcd:3.6.8-0",
            f"package:{LIBC}", f"package:{RUNC}", f"package:{CURL}",
        ]
    )  # fmt: skip


def test_a_program_has_its_version_digest_licence_and_address() -> None:
    assert components()["file:bin/kubeadm"] == {
        "bom-ref": "file:bin/kubeadm",
        "type": "application",
        "name": "kubeadm",
        "version": "v1.36.2",
        "purl": f"pkg:generic/kubeadm@v1.36.2?download_url={KUBEADM}",
        "hashes": [{"alg": "SHA-256", "content": "b" * 64}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "externalReferences": [{"type": "distribution", "url": KUBEADM}],
    }


def test_a_program_that_was_built_says_of_what() -> None:
    row = components()["file:cni/bridge"]
    assert row["purl"] == BRIDGE
    assert row["properties"] == [{"name": "pyinfra-kubeadm:source", "value": BUILT}]
    assert "externalReferences" not in row


@pytest.mark.parametrize(
    ("source", "purl"),
    [
        (CRICTL, "pkg:github/kubernetes-sigs/cri-tools@v1.36.0"),
        (KUBEADM, f"pkg:generic/x@v1?download_url={KUBEADM}"),
        ("https://example.org/x.tgz#bin/x", "pkg:generic/x@v1?download_url=https://example.org/x.tgz%23bin/x"),
        (BUILT, BRIDGE),
        ("go:k8s.io/kubernetes/cmd/kubeadm@v1.36.2 go1.26.6 linux/amd64", KUBERNETES),
        ("go:go.etcd.io/etcd/server/v3@v3.6.8 go1.26.6 linux/amd64", "pkg:golang/go.etcd.io/etcd/server/v3@v3.6.8"),
        ("go:github.com/a/b/v2/cmd/x@v2.0.1 go1.26.6", "pkg:golang/github.com/a/b/v2@v2.0.1#cmd/x"),
        ("go:github.com/a/b@v2.0.1+incompatible go1.26.6", "pkg:golang/github.com/a/b@v2.0.1%2Bincompatible"),
        ("gcc of build/pause/linux/pause.c", None),
        ("somebody@example.org", None),
        ("", None),
    ],
)
def test_what_a_program_is_called_where_it_comes_from(source: str, purl: str | None) -> None:
    found = sbom.purl(file("bin/x", "v1", source))
    assert (found.to_string() if found else None) == purl
    assert purl is None or PackageURL.from_string(purl) == found


def test_a_file_of_the_site_is_a_file() -> None:
    assert components()["file:files/site.conf"] == {
        "bom-ref": "file:files/site.conf",
        "type": "file",
        "name": "files/site.conf",
        "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
    }


def test_a_file_that_the_site_lays_among_the_programs_is_a_file() -> None:
    lock = LOCK.model_copy(update={"extras": ("bin/crictl",)})
    assert components(lock)["file:bin/crictl"]["type"] == "file"


def test_an_image_is_named_by_the_digest_that_its_registry_knows() -> None:
    row = components()["image:registry.k8s.io/etcd:3.6.8-0"]
    assert (row["type"], row["name"], row["version"]) == ("container", "registry.k8s.io/etcd", "3.6.8-0")
    assert row["purl"] == (f"pkg:oci/etcd@sha256:{ORIGIN}?arch=amd64&repository_url=registry.k8s.io/etcd&tag=3.6.8-0")
    assert row["hashes"] == [{"alg": "SHA-256", "content": MANIFEST}]
    assert row["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_an_image_that_was_made_here_is_said_to_be_in_no_registry() -> None:
    row = components()["image:localhost:5000/Site/App"]
    assert row["purl"] == f"pkg:oci/app@sha256:{LAYER}?arch=amd64"
    assert row["name"] == "localhost:5000/Site/App"
    assert "version" not in row


def test_packages_are_named_as_their_distribution_does() -> None:
    found = components()
    assert found[f"package:{LIBC}"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    assert found[f"package:{LIBC}"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert found[f"package:{RUNC}"]["purl"] == "pkg:deb/debian/runc@1:1.1.5?arch=amd64&distro=debian-12"
    assert found[f"package:{CURL}"]["purl"] == "pkg:rpm/rocky/curl@7.76.1-31.el9?arch=x86_64&distro=rocky-9&epoch=2"
    assert found[f"package:{CURL}"]["version"] == "2:7.76.1-31.el9"


def test_a_licence_is_an_identifier_an_expression_or_words() -> None:
    found = components()
    assert found[f"package:{LIBC}"]["licenses"] == [{"expression": "LGPL-2.1-or-later AND GPL-2.0-only"}]
    assert found[f"package:{RUNC}"]["licenses"] == [{"license": {"name": "see its copyright file"}}]
    assert "licenses" not in found[f"package:{CURL}"]
