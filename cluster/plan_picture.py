"""Where hosts stand in the picture of a plan: the endpoint, and below it a frame for each role, in SVG's units.

A few hosts are boxes with their names; more are small squares, so that five hundred are still one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 600
BOX_WIDTH, BOX_HEIGHT, BOXES_ACROSS = 106, 44, 5
SQUARE, SQUARES_ACROSS = 15, 28
# More hosts of a role than this are squares.
BOXES = 2 * BOXES_ACROSS
GAP = 6
# Letters that a box has room for, and what one of the endpoint's is wide.
LETTERS, LETTER = 11, 9
HEAD, EDGE, ARROW = 26, 12, 22
# Groups of a host -> one of them in words, several of them; a group that is not here is the last.
ROLES = {
    "load_balancer": ("load balancer", "load balancers"),
    "control_plane": ("control plane, with etcd", "control planes, each with etcd"),
    "worker": ("worker", "workers"),
    "": ("other host", "other hosts"),
}


@dataclass(frozen=True)
class Place:
    """A host in the picture."""

    name: str
    short: str
    x: int
    y: int


@dataclass(frozen=True)
class Frame:
    """All hosts of a role."""

    title: str
    y: int
    height: int
    boxes: bool
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Picture:
    """The whole of it, `WIDTH` wide."""

    endpoint_width: int
    height: int
    frames: tuple[Frame, ...]


def role(groups: Sequence[str]) -> str:
    """The role that a host is shown in: the first that it has."""
    return next((each for each in ROLES if each in groups), "")


def picture(endpoint: str, groups: Mapping[str, Sequence[str]], changes: Mapping[str, int]) -> Picture:
    """A picture of hosts in this order, by their groups and the number of their changes."""
    frames: list[Frame] = []
    y, short = BOX_HEIGHT + 2, _short(list(groups))
    for each, (one, several) in ROLES.items():
        names = [name for name, of in groups.items() if role(of) == each]
        if names:
            title = f"{len(names)} {one if len(names) == 1 else several}"
            if len(names) > BOXES:
                title += f": {_span([changes[name] for name in names])}"
            frames.append(_frame(title, names, short, y + ARROW))
            y = frames[-1].y + frames[-1].height
    return Picture(min(WIDTH - 2, max(180, LETTER * len(endpoint) + 30)), y + 2, tuple(frames))


def _frame(title: str, names: Sequence[str], short: Mapping[str, str], y: int) -> Frame:
    boxes = len(names) <= BOXES
    wide, high, across = (BOX_WIDTH, BOX_HEIGHT, BOXES_ACROSS) if boxes else (SQUARE, SQUARE, SQUARES_ACROSS)
    places = []
    for number, name in enumerate(names):
        row, column = divmod(number, across)
        inside = min(across, len(names) - row * across) if boxes else across
        left = (WIDTH - inside * (wide + GAP) + GAP) // 2
        places.append(Place(name, short[name], left + column * (wide + GAP), y + HEAD + row * (high + GAP)))
    return Frame(title, y, places[-1].y + high + EDGE - y, boxes, tuple(places))


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least if least == most else f'{least} to {most}'} change{'' if most == 1 else 's'} each"


def _short(names: Sequence[str]) -> dict[str, str]:
    """Names without their domains where these tell no hosts apart, and no longer than a box has room for."""
    first = Counter(name.split(".")[0] for name in names)
    known = {name: name.split(".")[0] if first[name.split(".")[0]] == 1 else name for name in names}
    return {name: each if len(each) <= LETTERS else f"{each[:6]}…{each[-4:]}" for name, each in known.items()}
