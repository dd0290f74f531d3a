"""The whole road on real nodes: dry run, run, dry run, run; then the cluster seen by another way."""

from __future__ import annotations

import re
import subprocess

SSH = ["ssh", "-F", "/var/lib/pyinfra-kubeadm-lab/ssh_config"]
NODES = ("lb1", "lb2", "cp1", "cp2", "cp3", "w1")
LAYERS = ("distribute", "node", "runtime", "images", "packages", "load_balancer", "control_plane", "workers", "network")


def ssh(node: str, command: str) -> str:
    """Plain ssh, so that what is asserted is not read by the code that did it."""
    done = subprocess.run([*SSH, node, f"sudo {command}"], stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    return done.stdout


def changes(output: str) -> int:
    """Number of changes that a dry run or a run announces, from pyinfra's own table."""
    total = re.search(r"Grand total\s+(.*)", output)
    assert total, output[-3000:]
    return int(re.findall(r"\d+|-", total.group(1))[1].replace("-", "0"))
