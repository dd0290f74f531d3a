"""What a person who waits for a build sees: what is done, how far, for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

CONSOLE = Console(highlight=False)
Report = Callable[[str], None]


def say(text: str) -> None:
    """One line that stays."""
    CONSOLE.print(f"    bundle: {text}", markup=False, soft_wrap=True)


@contextmanager
def step(what: str, every: float = 20) -> Iterator[Report]:
    """Announce a step and its time; the report it gives says how far it is.

    A terminal shows that at once; elsewhere a line is written every so many seconds, also when nothing is reported.
    """
    begun, detail, done = time.monotonic(), "", threading.Event()

    def now() -> str:
        return f"{what}: {detail}{', ' if detail else ''}{time.monotonic() - begun:.0f} s"

    def tick() -> None:
        while not done.wait(every):
            say(now())

    def report(text: str) -> None:
        nonlocal detail
        detail = text
        status.update(f"    bundle: {now()}")

    with CONSOLE.status(f"    bundle: {what}") as status:
        if not CONSOLE.is_terminal:
            say(what)
            threading.Thread(target=tick, daemon=True).start()
        try:
            yield report
        finally:
            done.set()
    say(f"{what}: done in {time.monotonic() - begun:.0f} s")
