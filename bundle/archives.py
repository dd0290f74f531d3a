"""Archives of images: those of `docker save` and `podman save`, and tar archives of an OCI layout.

https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format and
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md. Nothing is unpacked by its name in the
archive; what is read of it is checked by the digests that the image's config holds.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import posixpath
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bundle import archive, references
from bundle.command import BuildError
from bundle.oci import NAMES, Content
from bundle.skopeo import check_platform, chosen

NONE = "It must be one of `docker save`, `podman save` or `skopeo copy ... oci-archive:FILE`."


class NoImages(BuildError):
    """A tar archive, but none of images."""


@dataclass(frozen=True)
class Entry:
    """One image of an archive: its full references, its ID, and the members that are its config and layers."""

    names: tuple[str, ...]
    image_id: str
    config: str
    layers: tuple[str, ...]


def entries(path: Path, platform: str) -> list[Entry]:
    """The images of an archive, for this platform where it has several. Raises BuildError when it is no such archive.

    It is refused when a member is absolute, has `..`, or is neither a file nor a directory. Only links from one file
    of the archive to another pass, which podman, skopeo and Docker before 25 write.
    """
    with _opened(path) as opened:
        if "manifest.json" in opened.members:
            return [_docker(opened, row) for row in json.loads(opened.read("manifest.json"))]
        if "index.json" in opened.members:
            return [_oci(opened, row, platform) for row in json.loads(opened.read("index.json"))["manifests"]]
    raise NoImages(f"{path}: is no archive of images. {NONE}")


def content(path: Path, entry: Entry, platform: str, directory: Path) -> Content:
    """An image of an archive, its layers in files of the directory. Raises BuildError, as `skopeo.content` does."""
    layers = []
    with _opened(path) as opened:
        config = opened.read(entry.config)
        check_platform(config, platform, f"{', '.join(entry.names) or entry.image_id} in {path.name}")
        for number, member in enumerate(entry.layers):
            target = directory / f"layer-{number}"
            with opened.open(member) as source, target.open("wb") as written:
                shutil.copyfileobj(source, written, 1 << 20)
            layers.append(target)
    return Content(config, tuple(layers))


@dataclass(frozen=True)
class _Archive:
    """An open archive of safe members, by their names."""

    tar: tarfile.TarFile
    members: dict[str, tarfile.TarInfo]

    def open(self, name: str) -> IO[bytes]:
        """The content of a file, or of the one that a link leads to. Raises KeyError."""
        member = self.members[posixpath.normpath(name)]
        content = self.tar.extractfile(self.members[_target(member)] if member.issym() else member)
        if content is None:
            raise KeyError(name)
        return content

    def read(self, name: str) -> bytes:
        with self.open(name) as content:
            return content.read()

    def blob(self, digest: str) -> bytes:
        """A blob of an OCI layout. Raises ValueError when it is another."""
        data = self.read(_blob(digest))
        if _digest(data) != digest:
            raise ValueError(f"{digest} is {_digest(data)}")
        return data


@contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    """An archive whose members are safe, to be read. Raises BuildError, also for what its reader finds damaged."""
    try:
        with tarfile.open(path) as tar:
            rows = tar.getmembers()
            members = {posixpath.normpath(member.name): member for member in rows}
            for member in rows:
                _check(member, members, path)
            yield _Archive(tar, members)
    except archive.BROKEN as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of what is written meanwhile
            raise
        said = " ".join(str(error).split())
        raise BuildError(f"{path}: cannot be read as a tar archive: {said}. {NONE}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BuildError(f"{path}: is damaged: {type(error).__name__}: {error}. Get or make it again.") from None


def _check(member: tarfile.TarInfo, members: Mapping[str, tarfile.TarInfo], path: Path) -> None:
    """Raises BuildError when a member could lead elsewhere."""
    target = members.get(_target(member)) if member.issym() else None
    inner = target is not None and target.isfile() and not archive.unsafe(target)
    followed = copy.copy(member)
    if inner:
        followed.type = tarfile.REGTYPE
    if problem := archive.unsafe(followed):
        raise BuildError(
            f"{path}: is refused, for its member {member.name!r} {problem}. Nothing of it was used. "
            "Make it again by a present Docker, or by `skopeo copy SOURCE oci-archive:FILE:NAME`."
        )


def _target(link: tarfile.TarInfo) -> str:
    """The name of the member that a symbolic link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))


def _docker(opened: _Archive, row: Mapping[str, Any]) -> Entry:
    """One row of manifest.json."""
    names = tuple(references.parse(name).name for name in row.get("RepoTags") or ())
    return Entry(names, _digest(opened.read(row["Config"])), row["Config"], tuple(row["Layers"]))


def _oci(opened: _Archive, row: Mapping[str, Any], platform: str) -> Entry:
    """One row of index.json, which may be an index itself."""
    annotations = [row.get("annotations", {}).get(name, "") for name in NAMES]
    # A tag alone is no name.
    names = tuple(references.parse(name).name for name in annotations if "/" in name or ":" in name)[:1]
    document = json.loads(opened.blob(row["digest"]))
    if digest := chosen(document, platform, names[0] if names else row["digest"]):
        document = json.loads(opened.blob(digest))
    config = document["config"]["digest"]
    return Entry(names, config, _blob(config), tuple(_blob(layer["digest"]) for layer in document["layers"]))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
