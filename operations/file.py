"""Files written whole: beside the old one, checked, then renamed over it.

pyinfra's own `files.put` copies in place, passes through a world-readable file in /tmp and prints secrets
with `--diff`; here the text goes over standard input straight into a 0600 file next to its destination.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import OperationValueError, StringCommand, operation
from pyinfra.facts.files import FindFiles

from facts.file import File, FileState
from operations.change import will

ASIDE = "/var/lib/pyinfra-kubeadm/aside"
# Endings of files that systemd reads in a unit's directory, and the kubelet's runtime in /etc/cni/net.d.
READ = (".conf", ".conflist", ".json")


def difference(current: File | None, sha256: str, mode: str, user: str, group: str) -> list[str]:
    """What differs, in words; an empty list when the file is as wanted."""
    if current is None:
        return ["absent"]
    found = []
    if current["sha256"] != sha256:
        found.append("content")
    if current["mode"] != mode:
        found.append(f"mode {current['mode']} -> {mode}")
    if (current["user"], current["group"]) != (user, group):
        found.append(f"owner {current['user']}:{current['group']} -> {user}:{group}")
    return found


def write_script(dest: str, mode: str, user: str, group: str, validate: str | None) -> str:
    """Shell that reads the new text from standard input and puts it in place, or leaves the old one."""
    quoted = shlex.quote(dest)
    check = validate.replace("{}", '"$t"') + " && " if validate else ""
    return (
        f"umask 022; mkdir -p {shlex.quote(posixpath.dirname(dest))} && umask 077 && "
        f't=$(mktemp {quoted}.XXXXXXXX) && trap \'rm -f "$t"\' EXIT && cat > "$t" && {check}'
        f'chown {shlex.quote(user)}:{shlex.quote(group)} "$t" && chmod {mode} "$t" && '
        f'sync "$t" && mv -fT "$t" {quoted}'
    )


def unified(dest: str, current: File | None, text: str, secret: bool) -> list[str]:
    """The difference, a line each; of a secret only that there is one."""
    if secret:
        return ["(secret: content not shown)"]
    old = (current["content"] if current else "") or ""
    return list(difflib.unified_diff(old.splitlines(), text.splitlines(), dest, dest, lineterm=""))


@operation()
def content(
    dest: str,
    content: str,
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    validate: str | None = None,
    secret: bool = False,
    packaged: bool = False,
) -> Generator[StringCommand, None, None]:
    """
    Make a file hold exactly this text, atomically.

    + dest: absolute path; missing parent directories are made 0755
    + content: the whole text; ends in a newline
    + mode: octal digits, such as "600"
    + user: owner
    + group: owning group
    + validate: shell command that must accept the new file before it replaces the old; `{}` is its path
    + secret: never show or fetch the content, only a checksum
    + packaged: the package whose configuration it is may bring one, which this takes the place of
    """
    if not posixpath.isabs(dest):
        raise OperationValueError(f"{dest}: destination must be an absolute path")
    if not content.endswith("\n"):
        raise OperationValueError(f"{dest}: content must end in a newline")
    current = host.get_fact(FileState, path=dest, secret=secret)
    yield from replaced(current, dest, content, mode, user, group, validate, secret, packaged)


def replaced(
    current: File | None,
    dest: str,
    content: str,
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    validate: str | None = None,
    secret: bool = False,
    packaged: bool = False,
) -> Generator[StringCommand, None, None]:
    """The same for a file that has been looked at, as part of another operation."""
    reasons = difference(current, hashlib.sha256(content.encode()).hexdigest(), mode, user, group)
    if not reasons:
        host.noop(f"{dest} is as wanted")
        return
    words = f"modify {dest} ({', '.join(reasons)})" if current else f"create {dest}"
    will(
        f"write {dest}" if packaged else words,
        unified(dest, current, content, secret),
        later="" if current or not packaged else "what its package brings is replaced",
    )
    yield StringCommand(write_script(dest, mode, user, group, validate), _stdin=content)


def announce(dest: str, later: str) -> None:
    """Say that a file will be written whose content cannot be known yet, and since when it will be."""
    current = host.get_fact(FileState, path=dest, secret=True)
    will(f"modify {dest} (content)" if current else f"create {dest}", later=later)


@operation()
def absent(path: str) -> Generator[StringCommand, None, None]:
    """
    Remove one file.

    + path: absolute path of a file, never of a directory
    """
    if host.get_fact(FileState, path=path, secret=True) is None:
        host.noop(f"{path} is not there")
        return
    will(f"remove {path}")
    yield StringCommand("rm", "-f", "--", shlex.quote(path))


@operation()
def aside(directory: str, known: Sequence[str], before: str = "") -> Generator[StringCommand, None, None]:
    """
    Set files aside that a daemon would read beside ours; they are kept in ASIDE.

    + directory: where it reads them, without those below it
    + known: names that stay
    + before: only those that come before this name, where the first one counts
    """
    found = host.get_fact(FindFiles, path=directory, maxdepth=1)
    names = sorted(posixpath.basename(path) for path in found)
    others = [name for name in names if name not in known and name.endswith(READ) and (not before or name < before)]
    if not others:
        host.noop(f"{directory} has nothing that is not known")
        return
    for name in others:
        will(f"set aside {posixpath.join(directory, name)}")
    kept = f"{ASIDE}{directory}"
    yield StringCommand(
        f"install -d -m 700 {ASIDE} && mkdir -p {shlex.quote(kept)} && cd {shlex.quote(directory)} && "
        f"mv --backup=numbered -t {shlex.quote(kept)} -- {shlex.join(others)}"
    )
