"""Which fields Kubernetes' configuration documents have in which minor: fields.tsv, read, and values judged by it."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.compatibility import parse

PATH = Path(__file__).with_suffix(".tsv")
COMPONENTS = ("KubeletConfiguration", "KubeProxyConfiguration")
KINDS = ("InitConfiguration", "ClusterConfiguration", "JoinConfiguration", *COMPONENTS)
# https://pkg.go.dev/time#ParseDuration and https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity
NUMBER = r"(\d+(\.\d*)?|\.\d+)"
DURATION = re.compile(rf"[-+]?(0|({NUMBER}(ns|us|µs|μs|ms|s|m|h))+)")
QUANTITY = re.compile(rf"[-+]?{NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d+)?")
Tree = dict[str, Any]


def _integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


# Type in fields.tsv -> how a person calls it, and what is one.
INT = _integer(-(2**63), 2**63 - 1)
TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "string": ("a string", lambda value: isinstance(value, str)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", INT),
    "int32": ("a whole number of 32 bits", _integer(-(2**31), 2**31 - 1)),
    "uint32": ("a whole number from 0 on", _integer(0, 2**32 - 1)),
    "float": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "duration": ('a duration such as "1h30m"', _text(DURATION)),
    "duration or int": (
        'a duration such as "5s", or nanoseconds',
        lambda value: INT(value) or _text(DURATION)(value),
    ),
    "quantity": ('a quantity such as "100Mi"', lambda value: INT(value) or _text(QUANTITY)(value)),
    "time": ("a time such as 2026-11-24T10:00:00Z", _text(re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[-+]\d\d:\d\d)"))),
}


@dataclass(frozen=True)
class Field:
    """A field of a document; `path` is its names, with "[]" for an entry of a list and "{}" for a value of a map.

    `last` is empty when the newest minor has it.
    """

    kind: str
    path: tuple[str, ...]
    type: str
    first: str
    last: str

    def within(self, minor: str) -> bool:
        """Whether a minor has it."""
        return parse(self.first) <= parse(minor) <= parse(self.last or minor)


@functools.cache
def load() -> tuple[Field, ...]:
    """Every field of every document, in every minor."""
    rows = (line.split("\t") for line in PATH.read_text().splitlines() if not line.startswith("#"))
    return tuple(
        Field(kind, tuple(re.findall(r"\[\]|\{\}|[^.\[\]{}]+", path)), of, first, last)
        for kind, path, of, first, last in rows
    )


def problems(kind: str, document: Any, minor: str) -> Iterator[tuple[str, str]]:
    """What a minor would not take of a document, or of a part of one: (path of the field, what is wrong with it)."""
    yield from _problems(kind, document, _tree(kind, minor), minor, (), "")


@functools.cache
def _tree(kind: str, minor: str) -> Tree:
    """Fields of a kind in a minor, name within name; a type where the names end."""
    tree: Tree = {}
    for field in load():
        if field.kind == kind and field.within(minor):
            *names, last = field.path
            place = tree
            for name in names:
                place = place.setdefault(name, {})
            place[last] = field.type
    return tree


def _problems(
    kind: str, value: Any, known: Tree | str, minor: str, path: tuple[str, ...], shown: str
) -> Iterator[tuple[str, str]]:
    if value is None:  # to Kubernetes the same as a field that is not there
        return
    if isinstance(known, str):
        words, fits = TYPES[known]
        if not fits(value):
            yield shown, f"must be {words}, not {value!r}"
    elif "[]" in known:
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield from _problems(kind, each, known["[]"], minor, (*path, "[]"), f"{shown}[{index}]")
        else:
            yield shown, f"must be a list, not {value!r}"
    elif not isinstance(value, dict):
        yield shown, f"must be names and values, not {value!r}"
    else:
        for name, each in value.items():
            below = f"{shown}.{name}".lstrip(".")
            if name in known or "{}" in known:
                step = name if name in known else "{}"
                yield from _problems(kind, each, known[step], minor, (*path, step), below)
            else:
                yield below, f"{kind} has no such field{_elsewhere(kind, (*path, str(name)), known, minor)}"


def _elsewhere(kind: str, path: tuple[str, ...], known: Tree, minor: str) -> str:
    """Which other minors have a field, or else what it is near to, in words."""
    having = [field for field in load() if field.kind == kind and field.path[: len(path)] == path]
    later = [field.first for field in having if parse(field.first) > parse(minor)]
    earlier = [field.last for field in having if field.last and parse(field.last) < parse(minor)]
    if later:
        return f" in {minor}: Kubernetes has it from {min(later, key=parse)}"
    if earlier:
        return f" in {minor}: Kubernetes had it up to {max(earlier, key=parse)}"
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def absent(minor: str) -> str:
    """Why the fields of a minor are not known; empty when they are."""
    minors = sorted({end for field in load() for end in (field.first, field.last) if end}, key=parse)
    if parse(minors[0]) <= parse(minor):
        return ""
    return f"The fields of Kubernetes {minor}'s configuration are not known here, only from {minors[0]} on; take that."
