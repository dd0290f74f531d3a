"""What packages say of their licences themselves."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bundle import cache
from bundle.command import run
from bundle.progress import step

# https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/#license-field
FIELD = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
COPYRIGHT = re.compile(r"\./usr/share/doc/[^/]+/copyright")


def of(repository: Path) -> dict[str, str]:
    """Licences of a repository's package files, by their names; empty for one that says none in a form to be read.

    `repository` is a directory of the cache, which is never another one under the same name.
    """

    def make(made: Path) -> None:
        files = sorted(path for path in repository.iterdir() if path.suffix in (".deb", ".rpm"))
        with step(f"reading licences of {len(files)} packages"), ThreadPoolExecutor(4) as readers:
            found = dict(zip((path.name for path in files), readers.map(_licence, files), strict=True))
        (made / "licences.json").write_text(json.dumps(found))

    known: dict[str, str] = json.loads(
        (cache.directory("licences", repository.name, make) / "licences.json").read_text()
    )
    return known


def _licence(path: Path) -> str:
    if path.suffix == ".rpm":
        return run("rpm", "-qp", "--nosignature", "--qf", "%{LICENSE}", path).strip()
    return ", ".join(sorted(set(FIELD.findall(_copyright(path))), key=str.casefold))


def _copyright(deb: Path) -> str:
    """The text of a package's copyright file; empty when it has none of its own."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if member.isfile() and COPYRIGHT.fullmatch(member.name):
                content = archive.extractfile(member)
                text = content.read() if content else b""
                process.kill()  # the rest of the package is of no interest
                return text.decode(errors="replace")
    return ""
