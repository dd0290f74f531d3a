"""What is in a bundle, for people: by its lock, without reading the bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cluster.lock import File, Image, Lock, Package

# Directories whose files have tables of their own.
PARTS = ("images/", "packages/")
UNSAID = "not said"


@dataclass(frozen=True)
class Amount:
    """So many files with so many bytes."""

    files: int = 0
    size: int = 0

    def plus(self, file: File) -> Amount:
        return Amount(self.files + 1, self.size + file.size)

    def __str__(self) -> str:
        return f"{self.files} file{'' if self.files == 1 else 's'}, {size_text(self.size)}"


@dataclass(frozen=True)
class Share:
    """Bytes of an image's blobs: those that no other image has, and those that others have too."""

    own: int
    shared: int


def tree(lock: Lock) -> RenderableType:
    """Everything that a lock says, to be printed by rich."""
    return Group(
        _title(lock),
        _section("Directories", _directory_tree(lock)),
        _section("Programs and other files", _program_table(lock)),
        _section("Images: bytes of their own, shared with others; digest here and where from", _images(lock)),
        *(
            _section(f"Packages of {release}", _package_table(lock, release))
            for release in sorted({package.release for package in lock.packages})
        ),
        _section("Added by the site", _lines(lock.extras)),
        _section("Programs and other files are from", _origins(lock)),
        _section("All files are from", _amount_table("source", sources(lock))),
        _section("Licences", _amount_table("licence", licences(lock))),
    )


def directories(lock: Lock) -> dict[str, Amount]:
    """What each directory has below it, by its path; the bundle itself is `.`."""
    found: dict[str, Amount] = {}
    for file in lock.files:
        for parent in PurePosixPath(file.path).parents:
            found[str(parent)] = found.get(str(parent), Amount()).plus(file)
    return dict(sorted(found.items()))


def shares(lock: Lock) -> dict[str, Share]:
    """How the bytes of each image, by its name, are its own or shared with other images."""
    sizes = {f"sha256:{file.sha256}": file.size for file in lock.files}
    users = Counter(blob for image in lock.images for blob in set(image.blobs))
    return {image.name: _share(image, sizes, users) for image in lock.images}


def _share(image: Image, sizes: dict[str, int], users: Counter[str]) -> Share:
    own = sum(sizes.get(blob, 0) for blob in set(image.blobs) if users[blob] == 1)
    return Share(own, sum(sizes.get(blob, 0) for blob in set(image.blobs)) - own)


def licences(lock: Lock) -> dict[str, Amount]:
    """How many files are under each licence, the most first."""
    return _grouped(lock, lambda file: file.licence or UNSAID)


def sources(lock: Lock) -> dict[str, Amount]:
    """How many files are from each host, or were built by what, the most bytes first."""
    return _grouped(lock, lambda file: _origin(file.source) or UNSAID)


def _grouped(lock: Lock, key: Callable[[File], str]) -> dict[str, Amount]:
    found: dict[str, Amount] = {}
    for file in lock.files:
        found[key(file)] = found.get(key(file), Amount()).plus(file)
    return dict(sorted(found.items(), key=lambda row: (-row[1].size, row[0])))


def _origin(source: str) -> str:
    """The host of an address; what a Go program was built with, without what it is; other words as they are."""
    if source.startswith(("https://", "http://")):
        return urlsplit(source).hostname or source
    return f"built with {source.partition(' ')[2]}" if source.startswith("go:") else source


def size_text(size: int) -> str:
    """A number of bytes, in the unit that people would say."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least * 0.99995:  # what would be rounded to 1000.0 of the next smaller unit
            return f"{size / least:.1f} {unit}"
    return f"{size} B"


def short(digest: str) -> str:
    """As much of a digest as tells two apart."""
    return digest.removeprefix("sha256:")[:12]


def table(*columns: str) -> Table:
    """A table without lines, which a pipe keeps readable. Columns that end in `>` are numbers; no cell is cut."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        number = column.endswith(">")
        made.add_column(
            column.removesuffix(">"), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return made


def row(made: Table, *cells: str) -> None:
    """Add cells as they are; rich would take `[...]` in them for its markup."""
    made.add_row(*(Text(cell) for cell in cells))


def _title(lock: Lock) -> Text:
    total = Amount(len(lock.files), sum(file.size for file in lock.files))
    return Text(
        f"Kubernetes {lock.kubernetes_version} for {lock.platform}: {len(lock.images)} images, "
        f"{len(lock.packages)} packages, {total}"
    )


def _section(title: str, content: RenderableType) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), content)


def _lines(words: Sequence[str]) -> Text:
    return Text("\n".join(words) or "nothing")


def _directory_tree(lock: Lock) -> Tree:
    amounts = directories(lock)
    root = Tree(Text(f"bundle/  {amounts.get('.', Amount())}"))
    nodes = {".": root}
    for path, amount in amounts.items():
        if path != ".":
            step = PurePosixPath(path)
            nodes[path] = nodes[str(step.parent)].add(Text(f"{step.name}/  {amount}"))
    return root


def _others(lock: Lock) -> list[File]:
    return [file for file in lock.files if not file.path.startswith(PARTS)]


def _program_table(lock: Lock) -> Table:
    made = table("file", "version", "size>", "licence")
    for file in _others(lock):
        row(made, file.path, file.version, size_text(file.size), file.licence or "-")
    return made


def _origins(lock: Lock) -> Text:
    """Each source and below it what is from there: an address is too long for a column."""
    found: dict[str, list[str]] = {}
    for file in _others(lock):
        found.setdefault(file.source or UNSAID, []).append(file.path)
    return _lines([f"{source}\n    {' '.join(paths)}" for source, paths in sorted(found.items())])


def _images(lock: Lock) -> Text:
    """Two lines each: a reference is too long for a column, and must not be broken."""
    found = shares(lock)
    lines = []
    for image in sorted(lock.images, key=lambda image: image.name):
        share = found[image.name]
        size, own, shared = (size_text(each) for each in (share.own + share.shared, share.own, share.shared))
        origin = f"from {short(image.origin)}" if image.origin else "made here"
        lines.append(f"{image.name}\n    {size:>8}, own {own:>8}, shared {shared:>8}, {short(image.digest)}, {origin}")
    return _lines(lines)


def _package_table(lock: Lock, release: str) -> RenderableType:
    sizes = {file.path: file.size for file in lock.files}
    mine = sorted((each for each in lock.packages if each.release == release), key=_by_name)
    made = table("package", "version", "architecture", "size>")
    for package in mine:
        row(made, package.name, package.version, package.architecture, size_text(sizes.get(package.file, 0)))
    total = Amount(len(mine), sum(sizes.get(package.file, 0) for package in mine))
    asked = [f"{name}: {' '.join(names)}" for name, names in lock.package_sets.get(release, {}).items()]
    return Group(Text(f"{total}; asked for are, and the rest is what they need:"), Text("\n".join(asked)), made)


def _by_name(package: Package) -> tuple[str, str, str]:
    return package.name, package.version, package.architecture


def _amount_table(name: str, amounts: dict[str, Amount]) -> Table:
    made = table(name, "files>", "size>")
    for each, amount in amounts.items():
        row(made, each, str(amount.files), size_text(amount.size))
    return made
