"""A bundle laid out in a directory: its SBOM and lock written, signed, and put in the old one's place."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bundle import debs, oci, references, rpms, sbom, signature
from bundle.command import BuildError
from bundle.packing import Image
from bundle.progress import say, step
from bundle.verify import shown
from cluster import lock
from cluster.lock import File, Lock

NAMES = {
    "Packages": "package index", "Release": "package index", "InRelease": "package index",
    "repomd.xml": "package index", "repomd.xml.asc": "package index",
    "repository.asc": "key of the package index", "index.json": "image index", sbom.NAME: "SBOM",
}  # fmt: skip


@dataclass(frozen=True)
class Label:
    """What a lock says of a file beside its bytes."""

    name: str
    version: str = "-"
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Contents:
    """What a lock says of a bundle as a whole, and of its files by their paths; nothing of bytes."""

    platform: str
    kubernetes_version: str
    components: Mapping[str, str]
    package_sets: Mapping[str, Mapping[str, tuple[str, ...]]]
    labels: Mapping[str, Label]
    origins: Mapping[str, str | None]
    extras: tuple[str, ...] = ()
    addons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, known: Lock) -> Contents:
        """What a lock says."""
        return cls(
            platform=known.platform,
            kubernetes_version=known.kubernetes_version,
            components=known.components,
            package_sets=known.package_sets,
            labels={file.path: Label(file.name, file.version, file.source, file.licence) for file in known.files},
            origins={image.name: image.origin for image in known.images},
            extras=known.extras,
            addons=known.addons,
        )


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold this folder for one build; the bundle of one that was ended is put back. Raises BuildError when taken."""
    path = output.with_name(f".{output.name}.building")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        held = path.open("a")
    except OSError as error:
        raise BuildError(f"{path}: cannot be written: {error.strerror}. Build where you may write.") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"{output}: another build is at work here. Wait until it has ended; what both need is made once."
            ) from None
        _put_back(output)
        yield


def finish(output: Path, lay_out: Callable[[Path], Contents], signing_key: str = "") -> Lock:
    """Have a bundle laid out beside `output`, write SBOM, lock and signature, and put it there. Raises BuildError.

    To be called within `alone`.
    """
    beside, old = output.with_name(f"{output.name}.new"), _old(output)
    for left in (beside, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with step(f"writing {output.name}"):
            beside.mkdir()
            locked = described(beside, lay_out(beside))
            (beside / signature.LOCK).write_text(locked.model_dump_json(indent=2) + "\n")
        signed = (output / signature.SIGNATURE).exists()
        if signing_key:
            say(f"signed by {signature.sign(beside, Path(signing_key).expanduser())}")
        for path in (beside, *beside.rglob("*")):  # whatever the builder's umask is, others may carry it
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        if output.exists():
            output.rename(old)
        beside.rename(output)
    except OSError as error:
        # shutil.copytree gathers what it meets: https://docs.python.org/3/library/shutil.html#shutil.Error
        said = error.args[0][0][-1] if isinstance(error, shutil.Error) else error
        raise BuildError(
            f"{output}: cannot be written: {said}. What there was is as it was; mend that, then build again."
        ) from None
    except ValidationError as error:
        rows = [(row["input"], row["msg"].removeprefix("Value error, ")) for row in error.errors()]
        said = "; ".join(f"{shown(Path(what))}: {why}" if isinstance(what, str) else why for what, why in rows)
        raise BuildError(f"A bundle cannot have such files: {said}. Give them other names.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _put_back(output)
    shutil.rmtree(old, ignore_errors=True)
    if signed and not signing_key:
        say("the bundle was signed; it is another now: sign it again with `python3 tasks.py bundle sign`")
    size = sum(file.size for file in locked.files) / 1e6
    say(
        f"Kubernetes {locked.kubernetes_version}, {len(locked.images)} images, {len(locked.packages)} packages, "
        f"{len(locked.files)} files, {size:.0f} MB"
    )
    return locked


def _old(output: Path) -> Path:
    return output.with_name(f"{output.name}.old")


def _put_back(output: Path) -> None:
    """Undo the first of the two renames above, if the second has not followed it."""
    if _old(output).exists() and not output.exists():
        _old(output).rename(output)


def described(directory: Path, contents: Contents) -> Lock:
    """The lock of a bundle that lies in a directory, which is given its SBOM."""
    (directory / sbom.NAME).unlink(missing_ok=True)
    found = [
        lock.Image.model_validate({**row, "origin": contents.origins.get(row["name"])})
        for row in oci.images(directory / "images")
    ]
    known = Lock(
        format=2,
        platform=contents.platform,
        kubernetes_version=contents.kubernetes_version,
        components=dict(contents.components),
        images=tuple(found),
        packages=tuple(row for name in contents.package_sets for row in listed(directory / "packages" / name, name)),
        package_sets={name: dict(sets) for name, sets in contents.package_sets.items()},
        files=tuple(_file(directory, path, contents.labels) for path in _files(directory)),
        extras=contents.extras,
        addons=dict(contents.addons),
    )
    (directory / sbom.NAME).write_text(sbom.text(known))
    files = (*known.files, _file(directory, directory / sbom.NAME, contents.labels))
    return known.model_copy(update={"files": tuple(sorted(files, key=lambda file: file.path))})


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _file(directory: Path, path: Path, labels: Mapping[str, Label]) -> File:
    relative = str(path.relative_to(directory))
    label = labels.get(relative) or Label(NAMES.get(path.name, path.name))
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return File(
        path=relative, size=path.stat().st_size, sha256=sha256,
        name=label.name, version=label.version, source=label.source, licence=label.licence,
    )  # fmt: skip


def listed(directory: Path, name: str) -> list[lock.Package]:
    """The packages of a release's repository that lies in a directory."""
    if (directory / "repodata").is_dir():
        return rpms.listed(directory, name)
    return debs.listed(directory, name)


def image_labels(layout: Path, taken: Collection[Image]) -> dict[str, Label]:
    """Labels of a layout's blobs; one that several images share has the first one's."""
    known = {image.reference: image for image in taken}
    labels: dict[str, Label] = {}
    for row in oci.images(layout):
        if row["name"] in known:
            reference, image = references.parse(row["name"]), known[row["name"]]
            name = f"{reference.host}/{reference.path}"
            label = Label(name, reference.tag or reference.digest, image.source, image.licence)
            for blob in row["blobs"]:
                labels.setdefault(f"images/blobs/{blob.replace(':', '/')}", label)
    return labels
