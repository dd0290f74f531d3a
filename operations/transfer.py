"""Secret files of any size from a host and to it, with progress.

Under sudo pyinfra takes files through a copy that anyone may read; here that copy lies in a directory that only the SSH
user may enter, and is removed with it.
"""

from __future__ import annotations

import io
import os
import posixpath
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import OperationError, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS


def _arguments() -> dict[str, Any]:
    """How this operation becomes root."""
    known: Mapping[str, Any] = host.current_op_global_arguments or {}
    return {key: value for key, value in known.items() if key in CONNECTOR_ARGUMENT_KEYS}


@contextmanager
def _private() -> Iterator[str]:
    """A directory of the SSH user's own on this host, 0700."""
    ok, output = host.run_shell_command(StringCommand("mktemp -d"))
    if not ok:
        raise OperationError(f"{host.name}: `mktemp -d` failed: {output.stderr}")
    directory = output.stdout.strip()
    try:
        yield directory
    finally:
        host.run_shell_command(StringCommand(f"rm -rf {shlex.quote(directory)}"))


class _Counted(io.RawIOBase):
    """A file that tells how much of it has passed, now and then and at the end."""

    def __init__(self, path: Path, mode: str, what: str, size: int, every: float = 5) -> None:
        self.file, self.what, self.size, self.every = path.open(mode), what, size, every
        self.done, self.told = 0, time.monotonic()

    def _count(self, passed: int) -> None:
        self.done += passed
        if passed and (self.done == self.size or time.monotonic() - self.told >= self.every):
            self.told = time.monotonic()
            host.log(f"{self.what}: {self.done / 1e6:.1f} of {self.size / 1e6:.1f} MB")

    def read(self, size: int = -1) -> bytes:
        part: bytes = self.file.read(size)
        self._count(len(part))
        return part

    def write(self, part: Any) -> int:
        self._count(len(part))
        return int(self.file.write(part))

    def seek(self, offset: int, whence: int = 0) -> int:
        self.done = 0
        return self.file.seek(offset, whence)

    def close(self) -> None:
        self.file.close()
        super().close()


def fetch(source: str, dest: Path, size: int) -> None:
    """
    Fetch a file of this host, 0600, beside its destination and renamed. Raises OperationError.

    + source: absolute path on the host
    + dest: path on the control machine, in a directory that is there
    + size: in bytes, for the progress that is told
    """
    descriptor, beside = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}.")
    os.close(descriptor)
    try:
        with _private() as directory, _Counted(Path(beside), "wb", f"Fetching {dest.name}", size) as target:
            between = posixpath.join(directory, "file")
            if not host.get_file(source, target, remote_temp_filename=between, **_arguments()):
                raise OperationError(f"{host.name}: {source} could not be fetched.")
        Path(beside).rename(dest)
    finally:
        Path(beside).unlink(missing_ok=True)


def send(source: Path, dest: str) -> None:
    """
    Send a file to this host. Raises OperationError.

    + source: path on the control machine
    + dest: absolute path on the host, in a directory of root's alone
    """
    with _private() as directory, _Counted(source, "rb", f"Sending {source.name}", source.stat().st_size) as file:
        between = posixpath.join(directory, "file")
        if not host.put_file(file, dest, remote_temp_filename=between, **_arguments()):
            raise OperationError(f"{host.name}: {dest} could not be sent.")
