"""Which minors of Kubernetes the tests of this directory are for."""

from __future__ import annotations

from pathlib import Path

import kubeadms
import pytest

from bundle import versions


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Cilium needs helm, which takes minutes to be built: with `--full` alone."""
    return True if collection_path.name == "test_cilium.py" and not config.getoption("full") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One of each version of kubeadm's API, or with `--full` every minor."""
    if "minor" in metafunc.fixturenames:
        metafunc.parametrize(
            "minor", list(versions.load().minors) if metafunc.config.getoption("full") else kubeadms.FEW
        )
