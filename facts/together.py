"""Several facts of a host in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import FactBase

NEXT = "# the next fact"


@dataclass(frozen=True)
class Question:
    """A fact and its arguments."""

    kind: type[FactBase[Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:  # pyinfra says it where a host does not answer
        return self.kind.__name__


class Together(FactBase[tuple[Any, ...]]):
    """What each of these facts would be if it were asked alone, in their order.

    ::

        ({"hostname": "cp1", "cpus": 2, ...}, {"version": 2, ...})

    The first that fails is named, and nothing else is known then.
    """

    questions: Sequence[Question] = ()

    @staticmethod
    def default() -> tuple[Any, ...]:
        return ()

    def command(self, questions: tuple[Question, ...]) -> str:
        self.questions = questions
        named = shlex.join(
            word for each in questions for word in (each.kind.name, str(each.kind().command(**each.arguments)))
        )
        # Nothing is printed before all is known: pyinfra shows what a fact that failed has printed.
        return (
            f"set -- {named} ; a=; n='\n'; while test $# -gt 0; do "
            'o=$(sh -c "$2") || { s=$?; echo "could not load fact: $1 (exit status $s)" >&2; exit $s; }; '
            f'a="$a$o$n{NEXT}$n"; shift 2; done; printf %s "$a"'
        )

    def process(self, output: list[str]) -> tuple[Any, ...]:
        parts: list[list[str]] = [[]]
        for line in output:
            if line == NEXT:
                parts.append([])
            else:
                parts[-1].append(line)
        return tuple(_answer(each.kind(), lines) for each, lines in zip(self.questions, parts, strict=False))


def _answer(fact: FactBase[Any], lines: list[str]) -> Any:
    """As pyinfra takes it; a command that has printed nothing has printed an empty line here."""
    return fact.process(lines) if lines and lines != [""] else fact.default()
