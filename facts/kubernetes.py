"""What the API server says of a manifest."""

from __future__ import annotations

import shlex
from typing import Literal

from pyinfra.api import FactBase

Applied = Literal["applied", "differs", "unknown"]
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

    Returns "applied", "differs", or "unknown" when there is no file, no kubectl or no API server. `context` is as in
    `kubectl`.
    `kubectl diff` exits 0 for no difference, 1 for some, more for an error
    (https://kubernetes.io/docs/reference/kubectl/generated/kubectl_diff/).
    """

    @staticmethod
    def default() -> Applied:
        return "unknown"

    def command(self, path: str, context: str = "") -> str:
        return (
            f"test -e {shlex.quote(path)} || {{ echo absent; exit; }}; "
            f"{kubectl(context)} --request-timeout=20s "
            f"diff --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {shlex.quote(path)} "
            ">/dev/null 2>&1; echo $?"
        )

    def process(self, output: list[str]) -> Applied:
        code = output[-1].strip()
        known: dict[str, Applied] = {"0": "applied", "1": "differs"}
        return known.get(code, "unknown")


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
