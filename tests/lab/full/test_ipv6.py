"""A cluster of IPv6 alone: its control planes balance themselves, and images are pulled from the bundle's servers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import lab, layout, network
from lab.layout import VIP6
from tests.lab.nodes import BUNDLE, ROOT, changes, foretold, kubectl, pyinfra, ssh
from tests.lab.test_4_survival import wait_for

INVENTORY = "tests/lab/full/ipv6.py"
BALANCERS = ("cp1", "cp2", "cp3")


def deployed(*flags: str) -> str:
    done = pyinfra("cluster", *flags, inventory=INVENTORY)
    assert done.returncode == 0, done.stdout[-10000:]
    return done.stdout


@pytest.fixture(scope="module")
def runs(bundle: str) -> Iterator[tuple[str, str]]:
    """The words of a dry run on bare nodes, and of the run that followed."""
    assert network.has_ipv6(), "this machine's kernel has no IPv6, and this test is of it"
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    plan = deployed("--dry")
    yield plan, deployed("-y")
    lab.down()


def holders() -> list[str]:
    return [node for node in BALANCERS if f" {VIP6}/128" in ssh(node, "ip -o -6 addr show dev eth0", check=False)]


def test_the_run_changes_what_the_plan_said_and_a_second_run_nothing(runs: tuple[str, str]) -> None:
    plan, _ = runs
    assert foretold("cluster") == []
    assert changes(plan) != {}
    for flags in ("--dry", "-y"):
        assert changes(deployed(flags)) == {}


def test_nodes_and_their_pods_have_ipv6_and_nothing_else(runs: tuple[str, str]) -> None:
    for item in json.loads(kubectl("get", "nodes", "-o", "json"))["items"]:
        internal = [row["address"] for row in item["status"]["addresses"] if row["type"] == "InternalIP"]
        assert internal == [layout.node(item["metadata"]["name"]).address6]
        assert len(item["spec"]["podCIDRs"]) == 1
    assert f"server: https://[{VIP6}]:8443" in (ROOT / "secrets/lab/admin.conf").read_text()


def test_the_address_moves(runs: tuple[str, str]) -> None:
    (before,) = holders()
    ssh(before, "systemctl stop haproxy")
    wait_for(lambda: len(holders()) == 1 and holders() != [before], "another node to have the address")
    deployed("-y")


def test_a_control_plane_that_was_replaced_takes_its_place_again(runs: tuple[str, str]) -> None:
    """Its old member is removed by asking etcd, and its Node by asking one API server, at addresses of their own."""
    lab.replace("cp3")
    deployed("-y")
    assert changes(deployed("-y")) == {}
