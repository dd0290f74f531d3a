"""What config.py makes of pyinfra."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from gevent.hub import Hub
from pyinfra.api import Config, arguments, util
from pyinfra.context import ctx_config

ROOT = Path(__file__).resolve().parents[2]


def test_operations_have_the_order_that_pyinfra_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = ((util, "stack"), (util, "getframeinfo"), (arguments, "all_global_arguments"), (Hub, "NOT_ERROR"))
    for owner, name in changed:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    monkeypatch.setattr("pyinfra.is_cli", True)
    own, known = util.stack, arguments.all_global_arguments()
    place = SimpleNamespace(current_deploy_filename=__file__, current_op_file_number=3)
    found = []
    for _ in range(2):
        # Frames between the deploy's file and pyinfra are told apart by their lines.
        found.append(((lambda: util.get_operation_order_from_stack(place))(), util.get_call_location(0)))
        with ctx_config.use(Config()):
            runpy.run_path(str(ROOT / "config.py"))
    assert util.stack is not own
    assert found[0] == found[1]
    order, location = found[1]
    assert order[0] == 3 and len(order) == 3 and f"line {order[1]} in " in location
    assert arguments.all_global_arguments() == known
