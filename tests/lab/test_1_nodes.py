"""The lab itself: real machines with no way out."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab import lab
from tests.lab.nodes import everywhere, on, ssh

pytestmark = pytest.mark.usefixtures("bare")


@contextmanager
def listener(address: str) -> Iterator[int]:
    """A port of this machine that surely answers."""
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((address, port), timeout=5):
            yield port


def addresses() -> list[str]:
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", "scope", "global"], capture_output=True, text=True)
    return [line.split()[3].partition("/")[0] for line in shown.stdout.splitlines()]


def test_a_node_is_a_machine_with_systemd_ssh_and_sudo() -> None:
    def check(node: str) -> None:
        machine = on(node)
        assert machine.process.get(pid=1).comm == "systemd"
        assert machine.service("ssh").is_running
        assert machine.check_output("hostname") == node
        assert not machine.package("containerd").is_installed
        assert not machine.package("haproxy").is_installed

    everywhere(check)


def test_a_node_has_no_way_out() -> None:
    def check(node: str) -> None:
        for address, port in listening.items():
            answer = ssh(node, f'timeout 2 bash -c ": < /dev/tcp/{address}/{port}" && echo open || echo shut')
            assert answer.strip() == "shut", f"{node} reaches this machine at {address}:{port}"
        assert ssh(node, "timeout 3 getent hosts deb.debian.org || echo unknown").strip() == "unknown"
        assert ssh(node, "apt-get update -qq 2>&1; ls /var/lib/apt/lists | grep -c _Packages || true").strip() == "0"

    with ExitStack() as stack:
        listening = {address: stack.enter_context(listener(address)) for address in {"10.88.0.1", *addresses()}}
        everywhere(check)


def test_a_stopped_node_keeps_its_disk_and_a_cut_one_its_memory() -> None:
    ssh("w1", "echo kept > /root/mark && sync && echo kept > /run/mark")
    lab.cut("w1")
    assert ssh("w1", "true", check=False) == ""
    lab.mend("w1")
    assert ssh("w1", "cat /run/mark").strip() == "kept"
    lab.stop("w1")
    assert {row["name"]: row["power"] for row in lab.status()}["w1"] == "stopped"
    lab.start("w1")
    assert ssh("w1", "cat /root/mark; test -e /run/mark || echo gone").split() == ["kept", "gone"]
    ssh("w1", "rm /root/mark")
