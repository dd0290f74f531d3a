"""Pieces of the bundle carried to a node, and programs installed from them."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
import tarfile
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from gevent.lock import RLock
from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation

from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY
from facts.checksum import Checksums

_packing = RLock()
_archives: dict[str, int] = {}


def archive(source: Path, files: Sequence[File]) -> Path:
    """The path of one tar of these pieces; hosts that lack the same pieces share it.

    The file has no name, so that it is gone with this process however that ends. Linux opens it anew under /proc for
    each host that reads it.
    """
    key = hashlib.sha256("\n".join(f"{file.sha256} {file.path}" for file in files).encode()).hexdigest()
    with _packing:
        if key not in _archives:
            with tempfile.TemporaryFile() as packed:
                with tarfile.open(fileobj=packed, mode="w") as tar:
                    for file in files:
                        tar.add(source / file.path, file.path, recursive=False)
                packed.flush()
                _archives[key] = os.dup(packed.fileno())
    return Path(f"/proc/self/fd/{_archives[key]}")


def unpack_script(uploaded: str, target: str, size: int) -> str:
    """Shell that unpacks an archive beside `target`, checks every piece against the list on its standard input,
    and only then moves them in."""
    return (
        f'umask 022; mkdir -p {target} && s={target}.new && rm -rf "$s" && mkdir "$s" && '
        f"trap 'rm -rf \"$s\" {uploaded}' EXIT && "
        f"free=$(df -Pk {target} | awk 'NR == 2 {{print $4}}') && "
        f'{{ test "$free" -gt {size // 1024} || {{ '
        f'echo "{target}: $free KiB free, {size // 1024} needed. Make room and run again." >&2; exit 1; }}; }} && '
        f'tar -x --no-same-owner -f {uploaded} -C "$s" && cd "$s" && sha256sum --quiet -c - && '
        f"find . -type d -exec mkdir -p {target}/{{}} \\; && "
        # find's own status says nothing of the moves: it prints those that failed.
        f'test -z "$(find . -type f ! -exec mv -fT {{}} {target}/{{}} \\; -print)"'
    )


@operation()
def pieces(source: str, files: Sequence[File]) -> Generator[FileUploadCommand | StringCommand, None, None]:
    """
    Carry those pieces of the bundle that the node does not have, and check each on arrival.

    + source: the bundle's directory on the control machine
    + files: the pieces, from bundle.lock
    """
    there = host.get_fact(Checksums, paths=tuple(posixpath.join(NODE_DIRECTORY, file.path) for file in files))
    lacking = [file for file in files if there.get(posixpath.join(NODE_DIRECTORY, file.path)) != file.sha256]
    if not lacking:
        host.noop(f"{len(files)} pieces of the bundle are there")
        return
    size = sum(file.size for file in lacking)
    if not host.state.is_executing:
        host.log(f"Will carry {len(lacking)} of {len(files)} pieces, {size / 1e6:.0f} MB")
        yield StringCommand(f"# {len(lacking)} pieces")
        return
    uploaded = host.get_temp_filename(f"{hashlib.sha256(lacking[0].sha256.encode()).hexdigest()}.tar")
    # Straight to the SSH user's own file: under sudo pyinfra would copy it once more.
    yield FileUploadCommand(str(archive(Path(source), lacking)), uploaded, _sudo=False)
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in lacking)
    yield StringCommand(unpack_script(shlex.quote(uploaded), NODE_DIRECTORY, size), _stdin=sums)


@operation()
def programs(wanted: Mapping[str, File]) -> Generator[StringCommand, None, None]:
    """
    Install programs from the pieces on the node, each beside the old one and renamed over it.

    + wanted: destination path -> piece
    """
    there = host.get_fact(Checksums, paths=tuple(wanted))
    differing = {dest: file for dest, file in wanted.items() if there.get(dest) != file.sha256}
    if not differing:
        host.noop(f"{len(wanted)} programs are of the bundle's versions")
        return
    if not host.state.is_executing:  # all of them now: planning ends at the first command
        for dest, file in differing.items():
            host.log(f"Will {'replace' if dest in there else 'install'} {dest} ({file.name} {file.version})")
    for dest, file in differing.items():
        source = shlex.quote(posixpath.join(NODE_DIRECTORY, file.path))
        target = shlex.quote(dest)
        yield StringCommand(
            f"mkdir -p {shlex.quote(posixpath.dirname(dest))} && "
            f"install -m 755 {source} {target}.new && mv -fT {target}.new {target}"
        )
