"""Seconds and peak memory of each stage, from an empty cache to a second run that changes nothing.

    python3 tasks.py bench          # bundle from a warm cache
    python3 tasks.py bench --cold   # and first from none: sources fetched and built anew

Prints a table and writes bench/report.md. Memory is the rise of the whole machine's use while a stage runs, page cache
left out, read five times a second. The limit that the deploy is compared with is a hand-written parallel script
without any tool, which took 82 s on a machine of this size from booted nodes to all Ready; its nodes had the packages
installed and the images' files at hand.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TASKS = [sys.executable, str(ROOT / "tasks.py")]
PYINFRA = [str(Path(sys.executable).parent / "pyinfra"), "inventories/lab.py", "deploys/cluster.py"]
BY_HAND = 82.0  # seconds
OPERATION = re.compile(r"--> Starting operation: Cluster \| (.*?) \| (.*?)\s*$")


@dataclass
class Stage:
    """What a stage took; of a run of pyinfra also each operation's share."""

    name: str
    seconds: float = 0.0
    mebibytes: int = 0
    layers: dict[str, float] = field(default_factory=dict)
    installs: float = 0.0


def memory(key: str) -> int:
    """A line of /proc/meminfo, MiB."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows[key].split()[0]) // 1024


def used() -> int:
    """Memory in use, MiB."""
    return memory("MemTotal") - memory("MemAvailable")


def measured(name: str, command: list[str], env: dict[str, str] | None = None) -> Stage:
    """Run a command to its end, with its words shown and dated. Exits when it fails."""
    stage, before, over = Stage(name), used(), threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            stage.mebibytes = max(stage.mebibytes, used() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = last = time.monotonic()
    current: tuple[str, str] | None = None

    def charge(now: float) -> None:
        if current:
            layer, operation = current
            stage.layers[layer] = stage.layers.get(layer, 0.0) + now - last
            stage.installs += now - last if operation.startswith("Install") else 0.0

    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := OPERATION.match(line):
                now = time.monotonic()
                charge(now)
                current, last = (found[1], found[2]), now
            elif line.startswith("--> Results"):
                charge(time.monotonic())
                current = None
    stage.seconds = time.monotonic() - begun
    over.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"error: {name} failed with {process.returncode}; its words are above")
    return stage


def machine() -> str:
    """The machine in one line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    kind = model[1] if model else platform.machine()
    return (
        f"{os.cpu_count()} cores of {kind}, {memory('MemTotal') / 1024:.0f} GiB, {release}, Linux {platform.release()}"
    )


def report(stages: list[Stage], command: str) -> str:
    """The figures as Markdown."""
    deploy = next(stage for stage in stages if stage.name == "deploy")
    carried, verified = deploy.layers.get("Distribute", 0.0), deploy.layers.get("Verify", 0.0)
    gross = deploy.seconds - deploy.installs - verified
    net = gross - carried
    lines = [
        "# What each stage takes", "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.", "",
        "| stage | seconds | peak memory, MiB |", "| --- | ---: | ---: |",
        *(f"| {stage.name} | {stage.seconds:.0f} | {stage.mebibytes} |" for stage in stages), "",
        "The deploy by layer:", "",
        "| layer | seconds |", "| --- | ---: |",
        *(f"| {layer} | {seconds:.1f} |" for layer, seconds in deploy.layers.items()), "",
        f"Installing packages took {deploy.installs:.0f} s of these. Without that and verify the deploy took "
        f"{gross:.0f} s, without carrying the bundle too {net:.0f} s: {gross / BY_HAND:.2f} and {net / BY_HAND:.2f} "
        f"times the {BY_HAND:.0f} s of a hand-written parallel script, whose nodes had packages and images at hand "
        "(see stages.py). The aim is 1.25.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    cold = "--cold" in sys.argv[1:]
    stages = []

    def run(name: str, command: list[str], env: dict[str, str] | None = None) -> None:
        stages.append(measured(name, command, env))

    if cold:
        with tempfile.TemporaryDirectory(prefix="cold-", dir="/var/tmp") as empty:
            places = {"XDG_CACHE_HOME": empty, "GOCACHE": f"{empty}/go-build", "GOMODCACHE": f"{empty}/go-mod"}
            run("bundle, cold", [*TASKS, "bundle", "build"], places)
            subprocess.run(["chmod", "-R", "u+w", empty], check=True)
    run("bundle, warm", [*TASKS, "bundle", "build"])
    subprocess.run([*TASKS, "lab", "down"], check=True)
    run("lab up", [*TASKS, "lab", "up"])
    run("dry run", [*PYINFRA, "--dry", "--diff"])
    run("deploy", [*PYINFRA, "-y"])
    run("second run", [*PYINFRA, "-y"])
    text = report(stages, f"python3 tasks.py bench{' --cold' if cold else ''}")
    (ROOT / "bench" / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
