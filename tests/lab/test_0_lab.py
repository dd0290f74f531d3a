"""Raising the lab and taking it down: continued after a crash, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import cgroup, lab, layout
from lab.layout import BRIDGE, STATE
from tests.lab.nodes import BUNDLE, NODES, ROOT, everywhere, ssh


def traces() -> list[str]:
    """Whatever of a lab this machine has."""

    def said(*words: str) -> list[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()

    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if BRIDGE in line or str(STATE) in line]
    links = [line for line in said("ip", "-br", "link") if line.startswith((BRIDGE, "lab-"))]
    files = [str(path) for path in (STATE, Path("/run/pyinfra-kubeadm-lab.lock")) if path.exists()]
    groups = [str(path) for path in cgroup.groups()]
    rules = [line for line in said("nft", "list", "tables") if "kubeadm_lab" in line]
    processes = [line for line in said("pgrep", "-a", "systemd-nspawn") if "--machine" in line]
    return [*mounts, *links, *files, *groups, *rules, *processes, *said("ip", "netns", "list")]


def limits() -> str:
    return subprocess.run(["sysctl", *lab.SYSCTLS], capture_output=True, text=True, check=True).stdout


def raise_and_kill(seconds: float) -> None:
    """`lab up`, killed after some time as by the kernel's out-of-memory killer."""
    with subprocess.Popen(
        [sys.executable, "tasks.py", "lab", "up"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(seconds)
        process.kill()


def test_a_lab_is_continued_after_a_crash_and_leaves_nothing() -> None:
    lab.down()
    before = limits()
    assert traces() == []
    for seconds in (1.0, 2.0, 3.0):
        raise_and_kill(seconds)
    lab.up(bundle=str(BUNDLE))
    everywhere(lambda node: ssh(node, "true"))
    assert [row["power"] for row in lab.status()] == ["running"] * len(NODES)
    lab.down()
    assert traces() == []
    assert limits() == before


def test_down_clears_what_a_crash_left_half_made() -> None:
    before = limits()
    raise_and_kill(2.0)
    lab.down()
    assert traces() == []
    assert limits() == before


def test_a_name_that_is_no_node_is_refused() -> None:
    with pytest.raises(layout.LabError, match=r"^db1: not a node's name\. Use lbN, cpN or wN with N from 1 to 9"):
        layout.node("db1")
