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
from facts.backup import SERVICE, TIMER, Backups, BackupState
from facts.service import Unit
from operations import remote, transfer
from operations.change import will

PROGRAM = "/usr/local/sbin/etcd-backup"
UNITS = "/etc/systemd/system"


def problem(state: BackupState) -> str | None:
    """What is wrong with a control plane's backups by timer, in words."""
    if state["result"] not in ("none", "success", "running"):
        return f"the last backup by timer failed ({state['result']}): {state['said'] or 'it said nothing'}"
    if state["timer"] == "inactive":
        return f"{TIMER} is there and does not run: systemctl status {TIMER}"
    return None


def words(state: BackupState) -> str:
    """A control plane's backups in one line."""
    timer = {"absent": "no timer", "inactive": "a timer that does not run", "active": "a timer"}[state["timer"]]
    if state["next"]:
        timer += f", next at {_date(state['next'])}"
    ended = f" at {_date(state['ended'])}" if state["ended"] else ""
    last = "it has not run since the last boot" if state["result"] == "none" else f"last run: {state['result']}{ended}"
    newest = f", the newest of {state['newest']['time']}" if state["newest"] else ""
    return f"{state['kept']} backups{newest}; {timer}; {last}"


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


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
        lines = remote.on(host.name, "sh -s -- asked", script, why="backing up etcd")
        source = lines[-1]
        sizes = remote.on(host.name, f"cd {shlex.quote(source)} && stat -c '%s %n' -- *", why="looking at the backup")
        _fetch(source, Path(directory) / Path(source).name, {name: int(size) for size, name in map(str.split, sizes)})

    yield FunctionCommand(back_up, (), {})


def _fetch(source: str, dest: Path, sizes: dict[str, int]) -> None:
    beside = dest.with_name(f".{dest.name}.partial")
    for parent in reversed(beside.parents):
        parent.mkdir(mode=0o700, exist_ok=True)
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
def no_timer() -> Generator[StringCommand, None, None]:
    """Stop backups by timer, and remove the timer; backups that are there stay."""
    if host.get_fact(Unit, unit=TIMER)["load"] == "not-found":
        host.noop("there is no timer of backups")
        return
    will(f"remove {TIMER}")
    files = shlex.join([f"{UNITS}/{TIMER}", f"{UNITS}/{SERVICE}", PROGRAM])
    yield StringCommand(f"systemctl disable --now {TIMER} && rm -f {files} && systemctl daemon-reload")


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
                host.print_prefix, found, SERVICE,
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
