"""Objects of the cluster, applied and waited for."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import Any

import yaml
from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.kubernetes import Manifest, Objects
from operations.change import any_changes, will
from operations.workload import COMPLAINTS, KUBECTL


@operation()
def apply(
    path: str,
    written_by: OperationMeta,
    wait_for: str,
    seconds: int = 180,
    once_there: str = "",
    among_others: str = "",
) -> Generator[StringCommand, None, None]:
    """
    Apply a manifest on the node by server-side apply, and wait for what shows that it works.

    + path: the manifest
    + written_by: the operation that writes it; when that changes the file, so does this the cluster
    + wait_for: a command of kubectl that waits, such as "rollout status -n kube-flannel daemonset/kube-flannel-ds"
    + seconds: how long to wait for it
    + once_there: object that something else makes, to be waited for before that
    + among_others: the manifest's text, where others add to its objects; then these need to have it, and may have more
    """
    diff: list[str] | None = [] if any_changes([written_by]) else _difference(path, among_others)
    if diff is None:
        host.noop(f"{path} is what the cluster has")
        return
    will(f"apply {path}", diff)
    yield StringCommand(
        f"{KUBECTL} apply --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {shlex.quote(path)}"
    )
    if once_there:
        yield StringCommand(
            f"for i in $(seq {seconds // 2}); do {KUBECTL} get {once_there} >/dev/null 2>&1 && exit 0; sleep 2; done; "
            f"{KUBECTL} get {once_there} >&2; {KUBECTL} get pods -A -o wide >&2; exit 1"
        )
    yield StringCommand(
        f"{KUBECTL} {wait_for} --timeout={seconds}s || "
        f"{{ {{ {KUBECTL} get pods -A -o wide; {COMPLAINTS}; }} >&2; exit 1; }}"
    )


def _difference(path: str, among_others: str) -> list[str] | None:
    """What of it the cluster has otherwise, as far as that is known; None where it is applied."""
    if not among_others:
        found = host.get_fact(Manifest, path=path)
        return None if found["state"] == "applied" else found["diff"]
    live = host.get_fact(Objects, path=path)
    wanted = [each for each in yaml.safe_load_all(among_others) if each]
    same = len(live) == len(wanted) and all(has(each, own) for each, own in zip(live, wanted, strict=True))
    return None if same else []


def has(live: Any, wanted: Any) -> bool:
    """Whether a live value has all of a wanted one: every name of an object, every entry of a list in its place."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(name in live and has(live[name], each) for name, each in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(live, list) and len(live) == len(wanted)
        return same and all(has(each, own) for each, own in zip(live, wanted, strict=True))
    return bool(live == wanted)
