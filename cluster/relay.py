"""The bundle's way over the hosts, in steps, so that one part is handed on while the next one comes.

step   first server   other servers   all other hosts
1      part 1
2      part 2         part 1
3      part 3         part 2          part 1
...    ...            ...             ...
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from cluster.lock import File
from cluster.topology import Node

# Beside the packages. Each step ends when the slowest host has ended it, so parts are few.
PARTS = 6


def batches(files: Sequence[File], size: int) -> list[list[File]]:
    """The files in their order, cut into groups of about this many bytes; a larger file is a group of its own."""
    found: list[list[File]] = []
    room = 0
    for file in files:
        if not found or file.size > room:
            found.append([])
            room = size
        found[-1].append(file)
        room -= file.size
    return found


def parts(files: Sequence[File], count: int = PARTS) -> list[list[File]]:
    """All packages, from which servers install what they serve with; then the rest in at most so many parts.

    Large files are first and parts get smaller, for the last ones are handed on when nothing comes any more.
    """
    packages = [file for file in files if file.path.startswith("packages/")]
    rest = sorted((file for file in files if not file.path.startswith("packages/")), key=lambda file: -file.size)
    whole, done = sum(file.size for file in rest), 0
    shares = list(accumulate(range(count, 0, -1)))
    found: list[list[File]] = [[] for _ in range(count)]
    for file in rest:
        middle = done + file.size / 2
        found[bisect_left([share * whole for share in shares], middle * shares[-1])].append(file)
        done += file.size
    return [packages, *(part for part in found if part)]


def behind(node: Node, servers: Sequence[Node]) -> int:
    """Steps that a host is behind the first server."""
    first, *others = servers
    if node == first:
        return 0
    return 2 if others and node not in others else 1


def schedule(files: Sequence[File], wanted: Sequence[File], node: Node, servers: Sequence[Node]) -> list[list[File]]:
    """What a host gets in each step, of what it wants. There are as many steps for every host.

    `files` are those that any host wants.
    """
    mine, late = {file.path for file in wanted}, behind(node, servers)
    last = 1 if len(servers) == 1 else 2
    own = [[file for file in part if file.path in mine] for part in parts(files)]
    return [*([] for _ in range(late)), *own, *([] for _ in range(last - late))]
