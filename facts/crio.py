"""Images that CRI-O has for the kubelet."""

from __future__ import annotations

import json

from pyinfra.api import FactBase

from cluster.runtime import SOCKETS
from facts.containerd import ImagesState


class Images(FactBase[ImagesState]):
    """References and digests of CRI-O's images, by crictl; the same as `facts.containerd.Images` of containerd's."""

    @staticmethod
    def default() -> ImagesState:
        return ImagesState(state="absent", images={})

    def command(self) -> str:
        endpoint = f"unix://{SOCKETS['cri-o']}"
        return (
            "if ! command -v crio >/dev/null; then echo absent; "
            f"elif l=$(timeout 20 crictl --runtime-endpoint {endpoint} --image-endpoint {endpoint} images -o json "
            "2>/dev/null); then echo running; printf '%s\\n' \"$l\"; else echo unreachable; fi"
        )

    def process(self, output: list[str]) -> ImagesState:
        state, *rest = output
        if state == "absent":
            return self.default()
        if state == "unreachable":
            return ImagesState(state="unreachable", images={})
        if state != "running":
            raise ValueError(f"not an answer of this fact: {state!r}")
        images = {}
        for row in json.loads("\n".join(rest))["images"]:
            digests = dict(each.split("@") for each in row["repoDigests"])
            for tag in row["repoTags"]:
                images[tag] = digests.get(tag.rpartition(":")[0], "")
        return ImagesState(state="running", images=images)
