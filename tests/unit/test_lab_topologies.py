"""Topologies of the lab: names, and what inventories/lab.py makes of each. No lab is raised."""

from __future__ import annotations

import runpy
from contextlib import nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from cluster import balancing, topology
from cluster.settings import load
from cluster.topology import Node, Topology
from lab import lab, layout

INVENTORY = Path(__file__).resolve().parents[2] / "inventories/lab.py"
FACTS = {"cgroup": 2, "restricted": False, "root": "/nowhere"}
# Topology: who balances, and how many load balancers, control planes and workers it has.
EXPECTED = {
    "default": ("dedicated", (2, 3, 1)),
    "large": ("dedicated", (2, 5, 1)),
    "compact": ("control-planes", (0, 3, 1)),
    "small": ("none", (0, 1, 1)),
    "single": ("none", (0, 1, 0)),
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the lab's files."""
    monkeypatch.setattr(layout, "FILE", tmp_path / "lab.json")
    monkeypatch.setattr(lab, "NODES", tmp_path / "nodes")
    return tmp_path


def members(rows: list[tuple[str, dict[str, Any]]]) -> tuple[Node, ...]:
    return tuple(Node(name, IPv4Address(data["address"])) for name, data in rows)


@pytest.mark.parametrize("name", layout.TOPOLOGIES)
def test_the_inventory_of_each_topology_could_exist(state: Path, name: str) -> None:
    layout.write([layout.node(each) for each in layout.topology(name)], FACTS)
    groups = runpy.run_path(str(INVENTORY))
    found = Topology(*(members(groups[group]) for group in ("control_plane", "worker", "load_balancer")))
    settings = load(groups["control_plane"][0][1])
    assert topology.check(found, settings) + balancing.check(found, settings) == []
    counts = tuple(len(each) for each in (found.load_balancers, found.control_planes, found.workers))
    assert (settings.load_balancing, counts) == EXPECTED[name]


def test_a_topology_that_there_is_not_is_refused() -> None:
    with pytest.raises(layout.LabError, match=r"^huge: there is no such topology of the lab; there are default, large"):
        layout.topology("huge")


def test_a_lab_of_other_nodes_is_not_built_upon(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(lab, "locked", nullcontext)
    for name in ("lb1", "cp1"):
        (state / "nodes" / name).mkdir(parents=True)
    words = (
        r"^The lab is up with another topology: lb1 would be left over\. Take it down first, by `python3 tasks\.py lab"
    )
    with pytest.raises(layout.LabError, match=words):
        lab.up(layout.topology("small"))
