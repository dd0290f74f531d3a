"""What the API server says of a manifest."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, Literal, TypedDict

from pyinfra.api import FactBase

from cluster.bridge import NodeSubnet


class Applied(TypedDict):
    state: Literal["applied", "differs", "unknown"]
    diff: list[str]


ADMIN = "/etc/kubernetes/admin.conf"


def kubectl(context: str = "") -> str:
    """The command that asks this control plane's API as administrator.

    `context` is a file whose context counts before that of the administrator's kubeconfig; it says in which namespace
    objects are that name none, which `--namespace` would refuse of all others
    (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files).
    """
    return f"env KUBECONFIG={shlex.quote(f'{context}:{ADMIN}')} kubectl" if context else f"kubectl --kubeconfig {ADMIN}"


class Manifest(FactBase[Applied]):
    """Whether the live objects are those of a manifest on the node, by `kubectl diff --server-side`.

    ::

        {"state": "differs", "diff": ["-  replicas: 1", "+  replicas: 2"]}

    `state` is "unknown" when there is no file, no kubectl or no API server. `diff` is kubectl's, which masks what
    Secrets hold; without times and names of temporary files, and without `managedFields`, which kubectl of 1.21 shows
    of ServiceAccounts that have got a token. `context` is as in `kubectl`.
    `kubectl diff` exits 0 for no difference, 1 for some, more for an error
    (https://kubernetes.io/docs/reference/kubectl/generated/kubectl_diff/).
    """

    @staticmethod
    def default() -> Applied:
        return Applied(state="unknown", diff=[])

    def command(self, path: str, context: str = "") -> str:
        return (
            f"test -e {shlex.quote(path)} || {{ echo absent; exit; }}; "
            f"{kubectl(context)} --request-timeout=20s "
            f"diff --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {shlex.quote(path)} "
            "2>/dev/null; echo $?"
        )

    def process(self, output: list[str]) -> Applied:
        code = output[-1].strip()
        if code == "1":
            noise = ("diff -u", "--- /", "+++ /")
            diff = [line for line in output[:-1] if not line.startswith(noise)]
            left = _without_managers(diff)
            if left == diff or any(line.startswith(("+", "-")) for line in left):
                return Applied(state="differs", diff=left)
            return Applied(state="applied", diff=[])
        return Applied(state="applied" if code == "0" else "unknown", diff=[])


def _without_managers(diff: list[str]) -> list[str]:
    """A difference without lists of who manages which fields that are whole in one and missing in the other."""
    left, inside = [], False
    for line in diff:
        inside = line[1:] == "  managedFields:" or (inside and re.match(r"[+-]  [- ] ", line) is not None)
        if not inside:
            left.append(line)
    return left


class Objects(FactBase[list[dict[str, Any]]]):
    """The live objects of a manifest on the node, in its order; none when one is not there, or no API answers."""

    @staticmethod
    def default() -> list[dict[str, Any]]:
        return []

    def command(self, path: str) -> str:
        return (
            f"test -e {shlex.quote(path)} && kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s "
            f"get -f {shlex.quote(path)} -o json 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> list[dict[str, Any]]:
        found = json.loads("\n".join(output))
        objects: list[dict[str, Any]] = found["items"] if found.get("kind") == "List" else [found]
        return objects


class PodSubnets(FactBase[dict[str, NodeSubnet] | None]):
    """Every node's address and its own subnet of pods, as the API has them; None when that does not answer here.

    ::

        {"cp1": {"address": "10.0.0.21", "subnet": "10.244.0.0/24"}, "w1": {"address": "10.0.0.31", "subnet": ""}}

    `subnet` is empty until kube-controller-manager has given one.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self) -> str:
        template = (
            '{{range .items}}{{.metadata.name}} {{range .status.addresses}}{{if eq .type "InternalIP"}}{{.address}} '
            '{{end}}{{end}}{{with .spec.podCIDR}}{{.}}{{else}}-{{end}}{{"\\n"}}{{end}}'
        )
        return (
            "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s get nodes "
            f"-o go-template='{template}' 2>/dev/null && echo answered; true"
        )

    def process(self, output: list[str]) -> dict[str, NodeSubnet] | None:
        if output[-1].strip() != "answered":
            return None
        rows = [line.split() for line in output[:-1] if line.strip()]
        # A node that has only begun to be one has no address yet.
        return {
            row[0]: NodeSubnet(address=row[1], subnet="" if row[-1] == "-" else row[-1]) for row in rows if len(row) > 2
        }


class Addons(FactBase[list[str]]):
    """Names of the add-ons whose manifests are kept on this host, which were applied from here: ["coredns"]."""

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, directory: str) -> str:
        return f"ls {shlex.quote(directory)} 2>/dev/null | sed -n 's/\\.yaml$//p'"

    def process(self, output: list[str]) -> list[str]:
        return [line.strip() for line in output]


class MetricsCertificate(FactBase[str]):
    """Whether metrics-server has a certificate, and the API checks it by that.

    Returns "valid", "ending" when it ends within 30 days, "other" when the API does not check it by that one, or
    "absent", also where nobody can be asked.
    """

    @staticmethod
    def default() -> str:
        return "absent"

    def command(self) -> str:
        get = f"{kubectl()} --request-timeout=20s get --ignore-not-found -o"
        return (
            f"c=$({get} 'jsonpath={{.data.tls\\.crt}}' secret metrics-server -n kube-system 2>/dev/null); "
            'test -n "$c" || { echo absent; exit; }; '
            f'test "$c" = "$({get} \'jsonpath={{.spec.caBundle}}\' apiservice v1beta1.metrics.k8s.io 2>/dev/null)" || '
            "{ echo other; exit; }; "
            'echo "$c" | base64 -d | openssl x509 -noout -checkend 2592000 >/dev/null && echo valid || echo ending'
        )

    def process(self, output: list[str]) -> str:
        return output[-1].strip()
