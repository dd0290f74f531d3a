"""Pods of one node and the budgets that hold them, as this control plane's API has them."""

from __future__ import annotations

import json
import shlex
from typing import Any, TypedDict

from pyinfra.api import FactBase

from facts.kubeadm import OWN

# Set on a Node for as long as its pods are made to leave it: whether others could be scheduled to it before.
MARK = "pyinfra-kubeadm/draining"


class NodePodsState(TypedDict):
    cordoned: bool
    mark: str | None
    pods: list[dict[str, Any]]
    budgets: list[dict[str, Any]]


class NodePods(FactBase[NodePodsState | None]):
    """A Node's pods, all PodDisruptionBudgets, and whether it takes new pods; None when there is no such Node.

    ::

        {"cordoned": False, "mark": None, "pods": [{"metadata": {...}, "status": {...}}],
         "budgets": [{"metadata": {...}, ...}]}

    `mark` is what a drain that was cut off has noted: how the node was before it, "schedulable" or "cordoned".
    The host is given up when its API does not answer: that is not known as no Node.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self, node: str) -> str:
        quoted = shlex.quote(node)
        row = f"jsonpath={{.metadata.name}} {{.spec.unschedulable}} {{.metadata.annotations.{MARK}}}"
        return (
            # More than once: etcd may be choosing a leader.
            f"{OWN}n=0; until c=$($k get node {quoted} --ignore-not-found -o '{row}'); do "
            'n=$((n + 1)); test $n -lt 5 || exit 1; sleep 3; done; test -n "$c" || exit 0; echo "$c"; '
            f"$k get pods -A --field-selector spec.nodeName={quoted} -o json | tr -d '\\n' && echo && "
            "$k get poddisruptionbudgets -A -o json | tr -d '\\n'"
        )

    def process(self, output: list[str]) -> NodePodsState:
        _, cordoned, mark, *_ = (*output[0].split(" "), "", "")
        return NodePodsState(
            cordoned=cordoned == "true",
            mark=mark or None,
            pods=json.loads(output[1])["items"],
            budgets=json.loads(output[2])["items"],
        )
