"""Seconds and peak memory of each stage, from an empty cache to a second run that changes nothing.

    python3 tasks.py bench          # bundle from a warm cache
    python3 tasks.py bench --cold   # and first from none: sources fetched and built anew

Prints a table and writes bench/report.md. Memory is the rise of the whole machine's use while a stage runs, page cache
left out, read five times a second. The limit that the deploy is compared with is a hand-written parallel script
without any tool, which took 82 s on a machine of this size from booted nodes to all Ready; its nodes had the packages
installed and the images' files at hand.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import PYINFRA, ROOT, TASKS, machine, memory, timed

DEPLOY = [*PYINFRA, "deploys/cluster.py"]
BY_HAND = 82.0  # seconds


@dataclass
class Stage:
    """What a stage took; of a run of pyinfra also each operation's share, by `Cluster | layer | operation`."""

    name: str
    seconds: float = 0.0
    mebibytes: int = 0
    operations: dict[str, float] = field(default_factory=dict)

    @property
    def layers(self) -> dict[str, float]:
        """Seconds of each layer."""
        found: dict[str, float] = {}
        for name, seconds in self.operations.items():
            layer = name.split(" | ")[1]
            found[layer] = found.get(layer, 0.0) + seconds
        return found

    @property
    def installs(self) -> float:
        """Seconds in which packages were installed."""
        return sum(seconds for name, seconds in self.operations.items() if name.split(" | ")[2].startswith("Install"))


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
    try:
        stage.seconds, stage.operations = timed(name, command, env)
    finally:
        over.set()
        watcher.join()
    return stage


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
    run("dry run", [*DEPLOY, "--dry", "--diff"])
    run("deploy", [*DEPLOY, "-y"])
    run("second run", [*DEPLOY, "-y"])
    text = report(stages, f"python3 tasks.py bench{' --cold' if cold else ''}")
    (ROOT / "bench" / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
