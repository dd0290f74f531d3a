"""Nodes that cannot be deployed on, said before any is touched (tests/plan has bad settings and bundles)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import lab, layout
from lab.shell import run
from tests.lab.nodes import NODES, VIP, pyinfra, ssh

pytestmark = pytest.mark.usefixtures("bare")
SUDOERS = layout.node("w1").directory / "disk/etc/sudoers.d/lab"


def refused(*words: str, flags: tuple[str, ...] = ()) -> None:
    """A whole deploy that must fail with these words and leave every node bare."""
    done = pyinfra("cluster", "-y", *flags)
    assert done.returncode == 1, done.stdout[-4000:]
    for each in words:
        assert each in done.stdout, f"it does not say {each!r}:\n{done.stdout[-4000:]}"
    assert "Traceback" not in done.stdout, done.stdout[-4000:]
    touched = [node for node in NODES if ssh(node, "ls -d /var/lib/pyinfra-kubeadm 2>/dev/null || true", check=False)]
    assert touched == []


@contextmanager
def sudoers(rule: str) -> Iterator[None]:
    """Another right of the SSH user on w1, written on its disk from outside."""
    kept = SUDOERS.read_text()
    try:
        SUDOERS.chmod(0o640)
        SUDOERS.write_text(rule)
        SUDOERS.chmod(0o440)
        yield
    finally:
        SUDOERS.chmod(0o640)
        SUDOERS.write_text(kept)
        SUDOERS.chmod(0o440)


def test_a_node_that_cannot_be_reached() -> None:
    lab.cut("w1")
    try:
        refused("[w1]  Could not connect (timed out)", "Over 0% of hosts failed")
    finally:
        lab.mend("w1")


def test_a_key_that_no_node_knows(tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    refused("Authentication error (username=admin, key=", flags=("--data", f"ssh_key={tmp_path / 'key'}"))


def test_a_user_that_may_not_sudo() -> None:
    with sudoers("# nobody may\n"):
        refused(
            "w1: the SSH user may not sudo without a password.", "Allow it there (NOPASSWD), or set `_sudo_password`"
        )


def test_a_wrong_password() -> None:
    with sudoers(f"{layout.USER} ALL=(ALL) ALL\n"):
        refused("[w1]  sudo: 3 incorrect password attempts", flags=("--data", "_sudo_password=wrong"))


def test_a_virtual_address_that_somebody_has() -> None:
    ssh("w1", f"ip addr add {VIP}/32 dev eth0")
    try:
        refused(
            f"vip {VIP}: something answers at it already (02:00:0a:58:00:1f of w1, as seen by lb",
            f"w1: vip {VIP}: is on an interface here, and this host does not balance",
            "Choose a free address",
        )
    finally:
        ssh("w1", f"ip addr del {VIP}/32 dev eth0")
    # The load balancers' neighbour tables still have the machine that has left.
    done = pyinfra("preflight", "-y")
    assert done.returncode == 0, done.stdout[-2000:]
