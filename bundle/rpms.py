"""RPM packages with everything they need, as a repository with signed metadata (guide 2.2).

dnf 4 resolves them against an empty machine, so nothing that this machine happens to have is missing from the closure,
and fetches them from the release's repositories and no others
(https://dnf.readthedocs.io/en/latest/command_ref.html). It checks each repository's metadata and each package by that
repository's key. Nothing of this machine's own rpm is read or written. Proxies are those of the environment.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from bundle import cache, packages, repository_key
from bundle.catalogue import Release
from bundle.command import run
from bundle.packages import Pins
from bundle.progress import step
from cluster.lock import Package

# dnf's plugin that holds versions, for which apt has `apt-mark`; hosts that hold a package need it.
VERSIONLOCK = "python3-dnf-plugin-versionlock"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# How dnf says what is wrong.
ERRORS = r"^(Error|\[(MIRROR|FAILED)\]|No match|Package |Public key| Problem|  - |  \S+: )"
ADVICE = (
    (r"Unable to find a match", packages.GONE),
    (r"checksum doesn't match", packages.CHANGED),
    (
        r"GPG check FAILED|GPG signature verification error|Bad GPG signature",
        "A package or an index is not signed by its repository's key. Name another mirror in bundle.yaml, or the "
        "right `key` of the repository.",
    ),
    (r"Failed to download|Error downloading packages", packages.SILENT),
    ("", packages.CORRECT),
)
MAIN = """\
[main]
reposdir={directory}/none
varsdir={directory}/none
cachedir=/var/cache/dnf
persistdir=/var/lib/dnf
logdir=/var/log
gpgcheck=True
install_weak_deps=False
best=True
skip_if_unavailable=False
retries=3
"""
REPOSITORY = """
[{name}]
name={name}
baseurl={url}
gpgkey=file://{key}
repo_gpgcheck=True
"""
METADATA = {"repo": "http://linux.duke.edu/metadata/repo", "common": "http://linux.duke.edu/metadata/common"}


def repository(name: str, release: Release, platform: str, mirrors: Mapping[str, str], pins: Pins) -> Path:
    """A directory with the closure of all sets: packages, signed metadata, the keys for both.

    With pins it holds exactly those packages, else what the repositories have now. Raises BuildError.
    """
    keys = {f"key-{each}.asc": packages.key_file(each, row) for each, row in release.repositories.items()}

    def collect(made: Path) -> None:
        names = sorted({VERSIONLOCK, *(package for group in release.sets.values() for package in group)})
        wanted = [f"{row.name}-{row.version}.{row.architecture}" for row in pins] or names
        with step(f"collecting {len(wanted)} packages and all they need for {name}"):
            _dnf(name, release, platform, mirrors, wanted, made)

    archives = packages.archives(name, pins, ".rpm", collect)

    def make(made: Path) -> None:
        packages.link(archives, made)
        for each, path in keys.items():
            shutil.copyfile(path, made / each)
        index(made)

    texts = {each: path.read_text() for each, path in keys.items()}
    return cache.directory(f"packages-{name}", [archives.name, repository_key.fingerprint(), texts], make)


def index(directory: Path) -> None:
    """Write `repodata` with its signature, and `repository.asc`, for the packages of a directory.

    The same packages and key give the same bytes.
    """
    date = str(repository_key.DATE)
    for path in directory.glob("*.rpm"):
        os.utime(path, (repository_key.DATE, repository_key.DATE))  # it gets into the metadata
    run(
        "createrepo_c", "--quiet", "--no-database", "--general-compress-type=gz", f"--revision={date}",
        "--set-timestamp-to-revision", directory,
    )  # fmt: skip
    repodata = directory / "repodata"
    repository_key.detach_sign(repodata / "repomd.xml", repodata / "repomd.xml.asc")
    repository_key.public(directory / "repository.asc")


def listed(directory: Path, release: str) -> list[Package]:
    """What a repository's metadata says that it holds; versions as dnf writes them, without an epoch of 0."""
    repomd = ElementTree.parse(directory / "repodata/repomd.xml")
    location = repomd.find("repo:data[@type='primary']/repo:location", METADATA)
    assert location is not None, "createrepo_c always writes one"
    rows = ElementTree.fromstring(gzip.decompress((directory / location.attrib["href"]).read_bytes()))
    return [_package(row, release) for row in rows.findall("common:package", METADATA)]


def _package(row: ElementTree.Element, release: str) -> Package:
    def child(name: str) -> ElementTree.Element:
        found = row.find(f"common:{name}", METADATA)
        assert found is not None, f"createrepo_c writes {name} of every package"
        return found

    version = child("version").attrib
    return Package(
        name=child("name").text or "",
        version=f"{version['epoch']}:{version['ver']}-{version['rel']}".removeprefix("0:"),
        architecture=child("arch").text or "",
        release=release,
        file=f"packages/{release}/{child('location').attrib['href']}",
    )


def _dnf(
    name: str, release: Release, platform: str, mirrors: Mapping[str, str], wanted: Sequence[str], target: Path
) -> None:
    """Have dnf resolve, fetch and check packages and what they need, as for an empty machine.

    `dnf install --downloadonly`, not `dnf download`: that checks no package's signature, and resolves each name by
    itself, so that what it fetches need not fit together.
    """
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "dnf.conf"
        sections = [
            REPOSITORY.format(name=each, url=packages.placed(row.url, mirrors), key=packages.key_file(each, row))
            for each, row in release.repositories.items()
        ]
        config.write_text(MAIN.format(directory=directory) + "".join(sections))
        words = (
            "dnf", "--assumeyes", "--noplugins", f"--config={config}", f"--installroot={directory}/root",
            f"--releasever={name.rpartition('-')[2]}", f"--forcearch={ARCHITECTURES[platform.rpartition('/')[2]]}",
            "install", "--downloadonly", f"--downloaddir={target}", *wanted,
        )  # fmt: skip
        packages.ask(f"packages of {name}", words, ERRORS, ADVICE)
