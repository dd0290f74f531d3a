"""How much of a disk the kubelet keeps free."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.eviction import kept


@pytest.mark.parametrize(
    ("config", "mib"),
    [
        ({}, 15000),
        ({"evictionHard": {"imagefs.available": "5%"}}, 5000),
        ({"evictionHard": {"imagefs.available": "1Gi", "nodefs.available": "30%"}}, 1024),
        ({"evictionHard": {"imagefs.available": "1048576"}}, 1),
        ({"evictionHard": {"imagefs.available": "1.5G"}}, 1500e6 / 2**20),
        ({"evictionHard": {"memory.available": "500Mi"}}, 0),
        ({"evictionHard": {"memory.available": "500Mi"}, "mergeDefaultEvictionSettings": True}, 15000),
        ({"evictionHard": {"imagefs.available": "much"}}, 0),
    ],
)
def test_a_disk_is_kept_free_as_the_kubelet_is_told(config: dict[str, Any], mib: float) -> None:
    assert kept(config).of(100000) == pytest.approx(mib)
