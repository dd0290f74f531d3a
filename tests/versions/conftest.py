"""Which minors of Kubernetes the tests of this directory are for."""

from __future__ import annotations

import kubeadms
import pytest

from bundle import versions


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One of each version of kubeadm's API, or with `--full` every minor."""
    if "minor" in metafunc.fixturenames:
        metafunc.parametrize(
            "minor", list(versions.load().minors) if metafunc.config.getoption("full") else kubeadms.FEW
        )
