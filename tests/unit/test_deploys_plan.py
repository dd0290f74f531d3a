"""What hosts share while they plan at the same time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest

from deploys import plan


def test_the_bundle_is_read_once_for_all_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def verify(directory: Path, public_key: str | None) -> list[str]:
        read.append((directory, public_key))
        gevent.sleep(0)  # lets the other hosts run, as reading does
        return ["bin/kubelet: is missing"]

    monkeypatch.setattr(plan, "verify", verify)
    monkeypatch.setattr(plan, "settings", lambda: SimpleNamespace(bundle_dir=str(tmp_path), bundle_public_key=None))
    found = [each.get() for each in gevent.joinall([gevent.spawn(plan.damage) for _ in range(6)], raise_error=True)]
    assert found == [["bin/kubelet: is missing"]] * 6
    assert read == [(tmp_path, None)]
