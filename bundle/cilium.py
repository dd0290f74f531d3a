"""Cilium's manifests: its chart, rendered once for each choice of families of addresses.

Nothing else of it follows from the settings: which addresses pods have, it takes from each Node, and the MTU from the
host. Values: https://docs.cilium.io/en/stable/helm-reference/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bundle import addons, charts
from bundle.addons import Manifest
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.manifests import LOADER
from bundle.progress import say, step
from cluster.cilium import CHART, DIRECTORY, FAMILIES, NAMESPACE
from cluster.lock import Lock

NAME = "cilium"
# Of the ConfigMap cilium-config: what the deploys, ports.yaml and the other manifests of the cluster reckon with.
MUST = {
    "ipam": "kubernetes",
    "routing-mode": "tunnel",
    "tunnel-protocol": "vxlan",
    "tunnel-port": "8472",
    "cluster-health-port": "4240",
    "kube-proxy-replacement": "false",
}


def manifests(wanted: Catalogue, tool: Callable[[str], Path], pinned: Lock | None, output: Path) -> dict[str, Manifest]:
    """The manifest for each choice of families, by the name of its file; none when Cilium is not wanted.

    `tool` gives helm and the chart by their names, and is asked only when something must be rendered. `pinned` is the
    lock of the bundle in `output`, whose manifests are taken again. Raises BuildError.
    """
    if NAME not in wanted.networks:
        return {}
    return {f"{NAME}-{family}": _manifest(wanted, family, tool, pinned, output) for family in FAMILIES.values()}


def _manifest(
    wanted: Catalogue, family: str, tool: Callable[[str], Path], pinned: Lock | None, output: Path
) -> Manifest:
    component, values = wanted.components[NAME], _values(wanted, family)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    source = (
        f"chart:{NAME}@{component.version} values:sha256:{digest} helm {wanted.components['helm'].version} "
        f"Kubernetes {wanted.kubernetes_version}"
    )
    if kept := addons.as_pinned(f"{DIRECTORY}/{NAME}-{family}.yaml", source, pinned, output):
        say(f"Cilium for {family}: as bundle.lock pins it")
        path = kept.path
    else:
        path = addons.kept_text(_rendered(wanted, family, values, tool))
    return Manifest(path, component.version, source, licence=component.licence)


def _values(wanted: Catalogue, family: str) -> dict[str, Any]:
    """The values of the chart; families and how nodes are reached are the cluster's."""
    own = {"ipv4": {"enabled": family != "ipv6"}, "ipv6": {"enabled": family != "ipv4"}}
    # Nodes without IPv4 cannot be reached by it, and up to 1.19 the chart would have them.
    return {**wanted.offered_networks[NAME].values, **own, **({"underlayProtocol": "ipv6"} if family == "ipv6" else {})}


def _rendered(wanted: Catalogue, family: str, values: dict[str, Any], tool: Callable[[str], Path]) -> str:
    helm, chart = tool("helm"), tool(CHART)
    with charts.environment() as (scratch, env), step(f"rendering Cilium's chart for {family}"):
        path = scratch / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        text, hooks = charts.rendered(helm, NAME, chart, NAMESPACE, wanted.kubernetes_version, [path], env)
    if hooks:
        say(f"Cilium: hooks of its chart are left out, for helm alone runs them: {', '.join(hooks)}")
    _check(text)
    return text


def _check(text: str) -> None:
    """Raises BuildError when the site's values make it something that the deploys do not reckon with."""
    found = [each for each in yaml.load_all(text, LOADER) if each and each["metadata"]["name"] == "cilium-config"]
    if not found:
        raise BuildError("offered_networks.cilium: the chart gives no ConfigMap cilium-config. Correct its values.")
    data = found[0]["data"]
    if wrong := {key: data[key] for key, value in MUST.items() if data.get(key, value) != value}:
        words = ", ".join(f"{key} {value} (must be {MUST[key]})" for key, value in wrong.items())
        raise BuildError(
            f"offered_networks.cilium.values: make {words}. The deploys reckon with kube-proxy, with Kubernetes' "
            "subnets of pods and with the ports of docs/ports.md. Take these values out of bundle.yaml, or install "
            "Cilium as a network of your own (docs/networks.md, `none`)."
        )
