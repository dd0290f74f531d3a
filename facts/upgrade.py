"""Which versions of Kubernetes run, and what an upgrade would break."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase

from cluster.pieces import short_name
from facts.kubeadm import OWN, STATIC_PODS

# Set on a Node for as long as it is being upgraded: whether pods could be scheduled to it before.
MARK = "pyinfra-kubeadm/upgrading"


class Versions(TypedDict):
    images: dict[str, str]
    running: str | None


class NodeVersions(FactBase[Versions]):
    """What this node runs of Kubernetes: images of its static pods, by their manifests, and the kubelet that runs.

    ::

        {"images": {"etcd": "registry.k8s.io/etcd:3.6.6-0", "kube-apiserver": ...}, "running": "v1.35.6"}

    The kubelet is asked that runs, which may be another than the one on disk; `running` is None when none does.
    """

    @staticmethod
    def default() -> Versions:
        return Versions(images={}, running=None)

    def command(self) -> str:
        manifests = " ".join(STATIC_PODS)
        return (
            f'for m in {manifests}; do sed -n "s/^ *image: */image $m /p" /etc/kubernetes/manifests/$m.yaml; done '
            "2>/dev/null; p=$(systemctl show -p MainPID --value kubelet.service 2>/dev/null); "
            'test "${p:-0}" -gt 0 && /proc/$p/exe --version 2>/dev/null; true'
        )

    def process(self, output: list[str]) -> Versions:
        found = self.default()
        for line in output:
            words = line.split()
            # A site's patches may have put others beside it.
            if words[0] == "image" and short_name(words[2]) == words[1]:
                found["images"][words[1]] = words[2]
            elif words[0] == "Kubernetes":
                found["running"] = words[1]
        return found


class NodeState(TypedDict):
    version: str
    ready: bool
    cordoned: bool
    mark: str | None


class Nodes(FactBase[dict[str, NodeState]]):
    """The cluster's nodes as this control plane's own API server has them; none when that does not answer.

    ::

        {"w1": {"version": "v1.35.6", "ready": True, "cordoned": False, "mark": None}}

    `version` is the kubelet's. `mark` is what an upgrade has noted that is not finished: how the node was before it,
    "schedulable" or "cordoned".
    """

    @staticmethod
    def default() -> dict[str, NodeState]:
        return {}

    def command(self) -> str:
        template = (
            "{{range .items}}{{.metadata.name}} {{.status.nodeInfo.kubeletVersion}} "
            '{{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}} '
            "{{if .spec.unschedulable}}cordoned{{else}}schedulable{{end}} "
            f'{{{{with .metadata.annotations}}}}{{{{with index . "{MARK}"}}}}{{{{.}}}}{{{{end}}}}{{{{end}}}}'
            '{{"\\n"}}{{end}}'
        )
        return f"{OWN} $k get nodes -o go-template='{template}' 2>/dev/null; true"

    def process(self, output: list[str]) -> dict[str, NodeState]:
        rows = [line.split() for line in output if line.strip()]
        return {
            name: NodeState(
                version=version,
                ready=ready == "True",
                cordoned=schedulable == "cordoned",
                mark=next(iter(mark), None),
            )
            for name, version, ready, schedulable, *mark in rows
        }


class RemovedApis(FactBase[dict[str, str]]):
    """Deprecated APIs that this control plane's API server was asked for since it started, and what removes them.

    ::

        {"flowcontrol.apiserver.k8s.io/v1beta3/flowschemas": "1.32"}

    By its metric apiserver_requested_deprecated_apis
    (https://kubernetes.io/docs/reference/using-api/deprecation-guide/#locate-use-of-deprecated-apis). What has no
    release yet that removes it is left out.
    """

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self) -> str:
        return (
            f"{OWN} $k get --raw /metrics 2>/dev/null | grep '^apiserver_requested_deprecated_apis{{' "
            "| grep -v 'removed_release=\"\"'; true"
        )

    def process(self, output: list[str]) -> dict[str, str]:
        found = {}
        for line in output:
            labels = dict(part.split("=", 1) for part in line[line.index("{") + 1 : line.rindex("}")].split(","))
            group, version, resource, release = (
                labels[name].strip('"') for name in ("group", "version", "resource", "removed_release")
            )
            found["/".join(part for part in (group, version, resource) if part)] = release
        return found
