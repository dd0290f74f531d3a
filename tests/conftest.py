"""What holds for every test."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: every minor of Kubernetes, where otherwise a few stand for all."""
    parser.addoption("--full", action="store_true", help="tests of versions: every minor of Kubernetes, not a few")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing is skipped: a test that does not run has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("error: tests were skipped; in CI that is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
