"""Debian packages with everything they need, as a flat repository with signed metadata (guide 2.2).

mmdebstrap asks apt for the packages against an empty machine, so nothing that this machine happens to have is missing
from the closure (https://manpages.debian.org/bookworm/mmdebstrap/mmdebstrap.1.en.html). apt checks what it fetches by
the key of each archive. Proxies are those of the environment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from email import message_from_string
from email.utils import formatdate
from pathlib import Path

from bundle import cache, packages, repository_key
from bundle.catalogue import Release
from bundle.command import BuildError, run
from bundle.packages import Pins
from bundle.progress import step
from cluster.lock import Package

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# As mmdebstrap's own for a stable suite.
SOURCES = (
    "http://deb.debian.org/debian {suite} main",
    "http://deb.debian.org/debian {suite}-updates main",
    "http://security.debian.org/debian-security {suite}-security main",
)
# Of no use inside an image, and larger than the programs.
NEEDLESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt")
# How apt says what is wrong, without the lines that repeat every package's name.
ERRORS = r"^(E: (?!apt|mmdebstrap)|W: GPG|  \S.*\()"
ADVICE = (
    (r"Version '.*' for '.*' was not found|Unable to locate package", packages.GONE),
    (r"Hash Sum mismatch|unexpected size", packages.CHANGED),
    (
        r"is not signed|NO_PUBKEY|BADSIG|EXPKEYSIG|signatures were invalid",
        "The archive is not signed by the key it must be signed by. Name another mirror in bundle.yaml, or the right "
        "`key` of the repository; Debian's own keys are those of debian-archive-keyring.",
    ),
    (r"Failed to fetch|does not have a Release file", packages.SILENT),
    ("", packages.CORRECT),
)


def repository(name: str, release: Release, platform: str, mirrors: Mapping[str, str], pins: Pins) -> Path:
    """A directory with the closure of all sets and of the images' base: packages, signed index, the key for it.

    With pins it holds exactly those packages, else what the archive has now. Raises BuildError.
    """

    def collect(made: Path) -> None:
        names = sorted({*release.image_base, *(package for group in release.sets.values() for package in group)})
        wanted = [f"{row.name}={row.version}" for row in pins] or ["?essential", *names]
        with step(f"collecting {len(pins) or len(names)} packages and all they need for {name}"):
            hook = f"--extract-hook=copy-out /var/cache/apt/archives {made}"
            skip = "--skip=cleanup/apt,download/empty,output/dev"
            # An index that has expired still leads to pinned packages, and each of those is checked by its sha256.
            option = "check-valid-until=no" if pins else ""
            _mmdebstrap(name, platform, sources(release, mirrors), option, wanted, "/dev/null", hook, skip)
        for package in (made / "archives").glob("*.deb"):
            # An epoch's colon stands as %3a in a cached file's name, and apt would decode it in a URL.
            package.rename(made / package.name.replace("%3a", "."))
        shutil.rmtree(made / "archives")

    archives = packages.archives(name, pins, ".deb", collect)

    def make(made: Path) -> None:
        packages.link(archives, made)
        index(made)

    return cache.directory(f"packages-{name}", [archives.name, repository_key.fingerprint()], make)


def sources(release: Release, mirrors: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Where a release's packages are from: address with suite and components, and the key that it is signed by."""
    if release.suite and not KEYRING.exists():
        raise BuildError(f"{KEYRING}, which has Debian's keys, is missing. Install debian-archive-keyring.")
    own = [(line.format(suite=release.suite), KEYRING) for line in (SOURCES if release.suite else ())]
    more = [(row.url, packages.key_file(name, row)) for name, row in release.repositories.items()]
    return [(packages.placed(line, mirrors), key) for line, key in [*own, *more]]


def index(directory: Path) -> None:
    """Write `Packages`, `Release`, `InRelease` and `repository.asc` for the packages of a directory.

    The same packages and key give the same bytes. https://wiki.debian.org/DebianRepository/Format
    """
    sums = ("-o", "APT::FTPArchive::MD5=false", "-o", "APT::FTPArchive::SHA1=false")
    # In the order in which the directory happens to be read.
    stanzas = run("apt-ftparchive", *sums, "packages", ".", cwd=directory).strip().split("\n\n")
    text = "\n\n".join(sorted(stanzas)) + "\n"
    (directory / "Packages").write_text(text)
    date = f"APT::FTPArchive::Release::Date={formatdate(repository_key.DATE)}"
    (directory / "Release").write_text(run("apt-ftparchive", *sums, "-o", date, "release", ".", cwd=directory))
    repository_key.clear_sign(directory / "Release", directory / "InRelease")
    repository_key.public(directory / "repository.asc")


def listed(directory: Path, release: str) -> list[Package]:
    """What a repository's `Packages` says that it holds."""
    stanzas = [message_from_string(text) for text in (directory / "Packages").read_text().strip().split("\n\n")]
    return [
        Package(
            name=row["Package"], version=row["Version"], architecture=row["Architecture"], release=release,
            file=f"packages/{release}/{row['Filename'].removeprefix('./')}",
        )
        for row in stanzas
    ]  # fmt: skip


def base_root(name: str, release: Release, platform: str, repository: Path) -> Path:
    """A root file system with iptables and nft, which images made here stand on, from a repository made above."""

    def make(made: Path) -> None:
        with step(f"unpacking the images' base of {name}"):
            root = made / "root"
            # Not file:, which mmdebstrap would have inside the new root.
            source = [(f"copy:{repository} ./", repository / "repository.asc")]
            hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
            _mmdebstrap(name, platform, source, "", release.image_base, root, hooks, "--skip=output/dev")
            for path in NEEDLESS:
                shutil.rmtree(root / path, ignore_errors=True)
            # Extracted packages have run no update-alternatives.
            for family in ("iptables", "ip6tables"):
                for tool in ("", "-save", "-restore"):
                    link = root / "usr/sbin" / f"{family}{tool}"
                    link.unlink(missing_ok=True)
                    link.symlink_to("xtables-nft-multi")

    return cache.directory(f"image-base-{name}", [repository.name, release.image_base], make) / "root"


def _mmdebstrap(
    name: str,
    platform: str,
    sources: Sequence[tuple[str, Path]],
    option: str,
    include: Sequence[str],
    target: Path | str,
    *flags: str,
) -> None:
    """Have apt fetch and unpack packages and what they need, from these sources alone."""
    with tempfile.TemporaryDirectory() as directory:
        # apt checks signatures as a user of its own, who need not be able to read where the keys are.
        Path(directory).chmod(0o755)
        lines = []
        for number, (source, key) in enumerate(sources):
            readable = Path(directory) / f"{number}{key.suffix}"
            shutil.copyfile(key, readable)
            readable.chmod(0o644)
            lines.append(f"deb [signed-by={readable} {option}] {source}")
        words = (
            "mmdebstrap", "--mode=root", "--variant=extract", f"--architectures={platform.rpartition('/')[2]}",
            *(f"--include={each}" for each in include), *flags, "", target, *lines,
        )  # fmt: skip
        packages.ask(f"packages of {name}", words, ERRORS, ADVICE)
