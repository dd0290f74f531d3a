"""Other bundles than the one that all labs have."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.nodes import ROOT


def built(name: str, site: str) -> Path:
    """A bundle by the task and the lines of bundle.yaml that people write."""
    output = ROOT / "dist" / f"bundle-{name}"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(site)
        file.flush()
        subprocess.run(
            [sys.executable, "tasks.py", "bundle", "build", "--site", file.name, "--output", str(output)],
            cwd=ROOT, check=True, timeout=3600,
        )  # fmt: skip
    return output
