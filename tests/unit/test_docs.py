"""What people read and copy is what the program takes."""

from __future__ import annotations

import re
import runpy
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from bundle import catalogue, components
from bundle.catalogue import Catalogue, Component, Download, Module, OpenApi, Recipe, Release, Repository
from cluster.settings import Settings, load, markdown
from cluster.topology import Node, Topology, check

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"control_plane": "control_planes", "worker": "workers", "load_balancer": "load_balancers"}
# Where in bundle.yaml the names of each model stand.
WITHIN: dict[str, type[BaseModel]] = {
    "": Catalogue,
    "components.NAME.": Component,
    "components.NAME.download.": Download,
    "components.NAME.build.": Module,
    "components.NAME.build.openapi.": OpenApi,
    "recipes.NAME.": Recipe,
    "packages.NAME.": Release,
    "packages.NAME.repositories.NAME.": Repository,
}


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


def test_the_example_of_a_sites_bundle_is_taken_and_shows_what_only_a_site_can_say() -> None:
    path = ROOT / "bundle.example.yaml"
    found, own = catalogue.load(path), yaml.safe_load(path.read_text())
    assert {"directory", "manifests", "extra_files", "signing_key"} <= set(own)
    assert (found.sources, found.signing_key) == (tuple(own["sources"]), own["signing_key"])
    assert found.extra_images == (*catalogue.load().extra_images, *own["extra_images"])
    assert {host: places[0] for host, places in found.mirrors.items() if host in own["mirrors"]} == own["mirrors"]


def test_every_name_of_bundle_yaml_is_described_and_no_other() -> None:
    section = (ROOT / "docs/bundle.md").read_text().partition("### Names of bundle.yaml")[2].partition("###")[0]
    described = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    assert sorted(described) == sorted(f"{path}{name}" for path, model in WITHIN.items() for name in model.model_fields)


def test_files_that_a_directory_is_looked_through_for_are_named() -> None:
    wanted = catalogue.load()
    nodes = {program for names in wanted.programs.values() for program in names}
    files = [file for each in wanted.components.values() for file in components.files_of(each, wanted, nodes)]
    text = (ROOT / "docs/bundle.md").read_text()
    named = {name for file in files for name in (file.name, file.checksum.rpartition("/")[2])}
    assert len(named) > 10
    assert [name for name in sorted(named) if name not in text] == []


def test_the_contents_of_the_bundles_page_lead_to_its_headings() -> None:
    text = (ROOT / "docs/bundle.md").read_text()
    headings = re.findall(r"^## (\d.+)$", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert re.findall(r"^\d\. \[.+\]\(#(.+)\)$", text, re.MULTILINE) == anchors
