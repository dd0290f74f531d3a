"""The signature over bundle.lock, made and checked by the real ssh-keygen with throw-away keys."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import signature
from bundle.command import BuildError
from bundle.signature import DISTRUST, NAMESPACE, check, sign
from bundle.verify import BundleError, read_lock

ROOT = Path(__file__).resolve().parents[2]
LOCK = (
    '{"format": 2, "platform": "linux/amd64", "kubernetes_version": "v1.36.2", "components": {}, "images": [],'
    ' "packages": [], "package_sets": {}, "files": []}'
)
SIGN = "import sys; from pathlib import Path; from bundle.signature import sign; print(sign(*map(Path, sys.argv[1:])))"


def keygen(*words: str | Path) -> str:
    return subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True).stdout


def make_key(path: Path, kind: str = "ed25519") -> Path:
    keygen("-q", "-t", kind, "-N", "", "-C", "somebody@example.org", "-f", path)
    return path


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def fingerprint(key: Path) -> str:
    return keygen("-l", "-f", public(key)).split()[1]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the agent and the windows that ask for passphrases of whoever runs the tests."""
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/bundle.lock").write_text(LOCK)
    return tmp_path / "bundle"


def damaged(bundle: Path, words: str) -> list[str]:
    return [f"{bundle}/bundle.lock.sig: {words}. {DISTRUST}"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_what_is_signed_by_a_key_is_right_by_its_public_key(bundle: Path, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / kind, kind)
    assert sign(bundle, key) == fingerprint(key)
    assert check(bundle, public(key)) == check(bundle, str(public(key))) == []
    assert sorted(path.name for path in bundle.iterdir()) == ["bundle.lock", "bundle.lock.sig"]


def test_a_bundle_is_signed_anew_over_an_old_signature(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    sign(bundle, other)
    sign(bundle, key)
    assert check(bundle, public(key)) == []


def test_any_of_several_public_keys_will_do(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign(bundle, key)
    other = public(make_key(tmp_path / "other")).read_text()
    several = tmp_path / "keys"
    several.write_text(f"# who may sign\n\n{other}\r\n  {public(key).read_text()}")
    assert check(bundle, several) == []


def test_a_signature_by_another_key_is_told_by_its_fingerprint(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    sign(bundle, other)
    assert check(bundle, public(key)) == [
        f"{bundle}/bundle.lock.sig: was made by another key, {fingerprint(other)}; {public(key)} has "
        f"{fingerprint(key)}. Add that key there if you know whose it is. Otherwise: {DISTRUST}"
    ]


@pytest.mark.parametrize("text", [LOCK + " ", LOCK[:-1], "", LOCK.replace("amd64", "arm64")])
def test_a_signature_of_other_bytes_is_found(bundle: Path, key: Path, text: str) -> None:
    sign(bundle, key)
    (bundle / "bundle.lock").write_text(text)
    (found,) = check(bundle, public(key))
    assert found.startswith(f"{bundle}/bundle.lock.sig: is not a signature of this bundle.lock: ")
    assert "incorrect signature" in found
    assert found.endswith(f". One of them was changed. {DISTRUST}")


def test_a_missing_signature_is_found(bundle: Path, key: Path) -> None:
    assert check(bundle, public(key)) == [
        f"{bundle}/bundle.lock.sig: is missing, so nobody vouches for this bundle. Sign it where it is built, with "
        f"the key of {public(key)}, and carry it here with its signature."
    ]


def test_a_missing_lock_is_found(bundle: Path, key: Path) -> None:
    (bundle / "bundle.lock").unlink()
    assert check(bundle, public(key)) == [
        f"{bundle}/bundle.lock: cannot be read: No such file or directory. {DISTRUST}"
    ]


def test_a_signature_for_another_purpose_is_refused(bundle: Path, key: Path) -> None:
    keygen("-q", "-Y", "sign", "-f", key, "-n", "git", bundle / "bundle.lock")
    assert check(bundle, public(key)) == damaged(bundle, f"is a signature for 'git', not for '{NAMESPACE}'")


def test_a_signature_that_is_a_link_or_too_long_is_refused(bundle: Path, key: Path) -> None:
    path = bundle / "bundle.lock.sig"
    sign(bundle, key)
    path.rename(bundle / "elsewhere")
    path.symlink_to("elsewhere")
    words = "cannot be read as a signature: it is a symbolic link, not a file"
    assert check(bundle, public(key)) == damaged(bundle, words)
    path.unlink()
    path.write_bytes(bytes(70_000))
    words = "cannot be read as a signature: it has 70000 bytes, and at most 65536 are read"
    assert check(bundle, public(key)) == damaged(bundle, words)


OTHER_FORM = "is not a signature as ssh-keygen writes it; it was damaged or changed"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # The version's last bit: U1NIU0lHAAAAAQ is SSHSIG, then 1.
        (b"U1NIU0lHAAAAAQ", b"U1NIU0lHAAAAAA", "is not a signature of version 1; it was damaged or changed"),
        (b"END SSH SIGNATURE-----\n", b"END SSH SIGNATURE-----", OTHER_FORM),
        (b"END SSH SIGNATURE-----\n", b"END SSH SIGNATURE-----\nand more\n", OTHER_FORM),
        (b"-\nU1N", b"-\n\nU1N", OTHER_FORM),
        (b"U1NIU0lH", b"U1NI\nU0lH", OTHER_FORM),
    ],
    ids=["version", "no-newline", "more", "empty-line", "other-lines"],
)
def test_another_form_of_the_same_signature_is_refused_though_ssh_keygen_takes_it(
    bundle: Path, key: Path, tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    sign(bundle, key)
    path = bundle / "bundle.lock.sig"
    path.write_bytes(path.read_bytes().replace(old, new))
    signers = tmp_path / "signers"
    signers.write_text(f"somebody {public(key).read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "somebody", "-n", NAMESPACE, "-s", path]
    assert subprocess.run(command, input=LOCK.encode(), capture_output=True, check=False).returncode == 0
    assert check(bundle, public(key)) == damaged(bundle, words)


@pytest.mark.parametrize("data", [b"", b"\0\xff", b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(bundle: Path, key: Path, data: bytes) -> None:
    (bundle / "bundle.lock.sig").write_bytes(data)
    (found,) = check(bundle, public(key))
    assert found.startswith(f"{bundle}/bundle.lock.sig: is not a ")
    assert found.endswith(DISTRUST)


def test_a_cut_signature_is_refused_wherever_it_is_cut(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    path = bundle / "bundle.lock.sig"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert check(bundle, public(key)) == damaged(bundle, OTHER_FORM), length


def test_every_single_bit_of_a_signature_matters(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    path = bundle / "bundle.lock.sig"
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert check(bundle, public(key)), f"bit {bit % 8} of byte {bit // 8}"
    path.write_bytes(whole)
    assert check(bundle, public(key)) == []


def test_a_public_key_that_is_not_there_is_told(bundle: Path, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (bundle, "it is a directory, not a file")):
        words = f"{path}: the public key cannot be read: {why}. Carry it here from who signs."
        assert check(bundle, path) == [words]


def test_a_file_without_a_usable_public_key_is_told_and_not_shown(bundle: Path, key: Path, tmp_path: Path) -> None:
    certified = make_key(tmp_path / "certified")
    keygen("-q", "-s", key, "-I", "somebody", public(certified))
    texts = {
        "": "there is no public key in it",
        "# nothing but words\n": "there is no public key in it",
        key.read_text(): "line 1 is not an OpenSSH public key",
        f"# one\n{public(key).read_text()}ssh-ed25519\n": "line 3 is not an OpenSSH public key",
        "ssh-ed25519 AAAA": "line 1 is not an OpenSSH public key",
        "ssh-ed25519 not:base64": "line 1 is not an OpenSSH public key",
        public(key).read_text().replace("ssh-ed25519", "ssh-rsa"): "line 1 is not an OpenSSH public key",
        f"somebody@example.org {public(key).read_text()}": "line 1 is not an OpenSSH public key",
        (tmp_path / "certified-cert.pub").read_text(): "line 1 is a certificate, where a plain public key is needed",
    }
    given = tmp_path / "given"
    for text, words in texts.items():
        given.write_text(text)
        said = f"{given}: {words}. Give OpenSSH public keys, one a line, such as id_ed25519.pub holds."
        assert check(bundle, given) == [said]


def test_a_machine_without_ssh_keygen_can_neither_sign_nor_check(
    bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(bundle, key)
    before = (bundle / "bundle.lock.sig").read_bytes()
    monkeypatch.setenv("PATH", str(bundle))
    (found,) = check(bundle, public(key))
    assert "ssh-keygen, which checks it, is not on this machine. Install openssh-client" in found
    with pytest.raises(BuildError, match=r"ssh-keygen, which signs bundles, is not on this machine\. Install openssh-"):
        sign(bundle, key)
    assert (bundle / "bundle.lock.sig").read_bytes() == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read as a key to sign the bundle with: No such file or directory"),
        (lambda path: path.mkdir(), "cannot be read as a key to sign the bundle with: Is a directory"),
        (lambda path: path.write_text("no key"), "ssh-keygen could not sign bundle.lock with it and exited with 255"),
        (lambda path: make_key(path).chmod(0o644), "ssh-keygen could not sign bundle.lock with it and exited with 255"),
    ],
    ids=["missing", "directory", "no-key", "readable-by-all"],
)
def test_a_key_that_cannot_sign_leaves_the_old_signature(
    bundle: Path, tmp_path: Path, key: Path, make: object, words: str
) -> None:
    sign(bundle, key)
    before = (bundle / "bundle.lock.sig").read_bytes()
    assert callable(make)
    make(tmp_path / "new")
    with pytest.raises(BuildError) as caught:
        sign(bundle, tmp_path / "new")
    assert str(caught.value).startswith(f"{tmp_path}/new: {words}")
    assert (bundle / "bundle.lock.sig").read_bytes() == before
    assert sorted(path.name for path in bundle.iterdir()) == ["bundle.lock", "bundle.lock.sig"]


def test_there_is_nothing_to_sign_without_a_lock(bundle: Path, key: Path) -> None:
    (bundle / "bundle.lock").unlink()
    with pytest.raises(BuildError) as caught:
        sign(bundle, key)
    why = "cannot be signed: No such file or directory. Build the bundle first."
    assert str(caught.value) == f"{bundle}/bundle.lock: {why}"


@pytest.fixture
def encrypted(key: Path) -> Path:
    keygen("-q", "-p", "-N", "secret", "-f", key)
    return key


def test_an_encrypted_key_is_asked_for_at_the_terminal(bundle: Path, encrypted: Path) -> None:
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", SIGN, str(bundle), str(encrypted)])
    shown = b""
    while b"passphrase" not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 1000)
    os.write(terminal, b"secret\n")
    try:
        while more := os.read(terminal, 1000):
            shown += more
    except OSError:  # how Linux says that nobody has the other end any more
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    os.close(terminal)
    assert fingerprint(encrypted).encode() in shown
    assert b"secret" not in shown
    assert check(bundle, public(encrypted)) == []


def test_an_encrypted_key_without_a_terminal_is_refused_and_nothing_waits(bundle: Path, encrypted: Path) -> None:
    command = [sys.executable, "-c", SIGN, bundle, encrypted]
    done = subprocess.run(
        command, cwd=ROOT, input="secret\n", capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == 1
    assert "incorrect passphrase" in done.stderr
    assert "add it to ssh-agent by `ssh-add`" in done.stderr
    assert not (bundle / "bundle.lock.sig").exists()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    address = tmp_path.parent / "agent"  # its path may have 108 bytes only
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens once it does
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        yield
        process.terminate()
    address.unlink(missing_ok=True)


@pytest.mark.usefixtures("agent")
def test_an_encrypted_key_that_an_agent_holds_is_not_asked_for(bundle: Path, key: Path) -> None:
    subprocess.run(["ssh-add", "-q", key], check=True)
    keygen("-q", "-p", "-N", "secret", "-f", key)
    sign(bundle, key)
    assert check(bundle, public(key)) == []
    shutil.copy(public(key), key)  # the public half is enough to say which key
    sign(bundle, key)
    assert check(bundle, public(key)) == []


def test_a_signed_lock_is_read(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    assert read_lock(bundle, public(key)).kubernetes_version == "v1.36.2"


def test_a_lock_is_not_looked_into_before_its_signature_is_right(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    (bundle / "bundle.lock").write_text("{")
    with pytest.raises(BundleError, match=r"is not a signature of this bundle\.lock"):
        read_lock(bundle, public(key))
    sign(bundle, key)
    with pytest.raises(BundleError, match=r"cannot be read as a lock of format 2: [^\n]*\n  Invalid JSON"):
        read_lock(bundle, public(key))


def test_the_bytes_that_are_read_are_those_whose_signature_was_right(
    bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(bundle, key)
    really = signature.check_bytes

    def changed_meanwhile(data: bytes, directory: Path, public_key: str | Path) -> list[str]:
        (bundle / "bundle.lock").write_text(LOCK.replace("v1.36.2", "v6.6.6"))
        return really(data, directory, public_key)

    monkeypatch.setattr(signature, "check_bytes", changed_meanwhile)
    assert read_lock(bundle, public(key)).kubernetes_version == "v1.36.2"


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_what_is_put_in_a_files_place_before_it_is_opened_is_refused_and_does_not_hold_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    really = signature._assert_plain

    def exchanged(status: os.stat_result) -> None:
        really(status)
        path.unlink()
        if what == "link":
            path.symlink_to(__file__)
        else:
            os.mkfifo(path)

    monkeypatch.setattr(signature, "_assert_plain", exchanged)
    with pytest.raises(OSError, match=r"symbolic link|it is a pipe, not a file"):
        signature.read_plain(path, 10)
