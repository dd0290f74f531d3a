"""Answers of one host that all of an operation's hosts ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from harness import Hosts, InTurn
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host
from pyinfra.facts.server import Hostname

from operations import remote

Make = Callable[[dict[str, dict[str, Any]]], Hosts]


def answering(*answers: str) -> dict[str, dict[str, Any]]:
    return {"cp1": {str(Hostname().command()): InTurn(*([each] for each in answers))}, "w1": {}, "w2": {}}


def ask(known: Hosts, name: str, operation: str | None = None) -> str:
    host = known.inventory.get_host(name)
    host.executing_op_hash = operation
    with ctx_host.use(host):
        return remote.shared("cp1", Hostname)


def test_hosts_that_ask_at_the_same_time_are_told_the_same(hosts: Make) -> None:
    known = hosts(answering("first", "second"))
    told = [gevent.spawn(ask, known, name) for name in ("w1", "w2", "cp1")]
    assert [each.get() for each in gevent.joinall(told)] == ["first"] * 3
    assert len(known.ran) == 1


def test_a_host_that_asks_again_is_told_what_there_is_now(hosts: Make) -> None:
    known = hosts(answering("first", "second"))
    assert [ask(known, name) for name in ("w1", "w1", "w2", "w2")] == ["first", "second", "second", "second"]
    assert len(known.ran) == 3


def test_another_operation_asks_anew(hosts: Make) -> None:
    known = hosts(answering("first", "second"))
    assert [ask(known, "w1", "a"), ask(known, "w2", "b"), ask(known, "cp1", "b")] == ["first", "second", "second"]


def test_an_answer_is_not_given_for_long(hosts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SHARED", 0.0)
    known = hosts(answering("first", "second"))
    assert [ask(known, "w1"), ask(known, "w2")] == ["first", "second"]


def test_a_question_that_failed_is_asked_again(hosts: Make) -> None:
    known = hosts({"cp1": {}, "w1": {}, "w2": {}})
    for name in ("w1", "w2"):
        with pytest.raises(PyinfraError):
            ask(known, name)
    assert len(known.ran) == 2


def test_another_run_has_answers_of_its_own(hosts: Make) -> None:
    assert ask(hosts(answering("first")), "w1") == "first"
    assert ask(hosts(answering("other")), "w2") == "other"
