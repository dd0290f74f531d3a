"""What people type to look at bundles: `tasks.py bundle inspect`, `diff` and `verify`, over small bundles."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from archives import flip
from sites import ROOT, SERVER, Site, built, keypair, site, undisturbed, world

from bundle import catalogue, extras
from bundle.signature import LOCK, sign

__all__ = ["built", "site", "undisturbed", "world"]  # fixtures


@dataclass(frozen=True)
class Said:
    """How a task ended; both of its outputs, one after the other."""

    code: int
    text: str


def task(*words: str | Path) -> Said:
    """Type a task of bundles."""
    done = subprocess.run(
        [sys.executable, ROOT / "tasks.py", "bundle", *words], capture_output=True, text=True, check=False
    )
    return Said(done.returncode, done.stdout + done.stderr)


def test_inspect_shows_what_a_bundle_holds(built: Site) -> None:
    said = task("inspect", built.output)
    assert said.code == 0
    assert said.text.startswith("Kubernetes v1.36.2 for linux/amd64: 2 images, 3 packages, 21 files, ")
    assert SERVER in said.text
    assert task("inspect", "--directory", built.output) == said


def test_verify_says_that_a_bundle_is_whole_and_who_has_signed_it(built: Site, tmp_path: Path) -> None:
    said = task("verify", built.output)
    assert (said.code, said.text.splitlines()[-1]) == (0, f"==> {built.output}: every file is as bundle.lock says")
    key = keypair(tmp_path / "key")
    sign(built.output, key)
    public = key.with_suffix(".pub")
    said = task("verify", built.output, "--public-key", public)
    words = f"==> {built.output}: every file is as bundle.lock says, signed by a key of {public}"
    assert (said.code, said.text.splitlines()[-1]) == (0, words)


def test_verify_names_every_file_that_is_not_right(built: Site) -> None:
    flip(built.output / "bin/kubelet")
    (built.output / "cni/bridge").unlink()
    said = task("verify", built.output)
    assert said.code == 1
    first, second = said.text.splitlines()[-2:]
    assert first.startswith(f"{built.output}/bin/kubelet: sha256 is ")
    assert second.startswith(f"{built.output}/cni/bridge: is missing. Build it with ")


def test_verify_refuses_a_bundle_that_nobody_or_another_has_signed(built: Site, tmp_path: Path) -> None:
    key, other = keypair(tmp_path / "key"), keypair(tmp_path / "other")
    said = task("verify", built.output, "--public-key", key.with_suffix(".pub"))
    assert said.code == 1
    assert f"error: {built.output}/bundle.lock.sig: is missing, so nobody vouches for this bundle." in said.text
    sign(built.output, other)
    said = task("verify", built.output, "--public-key", key.with_suffix(".pub"))
    assert said.code == 1
    assert f"error: {built.output}/bundle.lock.sig: was made by another key, SHA256:" in said.text


def test_diff_shows_what_must_be_carried(built: Site, tmp_path: Path) -> None:
    old = shutil.copytree(built.output, tmp_path / "old")
    said = task("diff", old, built.output)
    assert said.code == 0
    assert said.text.startswith("Nothing differs: both bundles have the same ")
    (tmp_path / "site.conf").write_text("a text")
    extras.add_file(built.output, catalogue.load(built.config), tmp_path / "site.conf")
    said = task("diff", old, built.output)
    assert said.code == 0
    assert "files/site.conf" in said.text
    words = r"To carry: [\d.]+ kB of [\d.]+ kB; the old bundle has the rest, under whatever name\."
    assert re.fullmatch(words, said.text.splitlines()[-1])


def test_a_directory_without_a_bundle_is_named_without_a_traceback(built: Site, tmp_path: Path) -> None:
    words = f"error: {tmp_path}/{LOCK}: there is no bundle here. Build it with `python3 tasks.py bundle build`, "
    for typed in (("inspect", tmp_path), ("verify", tmp_path), ("diff", built.output, tmp_path)):
        said = task(*typed)
        assert said.code == 1
        assert said.text.splitlines()[-1].startswith(words)
        assert "Traceback" not in said.text


def test_a_sites_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    said = task("build", "--site", tmp_path / "bundle.yml", "--output", tmp_path / "bundle")
    assert said == Said(1, f"error: {tmp_path}/bundle.yml: there is no such file\n")
    assert list(tmp_path.iterdir()) == []
