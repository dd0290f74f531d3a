"""Whoever asks first finds out for all hosts."""

from __future__ import annotations

import gevent
import pytest

from operations.once import once


def test_what_was_found_is_kept_by_what_was_asked() -> None:
    asked: list[str] = []

    @once
    def find(name: str) -> str:
        asked.append(name)
        gevent.sleep(0)  # lets the others run, as a question to a host does
        return name.upper()

    waiting = [gevent.spawn(find, name) for name in ("a", "b", "a", "a")]
    assert [each.get() for each in gevent.joinall(waiting)] == ["A", "B", "A", "A"]
    assert sorted(asked) == ["a", "b"]


def test_what_cannot_be_found_is_refused_to_all_and_asked_once() -> None:
    asked: list[None] = []

    @once
    def find() -> None:
        asked.append(None)
        gevent.sleep(0)
        raise LookupError("nobody answers")

    for each in gevent.joinall([gevent.spawn(find) for _ in range(3)]):
        with pytest.raises(LookupError, match="nobody answers"):
            each.get()
    assert len(asked) == 1
