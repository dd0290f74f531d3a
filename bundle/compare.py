"""What differs between two bundles by their locks, and how much of the new one must be carried to where the old is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bundle.inspect import row, short, size_text, table
from cluster.lock import File, Image, Lock

BLOBS = "images/blobs/"


@dataclass(frozen=True)
class Change:
    """One thing by its name, in its old and its new version; empty where it is not there."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Comparison:
    """Everything that differs. `carried` is the bytes of new content, of `total` bytes that the new bundle has."""

    settings: tuple[Change, ...]
    images: tuple[Change, ...]
    packages: tuple[Change, ...]
    added: tuple[File, ...]
    removed: tuple[File, ...]
    changed: tuple[tuple[File, File], ...]
    carried: int
    total: int
    # Files of packages, which `packages` speaks of by name.
    package_files: frozenset[str]

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        differences = (self.settings, self.images, self.packages, self.added, self.removed, self.changed)
        return not any(differences)


def difference(old: Lock, new: Lock) -> Comparison:
    """What a new bundle has that an old one has not, and the other way round."""
    before, after = ({file.path: file for file in lock.files} for lock in (old, new))
    known = {file.sha256 for file in old.files}
    unknown = {file.sha256: file.size for file in new.files if file.sha256 not in known}
    return Comparison(
        settings=_changes(_settings(old), _settings(new)),
        images=_image_changes(old, new),
        packages=_changes(_packages(old), _packages(new)),
        added=tuple(file for file in new.files if file.path not in before),
        removed=tuple(file for file in old.files if file.path not in after),
        changed=tuple(
            (before[file.path], file)
            for file in new.files
            if file.path in before and _identity(before[file.path]) != _identity(file)
        ),
        carried=sum(unknown.values()),
        total=sum(file.size for file in new.files),
        package_files=frozenset(package.file for lock in (old, new) for package in lock.packages),
    )


def show(comparison: Comparison) -> RenderableType:
    """A comparison to be printed by rich. Blobs and files of packages are spoken of as what they belong to."""
    if comparison.empty:
        return Text(
            f"Nothing differs: both bundles have the same {size_text(comparison.total)}. Nothing must be carried."
        )
    parts = [
        _section("Bundle", comparison.settings),
        _section("Images", comparison.images),
        _section("Packages", comparison.packages),
        _section("Other files", _file_changes(comparison)),
    ]
    last = Text(
        f"To carry: {size_text(comparison.carried)} of {size_text(comparison.total)}; "
        "the old bundle has the rest, under whatever name."
    )
    return Group(*(part for part in parts if part is not None), last)


def _identity(file: File) -> tuple[str, str, str]:
    return file.sha256, file.name, file.version


def _settings(lock: Lock) -> dict[str, set[str]]:
    """What a bundle says of itself: what it is for, what it was made of, what was asked for."""
    return {
        "Kubernetes": {lock.kubernetes_version},
        "platform": {lock.platform},
        **{f"component {name}": {version} for name, version in lock.components.items()},
        **{
            f"packages asked for, {release}: {name}": set(names)
            for release, sets in lock.package_sets.items()
            for name, names in sets.items()
        },
        "added by the site": set(lock.extras),
    }


def _packages(lock: Lock) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package in lock.packages:
        name = f"{package.release}: {package.name} ({package.architecture})"
        found.setdefault(name, set()).add(package.version)
    return found


def _image_changes(old: Lock, new: Lock) -> tuple[Change, ...]:
    """Changes of tags; where a tag stays and what it names does not, its digest is shown with it."""
    digests = [{image.name: image.digest for image in lock.images} for lock in (old, new)]
    moved = {name for name, digest in digests[0].items() if digests[1].get(name, digest) != digest}
    return _changes(_tags(old.images, moved), _tags(new.images, moved))


def _tags(images: Iterable[Image], moved: set[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for image in images:
        repository, colon, tag = image.name.rpartition(":")
        if not colon or "/" in tag:  # that was a port
            repository, tag = image.name, "untagged"
        digest = f" ({short(image.digest)})" if image.name in moved else ""
        found.setdefault(repository, set()).add(tag + digest)
    return found


def _changes(old: dict[str, set[str]], new: dict[str, set[str]]) -> tuple[Change, ...]:
    """Names whose versions are not the same; versions that stay are left out."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, set()), new.get(name, set())
        if before != after:
            found.append(Change(name, ", ".join(sorted(before - after)), ", ".join(sorted(after - before))))
    return tuple(found)


def _file_changes(comparison: Comparison) -> tuple[Change, ...]:
    """Files that are not told of as images or packages already; one with other bytes under the same version is."""

    def told(file: File) -> bool:
        return file.path.startswith(BLOBS) or file.path in comparison.package_files

    found = [Change(file.path, "", _version(file)) for file in comparison.added if not told(file)]
    found += [Change(file.path, _version(file), "") for file in comparison.removed if not told(file)]
    found += [Change(new.path, *_versions(old, new)) for old, new in comparison.changed]
    return tuple(sorted(found, key=lambda change: change.name))


def _version(file: File) -> str:
    return short(file.sha256) if file.version in ("", "-") else file.version


def _versions(old: File, new: File) -> tuple[str, str]:
    if _version(old) != _version(new):
        return _version(old), _version(new)
    return f"{_version(old)} ({short(old.sha256)})", f"{_version(new)} ({short(new.sha256)})"


def _section(title: str, changes: tuple[Change, ...]) -> RenderableType | None:
    if not changes:
        return None
    made: Table = table("", title, "old", "new")
    for change in changes:
        sign = "+" if not change.old else "-" if not change.new else "~"
        row(made, sign, change.name, change.old or "-", change.new or "-")
    return Group(made, Text(""))
