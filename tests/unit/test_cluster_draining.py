"""Which pods can leave a node."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import draining


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
    assert draining.holding([pod(app="web")], [budget(selector)]) == ({"shop/b": ["shop/web-1"]} if holds else {})


def test_a_budget_holds_nothing_elsewhere_or_while_it_allows_a_pod_to_go() -> None:
    assert draining.holding([pod(app="web")], [budget(WEB, allowed=1), budget(WEB, namespace="other")]) == {}


def test_pods_that_a_drain_leaves_alone_hold_nothing() -> None:
    mirror = pod(app="web", kind="Node")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "1"}
    alone = [pod(app="web", kind="DaemonSet"), pod(app="web", phase="Succeeded"), mirror]
    assert draining.to_evict(alone) == []
    assert draining.problems("w1", alone, [budget(WEB, desired=1, expected=1)]) == []


def test_a_budget_that_can_never_be_kept_is_a_problem_and_one_that_may_be_is_none() -> None:
    (found,) = draining.problems("w1", [pod(app="web")], [budget(WEB, desired=2, expected=2)])
    assert found.startswith("w1: budget shop/b asks for 2 healthy pods of 2, so shop/web-1 may never be evicted. Run")
    assert draining.problems("w1", [pod(app="web")], [budget(WEB, desired=1, expected=2)]) == []


def test_a_pod_that_nothing_makes_anew_is_a_problem() -> None:
    (found,) = draining.problems("w1", [pod(kind="")], [])
    assert found.startswith("w1: nothing would make shop/web-1 anew on another node.")
