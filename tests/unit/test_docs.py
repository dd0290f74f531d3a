"""What people read and copy is what the program takes."""

from __future__ import annotations

import re
import runpy
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from bundle import catalogue, components, versions
from bundle.catalogue import (
    Catalogue,
    Chart,
    Component,
    Download,
    Module,
    Network,
    OpenApi,
    OwnAddon,
    Recipe,
    Release,
    RemoteFile,
    Repository,
    Runtime,
)
from cluster import addressing, balancing, cilium, configuration, findings, ports, settings
from cluster.changes import Change, Group, Host, Plan, Step
from cluster.compatibility import kubeadm_api
from cluster.settings import Settings, load
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
    "runtimes.NAME.": Runtime,
    "offered_networks.NAME.": Network,
    "own_addons.NAME.": OwnAddon,
    "own_addons.NAME.manifests.": RemoteFile,
    "own_addons.NAME.chart.": Chart,
    "packages.NAME.": Release,
    "packages.NAME.repositories.NAME.": Repository,
}
# Where in the JSON of a plan the fields of each model stand.
PLAN: dict[str, type[BaseModel]] = {
    "": Plan,
    "hosts.NAME.": Host,
    "steps[].": Step,
    "steps[].groups[].": Group,
    "steps[].groups[].changes[].": Change,
}


def names(path: str) -> dict[str, Any]:
    """What a file of group_data/ or inventories/ says, without what it imports."""
    found = runpy.run_path(str(ROOT / path))
    return {name: value for name, value in found.items() if not name.startswith("__") and not callable(value)}


def example() -> Settings:
    return load(names("group_data/all.py"))


@pytest.mark.parametrize(
    ("name", "module"), [("settings", settings), ("preflight", findings), ("ports", ports)], ids=lambda each: str(each)
)
def test_a_reference_is_of_what_it_describes(name: str, module: Any) -> None:
    assert (ROOT / f"docs/{name}.md").read_text() == module.markdown(), "python3 tasks.py docs writes it anew"


def test_the_page_of_the_configuration_is_of_these_fields_and_its_example_is_taken() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    assert text == configuration.markdown(), "python3 tasks.py docs writes it anew"
    example = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    own: dict[str, Any] = {}
    exec(example, own)
    del own["__builtins__"]
    assert configuration.problems(load({"vip": "192.0.2.1", **own})) == []


def test_the_page_of_versions_has_every_release_that_is_built() -> None:
    rows = re.findall(r"^\| (1\.\d+) \| (\w+) \| (\S+) \| (.+?) \|", (ROOT / "docs/versions.md").read_text(), re.M)
    assert [(minor, f"kubeadm.k8s.io/{api}", version) for minor, api, version, _ in rows] == [
        (minor, kubeadm_api(each.kubernetes), each.kubernetes) for minor, each in versions.load().minors.items()
    ]
    own = next(minor for minor, *_, go in rows if go == "as in the bundle")
    assert catalogue.load().kubernetes_version.startswith(f"v{own}.")
    assert [go for minor, *_, go in rows if minor != own] == [
        each.go for minor, each in versions.load().minors.items() if minor != own
    ]


def test_the_page_of_networks_has_the_cilium_of_every_minor_and_its_least_linux() -> None:
    text = (ROOT / "docs/networks.md").read_text()
    rows = re.findall(r"^\| 1\.(\d+)(?:(?: to|,) 1\.(\d+))? \| (1\.\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    said = {
        f"1.{minor}": (release, least)
        for first, last, release, least in rows
        for minor in range(int(first), int(last or first) + 1)
    }
    versions_of = {minor: each.cilium for minor, each in versions.load().minors.items()}
    assert said == {
        minor: (version[1:].rpartition(".")[0], cilium.kernel(version)) for minor, version in versions_of.items()
    }


def test_group_data_holds_settings_that_there_are() -> None:
    assert str(example().vip) == "192.0.2.100"


@pytest.mark.parametrize(
    ("site", "mode"),
    [("prod", "dedicated"), ("compact", "control-planes"), ("external", "external"), ("small", "none")],
)
def test_the_example_sites_could_exist(site: str, mode: str) -> None:
    inventory = {group: members for group, members in names(f"inventories/{site}.py").items() if group in GROUPS}
    groups: dict[str, tuple[Node, ...]] = dict.fromkeys(GROUPS.values(), ())
    for group, members in inventory.items():
        hosts, own = members if isinstance(members, tuple) else (members, {})
        groups[GROUPS[group]] = tuple(Node(name, IPv4Address(data["address"])) for name, data in hosts)
        settings = load(names("group_data/all.py") | own)
        assert settings.load_balancing == mode
    topology = Topology(**groups)
    assert check(topology, settings) + addressing.check(topology, settings) + balancing.check(topology, settings) == []


def test_every_inventory_but_the_labs_is_looked_at_here() -> None:
    assert {path.stem for path in (ROOT / "inventories").glob("*.py")} == {
        "prod",
        "compact",
        "external",
        "small",
        "lab",
    }


def test_every_deploy_that_the_readme_names_is_there_and_the_other_way_round() -> None:
    named = set(re.findall(r"`deploys/(\w+)\.py`", (ROOT / "README.md").read_text()))
    others = {
        "__init__", "ask", "authorities", "backups", "cleanup", "expiry", "labels", "live", "plan", "record",
        "removal", "rules", "ssh", "survey", "timers", "versions",
    }  # fmt: skip
    assert named == {path.stem for path in (ROOT / "deploys").glob("*.py")} - others


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_example_of_a_sites_bundle_is_taken_and_shows_what_only_a_site_can_say() -> None:
    path = ROOT / "bundle.example.yaml"
    found, own = catalogue.load(path), yaml.safe_load(path.read_text())
    assert {"directory", "manifests", "extra_files", "own_addons", "signing_key"} <= set(own)
    assert (found.sources, found.signing_key) == (tuple(own["sources"]), own["signing_key"])
    images = (*catalogue.load().extra_images, *own["extra_images"])
    assert found.extra_images[: len(images)] == images
    assert set(own["own_addons"]) == set(found.own_addons)
    assert {host: places[0] for host, places in found.mirrors.items() if host in own["mirrors"]} == own["mirrors"]


def test_every_name_of_bundle_yaml_is_described_and_no_other() -> None:
    section = (ROOT / "docs/bundle.md").read_text().partition("### Names of bundle.yaml")[2].partition("###")[0]
    described = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    assert sorted(described) == sorted(f"{path}{name}" for path, model in WITHIN.items() for name in model.model_fields)


def test_every_field_of_a_plan_is_described_as_the_model_has_it() -> None:
    section = (ROOT / "docs/plan.md").read_text().partition("## The file")[2]
    described = dict(re.findall(r"^\| `([\w.\[\]]+)` \| (.+) \|$", section, re.MULTILINE))
    fields = {
        f"{path}{field.alias or name}": (field.description or "").replace("|", r"\|")
        for path, model in PLAN.items()
        for name, field in model.model_fields.items()
    }
    assert described.keys() == fields.keys()
    assert {name: words for name, words in fields.items() if words and described[name] != words} == {}
    assert Plan.model_fields["schema_version"].default == int(described["schema"])


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
