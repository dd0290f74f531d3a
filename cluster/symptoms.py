"""What a diagnosis may find (symptoms.yaml), and those of it that are lines of logs, recognised."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from cluster.findings import Check, Finding, Reported, report

PATH = Path(__file__).with_name("symptoms.yaml")
# As journalctl has it with `-o short-iso`, and container runtimes in logs of pods.
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)\s")
LONGEST = 300


class Symptom(Check):
    """One thing that may be found; with a pattern, where lines of it are, for how many seconds they count after they
    were last seen, and how many there must be in that while."""

    logs: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    lasts: int = 0
    least: int = 1


@functools.cache
def symptoms() -> dict[str, Symptom]:
    """All of them by name, in the order of the first page; read once."""
    return TypeAdapter(dict[str, Symptom]).validate_python(yaml.safe_load(PATH.read_text()))


@dataclass(frozen=True)
class Log:
    """Lines of one host, without secrets, and that host's time at the end in seconds since 1970."""

    host: str
    file: str
    text: str
    now: float


@dataclass(frozen=True)
class Past:
    """What was seen in a log and is no more."""

    symptom: str
    host: str
    file: str
    count: int
    last: str


def _seconds(line: str) -> float | None:
    found = STAMP.match(line)
    return datetime.fromisoformat(found[1] + found[2]).timestamp() if found else None


def _seen(symptom: Symptom, log: Log) -> tuple[int, int, str]:
    """How many lines there are, how many of them count, and the last. A line without a time has that of the one before;
    where there is none at all, lines count."""
    assert symptom.pattern
    total, recent, last, at = 0, 0, "", log.now
    if not symptom.pattern.search(log.text):
        return 0, 0, ""
    for line in log.text.splitlines():
        at = seconds if (seconds := _seconds(line)) is not None else at
        if symptom.pattern.search(line):
            total, last = total + 1, line
            recent += log.now - at <= symptom.lasts
    return total, recent, last


def recognise(logs: Sequence[Log]) -> tuple[list[Finding], list[Past]]:
    """Findings from logs, and what was in them earlier."""
    found, past = [], []
    for name, symptom in symptoms().items():
        if symptom.pattern is None:
            continue
        for log in logs:
            if not any(fnmatch(log.file, each) for each in symptom.logs):
                continue
            total, recent, last = _seen(symptom, log)
            if recent >= symptom.least:
                hosts = (log.host,) if log.host else ()
                times = f"{recent} time{'' if recent == 1 else 's'}"
                found.append(Finding(name, hosts, f"{log.file}, {times}, at last: {last.strip()[:LONGEST]}"))
            elif total:
                past.append(Past(name, log.host, log.file, total, last.strip()[:LONGEST]))
    return found, past


def reported(findings: Iterator[Finding] | Sequence[Finding]) -> tuple[Reported, ...]:
    """Findings with what is known of each: errors first, and of those causes first."""
    known: Mapping[str, Symptom] = symptoms()
    order = list(known)
    return tuple(sorted(report(findings, (), known), key=lambda each: (each.severity, order.index(each.check))))
