from __future__ import annotations

from pathlib import Path

import pytest
from runs import Deployed, Site, deploy, make_bundle, make_site


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def site(tmp_path: Path, bundle: Path) -> Site:
    """Bare machines of one test's own."""
    return make_site(tmp_path / "site", bundle)


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Deployed:
    """With `-y`: nothing is planned beforehand."""
    return deploy(tmp_path_factory.mktemp("deployed"), bundle, "-y")


@pytest.fixture(scope="session")
def confirmed(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Deployed:
    """Without `-y`: planned, shown and confirmed by Enter."""
    return deploy(tmp_path_factory.mktemp("confirmed"), bundle, answers="\n")
