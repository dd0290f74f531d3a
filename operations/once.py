"""What all hosts of a run must be told alike is found once: by whoever asks first, while the others wait.

pyinfra executes a deploy's file anew for every host, and hosts plan at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, TypeVarTuple

from gevent.lock import RLock

Asked = TypeVarTuple("Asked")
Found = TypeVar("Found")


def once(find: Callable[[*Asked], Found]) -> Callable[[*Asked], Found]:
    """Keep what a function has returned, or raised, for its arguments as long as this process lives."""
    lock = RLock()  # each function's own, so that two can never wait for each other
    kept: dict[tuple[*Asked], Found | Exception] = {}

    @wraps(find)
    def shared(*asked: *Asked) -> Found:
        with lock:
            if asked not in kept:
                try:
                    kept[asked] = find(*asked)
                except Exception as error:
                    kept[asked] = error
            found = kept[asked]
        if isinstance(found, Exception):
            raise found
        return found

    return shared
