"""What the machines of fake_nodes.py know of container runtimes and their images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from cluster.pieces import NODE_DIRECTORY
from cluster.runtime import PACKAGES, SOCKETS, UNITS
from facts import crio as crio_facts
from facts.containerd import Images
from facts.runtime import SECOND, Installed, Runtime
from operations import containerd, crio
from tests.plan.fake_nodes import RUNTIMES, Node, Refused, command, fact, like


def own_answer(name: str) -> Callable[[Node], str]:
    """A runtime's own answer, from the configuration with which it was started."""

    def answer(node: Node) -> str:
        program, _ = RUNTIMES[name]
        kubelet = "kubelet systemd\n" if "/var/lib/kubelet/config.yaml" in node.files else ""
        if not node.has(program):
            return f"{kubelet}absent"
        if not node.active(UNITS[name]) or not node.has("crictl"):
            return f"{kubelet}unreachable\nsh: 1: crictl: not found"
        text = node.units[UNITS[name]]["config"]
        pause = re.search(r'(?:sandbox|sandbox_image|pause_image) = "(\S+)"', text)
        image = pause[1] if pause else "registry.k8s.io/pause:3.6"
        if name == "cri-o":
            driver = re.search(r'cgroup_manager = "(\S+)"', text)[1]
            second = f'[crio.runtime]\ncgroup_manager = "{driver}"\n[crio.image]\npause_image = "{image}"'
            return f"{kubelet}running\n{{}}\n{SECOND}\n{second}"
        said = re.findall(r"SystemdCgroup = (\w+)", text)
        options = {"SystemdCgroup": said[-1:] == ["true"]}
        registries = re.search(r'config_path = "(\S+)"', text)
        config = {
            "containerd": {"defaultRuntimeName": "runc", "runtimes": {"runc": {"options": options}}},
            "sandboxImage": image, "registry": {"configPath": registries[1] if registries else ""},
        }  # fmt: skip
        return f"{kubelet}running\n{json.dumps({'config': config})}\n{SECOND}"

    return answer


for _name in RUNTIMES:
    fact(Runtime, runtime=_name, socket=SOCKETS[_name])(own_answer(_name))


def installed(name: str) -> Callable[[Node], str]:
    def answer(node: Node) -> str:
        there = [each for each in PACKAGES[name] if each in node.state["packages"]]
        lines = [f"package {each} {node.state['packages'][each]['version']} installed" for each in there]
        if f"/etc/systemd/system/{UNITS[name]}" in node.files:
            lines.append("unit")
        if kubelet := node.files.get("/var/lib/kubelet/instance-config.yaml"):
            lines.append(f"socket {kubelet['text'].strip().partition('unix://')[2]}")
        return "\n".join(lines)

    return answer


for _name in RUNTIMES:
    fact(Installed, runtime=_name)(installed(_name))


@fact(crio_facts.Images)
def _(node: Node) -> str:
    if not node.has("crio"):
        return "absent"
    if not node.active("crio.service"):
        return "unreachable"
    rows = [
        {"repoTags": [name], "repoDigests": [f"{name.rpartition(':')[0]}@{digest}"]}
        for name, digest in node.state["images"].items()
    ]
    return f"running\n{json.dumps({'images': rows})}"


@fact(Images)
def _(node: Node) -> str:
    if not node.has("containerd"):
        return "absent"
    if not node.active("containerd.service"):
        return "unreachable"
    return "\n".join(["running", *(f"{name} {digest}" for name, digest in node.state["images"].items())])


@command(like(containerd.import_script("ANY_seconds")))  # type: ignore[arg-type]
def _(node: Node, seconds: str, stdin: str) -> None:
    if not node.active("containerd.service"):
        raise Refused("ctr: failed to dial /run/containerd/containerd.sock")
    for line in stdin.splitlines():
        index, blobs = line.split("\t")
        for blob in blobs.split():
            if f"{NODE_DIRECTORY}/images/{blob}" not in node.files:
                raise Refused(f"tar: {blob}: Cannot stat: No such file or directory")
        (row,) = json.loads(index)["manifests"]
        node.state["images"][row["annotations"]["io.containerd.image.name"]] = row["digest"]


@command(like(crio.copy_script("ANY_seconds")))  # type: ignore[arg-type]
def _(node: Node, seconds: str, stdin: str) -> None:
    if not node.has("skopeo") or not node.active("crio.service"):
        raise Refused("sh: 1: skopeo: not found")
    for line in stdin.splitlines():
        name, index = line.split("\t")
        (row,) = json.loads(index)["manifests"]
        if f"{NODE_DIRECTORY}/images/blobs/{row['digest'].replace(':', '/')}" not in node.files:
            raise Refused(f"open {row['digest']}: no such file or directory")
        node.state["images"][name] = row["digest"]
