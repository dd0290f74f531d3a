"""What Kubernetes has running on a node."""

from __future__ import annotations

import json
from typing import TypedDict

from pyinfra.api import FactBase

STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class RunningState(TypedDict):
    kubelet: bool
    pods: dict[str, str] | None


class Running(FactBase[RunningState]):
    """Whether the kubelet runs, and which pods do: their ids in the container runtime -> what they are.

    ::

        {"kubelet": True, "pods": {"8f2c...": "kube-system/etcd-cp1", "91ab...": "kube-system/coredns-5d6f-x2x"}}

    `pods` is None where no runtime answers crictl.
    """

    @staticmethod
    def default() -> RunningState:
        return RunningState(kubelet=False, pods=None)

    def command(self) -> str:
        return (
            "systemctl is-active -q kubelet.service && echo kubelet; "
            "if p=$(timeout 30 crictl pods -o json 2>/dev/null); then echo pods; echo \"$p\" | tr -d '\\n'; fi; true"
        )

    def process(self, output: list[str]) -> RunningState:
        pods: dict[str, str] | None = None
        if "pods" in output:
            items = json.loads(output[-1]).get("items") or []
            pods = {
                item["id"]: f"{item['metadata']['namespace']}/{item['metadata']['name']}"
                for item in items
                if item["state"] == "SANDBOX_READY"
            }
        return RunningState(kubelet="kubelet" in output, pods=pods)
