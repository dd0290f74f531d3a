"""A signature over bundle.lock, and so over every byte of a bundle, by OpenSSH.

OpenSSH signs with keys that people have already, in files, agents and security keys, and 8.2 or later is on every host
that has ssh, so nothing more is carried to check a bundle. minisign would be one more program and one more kind of key
on both sides, and what cosign adds, a public log and registries, cannot be asked where there is no internet.

`ssh-keygen -Y sign` and `verify`: https://man.openbsd.org/ssh-keygen#Y
Format: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import subprocess
import tempfile
from io import BufferedReader
from pathlib import Path

from bundle.command import BuildError

LOCK = "bundle.lock"
SIGNATURE = "bundle.lock.sig"
# Keeps a signature of something else, by the same key, from being one of a bundle.
NAMESPACE = "pyinfra-kubeadm-bundle"
BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
MAGIC = b"SSHSIG"
LINE = 70
# Far above any real one; whoever wrote a file may not decide how much memory it takes to refuse it.
MOST_LOCK, MOST_SIGNATURE, MOST_KEYS = 64 << 20, 64 << 10, 1 << 20
INSTALL = "Install openssh-client (openssh on other distributions)."
DISTRUST = "Do not use this bundle; have it built, signed and carried here again."


def sign(directory: Path, key: Path) -> str:
    """Sign a bundle's lock into bundle.lock.sig, and return the key's fingerprint.

    The key is a private key's file, or the public key of one that an agent holds. An encrypted key is taken from
    ssh-agent, else ssh-keygen asks for its passphrase at the terminal. Raises BuildError, and an older signature stays
    as it was.
    """
    try:
        data = read_plain(directory / LOCK, MOST_LOCK)
    except OSError as error:
        raise BuildError(f"{directory / LOCK}: cannot be signed: {_reason(error)}. Build the bundle first.") from None
    try:
        key.open("rb").close()
    except OSError as error:
        raise BuildError(
            f"{key}: cannot be read as a key to sign the bundle with: {_reason(error)}. Name a private key that "
            "`ssh-keygen -t ed25519` made, readable by you alone."
        ) from None
    # In a directory of its own: ssh-keygen writes beside what it signs, and asks before it overwrites.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / LOCK
        copy.write_bytes(data)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(copy)]
        try:
            # It prompts at /dev/tty and asks for a touch of a security key on stderr: neither is captured.
            code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        except FileNotFoundError:
            raise BuildError(f"ssh-keygen, which signs bundles, is not on this machine. {INSTALL}") from None
        if code:
            raise BuildError(
                f"{key}: ssh-keygen could not sign bundle.lock with it and exited with {code}; its words are above. "
                "A key must be readable by you alone; where there is no terminal to ask for its passphrase, add it to "
                "ssh-agent by `ssh-add`."
            )
        armor = copy.with_name(SIGNATURE).read_bytes()
    try:
        blob = _signer(armor)
    except ValueError as error:
        raise BuildError(f"ssh-keygen wrote a signature that {error}. Update OpenSSH on this machine.") from None
    if words := _refusal(data, armor, blob):
        raise BuildError(f"{key}: the signature made with it is not right: {words}. Try again, or use another key.")
    beside = directory / f"{SIGNATURE}.new"
    try:
        beside.write_bytes(armor)
        beside.rename(directory / SIGNATURE)
    finally:
        beside.unlink(missing_ok=True)
    return fingerprint(blob)


def check(directory: Path, public_key: str | Path) -> list[str]:
    """What is wrong with a bundle's signature, in words; an empty list when any of the public keys has signed the lock.

    `public_key` is a file of OpenSSH public keys, such as id_ed25519.pub, one a line.
    """
    try:
        data = read_plain(directory / LOCK, MOST_LOCK)
    except OSError as error:
        return [f"{directory / LOCK}: cannot be read: {_reason(error)}. {DISTRUST}"]
    return check_bytes(data, directory, public_key)


def check_bytes(data: bytes, directory: Path, public_key: str | Path) -> list[str]:
    """The same of a lock's bytes that have been read already, so that those parsed are those checked."""
    path = directory / SIGNATURE
    try:
        trusted = _public_keys(read_plain(Path(public_key), MOST_KEYS, follow=True))
    except OSError as error:
        return [f"{public_key}: the public key cannot be read: {_reason(error)}. Carry it here from who signs."]
    except ValueError as error:
        return [f"{public_key}: {error}. Give OpenSSH public keys, one a line, such as id_ed25519.pub holds."]
    try:
        armor = read_plain(path, MOST_SIGNATURE)
    except FileNotFoundError:
        return [
            f"{path}: is missing, so nobody vouches for this bundle. Sign it where it is built, with the key of "
            f"{public_key}, and carry it here with its signature."
        ]
    except OSError as error:
        return [f"{path}: cannot be read as a signature: {_reason(error)}. {DISTRUST}"]
    try:
        signer = _signer(armor)
    except ValueError as error:
        return [f"{path}: {error}. {DISTRUST}"]
    if signer not in trusted:
        known = ", ".join(fingerprint(blob) for blob in trusted)
        return [
            f"{path}: was made by another key, {fingerprint(signer)}; {public_key} has {known}. Add that key there if "
            f"you know whose it is. Otherwise: {DISTRUST}"
        ]
    if words := _refusal(data, armor, signer):
        return [f"{path}: is not a signature of this bundle.lock: {words}. One of them was changed. {DISTRUST}"]
    return []


def fingerprint(blob: bytes) -> str:
    """A public key's fingerprint as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def open_plain(path: Path, follow: bool = False) -> BufferedReader:
    """Open a file that is nothing but a file: no link unless they are followed, no pipe that would block, no device.

    Raises OSError.
    """
    # Looked at before it is opened, since that alone does things to a device; and after, since it may be another then.
    _assert_plain(path.stat() if follow else path.lstat())
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    content = os.fdopen(os.open(path, flags if follow else flags | os.O_NOFOLLOW), "rb")
    try:
        _assert_plain(os.fstat(content.fileno()))
    except OSError:
        content.close()
        raise
    return content


def read_plain(path: Path, most: int, follow: bool = False) -> bytes:
    """All bytes of a plain file of at most so many bytes. Raises OSError."""
    with open_plain(path, follow) as content:
        size = os.fstat(content.fileno()).st_size
        if size > most:
            raise OSError(f"it has {size} bytes, and at most {most} are read")
        return content.read(most)


def _assert_plain(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"it is {kind(status)}, not a file")


def kind(status: os.stat_result) -> str:
    """What a name stands for, in words."""
    names = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device",
    }  # fmt: skip
    return names.get(stat.S_IFMT(status.st_mode), "something else")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _public_keys(text: bytes) -> list[bytes]:
    """The keys of a file of public keys, as ssh encodes them. Raises ValueError that names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith(b"#"):
            continue
        try:
            blob = base64.b64decode(words[1], validate=True)
            name = _strings(blob[: 4 + len(words[0])])[0]
        except (IndexError, ValueError):
            raise ValueError(f"line {number} is not an OpenSSH public key") from None
        if name != words[0]:
            raise ValueError(f"line {number} is not an OpenSSH public key")
        if b"-cert-" in name:
            raise ValueError(f"line {number} is a certificate, where a plain public key is needed")
        found.append(blob)
    if not found:
        raise ValueError("there is no public key in it")
    return found


def _signer(armor: bytes) -> bytes:
    """The public key that a signature says it was made by, as ssh encodes it. Raises ValueError with the reason.

    Taken is the very form that ssh-keygen writes and no other that it reads: it overlooks the version, what is
    reserved, the length of lines and whatever comes after the last.
    """
    body = armor.removeprefix(BEGIN).removesuffix(END)
    try:
        data = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except binascii.Error:
        data = b""
    if _armor(data) != armor:
        raise ValueError("is not a signature as ssh-keygen writes it; it was damaged or changed")
    try:
        signer, namespace, reserved, _, _ = _strings(data[10:])
    except ValueError:
        raise ValueError("is not a whole signature; it was damaged or changed") from None
    if data[:10] != MAGIC + b"\0\0\0\1" or reserved:
        raise ValueError("is not a signature of version 1; it was damaged or changed")
    if namespace != NAMESPACE.encode():
        raise ValueError(f"is a signature for {namespace.decode(errors='replace')!r}, not for {NAMESPACE!r}")
    return signer


def _armor(data: bytes) -> bytes:
    text = base64.b64encode(data)
    lines = [text[at : at + LINE] + b"\n" for at in range(0, len(text), LINE)]
    return BEGIN + b"".join(lines) + END


def _strings(data: bytes) -> list[bytes]:
    """Strings as ssh writes them, one after the other (RFC 4251, section 5). Raises ValueError when one is cut."""
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if at + 4 > len(data) or end > len(data):
            raise ValueError("cut")
        found.append(data[at + 4 : end])
        at = end
    return found


def _refusal(data: bytes, armor: bytes, blob: bytes) -> str:
    """Why these bytes are not signed by this key, in ssh-keygen's words; empty when they are."""
    with tempfile.TemporaryDirectory() as scratch:
        written, signers = Path(scratch) / SIGNATURE, Path(scratch) / "allowed_signers"
        written.write_bytes(armor)
        name = _strings(blob)[0].decode(errors="replace")
        signers.write_text(f'signer namespaces="{NAMESPACE}" {name} {base64.b64encode(blob).decode()}\n')
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "signer", "-n", NAMESPACE]
        try:
            done = subprocess.run([*command, "-s", str(written)], input=data, capture_output=True, check=False)
        except FileNotFoundError:
            return f"ssh-keygen, which checks it, is not on this machine. {INSTALL}"
    if not done.returncode:
        return ""
    said = (done.stderr + done.stdout).decode(errors="replace").split("\n")
    return " / ".join(line.strip() for line in said if line.strip())
