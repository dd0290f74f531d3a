"""A cluster looked at as it is, by whoever answers: what was said, what looks wrong, and one archive of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import operation

from cluster.first_page import page
from cluster.redaction import redact
from cluster.symptoms import Log, recognise, reported
from operations import ailments
from operations.interview import Answer, Patient, Seen, gather


def _path(name: str, answer: Answer) -> str:
    return f"hosts/{name}/{answer.question.file}" if name else f"cluster/{answer.question.file}"


def files(seen: Seen) -> dict[str, str]:
    """What goes into the archive beside the first page, by path, without secrets."""
    found: dict[str, str] = {}
    for name, answers in seen.answers.items():
        facts = {each.question.file: each.fact for each in answers if each.question.fact and each.fact is not None}
        for answer in answers:
            if not answer.question.kept:
                continue
            head = f"# the last {answer.question.limit} bytes\n" if answer.cut else ""
            tail = f"# {answer.problem}\n" if answer.problem else f"# exit {answer.status}\n" if answer.status else ""
            found[_path(name, answer)] = head + redact(answer.text) + tail
        if facts:
            found[f"hosts/{name}/facts.json"] = redact(json.dumps(facts, indent=1, default=str))
    return found


def write(path: Path, contents: Mapping[str, str]) -> None:
    """One archive, the owner's alone, written beside and renamed."""
    for parent in reversed(path.parents):  # `parents=True` would give the mode to the last one only
        parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        top, now = path.name.removesuffix(".tar.gz"), int(time.time())
        with os.fdopen(descriptor, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="") as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for name, text in contents.items():
                    body = text.encode()
                    entry = tarfile.TarInfo(f"{top}/{name}")
                    entry.size, entry.mtime, entry.mode = len(body), now, 0o600
                    tar.addfile(entry, io.BytesIO(body))
            packed.flush()
            raw.flush()
            os.fsync(raw.fileno())
        Path(beside).rename(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


@operation()
def collect(
    patients: Sequence[Patient], case: ailments.Case, directory: str, since: str, version: str
) -> Generator[str, None, None]:
    """
    Ask all hosts what there is to know, and write it into one archive whose first page says what looks wrong.

    + patients: the hosts of this run, with what each is asked
    + case: what the settings want, and what is known beforehand
    + directory: directory on the control machine
    + since: how far back logs are read, such as "1h"
    + version: of Kubernetes, by the settings
    """
    if host.state.is_executing:
        began = datetime.now(UTC)
        seen = gather(patients)
        contents = files(seen)
        found, past = recognise(_logs(seen, contents))
        rows = reported([*ailments.findings(seen, case), *found])
        path = Path(directory) / f"diagnosis-{case.cluster}-{began:%Y%m%dT%H%M%SZ}.tar.gz"
        first = page(
            cluster=case.cluster, version=version, time=began, since=since, findings=rows, past=past,
            hosts=[(each.name, each.role, ailments.words(seen, each.name)) for each in patients],
            not_asked=case.not_asked, files=list(contents),
        )  # fmt: skip
        write(path, {"report.md": redact(first), **contents})
        for row in rows:
            where = f"{', '.join(row.hosts)}: " if row.hosts else ""
            say: Callable[[str], None] = logger.error if row.severity == "error" else logger.warning
            say(redact(f"{row.severity}: {where}{row.evidence}"))
        errors = sum(row.severity == "error" for row in rows)
        logger.info(
            f"Diagnosis: {errors or 'no'} errors, {len(rows) - errors or 'no'} warnings"
            + ("" if rows else "; nothing looks wrong")
        )
        logger.info(f"Written: {path} (tar xzOf {path} --wildcards '*/report.md' | less)")
    host.noop("hosts are only asked")
    return
    yield


def _logs(seen: Seen, contents: Mapping[str, str]) -> list[Log]:
    """Logs without secrets, with each host's own time."""
    logs = []
    for name, answers in seen.answers.items():
        clock = seen.of(name, "facts/Time.txt")
        ahead = clock.fact - clock.answered if clock and clock.fact else 0.0
        for answer in answers:
            if answer.question.file.endswith(".log") or answer.question.file == "events.txt":
                path = _path(name, answer)
                file = answer.question.file if name else path
                logs.append(Log(name, file, contents[path], time.time() + ahead))
    return logs
