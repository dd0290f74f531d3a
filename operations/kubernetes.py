"""Objects of the cluster, applied and waited for."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.kubernetes import Manifest
from operations.change import any_changes

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"


@operation()
def apply(
    path: str, written_by: OperationMeta, wait_for: str, seconds: int = 180
) -> Generator[StringCommand, None, None]:
    """
    Apply a manifest on the node by server-side apply, and wait for what shows that it works.

    + path: the manifest
    + written_by: the operation that writes it; when that changes the file, so does this the cluster
    + wait_for: a command of kubectl that waits, such as "rollout status -n kube-flannel daemonset/kube-flannel-ds"
    + seconds: how long to wait for it
    """
    if not any_changes([written_by]) and host.get_fact(Manifest, path=path) == "applied":
        host.noop(f"{path} is what the cluster has")
        return
    yield StringCommand(
        f"{KUBECTL} apply --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {shlex.quote(path)}"
    )
    yield StringCommand(
        f"{KUBECTL} {wait_for} --timeout={seconds}s || "
        f"{{ {KUBECTL} get pods -A -o wide >&2; "
        f"{KUBECTL} get events -A --sort-by=.lastTimestamp | tail -n 20 >&2; exit 1; }}"
    )
