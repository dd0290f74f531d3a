"""Other bundles than the one that all labs have."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.nodes import ROOT


def built(name: str, site: str) -> Path:
    """A bundle by the task and the lines of bundle.yaml that people write; after a build of it that is at work."""
    output = ROOT / "dist" / f"bundle-{name}"
    output.parent.mkdir(exist_ok=True)
    with output.with_name(f".{output.name}.building").open("a") as building:
        fcntl.flock(building, fcntl.LOCK_EX)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(site)
        file.flush()
        subprocess.run(
            [sys.executable, "tasks.py", "bundle", "build", "--site", file.name, "--output", str(output)],
            cwd=ROOT, check=True, timeout=3600,
        )  # fmt: skip
    return output
