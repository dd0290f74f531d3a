"""Calico, as upstream's own manifests install it: which of them the bundle has, and what the settings make of them.

Environment of calico-node: https://docs.tigera.io/calico/latest/reference/configure-calico-node; the Installation:
https://docs.tigera.io/calico/latest/reference/installation/api.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from cluster.compatibility import parse, refusals
from cluster.lock import Lock
from cluster.settings import Settings

# What of upstream's release is in `files/` of the bundle; from 3.30 on the operator's CRDs are in a file of their own.
FILES = {"manifest": ("calico.yaml",), "operator": ("operator-crds.yaml", "tigera-operator.yaml")}
# Nodes find their own address by Kubernetes' from here on (https://github.com/projectcalico/calico, v3.22.0).
LEAST = "3.22"
# The dataplane of nftables (https://docs.tigera.io/calico/3.29/getting-started/kubernetes/nftables).
NFTABLES = "3.29"
# calico_encapsulation -> the Installation's word, `calico_backend`, and whether IPIP and VXLAN are on.
ENCAPSULATIONS = {
    "vxlan": ("VXLAN", "vxlan", "Never", "Always"),
    "ipip": ("IPIP", "bird", "Always", "Never"),
    "bgp": ("None", "bird", "Never", "Never"),
}
SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)
TYPHA = re.compile(r"^(?P<base>(?P<registry>[^/]+)/(?P<path>.+)/(?P<prefix>[^/:]*))typha:(?P<version>.+)$")


class Placement:
    """Where an operator's images are: registry, path, prefix and version, from the bundle's own names."""

    def __init__(self, found: re.Match[str]) -> None:
        self.registry, self.path, self.prefix = found["registry"], found["path"], found["prefix"]
        self.version = found["version"]


def placement(lock: Lock) -> Placement | None:
    """Of the images that an operator asks for, by calico/typha and calico/node beside it; None when there are none."""
    names = {image.name for image in lock.images}
    for name in sorted(names):
        if (found := TYPHA.match(name)) and f"{found['base']}node:{found['version']}" in names:
            return Placement(found)
    return None


def version(settings: Settings, lock: Lock, texts: Mapping[str, str]) -> str:
    """Calico's version by the tag of calico-node's image; empty when that cannot be told."""
    if settings.calico_installation == "operator":
        found = placement(lock)
        return found.version if found else ""
    for _, document in _documents(texts.get("calico.yaml", "")):
        if container := _calico_node(document):
            return str(container.get("image", "")).rpartition(":")[2]
    return ""


def problems(settings: Settings, lock: Lock, texts: Mapping[str, str]) -> list[str]:
    """Why the bundle cannot give the Calico that the settings ask for, in words; `texts` are its files by name."""
    wanted = FILES[settings.calico_installation]
    if lacking := [name for name in wanted if name not in texts and name != "operator-crds.yaml"]:
        return [_absent(settings, name) for name in lacking]
    if settings.calico_installation == "operator":
        if not any("name: installations.operator.tigera.io" in text for text in texts.values()):
            return [_absent(settings, "operator-crds.yaml")]
    elif unfit := _unfit(texts["calico.yaml"]):
        return [
            f"cni: is calico, and {unfit} in files/calico.yaml of the bundle. Add upstream's calico.yaml, unchanged."
        ]
    given = version(settings, lock, texts)
    try:
        parse(given)
    except ValueError:
        return [
            f"cni: is calico, and the bundle has no image of calico-node with a version (found {given or 'none'}). "
            f"Name {', '.join(wanted)} under `manifests` in bundle.yaml and build the bundle anew; docs/networks.md "
            "shows how."
        ]
    found = [f"cni: {each}" for each in refusals(settings.kubernetes_version, {"calico": given})]
    if parse(given) < parse(LEAST):
        found.append(
            f"cni: Calico {given} does not take a node's address from Kubernetes, so it might take the virtual IP; "
            f"take {LEAST} or later."
        )
    if settings.kube_proxy_mode == "nftables" and parse(given) < parse(NFTABLES):
        found.append(
            f"kube_proxy_mode: is nftables, for which Calico {given} has no dataplane; take iptables, or Calico "
            f"{NFTABLES} or later."
        )
    return found


def _absent(settings: Settings, name: str) -> str:
    return (
        f'cni: is calico, with calico_installation "{settings.calico_installation}", and the bundle has no file '
        f"files/{name}. Name it under `manifests` and `extra_files` in bundle.yaml and build the bundle anew; "
        "docs/networks.md shows how."
    )


def _unfit(text: str) -> str:
    documents = [document for _, document in _documents(text)]
    if not any(_calico_node(document) for document in documents):
        return "there is no DaemonSet calico-node"
    return "" if any(_is_configuration(document) for document in documents) else "there is no ConfigMap calico-config"


def manifest(text: str, settings: Settings, given: str) -> str:
    """Upstream's calico.yaml, of version `given`, with the settings in it; what they do not concern stays as it is."""
    parts = SEPARATOR.split(text)
    for at, document in _documents(text):
        if _is_configuration(document):
            document["data"]["calico_backend"] = ENCAPSULATIONS[settings.calico_encapsulation][1]
        elif container := _calico_node(document):
            _configure(container, settings, given)
        else:
            continue
        parts[at] = "\n" + yaml.safe_dump(document, sort_keys=False)
    return "---".join(parts)


def _configure(container: dict[str, Any], settings: Settings, given: str) -> None:
    _, backend, ipip, vxlan = ENCAPSULATIONS[settings.calico_encapsulation]
    own = {
        "CALICO_IPV4POOL_CIDR": str(settings.pod_subnet),
        "CALICO_IPV4POOL_IPIP": ipip,
        "CALICO_IPV4POOL_VXLAN": vxlan,
        "IP": "autodetect",
        # Any other way may find the virtual IP, on a host that carries it.
        "IP_AUTODETECTION_METHOD": "kubernetes-internal-ip",
        "FELIX_BPFENABLED": "false",
    }
    if parse(given) >= parse(NFTABLES):
        own["FELIX_NFTABLESMODE"] = "Enabled" if settings.kube_proxy_mode == "nftables" else "Disabled"
    kept = [each for each in container["env"] if each["name"] not in own]
    container["env"] = kept + [{"name": name, "value": value} for name, value in own.items()]
    if backend == "vxlan":  # there is no BIRD to ask
        for probe in ("livenessProbe", "readinessProbe"):
            command = container[probe]["exec"]["command"]
            container[probe]["exec"]["command"] = [each for each in command if each.lstrip("-")[:5] != "bird-"]


def _documents(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The documents that are changed, by their places: others are big, and hold what PyYAML does not read."""
    changed = re.compile(r"^kind: *[\"']?(ConfigMap|DaemonSet)[\"']? *$", re.MULTILINE)
    return [(at, yaml.safe_load(part)) for at, part in enumerate(SEPARATOR.split(text)) if changed.search(part)]


def _is_configuration(document: Mapping[str, Any]) -> bool:
    named = document["kind"] == "ConfigMap" and document["metadata"]["name"] == "calico-config"
    return named and "calico_backend" in document.get("data", {})


def _calico_node(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The container calico-node of the DaemonSet of that name."""
    if document["kind"] != "DaemonSet" or document["metadata"]["name"] != "calico-node":
        return None
    found: list[dict[str, Any]] = document["spec"]["template"]["spec"]["containers"]
    return next((each for each in found if each["name"] == "calico-node"), None)


def installation(settings: Settings, at: Placement) -> str:
    """What the operator is to install, as YAML."""
    encapsulation, backend, *_ = ENCAPSULATIONS[settings.calico_encapsulation]
    pool = {
        "cidr": str(settings.pod_subnet),
        "encapsulation": encapsulation,
        "natOutgoing": "Enabled",
        "nodeSelector": "all()",
    }
    placed = {"registry": f"{at.registry}/"}
    placed |= {"imagePath": at.path} if at.path != "calico" else {}
    placed |= {"imagePrefix": at.prefix} if at.prefix else {}
    document = {
        "apiVersion": "operator.tigera.io/v1",
        "kind": "Installation",
        "metadata": {"name": "default"},
        "spec": {
            **placed,
            "calicoNetwork": {
                "bgp": "Disabled" if backend == "vxlan" else "Enabled",
                "ipPools": [pool],
                "linuxDataplane": "Nftables" if settings.kube_proxy_mode == "nftables" else "Iptables",
                # Any other way may find the virtual IP, on a host that carries it.
                "nodeAddressAutodetectionV4": {"kubernetes": "NodeInternalIP"},
            },
        },
    }
    return yaml.safe_dump(document, sort_keys=False)
