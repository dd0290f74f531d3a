"""What the benchmarks share: commands that are timed with their words shown, the machine, the lab's nodes, a table."""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab import layout

ROOT = Path(__file__).resolve().parents[1]
TASKS = [sys.executable, str(ROOT / "tasks.py")]
PYINFRA = [str(Path(sys.executable).parent / "pyinfra"), "inventories/lab.py"]
OPERATION = re.compile(r"--> Starting operation: (.*?)\s*$")
LONGEST = 900  # seconds that a command on a node may take


@dataclass
class Operations:
    """Seconds that each operation of a run of pyinfra takes, by its name, told by what the run prints."""

    seconds: dict[str, float] = field(default_factory=dict)
    current: str | None = None
    since: float = 0.0

    def line(self, text: str, now: float) -> None:
        """Take a line that was printed at this time."""
        found = OPERATION.match(text)
        if not found and not text.startswith("--> Results"):
            return
        if self.current is not None:
            self.seconds[self.current] = self.seconds.get(self.current, 0.0) + now - self.since
        self.current, self.since = found[1] if found else None, now


def timed(name: str, command: list[str], env: dict[str, str] | None = None) -> tuple[float, dict[str, float]]:
    """Run a command to its end with its words shown; the seconds of it, and of each of pyinfra's operations.

    Exits when it fails.
    """
    print(f"==> {name}", flush=True)
    operations, begun = Operations(), time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1", **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                operations.line(line, time.monotonic())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # what it has started ends with it
            raise
    seconds = time.monotonic() - begun
    if process.returncode:
        sys.exit(f"error: {name} failed with {process.returncode}; its words are above")
    return seconds, operations.seconds


def memory(key: str) -> int:
    """A line of /proc/meminfo, MiB."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows[key].split()[0]) // 1024


def machine() -> str:
    """The machine in one line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    kind = model[1] if model else platform.machine()
    return (
        f"{os.cpu_count()} cores of {kind}, {memory('MemTotal') / 1024:.0f} GiB, {release}, Linux {platform.release()}"
    )


def ssh(node: str, script: str) -> list[str]:
    """The words of a command that runs a script as root on a node of the lab."""
    config = str(layout.STATE / "ssh_config")
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    return ["ssh", "-F", config, *options, node, f"sudo sh -c {shlex.quote(script)}"]


def on(node: str, script: str, stdin: str = "") -> str:
    """What a script prints on a node of the lab, as root. Exits with its words when it fails."""
    words = ssh(node, script)
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        sys.exit(f"error: {node}: this failed with {done.returncode}:\n{script}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Row:
    """One figure beside its peer or limit, which was measured in the same run; the goal is for ours over theirs."""

    what: str
    ours: float
    peer: str
    theirs: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs

    @property
    def goal(self) -> str:
        """The goal in words; empty when there is none."""
        if self.most is not None:
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if self.least is not None else ""

    @property
    def met(self) -> str:
        """Whether the goal was met; empty when there is none."""
        if not self.goal:
            return ""
        below = self.most is None or self.ratio <= self.most
        above = self.least is None or self.ratio >= self.least
        return "yes" if below and above else "no"


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| what | figure | beside | its figure | ratio | goal | met |",
        "| --- | ---: | --- | ---: | ---: | --- | --- |",
        *(
            f"| {row.what} | {row.ours:.1f} {row.unit} | {row.peer} | {row.theirs:.1f} {row.unit} | {row.ratio:.2f} "
            f"| {row.goal or 'none'} | {row.met or '-'} |"
            for row in rows
        ),
    ]
