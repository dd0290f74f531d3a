"""Every byte of a bundle against its lock; on the machine that builds it and on the one that uses it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from cluster.lock import Lock, parse

HOW = "Build it with `python3 tasks.py bundle build`, or carry it here again."


class BundleError(Exception):
    """There is no usable bundle; the message says where, why and what to do."""


def read_lock(directory: Path) -> Lock:
    """The lock of a bundle. Raises BundleError when there is none or it cannot be read."""
    path = directory / "bundle.lock"
    try:
        return parse(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{path}: there is no bundle here. {HOW}") from None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BundleError(f"{path}: cannot be read as a lock of format 1: {error}. {HOW}") from None


def verify(directory: Path) -> list[str]:
    """Everything wrong with a bundle, one line each; an empty list when every byte is as locked.

    Raises BundleError when the lock itself cannot be read.
    """
    lock = read_lock(directory)
    found = [problem for file in lock.files if (problem := _check(directory, file.path, file.size, file.sha256))]
    locked = {file.path for file in lock.files} | {"bundle.lock"}
    for path in sorted(directory.rglob("*")):
        relative = str(path.relative_to(directory))
        if path.is_symlink() or (not path.is_dir() and relative not in locked):
            found.append(f"{directory / relative}: is not in bundle.lock. Remove it; nothing uses it.")
    return found


def _check(directory: Path, relative: str, size: int, sha256: str) -> str | None:
    path = directory / relative
    if not path.is_file() or path.is_symlink():
        return f"{path}: is missing. {HOW}"
    actual = path.stat().st_size
    if actual != size:
        return f"{path}: has {actual} bytes, bundle.lock says {size}. {HOW}"
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        return f"{path}: sha256 is {found}, bundle.lock says {sha256}: it was damaged or changed. {HOW}"
    return None
