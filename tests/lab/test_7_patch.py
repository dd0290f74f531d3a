"""The cluster goes to another patch release while a client writes through the virtual IP."""

from __future__ import annotations

import pytest

from lab import lab
from tests.lab.bundles import built
from tests.lab.nodes import changes, deployed
from tests.lab.upgrades import kept, servers, versions, writes

PATCH = "v1.36.3"


@pytest.mark.usefixtures("cluster")
def test_a_patch_is_planned_done_and_then_done_no_more() -> None:
    lab.up(bundle=str(built(PATCH, f"kubernetes_version: {PATCH}\n")))
    with writes() as writer:
        plan = changes(deployed("upgrade", "--dry"))
        assert plan == changes(deployed("upgrade", "-y")) != {}
        assert versions() == servers() == {PATCH}
        for layer in ("upgrade", "cluster"):
            assert changes(deployed(layer, "-y")) == {}
        kept(writer)
