"""Images that containerd has for the kubelet."""

from __future__ import annotations

from typing import Literal, TypedDict, cast

from pyinfra.api import FactBase

State = Literal["absent", "unreachable", "running"]


class ImagesState(TypedDict):
    state: State
    images: dict[str, str]


class Images(FactBase[ImagesState]):
    """References and digests in containerd's namespace `k8s.io`, which is the one the kubelet sees.

    ::

        {"state": "running", "images": {"registry.k8s.io/pause:3.10.2": "sha256:278f..."}}

    `state` is "absent" without a containerd, and "unreachable" when there is one that does not answer.
    """

    @staticmethod
    def default() -> ImagesState:
        return ImagesState(state="absent", images={})

    def command(self) -> str:
        return (
            "if ! command -v ctr >/dev/null; then echo absent; "
            "elif l=$(timeout 20 ctr -n k8s.io images ls 2>/dev/null); then echo running; "
            "echo \"$l\" | awk 'NR > 1 {print $1, $3}'; else echo unreachable; fi"
        )

    def process(self, output: list[str]) -> ImagesState:
        state = output[0].strip()
        if state not in ("absent", "unreachable", "running"):
            raise ValueError(f"not an answer of this fact: {state!r}")
        rows = [line.split() for line in output[1:]]
        images = {row[0]: row[1] for row in rows if len(row) == 2}
        return ImagesState(state=cast("State", state), images=images)
