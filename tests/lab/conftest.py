"""The lab that these tests look at: raised, deployed on and broken by them, in the order of the files' names.

They fail, never skip, when it cannot be had.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from lab import lab
from tests.lab import mirrored
from tests.lab.nodes import BUNDLE, MEASURED, deployed, diagnosis

# These raise labs of their own and take long: they run when that directory itself is named.
collect_ignore = ["full"]


@pytest.fixture(scope="session")
def bundle() -> str:
    """A bundle that went the whole way from upstream; what its build printed."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    return mirrored.build(BUNDLE)


@pytest.fixture(scope="session")
def bare(bundle: str) -> None:
    """Nodes on which nothing has ever been done."""
    lab.down()
    lab.up(bundle=str(BUNDLE))


@pytest.fixture(scope="session")
def cluster(bare: None) -> Iterator[str]:
    """The cluster, deployed on bare nodes; the words of the run that did it."""
    yield deployed("cluster", "-y")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(MEASURED))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What the nodes say, at the end of a failure: CI keeps its output and nothing else."""
    if report.failed and "tests/lab" in report.nodeid:
        report.sections.append(("the lab at that moment", diagnosis()))
