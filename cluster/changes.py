"""What a run will do or has done, as data: kept as JSON, compared, and shown so that fifty alike hosts read as one.

The JSON of a plan is this module's `Plan`, and docs/plan.md has its fields. `schema` goes up when a field changes its
meaning or goes away.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# More hosts than this are shown by the first and the last of them.
NAMED = 8


class PlanError(Exception):
    """A file is no plan that can be read."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Row):
    """One thing that an operation does to a host."""

    words: str = Field(description="what is done, such as `modify /etc/hosts (content)`")
    diff: tuple[str, ...] = Field((), description="lines of a unified diff, without secrets")
    effect: str = Field("", description="what comes of it for what runs, such as `restarts kubelet`; empty: nothing")
    later: str = Field("", description="what of it cannot be known before the run, and since when it is")

    def line(self) -> str:
        return self.words + (f": {self.effect}" if self.effect else "") + (f" ({self.later})" if self.later else "")


class Group(_Row):
    """Hosts to which an operation does the same."""

    hosts: tuple[str, ...]
    changes: tuple[Change, ...]


class Step(_Row):
    """One operation that changes something."""

    operation: str = Field(description="deploy, layer and operation, such as `Cluster | Node | Load kernel modules`")
    groups: tuple[Group, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.hosts)


class Host(_Row):
    """A host of the run."""

    groups: tuple[str, ...]
    address: str


class Plan(_Row):
    """What a dry run says, or what a run has done."""

    schema_version: Literal[1] = Field(1, alias="schema")
    kind: Literal["plan", "result"]
    made: str = Field(description="UTC, ISO 8601")
    deploys: tuple[str, ...] = Field(description="deploys named on the command line, such as `cluster`")
    cluster_name: str
    kubernetes_version: str
    bundle: str = Field(description="SHA-256 of bundle.lock; empty where there is none")
    endpoint: str = Field(description="where the API is found")
    hosts: dict[str, Host]
    operations: int = Field(description="operations that were looked at, those that change nothing too")
    steps: tuple[Step, ...]

    @property
    def unknown(self) -> int:
        """Changes of which something cannot be known before the run."""
        return sum(bool(change.later) for each in self.steps for group in each.groups for change in group.changes)

    def rows(self) -> dict[tuple[str, str], tuple[Change, ...]]:
        """What each operation does to each host, by both; of several of one name, one after the other."""
        found: dict[tuple[str, str], tuple[Change, ...]] = {}
        for step in self.steps:
            for group in step.groups:
                for name in group.hosts:
                    found[step.operation, name] = found.get((step.operation, name), ()) + group.changes
        return found


def step(operation: str, changes: Mapping[str, tuple[Change, ...]]) -> Step:
    """An operation, and hosts together to which it does the same."""
    alike: dict[tuple[Change, ...], list[str]] = {}
    for name, each in changes.items():
        alike.setdefault(each, []).append(name)
    return Step(
        operation=operation, groups=tuple(Group(hosts=tuple(names), changes=each) for each, names in alike.items())
    )


def load(path: Path) -> Plan:
    """A plan that was kept. Raises PlanError with the file and what is wrong with it."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise PlanError(f"{path} is not a plan of this version: {where}: {first['msg']}") from None


def difference(old: Plan, new: Plan) -> list[str]:
    """What two plans, or a plan and what was done, do not have in common; a line each. Empty where they agree."""
    found = []
    before, after = old.rows(), new.rows()
    for operation, name in dict.fromkeys([*before, *after]):
        one, other = before.get((operation, name)), after.get((operation, name))
        if one is not None and other is not None and _agree(one, other):
            continue
        where = f"{name}: {operation}: "
        if one is None or other is None:
            only = new if one is None else old
            found.append(f"{where}only in the {only.kind} of {only.made}: {_words((one or other) or ())}")
        else:
            gone = [each for each in one if each not in other]
            come = [each for each in other if each not in one]
            found.append(f"{where}{_words(gone)} in the {old.kind}, and {_words(come)} in the {new.kind}")
            found += [f"  {line}" for each in gone for line in _between(each, come)]
    return found


def _agree(one: tuple[Change, ...], other: tuple[Change, ...]) -> bool:
    """Whether the same is done: of what could not be known then, no more than the words."""
    return len(one) == len(other) and all(
        old.words == new.words if old.later or new.later else old == new for old, new in zip(one, other, strict=True)
    )


def _words(changes: Iterable[Change]) -> str:
    return "; ".join(each.line() for each in changes) or "nothing said of it"


def _between(gone: Change, come: Iterable[Change]) -> Iterator[str]:
    """How the diff of a change differs from that of the change of the same words."""
    for each in come:
        if each.words == gone.words:
            yield from difflib.unified_diff(gone.diff, each.diff, lineterm="", n=0)


def names(hosts: Iterable[str]) -> str:
    """Hosts in few words."""
    known = list(hosts)
    if len(known) <= NAMED:
        return ", ".join(known)
    return f"{known[0]} ... {known[-1]} ({len(known)} hosts)"


def _general(change: Change, name: str, host: Host) -> Change:
    """A change without what is the host's own in it, so that alike hosts have the same."""

    def general(text: str) -> str:
        if name not in text and host.address not in text:
            return text
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "<host>", text)
        return re.sub(rf"(?<![\w.:]){re.escape(host.address)}(?![\w.:])", "<address>", text)

    return Change(
        words=general(change.words), diff=tuple(general(line) for line in change.diff),
        effect=general(change.effect), later=general(change.later),
    )  # fmt: skip


def together(step: Step, hosts: Mapping[str, Host]) -> list[Group]:
    """Groups in which hosts are together that differ by their own name and address alone."""
    alike: dict[tuple[Change, ...], Group] = {}
    for group in step.groups:
        first, *others = group.hosts
        # What several hosts have in the same words is none's own, though it may name one of them.
        key = group.changes if others else tuple(_general(each, first, hosts[first]) for each in group.changes)
        known = alike.get(key)
        alike[key] = Group(hosts=(*known.hosts, *group.hosts), changes=key) if known else group
    return list(alike.values())


def lines(plan: Plan, diffs: bool) -> Iterator[str]:
    """A plan for people, a line each: operation, hosts, what is done to them, and differences if they are asked for."""
    for each in plan.steps:
        yield each.operation
        for group in together(each, plan.hosts):
            told = f"[{names(group.hosts)}]"
            if not group.changes:
                yield f"  {told}"
            for change in group.changes:
                yield f"  {told} {change.line()}"
                if diffs:
                    yield from (f"    {line}" for line in change.diff)
