"""Archives with programs: right ones are unpacked, those that could lead elsewhere are refused whole."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from bundle.archive import refuse_unsafe, unpack
from bundle.command import BuildError


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o4777
    return info


def archive(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """An archive in which every file holds its own name."""
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for info in members:
            data = info.name.encode() if info.isfile() else b""
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


PROGRAMS = (member("./"), member("./bridge"), member("./tuning"), member("LICENSE"), member("d", tarfile.DIRTYPE))


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


@pytest.mark.parametrize("wanted", ["./bridge", "bridge"])
def test_wanted_programs_are_unpacked_and_nothing_else(tmp_path: Path, into: Path, wanted: str) -> None:
    unpack(archive(tmp_path / "x.tgz", *PROGRAMS), {"our-bridge": wanted}, into)
    assert os.listdir(into) == ["our-bridge"]
    assert (into / "our-bridge").read_text() == "./bridge"
    assert (into / "our-bridge").stat().st_mode & 0o7777 == 0o755


ATTACKS = [
    (member("/etc/passwd"), "has an absolute path"),
    (member("../outside"), "leads out by `..`"),
    (member("bin/../../outside"), "leads out by `..`"),
    (member("bin", tarfile.SYMTYPE, "/etc"), "is a link to '/etc'"),
    (member("inside", tarfile.SYMTYPE, "bridge"), "is a link to 'bridge'"),
    (member("hard", tarfile.LNKTYPE, "../outside"), "is a link to '../outside'"),
    (member("pipe", tarfile.FIFOTYPE), "is neither a file nor a directory"),
    (member("disk", tarfile.BLKTYPE), "is neither a file nor a directory"),
    (member("null", tarfile.CHRTYPE), "is neither a file nor a directory"),
]


@pytest.mark.parametrize(("attack", "words"), ATTACKS, ids=[attack.name for attack, _ in ATTACKS])
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_one_bad_member_refuses_the_whole_archive(
    tmp_path: Path, into: Path, attack: tarfile.TarInfo, words: str, last: bool
) -> None:
    members = (*PROGRAMS, attack) if last else (attack, *PROGRAMS)
    path = archive(tmp_path / "x.tgz", *members)
    with pytest.raises(BuildError) as caught:
        unpack(path, {"bridge": "./bridge"}, into)
    assert str(caught.value) == (
        f"{path}: is refused, for its member {attack.name!r} {words}. "
        "Nothing of it was used. Get the archive from where its project publishes it."
    )
    assert os.listdir(into) == []


def test_an_archive_for_another_program_is_checked_alike(tmp_path: Path) -> None:
    refuse_unsafe(archive(tmp_path / "good.tar", *PROGRAMS, mode="w"))
    bad = archive(tmp_path / "saved.tar", *PROGRAMS, member("1/layer.tar", tarfile.SYMTYPE, "../2.tar"), mode="w")
    with pytest.raises(BuildError, match=r"its member '1/layer\.tar' is a link to '\.\./2\.tar'"):
        refuse_unsafe(bad)


def test_a_program_that_is_not_in_it_is_named_with_what_is(tmp_path: Path, into: Path) -> None:
    path = archive(tmp_path / "x.tgz", *PROGRAMS)
    with pytest.raises(BuildError, match=r"^x\.tgz: has no bin/bridge\. It holds .*LICENSE, bridge, tuning\. Correct"):
        unpack(path, {"bridge": "bin/bridge"}, into)


def test_a_directory_in_a_programs_place_is_no_program(tmp_path: Path, into: Path) -> None:
    with pytest.raises(BuildError, match=r"has no d\."):
        unpack(archive(tmp_path / "x.tgz", *PROGRAMS), {"d": "d"}, into)


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_what_is_no_archive_is_refused(tmp_path: Path, into: Path, damage: str) -> None:
    path = archive(tmp_path / "x.tgz", *PROGRAMS)
    path.write_bytes({"text": b"<html>", "cut": path.read_bytes()[:-20], "empty": b""}[damage])
    with pytest.raises(BuildError, match=r"x\.tgz: cannot be read as a tar archive: .+\. Get it again\.$"):
        unpack(path, {"bridge": "bridge"}, into)
    assert os.listdir(into) == []
