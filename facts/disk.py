"""Room on a host's disks, and how long a write takes to reach one."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from typing import TypedDict

from pyinfra.api import FactBase


class FileSystem(TypedDict):
    path: str
    mount: str
    size_mib: int
    free_mib: int
    inodes: int
    inodes_free: int
    used_mib: int


class FileSystems(FactBase[list[FileSystem]]):
    """The file system on which each of these paths is or would be.

    ::

        [{"path": "/var/lib/containerd", "mount": "/", "size_mib": 40000, "free_mib": 32000, "inodes": 2621440,
          "inodes_free": 2500000, "used_mib": 310}]

    `used_mib` is what lies below the path already, of those in `measured` (path -> directory to measure), else 0.
    A file system without a number of inodes has 0.
    """

    @staticmethod
    def default() -> list[FileSystem]:
        return []

    def command(self, paths: tuple[str, ...], measured: tuple[tuple[str, str], ...] = ()) -> str:
        sizes = "".join(
            f"echo used {shlex.quote(path)} $(timeout 20 du -sm {shlex.quote(below)} 2>/dev/null | cut -f 1); "
            for path, below in measured
        )
        return (
            f"for p in {shlex.join(paths)}; do d=$p; while ! test -d $d; do d=$(dirname $d); done; "
            "echo room $p $(df -Pm $d | awk 'NR == 2 {print $2, $4, $6}'); "
            "echo inodes $p $(df -Pi $d 2>/dev/null | awk 'NR == 2 {print $2, $4}'); done; "
            f"{sizes}true"
        )

    def process(self, output: list[str]) -> list[FileSystem]:
        rows = {(kind, path): rest for kind, path, *rest in map(str.split, output)}
        found = []
        for (kind, path), rest in rows.items():
            if kind == "room":
                inodes = [int(each) if each.isdigit() else 0 for each in rows.get(("inodes", path), [])]
                used = rows.get(("used", path), [])
                found.append(
                    FileSystem(
                        path=path,
                        mount=rest[2],
                        size_mib=int(rest[0]),
                        free_mib=int(rest[1]),
                        inodes=inodes[0] if inodes else 0,
                        inodes_free=inodes[1] if inodes else 0,
                        used_mib=int(used[0]) if used else 0,
                    )
                )
        return found


class WriteTimes(TypedDict):
    path: str
    writes: int
    median_ms: float
    p99_ms: float


class SyncWrites(FactBase[WriteTimes | None]):
    """How long writes like those of etcd's log take until the disk has them, or None where it could not be tried.

    ::

        {"path": "/var/lib", "writes": 100, "median_ms": 0.8, "p99_ms": 2.4}

    100 writes of 2300 bytes, one after the other, into a file of 1 MiB in /var/lib/etcd, or in the directory above
    while there is none; for three seconds at most. The file's name is removed before the first of them, so that nothing
    is left however this ends. dd itself tells how long it wrote, so its start is not counted. The size is that of
    https://www.ibm.com/cloud/blog/using-fio-to-tell-whether-your-storage-is-fast-enough-for-etcd.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self) -> str:
        write = "LC_ALL=C dd if=/dev/zero of=/dev/fd/9 bs=2300 seek=$i count=1 conv=notrunc oflag=dsync"
        return (
            "d=/var/lib/etcd; test -d $d || d=/var/lib; echo path $d; "
            'f=$(mktemp $d/.preflight.XXXXXXXX 2>/dev/null) && exec 9<> "$f" && rm -f "$f" && '
            "dd if=/dev/zero of=/dev/fd/9 bs=1M count=1 conv=fdatasync 2>/dev/null && "
            f"timeout 3 sh -c 'for i in $(seq 100); do {write} 2>&1; done'; true"
        )

    def process(self, output: list[str]) -> WriteTimes | None:
        times = sorted(
            float(found[1]) * 1000 for line in output if (found := re.search(r"copied, ([\d.e+-]+) s", line))
        )
        if not times:
            return None
        return WriteTimes(
            path=output[0].split()[1],
            writes=len(times),
            median_ms=statistics.median(times),
            p99_ms=times[math.ceil(0.99 * len(times)) - 1],
        )
