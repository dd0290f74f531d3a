"""What deb and rpm repositories of a bundle have in common: package files of an earlier lock, mirrors, refusals."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bundle import cache
from bundle.catalogue import Release, Repository
from bundle.command import BuildError
from bundle.download import Unavailable, refuse_credentials
from bundle.sources import base
from cluster.lock import Lock, Package

# What an earlier lock says of a release: package -> sha256 of its file.
Pins = Mapping[Package, str]
UPDATE = "`python3 tasks.py bundle build --update`"
# What to do when a package manager cannot have what it was asked for.
GONE = (
    "bundle.lock has these versions, or bundle.yaml these names, and the archive has not. For an earlier lock name a "
    "mirror that keeps old versions under `mirrors` in bundle.yaml, such as "
    "`deb.debian.org/debian: http://snapshot.debian.org/archive/debian/<time>`; "
    f"{UPDATE} takes present versions. Otherwise correct the names."
)
CHANGED = (
    "What came is not what the archive's signed index says: it was changed on the way, or the mirror is just being "
    "updated. Build again; if it stays so, name another mirror in bundle.yaml."
)
SILENT = (
    "The archive does not answer, or has nothing there. Look at the network, set http_proxy and https_proxy, or name "
    "a mirror that answers under `mirrors` in bundle.yaml."
)
CORRECT = "Correct the release's names, `suite` and `repositories` in bundle.yaml."
WORDS = 300  # of a line that a package manager says; some hold every package's name


def pins(lock: Lock | None, name: str, release: Release, platform: str) -> dict[Package, str]:
    """The packages that a build must take again: those of an earlier lock that was made for the same sets.

    Empty when there is no such lock, or anything that decides about the closure has changed since.
    """
    if lock is None or lock.platform != platform or lock.package_sets.get(name) != release.sets:
        return {}
    sha256 = {file.path: file.sha256 for file in lock.files}
    found = {row: sha256[row.file] for row in lock.packages if row.release == name}
    return found if set(release.image_base) <= {row.name for row in found} else {}


def placed(url: str, mirrors: Mapping[str, str]) -> str:
    """A URL at the address that stands in place of its host, or of its host and the beginning of its path.

    Addresses are as in bundle.sources.Place: `{"deb.debian.org": "mirror.example.org"}`. Raises BuildError when the
    URL holds a password.
    """
    rest = url.partition("://")[2]
    for known in sorted(mirrors, key=len, reverse=True):
        # A source of apt has its suite after a space.
        if rest.startswith(known) and rest[len(known) : len(known) + 1] in ("", "/", " "):
            url = base(mirrors[known]) + rest.removeprefix(known)
            break
    refuse_credentials(url)
    return url


def archives(name: str, pinned: Pins, suffix: str, collect: Callable[[Path], None]) -> Path:
    """The directory of a release's package files, whose names end in `suffix`, and of nothing else.

    Pinned ones are from the cache when they are there; without pins `collect` is asked each time. Raises BuildError
    when a file is not as it is pinned.
    """
    wanted = {row.file.rpartition("/")[2]: sha256 for row, sha256 in pinned.items()}

    def make(made: Path) -> None:
        collect(made)
        if wrong := _differing(made, wanted, suffix):
            raise BuildError(
                f"packages of {name}: what was fetched is not what bundle.lock has: {', '.join(wrong)}. The same "
                "version must have the same bytes: ask who keeps that archive, or name another mirror in bundle.yaml. "
                f"{UPDATE} takes what is there now."
            )

    if wanted:
        path = cache.directory(f"archives-{name}", wanted, make)
    else:
        cache.ROOT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"archives-{name}.", dir=cache.ROOT) as directory:
            beside = Path(directory)
            collect(beside)
            wanted = digests(beside, suffix)
            path = cache.directory(f"archives-{name}", wanted, lambda made: link(beside, made))
    if wrong := _differing(path, wanted, suffix):
        raise BuildError(f"{path}: {', '.join(wrong)} changed since it was made. Remove it and build again.")
    return path


def digests(directory: Path, suffix: str) -> dict[str, str]:
    """sha256 of each package file of a directory, by the file's name."""
    found = {}
    for path in sorted(directory.glob(f"*{suffix}")):
        with path.open("rb") as content:
            found[path.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def _differing(directory: Path, wanted: Mapping[str, str], suffix: str) -> list[str]:
    found = digests(directory, suffix)
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def link(source: Path, target: Path) -> None:
    """Have the same files in another directory of the cache, without a copy."""
    for path in source.iterdir():
        os.link(path, target / path.name)


def key_file(name: str, repository: Repository) -> Path:
    """The file of the key by which a repository of the catalogue is checked. Raises BuildError when it is missing."""
    path = Path(repository.key).resolve()
    if not path.is_file():
        raise BuildError(f"{path}: the key of repository {name} is not there. Correct its `key` in bundle.yaml.")
    return path


def ask(what: str, words: Sequence[str | Path], errors: str, advice: Sequence[tuple[str, str]]) -> None:
    """Run a package manager.

    `errors` is a pattern of the lines by which it says what is wrong, `advice` what to do by a pattern of its words,
    the last of which fits all. Raises Unavailable when another archive may have what this one has not, else
    BuildError, with its words and what to do.
    """
    command = [str(word) for word in words]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError:
        raise BuildError(f"{what}: there is no {command[0]} on this machine. Install it with apt.") from None
    if not done.returncode:
        return
    lines = [*dict.fromkeys(line[:WORDS] for line in done.stdout.splitlines() if re.search(errors, line))]
    said = "\n".join(lines[-30:]) or done.stdout[-3000:].strip()
    pattern, todo = next(row for row in advice if re.search(row[0], done.stdout))
    if todo in (GONE, SILENT):
        reason = "; ".join(line.strip() for line in lines if re.search(pattern, line))
        raise Unavailable(f"{what}: {reason}", todo)
    raise BuildError(f"{what}: {command[0]} exited with {done.returncode}:\n{said}\n{todo}")
