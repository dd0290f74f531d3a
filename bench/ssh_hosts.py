"""A real SSH server that is many hosts, each with an address and a host key of its own.

    python3 bench/ssh_hosts.py DIRECTORY [NAME ...]     # in a network namespace of its own

DIRECTORY has `hosts.json` (addresses by name), `key.pub` (of the user who may come), `keys/NAME` (of the hosts) and
`answers` (bench/answers.py). Prints "listening", and once its standard input ends
as JSON what hosts were asked: numbers, and of hosts that are named the commands. Then it waits to be killed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncssh

from bench.answers import LOGIN, Answers, unwrapped


@dataclass
class Host:
    """A host, and what it was asked."""

    name: str
    answers: Answers
    commands: list[str] = field(default_factory=list)
    trips: int = 0
    unknown: list[str] = field(default_factory=list)

    def report(self, whole: bool) -> dict[str, Any]:
        """Numbers; the commands themselves where the whole is wanted."""
        return {
            "commands": len(self.commands), "again": len(self.commands) - len(set(self.commands)), "trips": self.trips,
            "unknown": self.unknown, "asked": self.commands if whole else [],
        }  # fmt: skip


class Session(asyncssh.SSHServerSession[str]):
    """A channel with one command."""

    def __init__(self, host: Host) -> None:
        self.host, self.command, self.stdin, self.waits = host, "", "", False

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        self.channel = chan

    def exec_requested(self, command: str) -> bool:
        self.command = unwrapped(command)
        self.waits = self.host.answers.takes_input(self.host.name, self.command)
        self.host.commands.append(self.command)
        self.host.trips += 2 if self.waits else 1  # it is taken; it is answered, once its standard input has come
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self.host.unknown.append(f"subsystem {subsystem}")
        return False

    def session_started(self) -> None:
        if not self.waits:
            self.answer()

    def data_received(self, data: str, datatype: Any) -> None:
        self.stdin += data

    def eof_received(self) -> bool:
        if self.waits:
            self.answer()
        return True

    def answer(self) -> None:
        found = self.host.answers.of(self.host.name, self.command, self.stdin)
        if found is None:
            self.host.unknown.append(f"{self.command}\n{self.stdin}".rstrip())
        stdout, stderr, status = found or ("", "bench: there is no answer to this\n", 127)
        self.channel.write(stdout)
        self.channel.write_stderr(stderr)
        self.channel.exit(status)


class Server(asyncssh.SSHServer):
    """A connection to a host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.host.trips += LOGIN

    def session_requested(self) -> Session:
        self.host.trips += 1
        return Session(self.host)


async def serve(directory: Path) -> list[Host]:
    """Answer until standard input ends; the hosts with what they were asked."""
    with (directory / "answers").open() as lines:
        answers = Answers(lines)
    addresses = json.loads((directory / "hosts.json").read_text())
    hosts = [Host(name, answers) for name in addresses]
    for host in hosts:
        await asyncssh.listen(
            addresses[host.name], 22, server_factory=lambda host=host: Server(host), line_editor=False,
            server_host_keys=[str(directory / "keys" / host.name)],
            authorized_client_keys=str(directory / "key.pub"), backlog=8,
        )  # fmt: skip
    gc.freeze()  # what there is now stays
    print("listening", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return hosts


def main() -> None:
    directory = Path(sys.argv[1])
    # Every address that a route calls local is this namespace's own.
    for words in ("link set lo up", "route add local 10.0.0.0/16 dev lo"):
        subprocess.run(["ip", *words.split()], check=True)
    hosts = asyncio.run(serve(directory))
    print(json.dumps({host.name: host.report(host.name in sys.argv[2:]) for host in hosts}), flush=True)
    signal.pause()  # the namespace and the link to it are there as long as this process


if __name__ == "__main__":
    main()
