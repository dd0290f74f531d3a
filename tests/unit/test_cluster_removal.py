"""Which hosts a cluster can do without, and which pods can leave a node."""

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


def pod(name: str = "web-1", kind: str = "ReplicaSet", phase: str = "Running", **labels: str) -> dict[str, Any]:
    owners = [{"kind": kind, "name": "web"}] if kind else []
    metadata = {"namespace": "shop", "name": name, "labels": labels, "ownerReferences": owners}
    return {"metadata": metadata, "status": {"phase": phase}}


def budget(selector: Any, allowed: int = 0, desired: int = 1, expected: int = 2, namespace: str = "shop") -> Any:
    status = {"disruptionsAllowed": allowed, "desiredHealthy": desired, "expectedPods": expected}
    return {
        "metadata": {"namespace": namespace, "name": "b"}, "spec": {"selector": selector}, "status": status,
    }  # fmt: skip


WEB = {"matchLabels": {"app": "web"}}


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        (WEB, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchLabels": {"app": "web", "tier": "front"}}, False),
        ({}, True),
        (None, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_budget_holds_pods_that_its_selector_selects(selector: Any, holds: bool) -> None:
    assert removal.holding([pod(app="web")], [budget(selector)]) == ({"shop/b": ["shop/web-1"]} if holds else {})


def test_a_budget_holds_nothing_elsewhere_or_while_it_allows_a_pod_to_go() -> None:
    assert removal.holding([pod(app="web")], [budget(WEB, allowed=1), budget(WEB, namespace="other")]) == {}


def test_pods_that_a_drain_leaves_alone_hold_nothing() -> None:
    mirror = pod(app="web", kind="Node")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "1"}
    alone = [pod(app="web", kind="DaemonSet"), pod(app="web", phase="Succeeded"), mirror]
    assert removal.to_evict(alone) == []
    assert removal.drain_problems("w1", alone, [budget(WEB, desired=1, expected=1)]) == []


def test_a_budget_that_can_never_be_kept_is_a_problem_and_one_that_may_be_is_none() -> None:
    (found,) = removal.drain_problems("w1", [pod(app="web")], [budget(WEB, desired=2, expected=2)])
    assert found.startswith("w1: budget shop/b asks for 2 healthy pods of 2, so shop/web-1 may never be evicted. Run")
    assert removal.drain_problems("w1", [pod(app="web")], [budget(WEB, desired=1, expected=2)]) == []


def test_a_pod_that_nothing_makes_anew_is_a_problem() -> None:
    (found,) = removal.drain_problems("w1", [pod(kind="")], [])
    assert found.startswith("w1: nothing would make shop/web-1 anew on another node.")
