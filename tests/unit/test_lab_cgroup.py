"""The lab's control groups, while the nodes' systemd makes and removes some of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import cgroup
from lab.layout import BRIDGE


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's group in a pretended v2 hierarchy, with two services."""
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    slices = tmp_path / BRIDGE / "cp1/system.slice"
    for service in ("a.service", "b.service"):
        (slices / service).mkdir(parents=True)
        (slices / service / "cgroup.procs").write_text("4000001\n")
    return slices.parent


def test_groups_come_deepest_first(node: Path) -> None:
    found = cgroup.groups("cp1")
    slices = node / "system.slice"
    assert set(found) == {node, slices, slices / "a.service", slices / "b.service"}
    assert found[-2:] == [slices, node]


def test_a_node_that_is_not_there_has_no_groups(node: Path) -> None:
    assert cgroup.groups("cp2") == []


def test_a_group_removed_while_the_others_are_listed_is_passed_over(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, scandir = node / "system.slice/a.service", os.scandir

    def remove_and_list(path: Any) -> Iterator[os.DirEntry[str]]:
        if Path(path) == going and going.exists():
            (going / "cgroup.procs").unlink()
            going.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_and_list)
    assert node / "system.slice/b.service" in cgroup.groups("cp1")
    assert not going.exists()


@pytest.mark.parametrize(("number", "seen"), [(errno.ENODEV, True), (errno.ENOENT, True), (errno.EACCES, False)])
def test_only_a_group_that_is_gone_has_no_processes(
    node: Path, monkeypatch: pytest.MonkeyPatch, number: int, seen: bool
) -> None:
    read = Path.read_text

    def refuse(path: Path, *arguments: Any) -> str:
        if path == node / "system.slice/a.service/cgroup.procs":
            raise OSError(number, os.strerror(number))
        return read(path, *arguments)

    (node / "cgroup.procs").touch()
    (node / "system.slice/cgroup.procs").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    if seen:
        assert cgroup.processes("cp1") == {4000001}
    else:
        with pytest.raises(PermissionError):
            cgroup.processes("cp1")
