"""What a person who waits for a build sees: what is done, how far, for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

CONSOLE = Console(highlight=False)
Report = Callable[[str], None]


def say(text: str) -> None:
    """One line that stays."""
    CONSOLE.print(f"    bundle: {text}", markup=False)


@contextmanager
def step(what: str, every: float = 20) -> Iterator[Report]:
    """Announce a step and its time; the report it gives shows how far it is, now and then in a log."""
    begun = shown = time.monotonic()

    def report(detail: str) -> None:
        nonlocal shown
        now = time.monotonic()
        if CONSOLE.is_terminal:
            status.update(f"    bundle: {what}: {detail}, {now - begun:.0f} s")
        elif now - shown >= every:
            shown = now
            say(f"{what}: {detail}, {now - begun:.0f} s")

    with CONSOLE.status(f"    bundle: {what}") as status:
        if not CONSOLE.is_terminal:
            say(what)
        yield report
    say(f"{what}: done in {time.monotonic() - begun:.0f} s")
