"""bundle.lock: name, version, size and checksum of everything in a bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    """A lock cannot name a file outside its bundle."""
    if not path or "\0" in path or any(step in ("", ".", "..") for step in path.split("/")):
        raise ValueError("must be a relative path without `.`, `..` or empty steps")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Model):
    """One file of the bundle."""

    path: RelativePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    name: str
    version: str


class Image(_Model):
    """One image of the layout in images/: its full reference, its manifest's digest, all of its blobs."""

    name: str
    digest: Digest
    size: int
    blobs: tuple[Digest, ...]


class Package(_Model):
    """One package of a release's flat repository."""

    name: str
    version: str
    architecture: str
    release: str
    file: RelativePath


class Lock(_Model):
    """The whole of bundle.lock."""

    format: Literal[1]
    platform: str
    kubernetes_version: str
    components: dict[str, str]
    images: tuple[Image, ...]
    packages: tuple[Package, ...]
    package_sets: dict[str, dict[str, tuple[str, ...]]]
    files: tuple[File, ...]


def parse(text: str) -> Lock:
    """Read a lock. Raises pydantic's ValidationError when it is not one of format 1."""
    return Lock.model_validate_json(text)
