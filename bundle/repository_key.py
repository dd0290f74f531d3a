"""The GPG key by which the package repositories of bundles are signed.

What a bundle holds is checked against bundle.lock, and nothing else decides whether a byte is the right one. The
signature is there so that apt and dnf can check as well, each by its own means and with none of them switched off:
apt takes a repository whose InRelease is signed by `signed-by`, dnf one whose repomd.xml is (`repo_gpgcheck`), and
from there both follow checksums to every package. The public key is in each repository as `repository.asc`, which the
lock pins like any file.

The key is the builder's own, made at the first build, and has no passphrase: it is as safe as the account is. It stays
in DIRECTORY, which is 0700; nothing of it gets into a bundle, an argument or a message. Whoever loses it gets a new
one at the next build, and hosts get that with the next bundle.

RSA, because rpm 4.14 of RHEL 8 reads no Ed25519 key, and FIPS mode refuses it. Every date is DATE: the same index and
the same key give the same signature, and no host whose clock is not set yet takes it for one from the future.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.command import BuildError, run

DIRECTORY = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "pyinfra-kubeadm/repository-key"
NAME = "pyinfra-kubeadm bundle repository"
# Seconds since 1970 of the start of 2000: before any machine that may read it.
DATE = 946684800
SIGN = ("--digest-algo", "SHA512")
# Where GnuPG keeps them in a home.
SECRET, PUBLIC = "private-keys-v1.d", "pubring.kbx"


def fingerprint() -> str:
    """The key's fingerprint; makes the key when there is none yet.

    Raises BuildError when there is a directory of the key without one in it, or others may read it.
    """
    with _home() as home:
        return _fingerprint(home)


def public(target: Path) -> None:
    """Write the public key, ASCII-armored."""
    with _home() as home:
        _gpg(home, "--armor", "--output", target, "--export", _fingerprint(home))


def clear_sign(source: Path, target: Path) -> None:
    """Write a text with the signature around it, as apt wants InRelease."""
    with _home() as home:
        _gpg(home, *SIGN, "--output", target, "--clear-sign", source)


def detach_sign(source: Path, target: Path) -> None:
    """Write the signature of a file alone, ASCII-armored, as dnf wants repomd.xml.asc."""
    with _home() as home:
        _gpg(home, *SIGN, "--armor", "--output", target, "--detach-sign", source)


@contextmanager
def _home() -> Iterator[Path]:
    """A home of GnuPG's for one use of the key, which is made when there is none yet."""
    if not DIRECTORY.exists():
        _make()
    if DIRECTORY.stat().st_mode & 0o077:
        raise BuildError(f"{DIRECTORY}: others may read the key in it. `chmod 700` it, if nobody has.")
    with _borrowed(DIRECTORY) as home:
        yield home


@contextmanager
def _borrowed(directory: Path) -> Iterator[Path]:
    """A home of GnuPG's that sees the keys of a directory and is gone afterwards, with its agent.

    An agent ends some time after it is told to, and meanwhile fails who asks it: each use has its own. A short path,
    for sockets have none longer than 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="gpg-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        (home / SECRET).symlink_to(directory / SECRET)
        if (directory / PUBLIC).exists():
            shutil.copyfile(directory / PUBLIC, home / PUBLIC)
        try:
            yield home
        finally:
            run("gpgconf", "--homedir", home, "--kill", "gpg-agent")


def _make() -> None:
    """Make the key beside, and rename it: it is whole or not there. Of several builds at once one makes it."""
    DIRECTORY.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(DIRECTORY.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if DIRECTORY.exists():
            return
        beside = DIRECTORY.with_name(f"{DIRECTORY.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        (beside / SECRET).mkdir(mode=0o700)
        with _borrowed(beside) as home:
            _gpg(home, "--passphrase", "", "--quick-generate-key", NAME, "rsa4096", "sign", "never")
            shutil.copyfile(home / PUBLIC, beside / PUBLIC)
        beside.rename(DIRECTORY)
    finally:
        os.close(lock)


def _fingerprint(home: Path) -> str:
    listed = _gpg(home, "--with-colons", "--list-secret-keys")
    found = [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]
    if not found:
        raise BuildError(
            f"{DIRECTORY}: holds no key by which repositories of packages can be signed. Put yours back there, or "
            "remove the directory: the next build makes another key, and hosts get it with the next bundle."
        )
    return found[0]


def _gpg(home: Path, *words: str | Path) -> str:
    """Run gpg at DATE.

    https://www.gnupg.org/documentation/manuals/gnupg/GPG-Esoteric-Options.html for the time; `!` makes it stand still.
    """
    return run(
        "gpg", "--homedir", home, "--no-options", "--batch", "--yes", "--no-tty", "--quiet",
        "--pinentry-mode", "loopback", "--faked-system-time", f"{DATE}!", *words,
    )  # fmt: skip
