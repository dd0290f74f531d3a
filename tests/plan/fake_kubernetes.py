"""What the machines of fake_nodes.py know of the cluster's objects: manifests, kubelets' certificates, Nodes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from cluster.kubeadm import ROLE
from facts.kubelet import CERTIFICATE, CONFIG, KubeletServing, ServingRequests, SharedKubeletConfig
from facts.kubernetes import Addons, Manifest, MetricsCertificate, Objects, PodSubnets
from operations import addons, kubelet, kubernetes, verify, workload
from tests.plan.fake_nodes import ADMIN, KUBERNETES, Node, Refused, World, command, fact, like, pod_subnet


@fact(PodSubnets)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    nodes = {name: node.world.nodes[name].state["address"] for name in node.world.cluster["nodes"]}
    rows = [f"{name} {address} {node.world.cluster['subnets'][name]}" for name, address in nodes.items()]
    return "\n".join([*rows, "answered"])


@fact(Manifest, path="ANY_path")
@fact(Manifest, path="ANY_path", context="ANY_context")
def _(node: Node, path: str, context: str = "") -> str:
    if path not in node.files or (context and context not in node.files):
        return "absent"
    return "0" if node.world.cluster["applied"].get(path) == node.sha256(path) else "+what differs\n1"


@fact(Objects, path="ANY_path")
def _(node: Node, path: str) -> str:
    """The operator adds to what it is given: all that it takes when nothing is said."""
    if path not in node.files or node.world.cluster["applied"].get(path) != node.sha256(path):
        return ""
    (document,) = yaml.safe_load_all(node.files[path]["text"])
    document["spec"] |= {"variant": "Calico"}
    document["spec"]["calicoNetwork"]["ipPools"][0] |= {"blockSize": 26, "allowedUses": ["Workload", "Tunnel"]}
    return json.dumps(document)


@fact(Addons, directory="ANY_directory")
def _(node: Node, directory: str) -> str:
    inside = [path.removeprefix(f"{directory}/") for path in node.files if path.startswith(f"{directory}/")]
    return "\n".join(name.removesuffix(".yaml") for name in inside if name.endswith(".yaml"))


@fact(MetricsCertificate)
def _(node: Node) -> str:
    return "valid" if "metrics-server" in node.world.cluster["applied"] else "absent"


@fact(KubeletServing)
def _(node: Node) -> str:
    if CONFIG not in node.files:
        return "none"
    if "serverTLSBootstrap: true" not in node.files[CONFIG]["text"]:
        return "own"
    return "authority" if CERTIFICATE in node.files else "waiting"


@fact(SharedKubeletConfig)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return ""
    row = {"metadata": {"name": "kubelet-config"}, "data": {"kubelet": node.world.cluster["kubelet"]}}
    return json.dumps({"items": [{"metadata": {"name": "kube-proxy"}, "data": {}}, row]})


@fact(ServingRequests)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return ""
    return json.dumps({"items": list(node.world.cluster.get("requests", {}).values())})


@command(rf"{kubernetes.KUBECTL} apply --server-side .* -f (?P<path>\S+)")
def _(node: Node, path: str) -> None:
    node.api()
    node.world.cluster["applied"][path] = node.sha256(path)


@command(like(addons.apply_script("ANY_path", "")))
@command(like(addons.apply_script("ANY_path", "", partial=True)))
@command(like(addons.apply_script("ANY_path", "ANY_context")))
def _(node: Node, path: str, context: str = "") -> None:
    node.api()
    if context and context not in node.files:
        raise Refused(f"error: stat {context}: no such file or directory")
    node.world.cluster["applied"][path] = node.sha256(path)


@command(like(addons.get_script("ANY_path", "", "")), "read")
@command(like(addons.get_script("ANY_path", "ANY_context", "")), "read")
@command(like(addons.get_script("ANY_path", "", "apiservice v1beta1.metrics.k8s.io")), "read")
def _(node: Node, path: str, context: str = "") -> str:
    """The objects of a manifest; pods work at once."""
    node.api()
    found = [each for each in yaml.safe_load_all(node.files[path]["text"]) if each]
    return json.dumps({"kind": "List", "items": [{**each, "status": working(each)} for each in found]})


def working(item: dict[str, Any]) -> dict[str, Any]:
    wanted = (item.get("spec") or {}).get("replicas", 1)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), wanted)
    return {"observedGeneration": 1, **counts}


@command(like(addons.certificate_script()))
def _(node: Node) -> None:
    node.api()
    node.world.cluster["applied"]["metrics-server"] = "a certificate"


@command(like(kubelet.SWITCH))
def _(node: Node) -> None:
    node.write(CONFIG, node.files[CONFIG]["text"] + kubelet.LINE + "\n")
    node.start_kubelet()


@command(rf"{kubernetes.KUBECTL} patch configmap kubelet-config -n kube-system --type=merge --patch-file=/dev/stdin")
def _(node: Node, stdin: str) -> None:
    node.api()
    node.world.cluster["kubelet"] = json.loads(stdin)["data"]["kubelet"]


@command(rf"{kubernetes.KUBECTL} certificate approve (?P<names>.+)")
def _(node: Node, names: str) -> None:
    node.api()
    for name in names.split():
        request = node.world.cluster["requests"].pop(name)
        owner = node.world.nodes[request["spec"]["username"].removeprefix("system:node:")]
        owner.write(CERTIFICATE, f"signed by the cluster's CA for {owner.name}\n", "600")


@command(rf"{kubernetes.KUBECTL} (rollout status|wait) .* --timeout=\d+s \|\| .*", "read")
def _(node: Node) -> None:
    node.api()


@command(rf"for i in .*; do {kubernetes.KUBECTL} get (?P<what>\S+) >/dev/null .*; exit 1", "read")
def _(node: Node, what: str) -> None:
    node.api()
    if f"{KUBERNETES}/addons/tigera-operator.yaml" not in node.world.cluster["applied"]:
        raise Refused(f"the server doesn't have a resource type {what!r}")


@command(like(f"{verify.KUBECTL} get nodes -o json"), "read")
def get_nodes(node: Node) -> str:
    node.api()
    items = [
        {
            "metadata": {"name": name, "labels": dict.fromkeys(marks(node.world, name)["labels"], "")},
            "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in marks(node.world, name)["taints"]]},
            "status": {"conditions": [node.world.nodes[name].readiness()]},
        }
        for name in node.world.cluster["nodes"]
    ]
    return json.dumps({"items": items})


def marks(world: World, name: str) -> dict[str, list[str]]:
    """Labels and taints of a Node: those that kubeadm has given it, until somebody changes them."""
    own = [f"{ROLE}control-plane"] if world.cluster["nodes"][name] == "control-plane" else []
    taints = own if world.cluster["tainted"] else []
    found: dict[str, list[str]] = world.cluster["roles"].setdefault(name, {"labels": own, "taints": [*taints]})
    return found


@command(r"(?P<commands>\S+ --kubeconfig \S+ --request-timeout=30s (label|taint) .*)")
def _(node: Node, commands: str) -> None:
    node.api()
    for each in commands.split(" && "):
        words = [word for word in each.split()[3:] if word != "--overwrite"]
        kind, _, name, key = words
        found = marks(node.world, name)[f"{kind}s"]
        if key.endswith("-"):
            found.remove(key.partition(":")[0])
        else:
            found.append(key.partition(":")[0].rstrip("="))


@command(like(f"{verify.KUBECTL} get pods -A -o json"), "read")
@command(like(f"{workload.KUBECTL} -n {workload.NAMESPACE} get pods -o json"), "read")
def _(node: Node) -> str:
    node.api()
    items = [
        {
            "metadata": {"namespace": "probe", "name": f"probe-{name}"},
            "spec": {"nodeName": name},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"ready": True}],
                "podIPs": [{"ip": pod_subnet(number).replace(".0/24", ".2")}],
            },
        }
        for number, name in enumerate(node.world.cluster["nodes"])
    ]
    return json.dumps({"items": items})


@command(like(f"{verify.KUBECTL} --server=https://ANY_endpoint get --raw=/readyz || true"), "read")
def _(node: Node, endpoint: str) -> str:
    return "ok" if node.world.leads_to(endpoint, node) else ""


@command(like(f"{workload.KUBECTL} -n {workload.NAMESPACE} get service probe -o json"), "read")
def _(node: Node) -> str:
    node.api()
    return json.dumps({"spec": {"clusterIPs": ["10.96.0.99", "fd00:10:96::99"]}})


@command(rf"\{{ printf '%s\\n' (?P<words>.*); {workload.KUBECTL} .* get events .*; \}} >&2; exit 1", "read")
def _(node: Node, words: str) -> None:
    raise Refused(shlex.split(words)[0])


@command(rf"{workload.KUBECTL} apply -f - .*", "probe")
@command(rf"{workload.KUBECTL} -n {workload.NAMESPACE} rollout status .*", "probe")
@command(rf"{workload.KUBECTL} delete namespace {workload.NAMESPACE} .*", "probe")
@command(rf".*{workload.KUBECTL} -n {workload.NAMESPACE} exec .* /agnhost connect .*", "probe")
def _(node: Node) -> None:
    node.api()
