"""What the machines of fake_nodes.py know of settings that change: what kubeadm would write, and what it does write."""

from __future__ import annotations

import base64
import json
import re
from ipaddress import ip_address
from typing import Any

import yaml

from cluster.certificates import names as names_of
from cluster.reconfiguration import FLAGS, MANIFESTS, PHASES
from cluster.topology import Node as Address
from facts.kubernetes import kubectl
from facts.reconfigure import ClusterInfo, NodeFiles, Servers, SharedConfiguration
from operations import reconfigure
from operations.endpoint import KUBELET_CONF
from tests.plan import fake_certificates
from tests.plan.fake_nodes import ADMIN, CA, CONFIG, Node, Refused, command, fact, kubeadm, like

ANYONE = Address("ANY_name", ip_address("10.0.0.1"))
SECTIONS = {
    "kube-apiserver": "apiServer",
    "kube-controller-manager": "controllerManager",
    "kube-scheduler": "scheduler",
}


def documents(stdin: str) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(stdin)}


def manifest(program: str, cluster: dict[str, Any], node: Node) -> str:
    """A static pod by a ClusterConfiguration; of etcd, this names whoever was there when it was written."""
    section = cluster["etcd"]["local"] if program == "etcd" else cluster.get(SECTIONS[program], {})
    arguments = [f"--{each['name']}={each['value']}" for each in section.get("extraArgs", ())]
    members = [f"--initial-cluster={node.name}"] if program == "etcd" else []
    container = {"name": program, "command": [program, *arguments, *members]}
    return yaml.safe_dump({"kind": "Pod", "spec": {"containers": [container]}})


def kept_endpoint(node: Node) -> str:
    found: str = yaml.safe_load(node.world.cluster["configuration"])["controlPlaneEndpoint"]
    return found


def kubelet(document: dict[str, Any]) -> str:
    return yaml.safe_dump({key: value for key, value in document.items() if key != "kind"})


def encoded(side: str, path: str, text: str) -> str:
    return f"{side} {path} {base64.b64encode(text.encode()).decode()}"


@fact(NodeFiles, control_plane=True)
@fact(NodeFiles, control_plane=True, patches="ANY_path")
@fact(NodeFiles, control_plane=False)
@fact(NodeFiles, control_plane=False, patches="ANY_path")
def _(node: Node, stdin: str, path: str = "") -> str:
    if CONFIG not in node.files:
        return ""
    found = documents(stdin)
    lines = [encoded("live", CONFIG, node.files[CONFIG]["text"])]
    lines.append(encoded("wanted", CONFIG, kubelet(found["KubeletConfiguration"])))
    flags = "".join(f" --{each['name']}={each['value']}" for each in registered(found))
    lines += [encoded("live", FLAGS, node.files.get(FLAGS, {"text": f'A="{flags}"'})["text"])]
    lines += [encoded("wanted", FLAGS, f'A="{flags}"')]
    for program in PHASES if ADMIN in node.files else ():
        file = node.files[f"{MANIFESTS}/{program}.yaml"]
        if not file["text"].startswith("kind: Pod"):  # as init or join made it
            file["text"] = manifest(program, yaml.safe_load(node.world.cluster["configuration"]), node)
        lines.append(encoded("live", f"{MANIFESTS}/{program}.yaml", file["text"]))
        wanted = manifest(program, found["ClusterConfiguration"], node)
        lines.append(encoded("wanted", f"{MANIFESTS}/{program}.yaml", wanted))
    return "\n".join(lines)


def registered(found: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    arguments: list[dict[str, str]] = found["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"]
    return arguments


@fact(SharedConfiguration, kubelet="kubelet-config")
def _(node: Node, stdin: str) -> str:
    try:
        node.api()
    except Refused:
        return ""
    found, cluster = documents(stdin), node.world.cluster
    wanted = {
        "kubeadm-config": {"ClusterConfiguration": yaml.safe_dump(found["ClusterConfiguration"])},
        "kubelet-config": {"kubelet": kubelet(found["KubeletConfiguration"])},
        "kube-proxy": {
            "config.conf": yaml.safe_dump(found["KubeProxyConfiguration"]),
            "kubeconfig.conf": yaml.safe_dump({"server": found["ClusterConfiguration"]["controlPlaneEndpoint"]}),
        },
    }
    live = {
        "kubeadm-config": {"ClusterConfiguration": cluster["configuration"]},
        "kubelet-config": {"kubelet": cluster["kubelet"]},
        "kube-proxy": {
            "config.conf": cluster["proxy"],
            "kubeconfig.conf": yaml.safe_dump({"server": cluster.setdefault("proxy_server", kept_endpoint(node))}),
        },
    }
    said = "".join(
        "[dryrun] Attached object:\n"
        + yaml.safe_dump({"kind": "ConfigMap", "data": data, "metadata": {"name": name}}, sort_keys=False)
        for name, data in wanted.items()
    )
    items = [{"metadata": {"name": name}, "data": data} for name, data in live.items()]
    return f"said {base64.b64encode(said.encode()).decode()}\n{json.dumps({'items': items})}"


for _program in PHASES:

    @command(like(reconfigure.manifest_script(_program, ANYONE)))
    def _(node: Node, stdin: str, name: str, program: str = _program) -> None:
        node.api()
        node.write(
            f"{MANIFESTS}/{program}.yaml", manifest(program, documents(stdin)["ClusterConfiguration"], node), "600"
        )


@command(r"\{ curl -sf .* is not ready, so no other is restarted.*", "read")
def _(node: Node) -> None:
    node.api()


@command(like(reconfigure.kubelet_script(ANYONE)))
def _(node: Node, stdin: str, name: str) -> None:
    node.write(CONFIG, stdin)
    node.start_kubelet()


@command(kubeadm("init phase upload-config (?P<what>kubeadm|kubelet|all)"))
def _(node: Node, stdin: str, what: str) -> None:
    node.api()
    found = documents(stdin)
    if what in ("kubeadm", "all"):
        node.world.cluster["configuration"] = yaml.safe_dump(found["ClusterConfiguration"])
    if what in ("kubelet", "all"):
        node.world.cluster["kubelet"] = kubelet(found["KubeletConfiguration"])


@command(re.escape(reconfigure.proxy_script()))
def _(node: Node, stdin: str) -> None:
    node.api()
    found = documents(stdin)
    node.world.cluster["proxy"] = yaml.safe_dump(found["KubeProxyConfiguration"])
    node.world.cluster["proxy_server"] = found["ClusterConfiguration"]["controlPlaneEndpoint"]


# Ways to the API


def servers(node: Node) -> dict[str, str]:
    """Where this node's kubeconfigs lead, from when they are first asked for."""
    if CA not in node.files:
        return {}
    paths = [KUBELET_CONF, *([ADMIN] if ADMIN in node.files else [])]
    found: dict[str, str] = node.state.setdefault("servers", {path: kept_endpoint(node) for path in paths})
    return found


@fact(Servers)
def _(node: Node) -> str:
    return "\n".join(f"{path}:    server: https://{at}" for path, at in servers(node).items())


@command(r"umask 077; \( .* by https://(?P<new>\S+); its last words.*")
def _(node: Node, new: str) -> None:
    if not node.world.leads_to(new, node):
        raise Refused(f"https://{new}/readyz did not answer")
    planes = [each for each in node.world.nodes.values() if ADMIN in each.files]
    for each in planes:
        if new.rpartition(":")[0] not in names_of(fake_certificates.known(each)["ports"]["6443"]):
            raise Refused(f"the API server of {each.name} has no certificate for {new}")
    for path in servers(node):
        servers(node)[path] = new
        node.write(path, f"{path} of {node.name} leads to {new}\n", "600")
    node.start_kubelet()


@fact(ClusterInfo)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    at = node.world.cluster.setdefault("info", kept_endpoint(node))
    return yaml.safe_dump({"clusters": [{"cluster": {"server": f"https://{at}"}}]})


@command(rf"{re.escape(kubectl())} patch configmap cluster-info -n kube-public --type=merge --patch-file=/dev/stdin")
def _(node: Node, stdin: str) -> None:
    node.api()
    document = yaml.safe_load(yaml.safe_load(stdin)["data"]["kubeconfig"])
    node.world.cluster["info"] = document["clusters"][0]["cluster"]["server"].removeprefix("https://")
