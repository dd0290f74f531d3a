"""Which versions go with which Kubernetes: compatibility.yaml, typed, and sentences that refuse what cannot work."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

PATH = Path(__file__).with_suffix(".yaml")
# An epoch, `v`, numbers, and what a distribution or a build has put behind them.
VERSION = re.compile(r"(?:\d+:)?v?(\d+(?:\.\d+)*)(?:[-~+_].*)?")


def parse(text: str) -> tuple[int, int, int]:
    """The first three numbers of a version: of `1:2.2.7-1` (2, 2, 7), of `v1.36` (1, 36, 0). Raises ValueError."""
    match = VERSION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no version: one begins with numbers, such as 1.6.20 or v1.36.2.")
    major, minor, patch, *_ = *map(int, match[1].split(".")), 0, 0
    return major, minor, patch


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Sourced(_Model):
    sources: tuple[str, ...] = Field(min_length=1)


class Limit(_Sourced):
    """What Kubernetes `first` to `last` needs of a component: `at_least`, or one `below`, as `take` is."""

    first: str = ""
    last: str = ""
    at_least: str = ""
    below: str = ""
    take: str = ""
    why: str

    @property
    def kubernetes(self) -> str:
        """The minors that it is of, in words."""
        return " ".join(f"{word} {end}" for word, end in (("from", self.first), ("up to", self.last)) if end)

    @property
    def release(self) -> str:
        """The releases that are within it, in words."""
        return f"{self.at_least} or later" if self.at_least else f"before {self.below}"

    def breaks(self, minor: str, given: str) -> bool:
        """Whether a component's version is out of bounds for a minor of Kubernetes."""
        if not parse(self.first or minor) <= parse(minor) <= parse(self.last or minor):
            return False
        return parse(given) < parse(self.at_least) if self.at_least else parse(given) >= parse(self.below)


class Component(_Sourced):
    """Something with versions of its own; compatibility.yaml describes each field."""

    name: str
    listed_as: str
    limits: tuple[Limit, ...] = ()
    cautions: tuple[Limit, ...] = ()


class Column(_Sourced):
    """What a field of Minor means."""

    meaning: str


class Minor(_Model):
    """A minor of Kubernetes. `listed`: component -> releases that its upstream names; no entry, nothing known."""

    kubeadm: tuple[str, ...]
    oldest_kubelet: str
    oldest_kubelet_of_kubeadm: str
    cgroup_v1: Literal["works", "maintenance", "opt-in"]
    dockershim: bool
    kube_proxy_modes: tuple[str, ...]
    listed: dict[str, tuple[str, ...]]


class GuideRow(_Model):
    """A combination of the guide, and what to take `instead` of what cannot work."""

    kubernetes: str
    versions: dict[str, str]
    docker: str = "-"
    instead: dict[str, str] = {}


class Matrix(_Model):
    """The whole of compatibility.yaml; minors from the oldest to the newest, none left out between."""

    components: dict[str, Component]
    columns: dict[str, Column]
    minors: dict[str, Minor]
    guide: tuple[GuideRow, ...]


@functools.cache
def load() -> Matrix:
    """The matrix, read once."""
    return Matrix.model_validate(yaml.safe_load(PATH.read_text()))


def kubeadm_api(kubernetes: str) -> str:
    """The apiVersion to write for a version's kubeadm. Raises LookupError when the matrix does not have its minor."""
    if absent := _absent(kubernetes):
        raise LookupError(absent)
    return f"kubeadm.k8s.io/{load().minors[_minor(kubernetes)].kubeadm[-1]}"


def mode_refusal(kubernetes: str, mode: str) -> str:
    """Why a version's kube-proxy cannot run in a mode, a sentence; empty when it can, or its minor is not known."""
    known = load().minors.get(_minor(kubernetes))
    if known is None or mode in known.kube_proxy_modes:
        return ""
    first = next((minor for minor, each in load().minors.items() if mode in each.kube_proxy_modes), "")
    return (
        f"kube-proxy of Kubernetes {_minor(kubernetes)} has no mode {mode} without a feature gate; take "
        f"{' or '.join(known.kube_proxy_modes)}, or Kubernetes {first} or later."
    )


def refusals(kubernetes: str, versions: Mapping[str, str]) -> list[str]:
    """What cannot work with a version of Kubernetes, a sentence each, with the nearest that can; component -> version.

    Raises LookupError for a component that the matrix does not have, ValueError for what is no version.
    """
    components = _components(versions)
    if absent := _absent(kubernetes):
        return [absent]
    minor = _minor(kubernetes)
    return [
        _refusal(component, limit, minor, versions[name])
        for name, component in components.items()
        for limit in component.limits
        if limit.breaks(minor, versions[name])
    ]


def warnings(kubernetes: str, versions: Mapping[str, str]) -> list[str]:
    """What may work, but upstream does not recommend or test it, or warns of it, a sentence each.

    Of what is refused nothing more is said. Raises as refusals does.
    """
    minor, found = _minor(kubernetes), []
    for name, component in _components(versions).items():
        given = versions[name]
        if refusals(kubernetes, {name: given}):
            continue
        listed = load().minors[minor].listed.get(name, ())
        but = f"{component.name} {given} may work with Kubernetes {minor}, but"
        if listed and not any(_meets(given, entry) for entry in listed):
            found.append(f"{but} {component.listed_as.format(_words(listed))}.")
        found += [f"{but} {limit.why}." for limit in component.cautions if limit.breaks(minor, given)]
    return found


def _minor(kubernetes: str) -> str:
    return ".".join(map(str, parse(kubernetes)[:2]))


def _absent(kubernetes: str) -> str:
    """Why the matrix has nothing for a version of Kubernetes; empty when it has."""
    minor, minors = _minor(kubernetes), list(load().minors)
    if minor in minors:
        return ""
    nearest = minors[0] if parse(minor) < parse(minors[0]) else minors[-1]
    known = f"{minors[0]} to {minors[-1]}"
    return f"Kubernetes {minor} is not in the compatibility matrix, which has {known}; take Kubernetes {nearest}."


def _components(versions: Mapping[str, str]) -> dict[str, Component]:
    known = load().components
    for name, given in versions.items():
        if name not in known:
            raise LookupError(f"The compatibility matrix has no component {name!r}; it has {', '.join(known)}.")
        parse(given)
    return {name: known[name] for name in versions}


def _refusal(component: Component, limit: Limit, minor: str, given: str) -> str:
    what, minors = f"{component.name} {given}", list(load().minors)
    at = minors.index(minor)
    if limit.at_least:  # an older Kubernetes goes with what is too old
        problem = f"{what} is below {limit.at_least}, the least for Kubernetes {minor}"
        release, others = limit.release, minors[:at][::-1]
    else:
        problem = f"{what} is too new for Kubernetes {minor}, which needs one before {limit.below}"
        release, others = f"{limit.take} or earlier", minors[at + 1 :]
    fits = (each for each in others if not any(other.breaks(each, given) for other in component.limits))
    nearest = next((f", or Kubernetes {each}" for each in fits), "")
    return f"{problem}: {limit.why}; take {release}{nearest}."


def _meets(given: str, entry: str) -> bool:
    least = parse(entry)
    return parse(given) >= least and (entry.endswith("+") or parse(given)[:2] == least[:2])


def _words(value: str | bool | Iterable[str]) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(entry.replace("+", " and later") for entry in value)


def markdown() -> str:
    """docs/compatibility.md: the matrix as tables, the guide's combinations judged by it, and every source."""
    matrix, columns = load(), load().columns
    names = {key: each.name for key, each in matrix.components.items()}
    minors = [
        [name, *(_words(each.listed.get(key, "-")) for key in names), *(_words(getattr(each, key)) for key in columns)]
        for name, each in matrix.minors.items()
    ]
    bounds = [
        [each.name, limit.kubernetes, limit.release, "no" if limit in each.limits else "yes", limit.why, *limit.sources]
        for each in matrix.components.values()
        for limit in each.limits + each.cautions
    ]
    guide = [
        [
            *(row.kubernetes, *row.versions.values(), row.docker),
            ", ".join(f"{names[key]} {given}" for key, given in row.instead.items()) or "as it is",
            *refusals(row.kubernetes, row.versions),
            *warnings(row.kubernetes, row.versions),
        ]
        for row in matrix.guide
    ]
    parts = [
        "# Compatibility\n\nWhat goes with which minor of Kubernetes, from `cluster/compatibility.yaml`.",
        "## What upstream names\n\nOther releases are warned of. `-`: nothing is known.",
        _table(["Kubernetes", *names.values(), *(f"`{key}`" for key in columns)], minors),
        "## What is needed\n\nWhat does not work without it is refused; what does is warned of.",
        _table(["component", "Kubernetes", "release", "works without", "why, and who says so"], bounds),
        "## The guide's combinations",
        _table(["Kubernetes", *(names[key] for key in matrix.guide[0].versions), "Docker", "instead", "why"], guide),
        "## Sources",
        "\n".join(f"- {each.name}: {' '.join(each.sources)}" for each in matrix.components.values()),
        "\n".join(f"- `{key}`: {each.meaning} {' '.join(each.sources)}" for key, each in columns.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; what a row has beyond the head goes into its last column."""
    last = len(head) - 1
    lines = [head, ["---"] * len(head), *([*row[:last], " ".join(row[last:])] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
