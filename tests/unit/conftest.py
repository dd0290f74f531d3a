from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Hosts, Machine
from pyinfra.context import ctx_host, ctx_inventory, ctx_state


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def hosts() -> Iterator[Callable[[Mapping[str, Mapping[str, Any]]], Hosts]]:
    """Makes hosts: name -> command (or part of it) -> what it prints."""
    yield Hosts
    for context in (ctx_host, ctx_inventory, ctx_state):
        context.reset()
