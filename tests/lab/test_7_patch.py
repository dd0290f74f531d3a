"""The cluster goes to another patch release while a client writes through the virtual IP."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bundle.verify import read_lock
from lab import lab
from tests.lab.bundles import built
from tests.lab.nodes import changes, deployed
from tests.lab.upgrades import kept, servers, versions, writes

SITE = Path(__file__).with_name("patch.yaml").read_text()
PATCH = yaml.safe_load(SITE)["kubernetes_version"]


@pytest.fixture(scope="module")
def patch() -> Path:
    return built("patch", SITE)


def test_a_bundle_of_another_patch_is_built(patch: Path) -> None:
    """Apart from what comes of it: from source it takes as long, where no build of it went on beside other tests."""
    lock = read_lock(patch)
    assert lock.kubernetes_version == PATCH
    assert {image.name.rpartition(":")[2] for image in lock.images if "/kube-" in image.name} == {PATCH}


@pytest.mark.usefixtures("cluster")
def test_a_patch_is_planned_done_and_then_done_no_more(patch: Path) -> None:
    lab.up(bundle=str(patch))
    with writes() as writer:
        plan = changes(deployed("upgrade", "--dry"))
        assert plan == changes(deployed("upgrade", "-y")) != {}
        assert versions() == servers() == {PATCH}
        for layer in ("upgrade", "cluster"):
            assert changes(deployed(layer, "-y")) == {}
        kept(writer)
