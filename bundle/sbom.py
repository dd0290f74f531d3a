"""The bundle's contents as a CycloneDX 1.6 document (https://cyclonedx.org/docs/1.6/json/), made from the lock alone.

Package URLs: https://github.com/package-url/purl-spec. What is inside an image or a program is not looked into.
"""

from __future__ import annotations

import json
import re
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from cluster.lock import File, Image, Lock, Package

NAME = "bundle.cdx.json"
# Directories whose files are programs; see cluster.pieces.programs.
PROGRAMS = ("bin/", "cni/", "runtime/")
# Directories whose files are parts of images and packages, which are components themselves.
PARTS = ("images/", "packages/")
# `go:k8s.io/kubernetes/cmd/kubeadm@v1.36.2 go1.26.6 linux/amd64`: a main package, of what version, built with what.
GO_PACKAGE = re.compile(r"go:(\S+)@(v\S+)")
# A package's module, which vulnerabilities are listed by: a repository of GitHub's, or what is above cmd/.
GO_MODULE = re.compile(r"(github\.com/[^/]+/[^/]+(?:/v\d+(?=/|$))?|.+?(?=/cmd/|$))/?(.*)")
GITHUB_RELEASE = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)/releases/download/([^/]+)/")


def text(lock: Lock) -> str:
    """The document of a bundle, ending in a newline. The same lock gives the same bytes, whether it lists it or not."""
    known = lock.model_copy(update={"files": tuple(file for file in lock.files if file.path != NAME)})
    files = {file.path: file for file in known.files}
    components = [
        *(_file(known, file) for file in known.files if not file.path.startswith(PARTS)),
        *(_image(known, image, files.get(_blob(image.digest))) for image in known.images),
        *(_package(package, files.get(package.file)) for package in known.packages),
    ]
    root = Component(
        type=ComponentType.APPLICATION,
        name="pyinfra-kubeadm-bundle",
        version=lock.kubernetes_version,
        bom_ref="bundle",
        properties=[Property(name="pyinfra-kubeadm:platform", value=lock.platform)],
    )
    bom = Bom(
        components=components,
        metadata=BomMetaData(component=root),
        serial_number=uuid5(NAMESPACE_URL, known.model_dump_json()),
    )
    bom.register_dependency(root, components)
    document = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    # The library always writes when it was made; the same bundle would have another digest each time.
    del document["metadata"]["timestamp"]
    return json.dumps(document, indent=2) + "\n"


def _file(lock: Lock, file: File) -> Component:
    """A program, or a file that the user has added."""
    program = file.path.startswith(PROGRAMS) and file.path not in lock.extras
    return Component(
        type=ComponentType.APPLICATION if program else ComponentType.FILE,
        name=file.name if program else file.path,
        version=_known(file.version),
        bom_ref=f"file:{file.path}",
        purl=purl(file) if program else None,
        hashes=_hashes(file),
        licenses=_licences(file),
        external_references=_references(file),
        properties=_properties(file),
    )


def _image(lock: Lock, image: Image, manifest: File | None) -> Component:
    repository, tag = _reference(image.name)
    # A registry can be asked for what it has itself: an image that was made here has no digest there.
    where = {"repository_url": repository} if image.origin else {}
    name = repository.rpartition("/")[2].lower()
    architecture = {"arch": lock.platform.partition("/")[2]}
    tagged = {"tag": tag} if tag else {}
    return Component(
        type=ComponentType.CONTAINER,
        name=repository,
        version=_known(tag),
        bom_ref=f"image:{image.name}",
        purl=PackageURL("oci", None, name, image.origin or image.digest, {**architecture, **where, **tagged}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest.removeprefix("sha256:"))],
        licenses=_licences(manifest),
        external_references=_references(manifest),
        properties=_properties(manifest),
    )


def _package(package: Package, file: File | None) -> Component:
    vendor = package.release.rpartition("-")[0] or package.release
    qualifiers = {"arch": package.architecture, "distro": package.release}
    version = package.version
    kind = "rpm" if package.file.endswith(".rpm") else "deb"
    # A deb's epoch is a part of its version; an rpm's has a place of its own.
    if kind == "rpm" and ":" in version:
        qualifiers["epoch"], _, version = version.partition(":")
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=f"package:{package.file}",
        purl=PackageURL(kind, vendor, package.name, version, qualifiers),
        hashes=_hashes(file),
        licenses=_licences(file),
        external_references=_references(file),
        properties=_properties(file),
    )


def purl(file: File) -> PackageURL | None:
    """What a program is called where it comes from, as far as its source says: a Go module, a release, an address."""
    if release := GITHUB_RELEASE.match(file.source):
        owner, repository, tag = release.groups()
        return PackageURL("github", owner, repository, tag)
    if _is_url(file.source):
        return PackageURL("generic", None, file.name, _known(file.version), {"download_url": file.source})
    if (package := GO_PACKAGE.match(file.source)) and (parts := GO_MODULE.match(package[1])):
        module, subpath = parts.groups()
        namespace, _, name = module.rpartition("/")
        return PackageURL("golang", namespace or None, name, package[2], subpath=subpath or None)
    return None


def _reference(name: str) -> tuple[str, str]:
    """An image's repository and tag: `registry.k8s.io/etcd` and `3.6.8-0`; a port is no tag."""
    name = name.partition("@")[0]
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "")


def _blob(digest: str) -> str:
    return f"images/blobs/{digest.replace(':', '/')}"


def _known(version: str) -> str | None:
    """A version; the lock has `-` where there is none."""
    return None if version in ("", "-") else version


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://")) and " " not in source


def _hashes(file: File | None) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)] if file else []


def _licences(file: File | None) -> list[License]:
    """An SPDX identifier or expression where it is one, else the words as they are."""
    return [LicenseFactory().make_from_string(file.licence)] if file and file.licence else []


def _references(file: File | None) -> list[ExternalReference]:
    if file is None or not _is_url(file.source):
        return []
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(file.source))]


def _properties(file: File | None) -> list[Property]:
    """What built it, where that is no address."""
    if file is None or not file.source or _is_url(file.source):
        return []
    return [Property(name="pyinfra-kubeadm:source", value=file.source)]
