"""A plan as one page of HTML that needs nothing beside it: for a browser without a network, a mouse or scripts, and
for paper.

Style and script are allowed by their digests alone, so that nothing in a plan could run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cluster import plan_picture
from cluster.changes import NAMED, Change, Plan, Step, names, together

TEMPLATES = Path(__file__).parent.parent / "templates" / "plan"


@dataclass(frozen=True)
class Hosts:
    """Hosts that something on the page is about. Many are named once on the page, in a list of this number."""

    names: tuple[str, ...]
    listed: int | None

    @property
    def words(self) -> str:
        return names(self.names)


@dataclass(frozen=True)
class Item:
    """What an operation does to alike hosts."""

    hosts: Hosts
    changes: tuple[Change, ...]

    @property
    def effect(self) -> bool:
        return any(each.effect for each in self.changes)

    @property
    def later(self) -> bool:
        return any(each.later for each in self.changes)


@dataclass(frozen=True)
class Operation:
    """A step of the plan, by its place among them."""

    number: int
    layer: str
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Alike:
    """Hosts that the same operations change, and what these do to some or all of them."""

    hosts: Hosts
    operations: tuple[tuple[Operation, tuple[Item, ...]], ...]


@dataclass(frozen=True)
class Mark:
    """A host in the picture: how many operations change it, whether one affects what runs, its place in the page."""

    count: int
    effect: bool
    alike: int


class _Hosts:
    """The plan's hosts in the page's order, and each set of many as it is first met."""

    def __init__(self, plan: Plan) -> None:
        roles = list(plan_picture.ROLES)

        def order(name: str) -> tuple[int, list[tuple[int, str]]]:
            return roles.index(plan_picture.role(plan.hosts[name].groups)), natural(name)

        self.place = {name: number for number, name in enumerate(sorted(plan.hosts, key=order))}
        self.lists: dict[tuple[str, ...], int] = {}

    def of(self, members: Iterable[str]) -> Hosts:
        ordered = tuple(sorted(members, key=self.place.__getitem__))
        return Hosts(ordered, self.lists.setdefault(ordered, len(self.lists)) if len(ordered) > NAMED else None)


def beside(path: Path) -> Path:
    """Where the page of a plan is that is kept as JSON in this file."""
    return path.with_name(f"{path.name.removesuffix('.json')}.html")


def natural(name: str) -> list[tuple[int, str]]:
    """An order in which w2 is before w10."""
    return [(int(each), "") if each.isdecimal() else (0, each) for each in re.split(r"(\d+)", name) if each]


def split(operation: str) -> tuple[str, str]:
    """Layer and title of an operation; one that has several names has the title of each."""
    layers, titles = [], []
    for each in operation.split(" / "):
        *above, title = each.split(" | ")
        layers += above[-1:]
        titles.append(title)
    return layers[0] if layers else "Other operations", " / ".join(titles)


def page(plan: Plan) -> str:
    """The page of a plan, or of what was done."""
    hosts, rows = _Hosts(plan), plan.rows().values()
    operations = [_operation(number, each, plan, hosts) for number, each in enumerate(plan.steps)]
    alike = list(_alike(operations, hosts))
    marks = _marks(alike)
    return _environment().get_template("page.html.j2").render(
        plan=plan,
        planned=plan.kind == "plan",
        changes=len(rows),
        unknown=sum(any(each.later for each in changes) for changes in rows),
        effects=sum(any(each.effect for each in changes) for changes in rows),
        layers=[(layer, list(each)) for layer, each in groupby(operations, lambda each: each.layer)],
        alike=alike,
        marks=marks,
        picture=plan_picture.picture(
            plan.endpoint,
            {name: plan.hosts[name].groups for name in hosts.place},
            {name: each.count for name, each in marks.items()},
        ),
        shape=plan_picture,
        lists=list(hosts.lists),
        style=_file("page.css"),
        script=_file("page.js"),
        counts=_counts,
        digest=_digest,
    )  # fmt: skip


def _operation(number: int, step: Step, plan: Plan, hosts: _Hosts) -> Operation:
    layer, title = split(step.operation)
    items = [Item(hosts.of(each.hosts), each.changes) for each in together(step, plan.hosts)]
    return Operation(number, layer, title, tuple(sorted(items, key=lambda each: hosts.place[each.hosts.names[0]])))


def _alike(operations: Sequence[Operation], hosts: _Hosts) -> Iterator[Alike]:
    changing: dict[str, list[int]] = {name: [] for name in hosts.place}
    for each in operations:
        for item in each.items:
            for name in item.hosts.names:
                changing[name].append(each.number)
    found: dict[tuple[int, ...], list[str]] = {}
    for name, numbers in changing.items():
        found.setdefault(tuple(numbers), []).append(name)
    for steps, members in found.items():
        theirs = set(members)
        done = [
            (operations[each], tuple(item for item in operations[each].items if theirs & set(item.hosts.names)))
            for each in steps
        ]
        yield Alike(hosts.of(members), tuple(done))


def _marks(alike: Sequence[Alike]) -> dict[str, Mark]:
    marks: dict[str, Mark] = {}
    for number, each in enumerate(alike):
        effects = {name for _, items in each.operations for item in items if item.effect for name in item.hosts.names}
        marks |= {name: Mark(len(each.operations), name in effects, number) for name in each.hosts.names}
    return marks


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _counts(diff: Sequence[str]) -> tuple[int, int]:
    """Lines that come and lines that go, by a unified diff with or without its head."""
    first = [each[:1] for each in (diff[2:] if diff[0].startswith("--- ") else diff)]
    return first.count("+"), first.count("-")


def _file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text())


def _digest(text: str) -> str:
    """What Content-Security-Policy calls a style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
