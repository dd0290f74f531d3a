"""What preflight finds: checks by name (checks.yaml), findings, and a report of them as text and JSON."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

PATH = Path(__file__).with_name("checks.yaml")
Severity = Literal["error", "warning"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Model):
    """One check: `error` stops a deploy, `warning` is shown. `why` and `remedy` are sentences."""

    severity: Severity
    why: str
    remedy: str


@functools.cache
def checks() -> dict[str, Check]:
    """All checks by name, read once."""
    return TypeAdapter(dict[str, Check]).validate_python(yaml.safe_load(PATH.read_text()))


def unknown(waived: Sequence[str]) -> list[str]:
    """Names in `waived_checks` that are no check's, a sentence each, with the nearest."""
    found = []
    for name in waived:
        if name not in checks():
            near = difflib.get_close_matches(name, checks(), n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            found.append(f"waived_checks: there is no check {name}{hint} docs/preflight.md has all of them.")
    return found


@dataclass(frozen=True)
class Finding:
    """What a check has seen, as words without a full stop; on no host when it is of the cluster as a whole."""

    check: str
    hosts: tuple[str, ...]
    evidence: str


class Reported(_Model):
    """A finding as it is reported: alike on all of these hosts."""

    check: str
    severity: Severity
    waived: bool
    hosts: tuple[str, ...]
    evidence: str
    why: str
    remedy: str

    def line(self) -> str:
        """All of it in one line."""
        where = f"{names(self.hosts)}: " if self.hosts else ""
        return f"{where}{self.evidence}. {self.why} {self.remedy} (check: {self.check})"


class Report(_Model):
    """What a preflight found. `format` is that of the JSON; docs/preflight.md describes it."""

    format: Literal[1] = 1
    cluster_name: str
    kubernetes_version: str
    time: str
    asked: tuple[str, ...]
    not_asked: tuple[str, ...]
    findings: tuple[Reported, ...]

    def lines(self, severity: Severity, waived: bool = False) -> list[str]:
        """Findings of one kind, a line each."""
        return [each.line() for each in self.findings if (each.severity, each.waived) == (severity, waived)]

    def summary(self) -> str:
        """How many hosts and findings there are."""
        waived = sum(each.waived for each in self.findings)
        beyond = f", {len(self.not_asked)} not asked" if self.not_asked else ""
        return (
            f"Preflight: {len(self.asked)} hosts{beyond}, {len(checks())} checks: "
            f"{_count(self.lines('error'), 'error')}, {_count(self.lines('warning'), 'warning')}, "
            f"{waived or 'none'} waived"
        )


def report(
    findings: Iterable[Finding], waived: Sequence[str], known: Mapping[str, Check] | None = None
) -> tuple[Reported, ...]:
    """Findings with what is known of their checks, preflight's or these; alike ones together, errors first, by name."""
    known = checks() if known is None else known
    hosts: dict[tuple[str, str], set[str]] = {}
    for finding in findings:
        hosts.setdefault((finding.check, finding.evidence), set()).update(finding.hosts)
    found = [
        Reported(
            check=check,
            severity=known[check].severity,
            waived=check in waived,
            hosts=tuple(sorted(where, key=_natural)),
            evidence=evidence,
            why=known[check].why,
            remedy=known[check].remedy,
        )
        for (check, evidence), where in hosts.items()
    ]
    return tuple(sorted(found, key=lambda each: (each.severity, each.check, list(map(_natural, each.hosts)))))


def names(hosts: Iterable[str]) -> str:
    """Names of hosts in their order, runs of them shortened: `cp1, w1 to w50`."""
    runs: list[list[str]] = []
    for host in sorted(hosts, key=_natural):
        if runs and _follows(runs[-1][-1], host):
            runs[-1].append(host)
        else:
            runs.append([host])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs]
    return ", ".join(shown)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _follows(first: str, second: str) -> bool:
    """Whether two names differ by one in their first number alone."""
    one, two = (re.fullmatch(r"(\D*)(\d+)(.*)", name) for name in (first, second))
    if not one or not two or (one[1], one[3]) != (two[1], two[3]) or len(one[2]) > len(two[2]):
        return False
    return int(one[2]) + 1 == int(two[2])


def _count(lines: Sequence[str], what: str) -> str:
    return f"{len(lines) or 'no'} {what}{'' if len(lines) == 1 else 's'}"


def markdown() -> str:
    """docs/preflight.md: a table of every check, and the shape of the JSON."""
    rows = [f"| `{name}` | {each.severity} | {each.why} | {each.remedy} |" for name, each in checks().items()]
    fields = {
        "format": "1; it grows when a field is removed or means something else, not when one is added",
        "cluster_name, kubernetes_version": "of the settings",
        "time": "when the hosts were asked, in UTC",
        "asked, not_asked": "hosts by name; with `--limit` the others are not asked",
        "findings[].check, .severity": "as below",
        "findings[].waived": "whether `waived_checks` names it",
        "findings[].hosts": "on which hosts it is alike; none when it is of the cluster as a whole",
        "findings[].evidence, .why, .remedy": "what was seen, why it matters, and what to do",
    }
    shape = [f"| `{name}` | {meaning} |" for name, meaning in fields.items()]
    return "\n".join([HEAD, *shape, TABLE, *rows]) + "\n"


HEAD = """\
# Preflight

`deploys/preflight.py` asks every host once and changes nothing. It reports all findings of all hosts together: an
*error* stops a deploy before its first change, a *warning* is shown. In `deploys/cluster.py` it is the first layer.

    pyinfra inventories/prod.py deploys/preflight.py
    pyinfra inventories/prod.py deploys/preflight.py --data preflight_json=preflight.json

What you know better is waived by its name in the setting `waived_checks`; it is still shown, as waived. To write to a
disk and remove it again is no change here: on control planes without an etcd, a file of 1 MiB that has no name is
written to for three seconds at most, to see how long a write takes.

With `preflight_json` the report is written as JSON too, errors or not. It is not written when the inventory or the
settings cannot work, for then no host is asked.

| field | meaning |
| --- | --- |"""
TABLE = """
## All checks

| check | severity | why | what to do |
| --- | --- | --- | --- |"""
