"""Licences that packages state, read from real package files made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bundle import cache, licences

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: GPL-2+

Files: lib/*
License: Expat
 Permission is hereby granted
License: GPL-2+
"""


def deb(directory: Path, name: str, copyright: str | None) -> None:
    """A package with this text as its copyright file, or with none."""
    tree = directory.parent / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: d\n"
    )
    if copyright is not None:
        (tree / f"usr/share/doc/{name}").mkdir(parents=True)
        (tree / f"usr/share/doc/{name}/copyright").write_text(copyright)
    command = ["dpkg-deb", "--root-owner-group", "--build", tree, directory / f"{name}_1_all.deb"]
    subprocess.run(command, check=True, capture_output=True)


def test_licences_are_those_of_the_copyright_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    repository = tmp_path / "packages-debian-12-0123"
    repository.mkdir()
    deb(repository, "clear", COPYRIGHT)
    deb(repository, "prose", "This package is under some licence.\nLicenses: many\n")
    deb(repository, "bare", None)
    (repository / "Packages").write_text("License: none\n")
    wanted = {"clear_1_all.deb": "Expat, GPL-2+", "prose_1_all.deb": "", "bare_1_all.deb": ""}
    assert licences.of(repository) == wanted
    for path in repository.iterdir():
        path.unlink()
    assert licences.of(repository) == wanted, "it is kept in the cache"
