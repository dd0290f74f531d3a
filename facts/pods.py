"""Pods of one node and the budgets that hold them, as this control plane's API has them."""

from __future__ import annotations

import json
import shlex
from typing import Any, TypedDict

from pyinfra.api import FactBase

from facts.kubeadm import OWN


class NodePodsState(TypedDict):
    cordoned: bool
    pods: list[dict[str, Any]]
    budgets: list[dict[str, Any]]


class NodePods(FactBase[NodePodsState | None]):
    """A Node's pods, all PodDisruptionBudgets, and whether it takes new pods; None when there is no such Node.

    ::

        {"cordoned": False, "pods": [{"metadata": {...}, "status": {...}}], "budgets": [{"metadata": {...}, ...}]}

    The host is given up when its API does not answer: that is not known as no Node.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self, node: str) -> str:
        quoted = shlex.quote(node)
        row = "jsonpath={.metadata.name} {.spec.unschedulable}"
        return (
            # More than once: etcd may be choosing a leader.
            f"{OWN}n=0; until c=$($k get node {quoted} --ignore-not-found -o '{row}'); do "
            'n=$((n + 1)); test $n -lt 5 || exit 1; sleep 3; done; test -n "$c" || exit 0; echo "$c"; '
            f"$k get pods -A --field-selector spec.nodeName={quoted} -o json | tr -d '\\n' && echo && "
            "$k get poddisruptionbudgets -A -o json | tr -d '\\n'"
        )

    def process(self, output: list[str]) -> NodePodsState:
        return NodePodsState(
            cordoned=output[0].split()[1:] == ["true"],
            pods=json.loads(output[1])["items"],
            budgets=json.loads(output[2])["items"],
        )
