"""Hosts asked all at once, of which any may be lost at any moment."""

from __future__ import annotations

import base64
import binascii
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
from gevent.pool import Pool
from pyinfra import host, inventory, logger
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments

from cluster.ip_families import Address
from cluster.redaction import redact
from operations.questions import Question, of_cluster

# Beyond a question's own seconds, for the way there and back.
GRACE = 10
# A host that has let so many questions go without an answer is asked no more.
PATIENCE = 2


@dataclass(frozen=True)
class Answer:
    """What came of a question: its words, with the exit status of the script, or why there are none."""

    question: Question
    text: str = ""
    status: int | None = None
    cut: bool = False
    error: str = ""
    # When it was asked and answered, by this machine.
    asked: float = 0
    answered: float = 0
    # What the fact makes of the words.
    fact: Any = None

    @property
    def problem(self) -> str:
        """Why the answer is not whole, in words."""
        if self.error:
            return self.error
        return f"did not end within {self.question.seconds} s" if self.status in (124, 137) else ""


def unpack(question: Question, lines: Sequence[str]) -> Answer:
    """What `Question.command` has printed. What is no UTF-8 is replaced; half an answer is taken as far as it goes."""
    try:
        packed = base64.b64decode("".join(lines), validate=True)
        raw = zlib.decompressobj(wbits=31).decompress(packed)
    except (binascii.Error, zlib.error):
        return Answer(question, error="what came is not what was sent")
    body, between, last = raw.rpartition(b"# exit ")
    body, status = (body, int(last)) if between and last.strip().isdigit() else (raw, None)
    return Answer(question, body.decode(errors="replace"), status, cut=len(raw) >= question.limit)


def understand(answer: Answer) -> Answer:
    """The answer with what its fact makes of it."""
    kind = answer.question.fact
    if kind is None or answer.problem or answer.cut:
        return answer
    try:
        lines = answer.text.splitlines()
        found = kind().process(lines) if lines else kind().default()
    except Exception as error:  # whatever a sick host says, the others are heard
        return replace(answer, error=f"cannot be understood ({type(error).__name__})")
    return replace(answer, fact=found)


def _ask(each: Host, question: Question) -> Answer:
    """Ask a connected host; never raises. A host may be lost at any moment."""
    arguments, _ = pop_global_arguments(each.state, each, {})
    kept = {key: value for key, value in arguments.items() if key in CONNECTOR_ARGUMENT_KEYS}
    began = time.time()
    try:
        with gevent.Timeout(question.seconds + GRACE):
            ok, output = each.run_shell_command(StringCommand("sh", "-c", QuoteString(question.command)), **kept)
    except gevent.Timeout:
        return Answer(question, error=f"no answer within {question.seconds + GRACE} s")
    except Exception as error:  # of SSH, of sockets, of a transport that is gone
        return Answer(question, error=f"the connection was lost ({type(error).__name__})")
    ended = time.time()
    if not ok:
        return Answer(question, error=f"was refused: {redact(output.stderr.strip())[-300:] or 'without a word'}")
    return replace(understand(unpack(question, output.stdout_lines)), asked=began, answered=ended)


def interview(each: Host, questions: Sequence[Question]) -> list[Answer]:
    """All answers of one host, in order; one that stops answering is let be."""
    answers: list[Answer] = []
    for question in questions:
        if sum(bool(answer.error) and not answer.text for answer in answers) >= PATIENCE:
            answers.append(Answer(question, error="not asked any more"))
        else:
            answers.append(_ask(each, question))
    return answers


@dataclass(frozen=True)
class Patient:
    """A host as the settings have it, and what it is asked."""

    name: str
    role: str
    questions: tuple[Question, ...]
    address: Address


@dataclass(frozen=True)
class Seen:
    """What hosts have said, by host; that of the cluster as a whole is under no name."""

    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    def of(self, name: str, file: str) -> Answer | None:
        """One answer; None where it was not asked."""
        return next((each for each in self.answers.get(name, ()) if each.question.file == file), None)

    def fact(self, name: str, file: str) -> Any:
        """What a fact said; None where there is no answer."""
        answer = self.of(name, f"facts/{file}.txt")
        return answer.fact if answer else None


def gather(patients: Sequence[Patient]) -> Seen:
    """Ask all hosts that are connected at once, then the cluster through an API server that is ready."""

    def one(patient: Patient) -> tuple[str, list[Answer]]:
        answers = interview(hosts[patient.name], patient.questions)
        size = sum(len(each.text) for each in answers)
        failed = sum(bool(each.problem) for each in answers)
        logger.info(
            f"{patient.name}: {len(answers) - failed} of {len(answers)} questions answered, {size / 2**20:.1f} MiB"
        )
        return patient.name, answers

    hosts = {each.name: inventory.get_host(each.name) for each in patients}
    connected = [each for each in patients if hosts[each.name].connected]
    found: dict[str, list[Answer]] = dict(Pool(host.state.config.PARALLEL).map(one, connected))
    seen = Seen(found)
    for patient in connected:
        ready = seen.of(patient.name, "readyz.txt")
        if ready and ready.status == 0 and not ready.problem:
            logger.info(f"{patient.name}: asked for nodes, pods and events")
            found[""] = interview(hosts[patient.name], of_cluster(patient.address))
            break
    return seen
