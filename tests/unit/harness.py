"""What unit tests stand on: recorded output, a machine in a directory, and hosts that answer as they are told."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api import Config, FactBase, Inventory, State, StringCommand
from pyinfra.connectors.fake import FakeConnector
from pyinfra.context import ctx_host, ctx_inventory, ctx_state

from cluster.changes import Change
from operations import change
from operations.change import noted

DATA = Path(__file__).parents[1] / "data"


def recorded(name: str) -> list[str]:
    """The lines that a fact's command printed on a node of a live cluster."""
    return (DATA / f"{name}.txt").read_text().splitlines()


# What any Debian has; none of the programs that the project installs or asks.
BASIC = (
    "awk", "base64", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "df", "dirname", "du", "env",
    "find", "grep", "head", "id", "install", "ln", "ls", "mkdir", "mktemp", "mv", "nproc", "readlink", "rm", "sed",
    "seq", "sh", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar", "tee", "timeout", "touch", "tr",
    "truncate", "uname", "uniq", "wc", "xargs",
)  # fmt: skip
SYSTEM_PATH = re.compile(r"(?<![\w./])/(?=(?:etc|lib|opt|proc|run|sys|usr|var)/)")


class Machine:
    """A bare machine in a directory: its shell finds basic tools only, and there the system's absolute paths lead."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "programs"
        for directory in (self.programs, root / "etc", root / "run"):
            directory.mkdir()
        for name in BASIC:
            self.program(name)

    def program(self, name: str, script: str | None = None) -> None:
        """Have a program: this machine's own, or one of a few lines of shell."""
        if script is None:
            found = shutil.which(name)
            assert found, f"these tests need {name}"
            # Not a link: writing another program of that name would go through it, to this very machine's.
            script = f'exec {found} "$@"'
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def file(self, path: str, text: str | bytes = "") -> Path:
        """Have a file, and the directories above it."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        return target

    def sh(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as pyinfra does, by `sh -c`."""
        led = SYSTEM_PATH.sub(f"{self.root}/", command)
        return subprocess.run(
            [self.programs / "sh", "-c", led], input=stdin, env={"PATH": str(self.programs)}, cwd=self.root,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def ask(self, fact: type[FactBase[Any]], **arguments: Any) -> Any:
        """A fact's answer here. Its command must succeed, for pyinfra gives up a host on which it does not."""
        done = self.sh(str(fact().command(**arguments)))
        assert done.returncode == 0, done.stderr
        return answer(fact, done.stdout.splitlines())


def answer(fact: type[FactBase[Any]], output: Sequence[str]) -> Any:
    """What pyinfra takes from a fact's output: its default when there is none."""
    return fact().process(list(output)) if output else fact.default()


class InTurn(dict[str, Any]):
    """An answer of a host that changes: each of these once, and the last for good."""

    def __init__(self, *outputs: Sequence[str]) -> None:
        super().__init__()
        self.outputs = list(outputs)

    def get(self, key: str, default: Any = None) -> Any:
        if key != "stdout":
            return default
        return self.outputs.pop(0) if len(self.outputs) > 1 else self.outputs[0]


@dataclass(frozen=True)
class Command:
    """One command that an operation yields, and what it gets on its standard input."""

    text: str
    stdin: str | None = None


class Hosts:
    """Hosts of pyinfra's `@fake` connector: they answer commands as they are told, and fail on any other."""

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        unknown = {re.compile(""): {"success": False, "stderr": "this test gave no answer to that command"}}
        names = [(name, {"fake_responses": {**told, **unknown}, "fake_delay": 0.0, "fake_delay_jitter": 0.0})
                 for name, told in answers.items()]  # fmt: skip
        self.inventory = Inventory((names, {}))
        for host in self.inventory:
            host.connector_cls = FakeConnector
        self.state = State(self.inventory, Config(FAIL_PERCENT=0, TEMP_DIR="/tmp"))
        self.noops: list[str] = []
        self.said: list[str] = []
        # What the last operation has said that it does.
        self.changes: tuple[Change, ...] = ()
        self.ran: list[tuple[str, Command]] = []
        ctx_state.set(self.state)
        ctx_inventory.set(self.inventory)
        for host in self.inventory:
            host.connect()
            host.noop = self.noops.append
            host.log = self.said.append
            host.connector.run_shell_command = self._recorder(host.name, host.connector.run_shell_command)

    @property
    def announced(self) -> list[str]:
        """The same in words."""
        return [each.line() for each in self.changes]

    def _recorder(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def record(command: str | StringCommand, **arguments: Any) -> Any:
            text = command if isinstance(command, str) else command.get_raw_value()
            self.ran.append((name, Command(text, arguments.get("_stdin"))))
            return run(command, **arguments)

        return record

    def plan(self, operation: Any, on: str = "", **arguments: Any) -> list[Any]:
        """The commands that an operation yields while planning, on this host or the only one."""
        return self._commands(operation, on, arguments, executing=False)

    def execute(self, operation: Any, on: str = "", **arguments: Any) -> list[Any]:
        """The commands that it yields when it is executed."""
        return self._commands(operation, on, arguments, executing=True)

    def _commands(self, operation: Any, on: str, arguments: dict[str, Any], executing: bool) -> list[Any]:
        host = self.inventory.get_host(on) if on else next(iter(self.inventory))
        self.state.is_executing = executing
        ctx_host.set(host)
        change._noted.pop(self.state, None)
        commands = [_command(each) for each in operation._inner(**arguments)]
        self.changes = noted(host, host.current_op_hash, executing)
        return commands


def _command(yielded: Any) -> Any:
    if isinstance(yielded, str):
        return Command(yielded)
    if isinstance(yielded, StringCommand):
        return Command(yielded.get_raw_value(), yielded.connector_arguments.get("_stdin"))
    return yielded
