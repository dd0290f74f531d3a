"""SELinux as hosts tell of it, and labels. Words of restorecon are from its source, for no SELinux runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine

from facts.selinux import Mislabelled, SELinux
from operations import selinux

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
WRONG = "Would relabel /usr/bin/runc from system_u:object_r:bin_t:s0 to system_u:object_r:container_runtime_exec_t:s0"
PATHS = ("/usr/bin/runc", "/opt/a b")


@pytest.mark.parametrize(("text", "mode"), [("1", "enforcing"), ("0", "permissive"), (None, "none")])
def test_the_mode_is_the_kernels(machine: Machine, text: str | None, mode: str) -> None:
    if text:
        machine.file("/sys/fs/selinux/enforce", text)
    assert machine.ask(SELinux) == mode


def test_labels_are_asked_without_a_change_and_a_file_that_is_not_there_is_none_of_them(machine: Machine) -> None:
    assert machine.ask(Mislabelled, paths=PATHS) == []
    machine.program(
        "restorecon",
        f'printf "%s|" "$@" > {machine.root}/asked; echo "{WRONG}"; echo "restorecon: lstat failed" >&2; exit 255',
    )
    assert machine.ask(Mislabelled, paths=PATHS) == [WRONG]
    assert machine.path("/asked").read_text() == f"-R|-n|-v|{machine.path('/usr/bin/runc')}|{machine.path('/opt/a b')}|"


def test_labels_are_restored_where_they_are_wrong_and_nowhere_else(hosts: Make) -> None:
    asked = Mislabelled().command(paths=PATHS)
    wrong = hosts({"w1": {asked: [WRONG]}})
    assert wrong.plan(selinux.labels, paths=PATHS) == [Command("restorecon -R /usr/bin/runc '/opt/a b'")]
    assert wrong.announced == ["restore labels of /usr/bin/runc, /opt/a b"]
    right = hosts({"w1": {asked: []}})
    assert right.execute(selinux.labels, paths=PATHS) == []
    assert right.noops == ["labels of /usr/bin/runc, /opt/a b are as SELinux' policy says"]
