"""Debian packages with everything they need, as a flat repository (guide 2.2).

mmdebstrap asks apt for the packages against an empty machine, so nothing that this machine happens to have is
missing from the closure (https://manpages.debian.org/bookworm/mmdebstrap/mmdebstrap.1.en.html).
"""

from __future__ import annotations

import shutil
from email import message_from_string
from pathlib import Path

from bundle import cache
from bundle.catalogue import Release
from bundle.command import BuildError, run
from bundle.progress import step
from cluster.lock import Package

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Of no use inside an image, and larger than the programs.
NEEDLESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt")


def _mmdebstrap(release: Release, include: list[tuple[str, ...]], target: Path | str, *flags: str) -> None:
    if not KEYRING.exists():
        raise BuildError(
            f"{KEYRING} is missing; install debian-archive-keyring, which Debian's packages are checked by"
        )
    names = [f"--include={','.join(group)}" for group in include]
    run("mmdebstrap", "--mode=root", "--variant=extract", f"--keyring={KEYRING}", *names, *flags, release.suite, target)


def repository(name: str, release: Release) -> Path:
    """A directory with the closure of all sets, `Packages` and `Release`, from the cache or made."""
    wanted = sorted({package for group in release.sets.values() for package in group})

    def make(made: Path) -> None:
        with step(f"collecting {len(wanted)} packages and all they need for {name}"):
            hook = f"--extract-hook=copy-out /var/cache/apt/archives {made}"
            skip = "--skip=cleanup/apt,download/empty,output/dev"
            _mmdebstrap(release, [("?essential",), tuple(wanted)], "/dev/null", hook, skip)
            for package in sorted((made / "archives").glob("*.deb")):
                # An epoch's colon stands as %3a in a cached file's name, and apt would decode it in a URL.
                package.rename(made / package.name.replace("%3a", "."))
            shutil.rmtree(made / "archives")
            (made / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=made))
            (made / "Release").write_text(run("apt-ftparchive", "release", ".", cwd=made))

    return cache.directory(f"packages-{name}", [release.suite, wanted], make)


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


def base_root(name: str, release: Release) -> Path:
    """A root file system with iptables and nft, which kube-proxy's and flannel's images stand on."""

    def make(made: Path) -> None:
        with step(f"collecting the images' base of {name}"):
            root = made / "root"
            hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
            _mmdebstrap(release, [release.image_base], root, hooks, "--skip=output/dev")
            for path in NEEDLESS:
                shutil.rmtree(root / path, ignore_errors=True)
            # Extracted packages have run no update-alternatives.
            for family in ("iptables", "ip6tables"):
                for tool in ("", "-save", "-restore"):
                    link = root / "usr/sbin" / f"{family}{tool}"
                    link.unlink(missing_ok=True)
                    link.symlink_to("xtables-nft-multi")

    return cache.directory(f"image-base-{name}", [release.suite, release.image_base], make) / "root"
