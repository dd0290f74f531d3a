"""What the API server says of a manifest."""

from __future__ import annotations

import shlex
from typing import Literal

from pyinfra.api import FactBase

Applied = Literal["applied", "differs", "unknown"]


class Manifest(FactBase[Applied]):
    """Whether the live objects are those of a manifest on the node, by `kubectl diff --server-side`.

    Returns "applied", "differs", or "unknown" when there is no file, no kubectl or no API server.
    `kubectl diff` exits 0 for no difference, 1 for some, more for an error
    (https://kubernetes.io/docs/reference/kubectl/generated/kubectl_diff/).
    """

    @staticmethod
    def default() -> Applied:
        return "unknown"

    def command(self, path: str) -> str:
        return (
            f"test -e {shlex.quote(path)} || {{ echo absent; exit; }}; "
            "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s "
            f"diff --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {shlex.quote(path)} "
            ">/dev/null 2>&1; echo $?"
        )

    def process(self, output: list[str]) -> Applied:
        code = output[-1].strip()
        known: dict[str, Applied] = {"0": "applied", "1": "differs"}
        return known.get(code, "unknown")
