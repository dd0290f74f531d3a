"""What paramiko can do at most, by connections as the deploys have them: the commands of a run, and nothing around.

    python3 -m gevent.monkey bench/plain.py DIRECTORY PARALLEL     # as bench/hosts.py has made it

Each host is connected to and asked everything that it was asked in the run, one after the other; so many hosts at once.
"""

import json
import sys
from pathlib import Path

import paramiko
from gevent.pool import Pool

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploys.ssh import transport


def ask(directory: Path, address: str, questions: list[tuple[str, str]]) -> None:
    """Ask a host everything. Raises paramiko's errors."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(directory / "known_hosts"))
    key = str(directory / "key")
    client.connect(address, key_filename=key, allow_agent=False, look_for_keys=False, transport_factory=transport)
    for command, given in questions:
        stdin, stdout, _ = client.exec_command(command)
        if given:
            stdin.write(given if given.endswith("\n") else f"{given}\n")
        stdin.channel.shutdown_write()
        stdout.read()
        stdout.channel.recv_exit_status()


def main() -> None:
    directory, parallel = Path(sys.argv[1]), int(sys.argv[2])
    addresses = json.loads((directory / "hosts.json").read_text())
    questions: dict[str, list[tuple[str, str]]] = {name: [] for name in addresses}
    with (directory / "answers").open() as lines:
        for line in lines:
            host, command, given, *_ = json.loads(line)
            questions[host].append((command, given))
    pool = Pool(parallel)
    for each in [pool.spawn(ask, directory, addresses[name], asked) for name, asked in questions.items()]:
        each.get()


if __name__ == "__main__":
    main()
