"""What the machines of fake_nodes.py know of kubeadm, and of the control plane that it makes."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import yaml

from cluster.endpoint import Endpoint
from facts.etcd import Leader, Members
from facts.kubeadm import ClusterConfig, JoinInfo, KubeadmNode
from facts.restore import MANIFESTS
from operations.kubeadm import answers, ready
from tests.plan import fake_kubernetes
from tests.plan.fake_nodes import ADMIN, CA, ETCD_DATA, KUBERNETES, Node, Refused, command, fact, kubeadm, like

ETCD_KEY = f"{KUBERNETES}/pki/etcd/healthcheck-client.key"


@fact(Leader)
def _(node: Node) -> str:
    if ETCD_KEY not in node.files or f"{MANIFESTS}/etcd.yaml" not in node.files or not node.has("etcdctl"):
        return "absent"
    return "unknown" if node.state.get("quorum_lost") else "known"


@fact(Members)
def _(node: Node) -> str:
    if ETCD_KEY not in node.files or not node.has("etcdctl"):
        return "absent"
    if node.state.get("quorum_lost") or node.state.get("slow_disk"):
        return "unreachable"
    if f"kube-system/etcd-{node.name}" not in node.state["pods"].values():
        return "unreachable"
    nodes, left = node.world.cluster["nodes"], node.world.cluster["left"]
    names = [name for name, role in nodes.items() if role == "control-plane"]
    names = [name for name in [*names, *node.world.cluster.get("ghosts", ())] if name not in left]
    urls = {
        name: f"https://{Endpoint(ipaddress.ip_address(node.world.nodes[name].addresses[0]), 2380)}" for name in names
    }
    members = [
        {"ID": str(number), "name": name, "clientURLs": [name], "peerURLs": [urls[name]]}
        for number, name in enumerate(names)
    ]
    unhealthy = node.world.cluster.get("unhealthy", ())
    health = [
        {"endpoint": name, "health": name not in unhealthy and not node.world.nodes[name].state["dead"]}
        for name in names
    ]
    return "\n".join(["running", json.dumps({"members": members}), json.dumps(health)])


@fact(KubeadmNode)
def _(node: Node) -> str:
    shown = re.compile(rf"{KUBERNETES}/(manifests/[^/]+\.yaml|[^/]+\.conf|pki/ca\.crt)")
    lines = [f"file {found[1]}" for path in node.files if (found := shown.fullmatch(path))]
    if ETCD_DATA in node.files:
        lines.append("etcd")
    if node.state.get("busy"):
        lines.append("busy")
    if CA in node.files:
        lines.append(f"hash {node.sha256(CA)}")
    return "\n".join(lines)


@fact(ClusterConfig)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return "none"
    try:
        return f"initialised\n{fake_kubernetes.get_nodes(node)}"
    except Refused:
        return "unreachable"


@fact(JoinInfo)
def _(node: Node) -> str:
    return "\n".join(f"token {token.split('.')[0]}" for token in node.world.cluster["tokens"])


def cri_socket(document: dict[str, Any]) -> str:
    return document["nodeRegistration"]["criSocket"].removeprefix("unix://")


@command(kubeadm("init phase certs ca"))
def _(node: Node) -> None:
    if not node.has("kubeadm"):
        raise Refused("timeout: failed to run command 'kubeadm': No such file or directory")
    node.write(CA, "the cluster's CA\n")


@command(kubeadm("init --skip-token-print"))
def _(node: Node, stdin: str) -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all(stdin)}
    node.refuse_unprepared(control_plane=True, socket=cri_socket(documents["InitConfiguration"]))
    endpoint = documents["ClusterConfiguration"]["controlPlaneEndpoint"]
    if node.world.cluster["nodes"] or not node.world.leads_to(endpoint, node):
        raise Refused("a second cluster is started" if node.world.cluster["nodes"] else f"{endpoint}: no route to host")
    node.world.cluster["endpoint"] = endpoint
    node.world.cluster["tainted"] = documents["InitConfiguration"]["nodeRegistration"].get("taints") != []
    node.world.cluster["configuration"] = yaml.safe_dump(documents["ClusterConfiguration"])
    kubelets = {key: value for key, value in documents["KubeletConfiguration"].items() if key != "kind"}
    node.world.cluster["kubelet"] = yaml.safe_dump(kubelets)
    node.world.cluster["proxy"] = yaml.safe_dump(documents["KubeProxyConfiguration"])
    node.become("control-plane", cri_socket(documents["InitConfiguration"]))
    node.world.cluster["tokens"] = [each["token"] for each in documents["InitConfiguration"]["bootstrapTokens"]]


@command(kubeadm("token create"))
def _(node: Node, stdin: str) -> None:
    node.api()
    (document,) = (each for each in yaml.safe_load_all(stdin) if each["kind"] == "InitConfiguration")
    node.world.cluster["tokens"] += [each["token"] for each in document["bootstrapTokens"]]


@command(kubeadm("init phase upload-certs --upload-certs --skip-certificate-key-print"))
def _(node: Node, stdin: str) -> None:
    node.api()
    (document,) = (each for each in yaml.safe_load_all(stdin) if each["kind"] == "InitConfiguration")
    node.world.cluster["certificate_key"] = document["certificateKey"]


@command(kubeadm("join"))
def _(node: Node, stdin: str) -> None:
    document, cluster = yaml.safe_load(stdin), node.world.cluster
    discovery, control_plane = document["discovery"]["bootstrapToken"], document.get("controlPlane")
    node.refuse_unprepared(control_plane=bool(control_plane), socket=cri_socket(document))
    seed = next(node.world.nodes[name] for name in cluster["nodes"])
    wrong = {
        "no route to host": not node.world.leads_to(discovery["apiServerEndpoint"], node),
        "the token is unknown": discovery["token"] not in cluster["tokens"],
        "the CA is another": discovery["caCertHashes"] != [f"sha256:{seed.sha256(CA)}"],
        "the certificate key is another": control_plane
        and control_plane["certificateKey"] != cluster["certificate_key"],
        "the name is taken": node.name in cluster["nodes"],
    }
    if any(wrong.values()):
        raise Refused(", ".join(what for what, so in wrong.items() if so))
    node.become("control-plane" if control_plane else "worker", cri_socket(document))
    if directory := document.get("patches", {}).get("directory"):
        patch = f"{directory}/kubeletconfiguration+merge.yaml"
        if patch not in node.files:
            raise Refused(f"{patch}: no such file or directory")
        path = "/var/lib/kubelet/config.yaml"
        node.write(path, node.files[path]["text"] + node.files[patch]["text"])


@command(like(ready("ANY_endpoint", seconds=240)), "read")  # type: ignore[arg-type]
@command(like(ready("ANY_endpoint")), "read")  # type: ignore[arg-type]
def _(node: Node, endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if node.addresses[0] != host.strip("[]") or port != "6443" or ADMIN not in node.files:
        raise Refused(f"https://{endpoint}/readyz did not answer")


@command(like(answers("ANY_endpoint")), "read")  # type: ignore[arg-type]
def _(node: Node, endpoint: str) -> None:
    if CA not in node.files or not node.world.leads_to(endpoint, node):
        raise Refused(f"https://{endpoint}/readyz did not answer as this cluster")


@command(f"cat {ADMIN}", "read")
def _(node: Node) -> str:
    return node.files[ADMIN]["text"]
