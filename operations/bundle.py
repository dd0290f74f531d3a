"""Pieces of the bundle carried to a node, and programs installed from them."""

from __future__ import annotations

import posixpath
import shlex
import tarfile
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation

from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY
from cluster.relay import batches
from facts.checksum import Checksums
from operations.change import will

# How much is sent, unpacked and checked at a time: what a cut connection costs at most, and room needed in /tmp.
BATCH = 32 * 1024 * 1024  # bytes
# Every piece on every host is of this date: with apt, a part is only continued where the server's file is as old.
DATE = 946684800  # seconds since 1970; the start of 2000


@contextmanager
def archive(source: Path, files: Sequence[File]) -> Iterator[Path]:
    """The path of a tar of these pieces, which anyone may read whoever may read them here.

    The file has no name, so that it is gone with this process however that ends; Linux opens it anew under /proc.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mode, entry.mtime = 0o644, DATE
        return entry

    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for file in files:
                tar.add(source / file.path, file.path, recursive=False, filter=plain)
        packed.flush()
        yield Path(f"/proc/self/fd/{packed.fileno()}")


def room_script(target: str, size: int) -> str:
    """Shell that fails when the file system of `target` has not so many bytes free."""
    return (
        f"umask 022; mkdir -p {target} && free=$(df -Pk {target} | awk 'NR == 2 {{print $4}}') && "
        f'{{ test "$free" -gt {size // 1024} || {{ '
        f'echo "{target}: $free KiB free, {size // 1024} needed. Make room and run again." >&2; exit 1; }}; }}'
    )


def unpack_script(uploaded: str, target: str) -> str:
    """Shell that unpacks an archive beside `target`, checks every piece against the list on its standard input,
    and only then moves them in."""
    return (
        f'umask 022; mkdir -p {target} && s={target}.new && rm -rf "$s" && mkdir "$s" && '
        f'trap \'rm -rf "$s" "$s.sums" {uploaded}\' EXIT && cat > "$s.sums" && '
        f'tar -x --no-same-owner -f {uploaded} -C "$s" && cd "$s" && '
        # The same lines from either; openssl uses the processor's own instructions and is several times as fast.
        "if command -v openssl >/dev/null; then sum='openssl dgst -sha256 -r'; else sum='sha256sum -b'; fi && "
        "{ find . -type f -printf '%P\\n' | xargs -r -d '\\n' $sum | sed 's/ \\*/  /' | "
        # Shows pieces that are not as listed; grep ends with 1 when there are none.
        'grep -v -x -F -f - "$s.sums" >&2; test $? -eq 1 || { '
        'echo "These pieces are not as bundle.lock says. Run again to carry them anew." >&2; exit 1; }; } && '
        f"find . -type d -exec mkdir -p {target}/{{}} \\; && "
        # find's own status says nothing of the moves: it prints those that failed.
        f'test -z "$(find . -type f ! -exec mv -fT {{}} {target}/{{}} \\; -print)"'
    )


def lacking(files: Sequence[File]) -> list[File]:
    """Those pieces of the bundle that this host does not have, by content."""
    if not files:
        return []
    there = host.get_fact(Checksums, paths=tuple(posixpath.join(NODE_DIRECTORY, file.path) for file in files))
    return [file for file in files if there.get(posixpath.join(NODE_DIRECTORY, file.path)) != file.sha256]


def room(wanted: Sequence[File], later: Sequence[File]) -> StringCommand:
    """A look for room for these pieces, and for what the host does not have of those to come."""
    return StringCommand(room_script(NODE_DIRECTORY, sum(file.size for file in [*wanted, *lacking(later)])))


class Progress:
    """Bytes that have come to this host, told now and then, and once more at the end."""

    def __init__(self, files: Sequence[File], every: float = 10) -> None:
        self.total, self.done, self.every, self.told = sum(file.size for file in files), 0, every, time.monotonic()

    def add(self, files: Sequence[File]) -> None:
        """Count these files as come."""
        self.done += sum(file.size for file in files)
        if self.done == self.total or time.monotonic() - self.told >= self.every:
            self.told = time.monotonic()
            host.log(f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB are here, and checked")


def announce(wanted: Sequence[File], files: Sequence[File]) -> None:
    """Say what will be carried."""
    will(f"carry {len(wanted)} of {len(files)} pieces, {sum(file.size for file in wanted) / 1e6:.0f} MB")


@operation()
def carry(
    files: Sequence[File], source: str, later: Sequence[File] = ()
) -> Generator[FileUploadCommand | StringCommand, None, None]:
    """
    Carry those pieces of the bundle that the host does not have over SSH, and check each on arrival.

    What has arrived stays: a run after a cut carries the rest.

    + files: the pieces, from bundle.lock
    + source: the bundle's directory on the control machine
    + later: pieces that will follow, and need room as well
    """
    wanted = lacking(files)
    if not wanted:
        host.noop(f"{len(files)} pieces of the bundle are there")
        return
    announce(wanted, files)
    if not host.state.is_executing:
        yield StringCommand(f"# {len(wanted)} pieces")
        return
    yield room(wanted, later)
    uploaded = host.get_temp_filename("pieces of the bundle")
    progress = Progress(wanted)
    for batch in batches(wanted, BATCH):
        with archive(Path(source), batch) as packed:
            # Straight to the SSH user's own file: under sudo pyinfra would copy it once more.
            yield FileUploadCommand(str(packed), uploaded, _sudo=False)
        sums = "".join(f"{file.sha256}  {file.path}\n" for file in batch)
        yield StringCommand(unpack_script(shlex.quote(uploaded), NODE_DIRECTORY), _stdin=sums)
        progress.add(batch)


def other_programs(wanted: Mapping[str, File]) -> dict[str, File]:
    """Those programs that are not there, or not as in the bundle; while planning, they are announced."""
    there = host.get_fact(Checksums, paths=tuple(wanted), programs=True)
    differing = {dest: file for dest, file in wanted.items() if there.get(dest) != file.sha256}
    for dest, file in differing.items():  # all of them now: planning ends at the first command
        will(f"{'replace' if dest in there else 'install'} {dest} ({file.name} {file.version})")
    return differing


def install(dest: str, file: File) -> StringCommand:
    """Install a program from its piece on the node, beside the old one and renamed over it."""
    source, target = shlex.quote(posixpath.join(NODE_DIRECTORY, file.path)), shlex.quote(dest)
    return StringCommand(
        f"mkdir -p {shlex.quote(posixpath.dirname(dest))} && "
        f"install -m 755 {source} {target}.new && mv -fT {target}.new {target}"
    )


@operation()
def programs(wanted: Mapping[str, File]) -> Generator[StringCommand, None, None]:
    """
    Install programs from the pieces on the node, each beside the old one and renamed over it.

    + wanted: destination path -> piece
    """
    differing = other_programs(wanted)
    if not differing:
        host.noop(f"{len(wanted)} programs are of the bundle's versions")
        return
    for dest, file in differing.items():
        yield install(dest, file)
