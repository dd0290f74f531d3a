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
# As journalctl has it with `-o short-iso`, container runtimes in logs of pods, and events by one of two fields.
STAMP = re.compile(r"(?:null )?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)\s")
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


def _excerpt(line: str, match: re.Match[str]) -> str:
    """Of a long line its beginning and what was recognised."""
    if len(line) <= LONGEST:
        return line.strip()
    start = max(match.start() - 100, 60)
    return f"{line[:60]} ... {line[start : start + LONGEST - 60]}".strip()


def _seen(symptom: Symptom, log: Log) -> tuple[int, int, str]:
    """How many lines there are, how many of them count, and the last. A line without a time has that of the one before;
    where there is none at all, lines count."""
    assert symptom.pattern
    if not symptom.pattern.search(log.text):
        return 0, 0, ""
    total, recent, last, lines = 0, 0, "", log.text.splitlines()
    # The first line may be half a line, where the log was cut: it is of the time of the next.
    at = next((seconds for line in lines if (seconds := _seconds(line)) is not None), log.now)
    for line in lines:
        at = seconds if (seconds := _seconds(line)) is not None else at
        if match := symptom.pattern.search(line):
            total, last = total + 1, _excerpt(line, match)
            recent += log.now - at <= symptom.lasts
    return total, recent, last


def recognise(logs: Sequence[Log]) -> tuple[list[Finding], list[Past]]:
    """Findings from logs, one of each for a host, and what was in them earlier."""
    found, past = [], []
    for name, symptom in symptoms().items():
        best: dict[str, tuple[int, Finding]] = {}
        for log in logs:
            if symptom.pattern is None or not any(fnmatch(log.file, each) for each in symptom.logs):
                continue
            total, recent, last = _seen(symptom, log)
            if recent >= symptom.least:
                times = f"{recent} time{'' if recent == 1 else 's'}"
                finding = Finding(name, (log.host,) if log.host else (), f"{log.file}, {times}, at last: {last}")
                # The same is often said in several logs of a host.
                if recent > best.get(log.host, (0, finding))[0]:
                    best[log.host] = recent, finding
            elif total >= symptom.least:
                past.append(Past(name, log.host, log.file, total, last))
        found += [finding for _, finding in best.values()]
    return found, past


def reported(findings: Iterator[Finding] | Sequence[Finding]) -> tuple[Reported, ...]:
    """Findings with what is known of each: errors first, and of those causes first."""
    known: Mapping[str, Symptom] = symptoms()
    order = list(known)
    return tuple(sorted(report(findings, (), known), key=lambda each: (each.severity, order.index(each.check))))
