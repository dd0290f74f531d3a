"""What the machines of fake_nodes.py know of an upgrade."""

from __future__ import annotations

from cluster import addons
from cluster.upgrade import static_pods
from facts.upgrade import MARK, Nodes, NodeVersions, RemovedApis
from operations import upgrade
from tests.plan.fake_nodes import ADMIN, Node, Refused, command, fact, like

KUBECTL = upgrade.KUBECTL


@fact(NodeVersions)
def _(node: Node) -> str:
    lines = [f"image {name} {image}" for name, image in node.state.get("static_pods", {}).items()]
    if node.active("kubelet.service"):
        lines.append(f"Kubernetes {node.state['running']}")
    return "\n".join(lines)


@fact(Nodes)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    if node.state.get("api_hangs"):
        return ""
    cluster = node.world.cluster
    rows = []
    for name in cluster["nodes"]:
        other = node.world.nodes[name]
        schedulable = "cordoned" if name in cluster["cordoned"] else "schedulable"
        mark = cluster.get("marks", {}).get(name, "")
        rows.append(f"{name} {other.state['running']} {other.readiness()['status']} {schedulable} {mark}")
    return "\n".join(rows)


@fact(RemovedApis)
def _(node: Node) -> str:
    return str(node.world.cluster.get("metrics", ""))


@command(rf"{KUBECTL} annotate --overwrite node (?P<name>\S+) {MARK}=(?P<mark>\S+) >/dev/null")
def _(node: Node, name: str, mark: str) -> None:
    node.api()
    node.world.cluster.setdefault("marks", {})[name] = mark


@command(like(upgrade.wait_for("ANY_name", "ANY_version", control_plane=True)), "read")
@command(like(upgrade.wait_for("ANY_name", "ANY_version", control_plane=False)), "read")
def _(node: Node, name: str, version: str) -> None:
    node.api()
    if node.world.nodes[name].state["running"] != version:
        raise Refused(f"{name} is not Ready with a kubelet {version}")


@command(like(upgrade.give_back("ANY_name", "cordoned")))
def unmark(node: Node, name: str) -> None:
    node.api()
    del node.world.cluster["marks"][name]


@command(like(upgrade.give_back("ANY_name", "schedulable")))
def _(node: Node, name: str) -> None:
    unmark(node, name)
    cluster = node.world.cluster
    cluster["cordoned"] = [each for each in cluster["cordoned"] if each != name]


def replaced(node: Node, version: str) -> None:
    """Static pods of this version run, by the kubeadm on disk, from images that were loaded."""
    if node.files["/usr/bin/kubeadm"]["text"].split()[-1] != version:
        raise Refused("the kubeadm is of another version")
    loaded = static_pods(name for name in node.state["images"] if "kube-" not in name or name.endswith(version))
    if missing := node.state["static_pods"].keys() - loaded.keys():
        raise Refused(f"images are missing: {missing}")
    node.state["static_pods"] = loaded
    node.write(f"{upgrade.COPIES.rstrip('*')}{node.world.clock}", "etcd's data\n", "600")
    node.write(ADMIN, f"renewed at {node.world.clock}\n", "600")
    node.world.cluster["upgraded"] = version
    # The last makes add-ons anew.
    if all(each.state.get("static_pods", loaded) == loaded for each in node.world.nodes.values()):
        node.world.cluster["applied"].pop(addons.manifest("coredns"), None)


@command(r"timeout \d+ sh -c 'while pgrep -x kubeadm .*")
def _(node: Node) -> None:
    node.state["busy"] = False


@command(like(f"rm -rf {upgrade.COPIES}"))
def _(node: Node) -> None:
    for path in [each for each in node.files if each.startswith(upgrade.COPIES.rstrip("*"))]:
        del node.files[path]


@command(r"timeout \d+ kubeadm upgrade apply (?P<version>\S+) -y( --patches=\S+)? >/dev/null")
def _(node: Node, version: str) -> None:
    node.api()
    replaced(node, version)


@command(r"timeout \d+ kubeadm upgrade node( --patches=\S+)? >/dev/null")
def _(node: Node) -> None:
    if node.state.get("busy"):
        raise Refused("another kubeadm is at work")
    if "upgraded" not in node.world.cluster:
        raise Refused("the cluster is of the old version: `kubeadm upgrade apply` comes first")
    if "static_pods" in node.state:
        replaced(node, node.world.cluster["upgraded"])


@command(r"systemctl daemon-reload && timeout 90 systemctl restart kubelet.service")
def _(node: Node) -> None:
    if node.name not in node.world.cluster["cordoned"]:
        raise Refused("its pods have not left it")
    node.start_kubelet()
