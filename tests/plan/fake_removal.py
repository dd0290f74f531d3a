"""What the machines of fake_nodes.py know of nodes that leave: drained, removed, reset, and what remains of them."""

from __future__ import annotations

import json
import re
import shlex

from cluster.networks import CNI_FILES
from cluster.pieces import NODE_DIRECTORY
from facts.leftovers import Leftovers
from facts.pods import MARK, NodePods
from facts.running import Running
from facts.traces import Others, Remains, Traces
from operations import kubeadm as kubeadm_operations
from tests.plan.fake_nodes import KUBERNETES, Node, Refused, command, fact


@fact(Leftovers)
def _(node: Node) -> str:
    lines = ["ours"] if any(path.startswith(NODE_DIRECTORY) for path in node.files) else []
    places = {"/etc/cni/net.d/": "cni", "/var/lib/etcd/": "etcd"}
    lines += [f"{kind} {path.removeprefix(at)}" for at, kind in places.items() for path in node.files if at in path]
    return "\n".join([*lines, *(f"link {name}" for name in node.state["links"])])


@fact(NodePods, node="ANY_name")
def _(node: Node, name: str) -> str:
    node.api()
    cluster = node.world.cluster
    if name not in cluster["nodes"]:
        return ""
    pods = [each for each in cluster["pods"] if each["spec"]["nodeName"] == name]
    cordoned = "true" if name in cluster["cordoned"] else ""
    mark = cluster.get("drains", {}).get(name, "")
    return f"{name} {cordoned} {mark}\n{json.dumps({'items': pods})}\n{json.dumps({'items': cluster['budgets']})}"


@fact(Running)
def _(node: Node) -> str:
    lines = ["kubelet"] if node.active("kubelet.service") else []
    if node.runtime and node.has("crictl"):
        named = {each: dict(zip(("namespace", "name"), name.split("/"), strict=True))
                 for each, name in node.state["pods"].items()}  # fmt: skip
        items = [{"id": each, "state": "SANDBOX_READY", "metadata": name} for each, name in named.items()]
        lines += ["pods", json.dumps({"items": items})]
    return "\n".join(lines)


@fact(Traces, paths=("ANY_paths",))
def _(node: Node, paths: str) -> str:
    there = [each for each in shlex.split(paths) if any(f"{path}/".startswith(f"{each}/") for path in node.files)]
    return "\n".join(there)


@fact(Remains, subnets=("ANY_subnet",))
def _(node: Node, subnet: str) -> str:
    return "\n".join(f"link {name}" for name in node.state["links"])


@fact(Others)
def _(node: Node) -> str:
    return str(node.state.get("others", ""))


@command(r"timeout \d+ kubeadm reset -f .*")
@command(r"if command -v kubeadm >/dev/null; then timeout \d+ kubeadm reset -f --kubeconfig /nonexistent .*")
def _(node: Node) -> None:
    for path in [each for each in node.files if each.startswith((f"{KUBERNETES}/", "/var/lib/etcd"))]:
        del node.files[path]
    node.unit("kubelet.service")["active"] = False
    node.state["pods"] = {}


@command(rf"rm -rf /etc/cni/net.d/(?P<name>{'|'.join(map(re.escape, CNI_FILES.values()))}) /run/flannel .*")
def _(node: Node, name: str) -> None:
    node.files.pop(f"/etc/cni/net.d/{name}", None)


@command(r".* member list.* member remove .* delete node (?P<name>\S+) .*")
def _(node: Node, name: str) -> None:
    node.api()
    node.world.cluster["nodes"].pop(name, None)


DRAIN = rf"{kubeadm_operations.KUBECTL} --server=https://\S+ drain (?P<name>\S+) .* --timeout=\d+s"


@command(DRAIN + r"( 2>&1; echo \$\?)?")
def _(node: Node, name: str) -> str:
    """Pods leave at once, or are held for good by a budget that is told so."""
    node.api()
    cluster = node.world.cluster
    cluster["cordoned"] = sorted({*cluster["cordoned"], name})
    if any(each["status"]["disruptionsAllowed"] < 1 for each in cluster["budgets"]):
        return f"error: unable to drain node {name!r}: global timeout reached\n1"
    cluster["pods"] = [each for each in cluster["pods"] if each["spec"]["nodeName"] != name]
    return f"node/{name} drained\n0"


@command(
    rf"{kubeadm_operations.KUBECTL} --server=https://\S+ annotate --overwrite node (?P<name>\S+) "
    rf"{MARK}(?P<mark>\S+) >/dev/null"
)
def _(node: Node, name: str, mark: str) -> None:
    node.api()
    drains = node.world.cluster.setdefault("drains", {})
    drains.pop(name, None)
    if mark != "-":
        drains[name] = mark.removeprefix("=")


@command(rf"{kubeadm_operations.KUBECTL} --server=https://\S+ uncordon (?P<name>\S+)")
def _(node: Node, name: str) -> None:
    node.api()
    node.world.cluster["cordoned"] = [each for each in node.world.cluster["cordoned"] if each != name]


@command(r'.* member list\) && .* == "https://(?P<address>\S+):2380" .* member remove "\$id"; }')
def _(node: Node, address: str) -> None:
    node.api()
    owners = [each.name for each in node.world.nodes.values() if each.addresses[0] == address]
    node.world.cluster["left"] += owners


@command(rf"for i in [\d ]+; do {kubeadm_operations.KUBECTL} --server=https://\S+ delete node (?P<name>\S+) .*")
def _(node: Node, name: str) -> None:
    node.api()
    cluster = node.world.cluster
    if cluster["nodes"].pop(name) == "control-plane" and name not in cluster["left"]:
        raise Refused("its etcd member would be left behind")
    cluster["left"] = [each for each in cluster["left"] if each != name]


@command(r"timeout 90 systemctl stop kubelet.service")
def _(node: Node) -> None:
    node.unit("kubelet.service")["active"] = False


@command(r"printf '%s\\n' (?P<ids>.*) \| timeout \d+ xargs .* crictl stopp .* && sync")
def _(node: Node, ids: str) -> None:
    if node.active("kubelet.service"):
        raise Refused("the kubelet begins again what is ended")
    for each in ids.split():
        del node.state["pods"][each]


@command(r"(?P<program>ip6?tables-nft)-save -c \| grep -vE .* \| (?P=program)-restore -c")
@command(r"ip route flush root (?P<program>\S+)")
def _(node: Node, program: str) -> None:
    pass


@command(r"! ip link show (?P<name>\S+) >/dev/null 2>&1 \|\| ip link delete (?P=name)")
def _(node: Node, name: str) -> None:
    node.state["links"].remove(name)


@command(r"for p in (?P<paths>.+?); do rm -rf .*; systemctl daemon-reload")
def _(node: Node, paths: str) -> None:
    for path in list(node.files):
        if any(f"{path}/".startswith(f"{each}/") for each in shlex.split(paths)):
            del node.files[path]
