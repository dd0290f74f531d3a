"""Programs run by the lab."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.layout import LabError


def run(*command: str | Path, stdin: str | None = None, check: bool = True) -> str:
    """Run a program and return what it prints. Raises LabError with its words when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise LabError(f"`{' '.join(words)}` exited with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def say(text: str) -> None:
    """Tell the person who waits what is being done."""
    print(f"    lab: {text}", flush=True)
