"""Programs out of a tar archive, which is refused whole when any member of it could lead elsewhere."""

from __future__ import annotations

import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from bundle.command import BuildError

BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error)


def refuse_unsafe(archive: Path) -> None:
    """Raises BuildError that names the first member that is absolute, has `..`, or is no file and no directory.

    For archives that another program unpacks. Those of images are no exception: `skopeo copy` and Docker before 25
    write links between layers into a docker-archive; oci-archives and those of `docker save` since have none.
    """
    _open(archive).close()


def unpack(archive: Path, members: Mapping[str, str], directory: Path) -> None:
    """Write members of an archive as programs: name in the directory -> member. Raises BuildError, see above."""
    with _open(archive) as opened:
        found = {posixpath.normpath(member.name): member for member in opened.getmembers() if member.isfile()}
        for name, wanted in members.items():
            member = found.get(posixpath.normpath(wanted))
            content = opened.extractfile(member) if member else None
            if content is None:
                raise BuildError(
                    f"{archive.name}: has no {wanted}. It holds {', '.join(sorted(found)[:20]) or 'no file'}. "
                    "Correct `programs` of the component's download in bundle.yaml."
                )
            with content, (directory / name).open("wb") as program:
                shutil.copyfileobj(content, program)
            (directory / name).chmod(0o755)


def _open(archive: Path) -> tarfile.TarFile:
    """An archive, opened, of safe members. Raises BuildError."""
    try:
        opened = tarfile.open(archive)  # noqa: SIM115 closed by the caller
        members = opened.getmembers()
    except BROKEN as error:
        why = str(error).partition(":\n")[0]  # tarfile goes on with a line for each compression it knows
        raise BuildError(f"{archive}: cannot be read as a tar archive: {why}. Get it again.") from None
    for member in members:
        if problem := unsafe(member):
            opened.close()
            raise BuildError(
                f"{archive}: is refused, for its member {member.name!r} {problem}. "
                "Nothing of it was used. Get the archive from where its project publishes it."
            )
    return opened


def unsafe(member: tarfile.TarInfo) -> str:
    """What is wrong with a member of an archive; empty when nothing is."""
    if member.name.startswith("/"):
        return "has an absolute path"
    if ".." in member.name.split("/"):
        return "leads out by `..`"
    if member.issym() or member.islnk():
        return f"is a link to {member.linkname!r}"
    if not (member.isfile() or member.isdir()):
        return "is neither a file nor a directory"
    return ""
