"""Things that are costly to make, kept by the content of their recipe and shared by every clone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

ROOT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyinfra-kubeadm"


def directory(kind: str, recipe: object, make: Callable[[Path], None]) -> Path:
    """The directory made by `make` for this recipe; made beside and renamed, so that it is whole or not there.

    The recipe is anything that JSON can hold; a change of it is another directory.
    """
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    path = ROOT / f"{kind}-{key}"
    if path.is_dir():
        return path
    beside = ROOT / f"{kind}-{key}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        make(beside)
        try:
            beside.rename(path)
        except OSError:  # another build has made the same meanwhile
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return path
