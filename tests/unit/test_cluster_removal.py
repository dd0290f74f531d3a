"""Which hosts a cluster can do without."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from cluster import removal
from cluster.topology import Node, Topology

CONTROL_PLANES = tuple(Node(f"cp{number}", IPv4Address(f"10.0.0.{number}")) for number in (1, 2, 3))
WHOLE = Topology(CONTROL_PLANES, (Node("w1", IPv4Address("10.0.0.31")),), (Node("lb1", IPv4Address("10.0.0.11")),))


def test_a_topology_without_some_hosts_has_all_others() -> None:
    left = removal.without(WHOLE, ["cp2", "lb1"])
    assert [node.name for node in left.nodes] == ["cp1", "cp3", "w1"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "remove: names no host. Say which, as `--data remove=NAME[,NAME]`; there are lb1, cp1, cp2, cp3, w1."),
        (["w1", "w2"], "remove: w2 is not in the inventory, which has lb1, cp1, cp2, cp3, w1. A host"),
        (["cp3", "cp1", "cp2"], "remove: cp1, cp2, cp3 is all there is of control planes, and without one"),
    ],
)
def test_hosts_that_cannot_be_removed_are_named(names: list[str], words: str) -> None:
    (found,) = removal.problems(WHOLE, names)
    assert found.startswith(words)


def test_hosts_that_can_be_removed_are_no_problem() -> None:
    assert removal.problems(WHOLE, ["cp1", "w1"]) == []


def members(**healthy: bool | None) -> list[dict[str, Any]]:
    return [{"name": name, "healthy": is_healthy, "learner": False} for name, is_healthy in healthy.items()]


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (["a"], members(a=True, b=True, c=True)),
        (["a"], members(a=False, b=True, c=True)),
        (["a"], members(a=None, b=True, c=True)),
        (["a", "b"], members(a=True, b=True, c=True)),
        (["b", "a"], members(a=False, b=True, c=True)),
        (["a"], members(a=True, b=True)),
        (["a", "b"], members(a=False, b=False, c=True, d=True, e=True)),
        (["w"], members(a=True, b=True, c=True)),
    ],
)
def test_members_go_while_those_that_are_left_have_a_quorum(names: list[str], there: list[dict[str, Any]]) -> None:
    assert removal.quorum_problems(names, there) == []


@pytest.mark.parametrize(
    ("names", "there", "words"),
    [
        (["a"], members(a=True, b=True, c=False), "a: without its etcd member 2 would be left, of which c does not"),
        (["a"], members(a=False, b=True, c=False), "etcd has no quorum: of its 3 members a, c do not answer."),
        (["a"], members(a=False, b=True), "etcd has no quorum: of its 2 members a do not answer."),
    ],
)
def test_a_member_stays_when_the_quorum_would_be_lost(
    names: list[str], there: list[dict[str, Any]], words: str
) -> None:
    (found,) = removal.quorum_problems(names, there)
    assert found.startswith(words)


def test_a_learner_has_no_vote() -> None:
    there = [*members(a=True, b=False), {"name": "c", "healthy": True, "learner": True}]
    (found,) = removal.quorum_problems(["b"], there)
    assert found.startswith("etcd has no quorum: of its 2 members b do not answer.")


def test_hosts_whose_member_is_sick_go_first() -> None:
    assert removal.order(["a", "b", "w"], members(a=True, b=False)) == ["b", "w", "a"]
