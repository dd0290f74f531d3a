"""The lab that these tests look at. They fail, never skip, when it is not there: `python3 tasks.py lab up`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).parent / "pyinfra"

Run = Callable[..., subprocess.CompletedProcess[str]]


def pyinfra(deploy: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """One run of the pyinfra command over the lab, as a user would type it, with its words captured."""
    command = [str(PYINFRA), "inventories/lab.py", deploy, *flags]
    return subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=1500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def run() -> Run:
    return pyinfra


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The lab with the cluster deployed on it; the words of the run that did it, or found it done."""
    done = pyinfra("deploys/cluster.py", "-y")
    assert done.returncode == 0, done.stdout[-8000:]
    yield done.stdout
