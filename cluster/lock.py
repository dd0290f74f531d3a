"""bundle.lock: name, version, size and checksum of everything in a bundle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

# Components whose version must go with Kubernetes' -> their names in compatibility.yaml.
MATCHED = {
    "etcd": "etcd", "coredns": "coredns", "crictl": "cri-tools", "containerd": "containerd", "cri-o": "cri-o",
    "cilium": "cilium",
}  # fmt: skip
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
# A name of Kubernetes' that is also one of a file (RFC 1123, a label).
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


# Linux's PATH_MAX, in bytes.
LONGEST_PATH = 4096


def _inside(path: str) -> str:
    """A lock cannot name a file outside its bundle, nor by a name that a terminal or a program takes for another."""
    steps = path.split("/")
    if any(step in ("", ".", "..") for step in steps):
        raise ValueError("must be a relative path without `.`, `..` or empty steps")
    if not path.isprintable() or "\\" in path:
        raise ValueError("must have no control characters, no invisible ones and no backslash")
    if any(step.startswith("-") for step in steps):
        raise ValueError("must have no step that begins with `-`, which programs take for an option")
    if len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"must have at most {LONGEST_PATH} bytes")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Model):
    """One file of the bundle. `source` is where its bytes are from: a URL of upstream, or what built them with what.

    The same source must give the same bytes again; a mirror's address is not in it. `licence` is an SPDX expression, or
    what a package says itself; empty where nobody has said.
    """

    path: RelativePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    name: str
    version: str
    source: str = ""
    licence: str = ""


class Image(_Model):
    """One image of the layout in images/: its full reference, its manifest's digest, all of its blobs.

    `origin` is the digest that its registry gave the reference; blobs are packed anew for the bundle. None when the
    image was made here.
    """

    name: str
    digest: Digest
    size: int
    blobs: tuple[Digest, ...]
    origin: Digest | None = None


class Package(_Model):
    """One package of a release's flat repository."""

    name: str
    version: str
    architecture: str
    release: str
    file: RelativePath


class Lock(_Model):
    """The whole of bundle.lock."""

    format: Literal[2]
    platform: str
    kubernetes_version: str
    components: dict[str, str]
    images: tuple[Image, ...]
    packages: tuple[Package, ...]
    package_sets: dict[str, dict[str, tuple[str, ...]]]
    files: tuple[File, ...]
    # What the user has added to what the catalogue asks for: references of images, paths of files.
    extras: tuple[str, ...] = ()
    # Add-ons of the user's own, addons/NAME.yaml: name -> namespace of what names none in its manifest.
    addons: dict[Label, Label] = {}

    def versions(self, release: str) -> dict[str, str]:
        """Versions that must go with this Kubernetes (compatibility.yaml), with a release's runtime."""
        found = {MATCHED[name]: version for name, version in self.components.items() if name in MATCHED}
        own = [each for each in self.packages if each.release == release and each.name in ("containerd", "cri-o")]
        return found | {each.name: each.version for each in own}

    @model_validator(mode="after")
    def _distinct(self) -> Lock:
        """Each file once; two names that differ in case alone would be one file on some disks."""
        seen: dict[str, str] = {}
        for file in self.files:
            folded = file.path.casefold()
            if folded in seen:
                same = seen[folded] == file.path
                raise ValueError(
                    f"{file.path} is listed twice" if same else f"{seen[folded]} and {file.path} differ in case alone"
                )
            seen[folded] = file.path
        return self


def parse(text: str) -> Lock:
    """Read a lock. Raises pydantic's ValidationError when it is not one of format 2."""
    return Lock.model_validate_json(text)
