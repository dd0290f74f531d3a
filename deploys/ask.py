"""Facts of many hosts at once, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from gevent.pool import Pool
from pyinfra import host, inventory
from pyinfra.api import FactBase, Host

from cluster.topology import Node
from facts.together import Question, Together

Answer = TypeVar("Answer")


def ask(kind: type[FactBase[Any]], nodes: Iterable[Node], **arguments: Any) -> dict[str, Any]:
    """A fact of these hosts at once, by name."""
    return ask_each(kind, {node.name: arguments for node in nodes})


def ask_each(kind: type[FactBase[Any]], arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A fact of many hosts at once, of each with arguments of its own; by name."""
    return at_once(arguments, lambda each: each.get_fact(kind, **arguments[each.name]))


def at_once(names: Iterable[str], question: Callable[[Host], Answer]) -> dict[str, Answer]:
    """What a question to each of these hosts is answered, by name."""
    # Hosts are looked up here: what pyinfra has of this run is not known in the pool.
    hosts = [inventory.get_host(name) for name in names]
    answers = Pool(host.state.config.PARALLEL).map(question, hosts)
    return {each.name: answer for each, answer in zip(hosts, answers, strict=True)}


class Questions:
    """Facts of many hosts that are asked in one round trip: what `ask` and `ask_each` give is filled in by `answer`."""

    def __init__(self) -> None:
        self.asked: dict[str, list[tuple[Question, dict[str, Any]]]] = {}

    def ask(self, kind: type[FactBase[Any]], nodes: Iterable[Node], **arguments: Any) -> dict[str, Any]:
        """A fact of these hosts, by name."""
        return self.ask_each(kind, {node.name: arguments for node in nodes})

    def ask_each(self, kind: type[FactBase[Any]], arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A fact of many hosts, of each with arguments of its own; by name."""
        answers: dict[str, Any] = {}
        for name, each in arguments.items():
            self.asked.setdefault(name, []).append((Question(kind, each), answers))
        return answers

    def answer(self) -> None:
        """Ask all hosts, each everything at once."""
        questions = {name: {"questions": tuple(each for each, _ in rows)} for name, rows in self.asked.items()}
        for name, found in ask_each(Together, questions).items():
            for (_, answers), answer in zip(self.asked[name], found, strict=True):
                answers[name] = answer
