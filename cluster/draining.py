"""Which pods a drain evicts from a node, and what holds them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of a PodDisruptionBudget selects a pod; of policy/v1 an empty one selects all.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """
    if selector is None:
        return False
    for row in selector.get("matchExpressions", []):
        key, values = row["key"], row.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[row["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _name(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def to_evict(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pods of a node that a drain evicts: neither a DaemonSet's, nor the kubelet's own, nor ended."""
    return [
        pod
        for pod in pods
        if "kubernetes.io/config.mirror" not in pod["metadata"].get("annotations", {})
        and not any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", []))
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


def holding(pods: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Which budgets allow no eviction now, and which of these pods each holds: {"shop/web": ["shop/web-1"]}."""
    found: dict[str, list[str]] = {}
    for budget in budgets:
        own = [
            _name(pod)
            for pod in to_evict(pods)
            if pod["metadata"]["namespace"] == budget["metadata"]["namespace"]
            and _selects(budget["spec"].get("selector"), pod["metadata"].get("labels", {}))
        ]
        if own and budget.get("status", {}).get("disruptionsAllowed", 0) < 1:
            found[_name(budget)] = own
    return found


def problems(node: str, pods: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a node can never be drained, however long one waits, in words.

    A budget that asks for as many healthy pods as there are allows none to go even when all are well; such a pod is
    held for good. Pods that nothing makes anew would be lost.
    """
    held = holding(pods, budgets)
    found = []
    for budget in budgets:
        status, name = budget.get("status", {}), _name(budget)
        if name in held and status.get("desiredHealthy", 0) >= status.get("expectedPods", 0):
            found.append(
                f"{node}: budget {name} asks for {status.get('desiredHealthy', 0)} healthy pods of "
                f"{status.get('expectedPods', 0)}, so {', '.join(held[name])} may never be evicted. Run more of these "
                "pods, or change the budget."
            )
    if alone := [_name(pod) for pod in to_evict(pods) if not pod["metadata"].get("ownerReferences")]:
        found.append(
            f"{node}: nothing would make {', '.join(alone)} anew on another node. Delete such pods yourself if they "
            "may go."
        )
    return found
