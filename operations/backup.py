"""Backups of etcd: taken, fetched, made by a timer, and what became of them."""

from __future__ import annotations

import atexit
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, OperationError, StringCommand, operation

from cluster.backup import PKI, SNAPSHOT, BackupError, Manifest, read, whole
from facts.backup import NAME, Backups, BackupState
from operations import remote, timer, transfer
from operations.change import will

DAY = 86400  # seconds
LIMIT = 3600  # seconds for a backup, as the timer's service has it


def problem(state: BackupState) -> str | None:
    """What is wrong with a control plane's backups by timer, in words."""
    return timer.problem(state, NAME, "backup")


def words(state: BackupState) -> str:
    """A control plane's backups in one line."""
    newest = f", the newest of {state['newest']['time']}" if state["newest"] else ""
    return f"{state['kept']} backups{newest}; {timer.words(state)}"


def asked(seconds: int = LIMIT) -> str:
    """Shell that runs the program of backups, which is standard input, for as long as this at most.

    A program that waits for a disk cannot always be killed: it holds files open then, and not the connection.
    """
    return (
        "umask 077; d=$(mktemp -d /run/etcd-backup.XXXXXXXX) || exit 1; "
        f'timeout --kill-after=30 {seconds} sh -s -- asked >"$d/out" 2>"$d/err"; code=$?; '
        'cat "$d/out"; cat "$d/err" >&2; rm -rf "$d"; case $code in 124|137) '
        f"echo 'It did not end within {seconds} s and was stopped: etcd or a disk there does not keep up. Look at "
        "dmesg, df and the log of etcd (crictl logs) there, then run again.' >&2;; esac; exit $code"
    )


@operation(is_idempotent=False)
def take(script: str, directory: str) -> Generator[FunctionCommand, None, None]:
    """
    Back up this control plane's etcd member, and fetch the backup to the control machine.

    + script: templates/backup/etcd-backup.j2, rendered
    + directory: directory on the control machine below which it is kept
    """
    will(
        f"take a snapshot of etcd's member on {host.name}, verify it, put the PKI and kubeadm's configuration beside "
        f"it, and fetch all of it to {directory}"
    )

    def back_up() -> None:
        lines = remote.on(host.name, asked(), script, why="backing up etcd")
        source = lines[-1]
        sizes = remote.on(host.name, f"cd {shlex.quote(source)} && stat -c '%s %n' -- *", why="looking at the backup")
        _fetch(source, Path(directory) / Path(source).name, {name: int(size) for size, name in map(str.split, sizes)})

    yield FunctionCommand(back_up, (), {})


def _fetch(source: str, dest: Path, sizes: dict[str, int]) -> None:
    beside = dest.with_name(f".{dest.name}.partial")
    for parent in reversed(beside.parents):
        parent.mkdir(mode=0o700, exist_ok=True)
    for left in dest.parent.glob(".*.partial"):
        if time.time() - left.stat().st_mtime > DAY:  # of a run that was killed; a younger one may be at work
            shutil.rmtree(left, ignore_errors=True)
    beside.mkdir(mode=0o700)
    try:
        for name, size in sizes.items():
            transfer.fetch(f"{source}/{name}", beside / name, size)
        manifest = read(beside)
    except BackupError as error:
        raise OperationError(f"{host.name}: {source} was not fetched whole: {error}") from None
    else:
        beside.rename(dest)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    logger.info("%s%s is the backup %s", host.print_prefix, dest, manifest.words())


@operation()
def report() -> Generator[StringCommand, None, None]:
    """Say what backups are on this control plane, and warn where the last one by timer failed; changes nothing."""
    host.noop("backups are looked at when this runs")
    if host.state.is_executing:
        state = host.get_fact(Backups)
        logger.info("%s%s", host.print_prefix, words(state))
        if found := problem(state):
            logger.warning(
                "%s%s. Mend that, then `systemctl start %s` there, or run deploys/etcd_backup.py.",
                host.print_prefix, found, NAME,
            )  # fmt: skip
    return
    yield


@dataclass(frozen=True)
class Opened:
    """A backup on the control machine, checked; its parts as they were before encryption."""

    directory: Path
    manifest: Manifest
    snapshot: Path
    pki: Path


def opened(directory: Path, key: Path | None) -> Opened:
    """A backup that is whole. Raises BackupError.

    What is decrypted lies in a private directory until this process ends.

    + key: the private key of the certificate to which it is encrypted, or None
    """
    manifest, plain = read(directory), directory
    if manifest.encrypted:
        if key is None:
            raise BackupError(f"{directory} is encrypted: name the file of the private key by --data backup_key=FILE")
        plain = Path(tempfile.mkdtemp(prefix="backup."))
        atexit.register(shutil.rmtree, plain, ignore_errors=True)
        for name in (SNAPSHOT, PKI):
            _decrypt([directory / part for part in manifest.parts(name)], key, plain / name)
    if not whole(plain / SNAPSHOT):
        raise BackupError(f"{directory}: the snapshot does not end in its own sha256, so it is damaged: take another")
    return Opened(directory, manifest, plain / SNAPSHOT, plain / PKI)


def _decrypt(parts: list[Path], key: Path, dest: Path) -> None:
    with dest.open("xb") as target:
        for number, part in enumerate(parts, 1):
            logger.info("Decrypting %s, part %s of %s", dest.name, number, len(parts))
            command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", str(key), "-in", str(part)]
            done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise BackupError(
                    f"{part} cannot be decrypted by {key}: {' '.join(done.stderr.split())[-300:]}. Name the private "
                    "key of the certificate that backup_certificate was when the backup was made."
                )
