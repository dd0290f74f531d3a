"""One cluster whose nodes are of every release that the lab can be of, each with packages of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from bundle.verify import read_lock
from cluster.lock import Lock
from lab import lab, layout, root
from tests.lab.bundles import built
from tests.lab.nodes import MEASURED, changes, deployed, holders, kubectl, ssh

NODES = [layout.node(named) for named in layout.topology("mixed")]
# As each release calls itself.
NAMES = {
    "debian-12": "Debian GNU/Linux 12 (bookworm)",
    "debian-13": "Debian GNU/Linux 13 (trixie)",
    "ubuntu-22.04": "Ubuntu 22.04",
    "ubuntu-24.04": "Ubuntu 24.04",
}


@dataclass(frozen=True)
class Mixed:
    """A cluster that was planned and deployed on bare nodes."""

    lock: Lock
    plan: str
    run: str


def packages(release: str) -> dict[str, Any]:
    """A release in bundle.yaml: where Debian's are had is known, another's are where the lab has them from."""
    if release.startswith("debian"):
        return {}
    key = str(root.keyring(release))
    rows = enumerate(root.sources(release))
    return {"repositories": {f"archive-{number}": {"url": source, "key": key} for number, source in rows}}


@pytest.fixture(scope="module")
def mixed() -> Iterator[Mixed]:
    bundle = built("mixed", yaml.safe_dump({"packages": {node.release: packages(node.release) for node in NODES}}))
    lab.down()
    lab.up(layout.topology("mixed"), str(bundle))
    plan = deployed("cluster", "--dry")
    yield Mixed(read_lock(bundle), plan, deployed("cluster", "-y"))
    lab.down()


def test_the_run_changes_what_the_plan_said(mixed: Mixed) -> None:
    assert changes(mixed.run) == changes(mixed.plan) != {}


def test_each_node_is_ready_and_of_its_release_with_the_runtime_of_that_release(mixed: Mixed) -> None:
    items = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    found = {item["metadata"]["name"]: item["status"] for item in items}
    assert sorted(found) == sorted(node.name for node in NODES)
    for node in NODES:
        info = found[node.name]["nodeInfo"]
        assert info["osImage"].startswith(NAMES[node.release])
        name, _, runtime = info["containerRuntimeVersion"].partition("://")
        assert name == "containerd" and mixed.lock.versions(node.release)["containerd"].startswith(runtime)
        assert "True" in [row["status"] for row in found[node.name]["conditions"] if row["type"] == "Ready"]
        MEASURED.append(f"{node.name} of {info['osImage']}: containerd {runtime}")


def test_the_cluster_is_verified_and_a_second_run_changes_nothing(mixed: Mixed) -> None:
    """`cluster` ends with `verify`, which fails the run when anything is not well."""
    for flags in (("--dry",), ("-y",)):
        output = deployed("cluster", *flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"


def test_packages_are_those_of_the_bundle_and_held(mixed: Mixed) -> None:
    for node in NODES:
        wanted = {row.name: row.version for row in mixed.lock.packages if row.release == node.release}
        shown = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Want}\\n'"
        rows = {row.split()[0]: row.split()[1:] for row in ssh(node.name, shown).splitlines()}
        runtime = ["containerd", "runc"]
        assert {name: rows[name] for name in runtime} == {name: [wanted[name], "hold"] for name in runtime}


def test_every_release_comes_back_after_its_power_was_cut(mixed: Mixed) -> None:
    """What a release's systemd does at its boot: modules, kernel settings, services and the virtual address."""
    for node in NODES:
        lab.stop(node.name)
    for node in NODES:
        lab.start(node.name)
    output = deployed("cluster", "-y")
    assert changes(output) == {}, output[-6000:]
    assert len(holders(node.name for node in NODES if node.group == "control_plane")) == 1
