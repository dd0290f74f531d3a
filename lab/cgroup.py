"""A control group of its own for each node, in whatever hierarchies this machine has.

On cgroup v1 systemd-nspawn roots the node's cgroup namespace where it is started, so it is started inside
the node's group of every hierarchy. On v2 there is one hierarchy and the controllers are passed down.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

from lab.layout import BRIDGE, LabError, Node

MOUNT = Path("/sys/fs/cgroup")


def version() -> int:
    """The version in use: 2 when there is the unified hierarchy and nothing else."""
    return 2 if (MOUNT / "cgroup.controllers").exists() else 1


def hierarchies() -> list[Path]:
    """Mounted hierarchies: one on v2, one for each controller (and perhaps an unused v2) on v1."""
    if version() == 2:
        return [MOUNT]
    return [each for each in sorted(MOUNT.iterdir()) if (each / "cgroup.procs").exists() and not each.is_symlink()]


def ensure(node: Node) -> list[Path]:
    """Make the node's groups and return them."""
    made = []
    for hierarchy in hierarchies():
        group = hierarchy / BRIDGE / node.name
        group.mkdir(parents=True, exist_ok=True)
        for parent, child in ((hierarchy, hierarchy / BRIDGE), (hierarchy / BRIDGE, group)):
            if hierarchy.name == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (child / name).write_text((parent / name).read_text())
            if version() == 2:
                for controller in (parent / "cgroup.controllers").read_text().split():
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        made.append(group)
    return made


def groups(under: str = "") -> list[Path]:
    """The lab's groups, or one node's, deepest first.

    A node's systemd removes groups as its services end, so one may be gone at any moment of the walk;
    os.walk passes over what it cannot list.
    """
    return [
        Path(directory)
        for hierarchy in hierarchies()
        for directory, _, _ in os.walk(hierarchy / BRIDGE / under, topdown=False)
    ]


def processes(under: str = "") -> set[int]:
    """Every process in the lab's groups, or in one node's."""
    found: set[int] = set()
    for group in groups(under):
        try:
            found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        except OSError as error:
            # The second is what a group says that was removed after its file was opened.
            if error.errno not in {errno.ENOENT, errno.ENODEV}:
                raise
    return found - {0, os.getpid()}


def kill(under: str = "", seconds: float = 20) -> None:
    """Kill all processes in the groups at once, as a power cut does, and see them gone."""
    limit = time.monotonic() + seconds
    while left := processes(under):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > limit:
            raise LabError(f"processes {sorted(left)} of the lab do not die; look at them with `ps -fp`.")
        time.sleep(0.1)


def remove(under: str = "") -> None:
    """Remove the empty groups."""
    for group in groups(under):
        for _ in range(50):
            try:
                group.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.1)
