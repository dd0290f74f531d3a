"""Every byte of a bundle against its lock; on the machine that builds it and on the one that uses it."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from bundle import signature
from bundle.progress import Report
from cluster.lock import File, Lock, parse

HOW = "Build it with `python3 tasks.py bundle build`, or carry it here again."
BLOBS = "images/blobs/sha256/"
# hashlib gives up the interpreter's lock while it works.
HASHERS = 4
CHUNK = 1 << 20


class BundleError(Exception):
    """There is no usable bundle; the message says where, why and what to do."""


def read_lock(directory: Path, public_key: str | Path | None = None) -> Lock:
    """The lock of a bundle, signed by one of the public keys in that file if one is given.

    Raises BundleError when there is none, the signature is not right, or it cannot be read. It is read once, and
    nothing in it is looked at before its signature.
    """
    path = directory / signature.LOCK
    try:
        data = signature.read_plain(path, signature.MOST_LOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{path}: there is no bundle here. {HOW}") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read as a lock of format 2: {error}. {HOW}") from None
    if public_key is not None and (found := signature.check_bytes(data, directory, public_key)):
        raise BundleError("\n".join(found))
    try:
        return parse(data.decode())
    except (UnicodeDecodeError, ValidationError) as error:
        raise BundleError(f"{path}: cannot be read as a lock of format 2: {error}. {HOW}") from None


def verify(directory: Path, public_key: str | Path | None = None, report: Report | None = None) -> list[str]:
    """Everything wrong with a bundle, one line each; an empty list when every byte is as locked.

    Raises BundleError when the lock itself cannot be read or its signature is not right. `report` is told how much has
    been read, such as "312 of 594 MB"; it is called from several threads, one at a time.
    """
    lock = read_lock(directory, public_key)
    present, strange = _walk(directory)
    wanted = [file for file in lock.files if directory / file.path not in strange]
    count = _counter(sum(present.get(file.path, 0) for file in wanted), report)
    with ThreadPoolExecutor(HASHERS) as hashers:  # what map gives is in the lock's order
        checked = hashers.map(lambda file: _check(directory, file, present, count), wanted)
        found = [problem for problem in checked if problem]
    unknown = sorted(present.keys() - {file.path for file in lock.files} - {signature.LOCK, signature.SIGNATURE})
    return [
        *(f"{directory / signature.LOCK}: {words}. {HOW}" for words in contradictions(lock)),
        *found,
        *(f"{shown(path)}: {words}" for path, words in sorted(strange.items())),
        *(f"{shown(directory / path)}: is not in bundle.lock. Remove it; nothing uses it." for path in unknown),
    ]


def contradictions(lock: Lock) -> list[str]:
    """What a lock says that cannot be true of any bundle, in words."""
    digests = {file.path: f"sha256:{file.sha256}" for file in lock.files}
    names = Counter(image.name for image in lock.images)
    found = [f"has {count} images of the name {name}" for name, count in names.items() if count > 1]
    for image in lock.images:
        if image.digest not in image.blobs:
            found.append(f"{image.name} has no blob {image.digest}, which is its manifest")
        for blob in image.blobs:
            if BLOBS + blob.removeprefix("sha256:") not in digests:
                found.append(f"{image.name} has the blob {blob}, which is none of the files")
    for path, digest in digests.items():
        if path.startswith(BLOBS) and BLOBS + digest.removeprefix("sha256:") != path:
            found.append(f"{path} has the digest {digest}, which is not its name")
    for package in lock.packages:
        if package.file not in digests:
            found.append(f"the package {package.name} is in {package.file}, which is none of the files")
    for name in lock.addons:
        if f"addons/{name}.yaml" not in digests:
            found.append(f"the add-on {name} has no manifest among the files")
    return found


def shown(path: Path) -> str:
    """A path that can be printed: a name on disk may hold what commands a terminal, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(path))


def _walk(directory: Path) -> tuple[dict[str, int], dict[Path, str]]:
    """Every file that lies in a bundle with its size, and everything that is neither file nor directory, in words.

    No link is followed, so nothing outside of the bundle is looked at.
    """
    files: dict[str, int] = {}
    strange: dict[Path, str] = {}
    pending = [""]
    while pending:
        within = pending.pop()
        try:
            with os.scandir(directory / within) as rows:
                entries = [(row.name, row.stat(follow_symlinks=False)) for row in rows]
        except OSError as error:
            strange[directory / within] = f"cannot be read: {error.strerror}. {HOW}"
            continue
        for name, status in entries:
            if stat.S_ISDIR(status.st_mode):
                pending.append(f"{within}{name}/")
            elif stat.S_ISREG(status.st_mode):
                files[f"{within}{name}"] = status.st_size
            else:
                what = signature.kind(status)
                strange[directory / within / name] = f"is {what}; a bundle has files and directories alone. {HOW}"
    return files, strange


def _counter(total: int, report: Report | None) -> Callable[[int], None]:
    """Adds up the bytes that threads have read, and reports them."""
    done, turn = 0, threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with turn:
            done += size
            if report is not None:
                report(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return count


def _check(directory: Path, file: File, present: dict[str, int], count: Callable[[int], None]) -> str | None:
    path = directory / file.path
    if file.path not in present:
        return f"{path}: is missing. {HOW}"
    actual = present[file.path]
    if actual != file.size:
        count(actual)
        return f"{path}: has {actual} bytes, bundle.lock says {file.size}. {HOW}"
    try:
        found = _sha256(path, count)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}. {HOW}"
    if found != file.sha256:
        return f"{path}: sha256 is {found}, bundle.lock says {file.sha256}: it was damaged or changed. {HOW}"
    return None


def _sha256(path: Path, count: Callable[[int], None]) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with signature.open_plain(path) as content:
        while size := content.readinto(buffer):
            digest.update(buffer[:size])
            count(size)
    return digest.hexdigest()
