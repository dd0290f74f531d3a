"""Topologies of the lab: names, and what inventories/lab.py makes of each. No lab is raised."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from contextlib import nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from cluster import balancing, configuration, topology
from cluster.settings import load
from cluster.topology import Node, Topology
from lab import lab, layout

INVENTORY = Path(__file__).resolve().parents[2] / "inventories/lab.py"
# Topology: who balances, and how many load balancers, control planes and workers it has.
EXPECTED = {
    "default": ("dedicated", (2, 3, 1)),
    "large": ("dedicated", (2, 5, 1)),
    "compact": ("control-planes", (0, 3, 1)),
    "small": ("none", (0, 1, 1)),
    "single": ("none", (0, 1, 0)),
    "mixed": ("control-planes", (0, 3, 1)),
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the lab's files."""
    monkeypatch.setattr(layout, "FILE", tmp_path / "lab.json")
    monkeypatch.setattr(lab, "NODES", tmp_path / "nodes")
    return tmp_path


def members(rows: list[tuple[str, dict[str, Any]]]) -> tuple[Node, ...]:
    return tuple(Node(name, IPv4Address(data["address"])) for name, data in rows)


def raised(state: Path, names: Sequence[str], version: str = "v1.36.2", cgroup: int = 2) -> dict[str, Any]:
    """What inventories/lab.py is of a lab that has been raised for a bundle."""
    lock = {"format": 2, "platform": "linux/amd64", "kubernetes_version": version, "components": {}, "images": [],
            "packages": [], "package_sets": {}, "files": []}  # fmt: skip
    (state / "bundle.lock").write_text(json.dumps(lock))
    facts = {"cgroup": cgroup, "restricted": False, "bundle": str(state)}
    layout.write([layout.node(each) for each in names], facts)
    return runpy.run_path(str(INVENTORY))


@pytest.mark.parametrize("name", layout.TOPOLOGIES)
def test_the_inventory_of_each_topology_could_exist(state: Path, name: str) -> None:
    groups = raised(state, layout.topology(name))
    found = Topology(*(members(groups[group]) for group in ("control_plane", "worker", "load_balancer")))
    settings = load(groups["control_plane"][0][1])
    assert topology.check(found, settings) + balancing.check(found, settings) == []
    counts = tuple(len(each) for each in (found.load_balancers, found.control_planes, found.workers))
    assert (settings.load_balancing, counts) == EXPECTED[name]


@pytest.mark.parametrize(
    ("version", "cgroup", "told"), [("v1.36.2", 1, False), ("v1.30.14", 1, None), ("v1.36.2", 2, None)]
)
def test_the_inventory_is_for_the_version_of_its_bundle(
    state: Path, version: str, cgroup: int, told: bool | None
) -> None:
    settings = load(raised(state, ("cp1",), version, cgroup)["control_plane"][0][1])
    assert (settings.kubernetes_version, settings.bundle_dir) == (version, str(state))
    assert settings.kubelet_config.get("failCgroupV1") is told
    assert configuration.problems(settings) == []


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
