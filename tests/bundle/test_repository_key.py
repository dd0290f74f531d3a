"""The key that repositories are signed by: made once, kept to its owner, and the same signature for the same text."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from archives import run

from bundle import repository_key
from bundle.command import BuildError

MAKE = """
import sys
from pathlib import Path
from bundle import repository_key
repository_key.DIRECTORY = Path(sys.argv[1])
print(repository_key.fingerprint())
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key will be."""
    monkeypatch.setattr(repository_key, "DIRECTORY", tmp_path / "share/repository-key")
    return tmp_path / "share/repository-key"


def test_the_same_text_and_key_give_the_same_signature_which_gpgv_takes(home: Path, tmp_path: Path) -> None:
    text, signed, apart, public = (tmp_path / name for name in ("text", "signed", "text.asc", "public.asc"))
    text.write_text("Date: then\n")
    found = []
    for _ in range(2):
        repository_key.clear_sign(text, signed)
        repository_key.detach_sign(text, apart)
        repository_key.public(public)
        found.append([path.read_bytes() for path in (signed, apart, public)])
    assert found[0] == found[1]
    keyring = tmp_path / "public.gpg"
    run("gpg", "--homedir", home, "--dearmor", "--output", keyring, public)
    run("gpgv", "--homedir", home, "--keyring", keyring, signed)
    run("gpgv", "--homedir", home, "--keyring", keyring, apart, text)
    text.write_text("Date: now\n")
    done = subprocess.run(["gpgv", "--homedir", home, "--keyring", keyring, apart, text], capture_output=True)
    assert b"BAD signature" in done.stderr


def test_the_key_is_its_owners_alone_and_what_is_given_away_has_no_secret(home: Path, tmp_path: Path) -> None:
    repository_key.public(tmp_path / "public.asc")
    assert home.stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in (tmp_path / "public.asc").read_bytes()
    packets = run("gpg", "--homedir", home, "--list-packets", tmp_path / "public.asc")
    assert ":public key packet:" in packets
    assert "secret" not in packets


def test_builds_that_make_the_key_at_once_have_the_same(home: Path) -> None:
    words = [sys.executable, "-c", MAKE, str(home)]
    builds = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in "123"]
    found = {build.communicate()[0].strip() for build in builds}
    assert [build.returncode for build in builds] == [0, 0, 0]
    assert found == {repository_key.fingerprint()}
    assert [path.name for path in home.parent.iterdir()] == ["repository-key"]


def test_no_agent_and_no_copy_of_the_key_is_left_behind(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # a short path, which sockets need
        monkeypatch.setattr(tempfile, "tempdir", name)
        for _ in range(3):
            repository_key.public(tmp_path / "public.asc")
            repository_key.detach_sign(tmp_path / "public.asc", tmp_path / "signed")
        deadline = time.monotonic() + 10
        while agents(name) and time.monotonic() < deadline:  # they have been told to end
            time.sleep(0.02)
        assert agents(name) == []
        assert list(Path(name).iterdir()) == []
    assert sorted(path.name for path in home.iterdir()) == ["private-keys-v1.d", "pubring.kbx"]


def agents(directory: str) -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if directory.encode() in line]


def test_a_directory_without_a_key_is_an_error(home: Path) -> None:
    home.mkdir(parents=True, mode=0o700)
    words = rf"^{home}: holds no key by which repositories of packages can be signed\. Put yours back there, or remove"
    with pytest.raises(BuildError, match=words):
        repository_key.fingerprint()
    assert list(home.iterdir()) == []


def test_a_key_that_others_may_read_is_refused(home: Path, tmp_path: Path) -> None:
    repository_key.fingerprint()
    home.chmod(0o750)
    with pytest.raises(BuildError, match=rf"^{home}: others may read the key in it\. "):
        repository_key.clear_sign(tmp_path / "text", tmp_path / "signed")
