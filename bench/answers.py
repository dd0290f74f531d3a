"""Answers of the pretended machines of tests/plan, kept for a real SSH server to give again.

    from bench.answers import keep      # in an inventory, after fake_nodes.install

A file has a JSON array a line: host, command, its standard input, standard output, standard error, exit status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facts.time import Time

CLOCK = Time().command()  # what it was when it was asked would be a clock that is wrong
LOGIN = 5  # round trips: TCP; version; key exchange; user authentication as a service; the user's key
Answer = tuple[str, str, int]  # standard output, standard error, exit status


def keep(path: Path) -> None:
    """Have the answers that `@fake` gives in this process written to a file."""
    from pyinfra.connectors import fake

    from tests.plan.fake_nodes import FakeNode

    class Kept(FakeNode):
        file = path.open("w", buffering=1 << 20)

        def run_shell_command(self, command: Any, *_: Any, **arguments: Any) -> tuple[bool, Any]:
            ok, output = super().run_shell_command(command, **arguments)
            answer = ["".join(f"{line}\n" for line in lines) for lines in (output.stdout_lines, output.stderr_lines)]
            asked = [self.host.name, unwrapped(str(command)), str(arguments.get("_stdin") or "")]
            self.file.write(json.dumps([*asked, *answer, 0 if ok else 1]) + "\n")
            return ok, output

    fake.FakeConnector = Kept


def unwrapped(command: str) -> str:
    """What pyinfra has a host do, of the words in which SSH brings it: without sudo, and without `sh -c`."""
    text = command.removeprefix("sudo -H -n ")
    while text.startswith("sh -c "):
        quoted = text.removeprefix("sh -c ")  # as shlex.quote does it, which shlex.split takes long to undo
        text = quoted[1:-1].replace("'\"'\"'", "'") if quoted.startswith("'") else quoted
    return text


class Answers:
    """What hosts answer, by host, command and standard input."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.known: dict[tuple[str, str], dict[str, Answer]] = {}
        texts: dict[str, str] = {}  # hosts say the same: once is enough
        for line in lines:
            *row, status = json.loads(line)
            host, command, stdin, stdout, stderr = (texts.setdefault(text, text) for text in row)
            self.known.setdefault((host, command), {})[ended(stdin)] = stdout, stderr, status

    def takes_input(self, host: str, command: str) -> bool:
        """Whether the answer waits for standard input."""
        return any(self.known.get((host, command), ()))

    def of(self, host: str, command: str, stdin: str = "") -> Answer | None:
        """The answer; None where nothing is known of it."""
        if command == CLOCK:
            return f"{time.time():.9f}\n", "", 0
        return self.known.get((host, command), {}).get(ended(stdin))


def ended(text: str) -> str:
    """A standard input as pyinfra sends it: with the end of its last line."""
    return f"{text}\n" if text and not text.endswith("\n") else text
