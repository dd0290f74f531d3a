"""Programs run by a build."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


class BuildError(Exception):
    """A bundle cannot be built; the message says what failed, in whose words, and what to do."""


def run(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it prints. Raises BuildError with the end of its words when it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-3000:]
        raise BuildError(f"`{' '.join(command)[:300]}` exited with {done.returncode}:\n{said}")
    return done.stdout
