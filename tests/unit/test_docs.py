"""What people read and copy is what the program takes."""

from __future__ import annotations

import re
import runpy
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cluster.settings import Settings, load, markdown
from cluster.topology import Node, Topology, check

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"control_plane": "control_planes", "worker": "workers", "load_balancer": "load_balancers"}


def names(path: str) -> dict[str, Any]:
    """What a file of group_data/ or inventories/ says, without what it imports."""
    found = runpy.run_path(str(ROOT / path))
    return {name: value for name, value in found.items() if not name.startswith("__") and not callable(value)}


def example() -> Settings:
    return load(names("group_data/all.py"))


def test_the_settings_reference_is_of_these_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == markdown(), "python3 tasks.py settings writes it anew"


def test_group_data_holds_settings_that_there_are() -> None:
    assert example().vip == IPv4Address("192.0.2.100")


def test_the_example_site_could_exist() -> None:
    inventory = names("inventories/prod.py")
    assert set(inventory) == set(GROUPS)
    groups = {
        GROUPS[group]: tuple(Node(name, IPv4Address(data["address"])) for name, data in members)
        for group, members in inventory.items()
    }
    assert check(Topology(**groups), example()) == []


def test_every_deploy_that_the_readme_names_is_there_and_the_other_way_round() -> None:
    named = set(re.findall(r"`deploys/(\w+)\.py`", (ROOT / "README.md").read_text()))
    assert named == {path.stem for path in (ROOT / "deploys").glob("*.py")} - {"__init__", "plan", "ssh"}


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
