"""What a cluster is configured by and what kubeadm would write now, compared.

Both sides are kubeadm's own writing (facts/reconfigure.py), so what its version adds to the settings is no difference.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.balancing import endpoint
from cluster.compatibility import parse
from cluster.endpoint import Endpoint
from cluster.pieces import STATIC_PODS
from cluster.settings import Settings
from cluster.topology import Topology

MANIFESTS = "/etc/kubernetes/manifests"
KUBELET = "/var/lib/kubelet/config.yaml"
FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
# Static pod -> the phase of `kubeadm init` that writes its manifest, in the order in which they are restarted.
PHASES = {
    "etcd": "etcd local",
    "kube-apiserver": "control-plane apiserver",
    "kube-controller-manager": "control-plane controller-manager",
    "kube-scheduler": "control-plane scheduler",
}
# etcd reads these once, when its data is made; kubeadm writes the members there are at that time, and the member alone
# ever after (https://etcd.io/docs/v3.6/op-guide/clustering/).
BOOTSTRAP = ("--initial-cluster=", "--initial-cluster-state=")
# The resolver's file kubeadm finds on the host; serving certificates are deploys/addons.py's.
KEPT = ("resolvConf", "serverTLSBootstrap")
# What kubeadm up to 1.28 keeps of its own among the arguments of a site (getAPIServerCommand,
# https://github.com/kubernetes/kubernetes/blob/v1.28.15/cmd/kubeadm/app/phases/controlplane/manifests.go).
OWN_ARGUMENT = ("authorization-mode", "Node,RBAC")
# Field of the cluster's ClusterConfiguration -> its setting, why it stays, and what can be done.
FIXED = {
    "networking.podSubnet": ("pod_subnet", "pods and nodes have addresses of it"),
    "networking.serviceSubnet": ("service_subnet", "Services have addresses of it, and certificates name the first"),
    "networking.dnsDomain": ("dns_domain", "pods are told it when they are made, and certificates name it"),
    "clusterName": ("cluster_name", "kubeconfigs and the directory of secrets are called by it"),
    "controlPlaneEndpoint": (
        "api_port, control_plane_endpoint or load_balancing",
        "kubelets, kube-proxy, kubeconfigs and the ConfigMaps kubeadm-config and cluster-info lead there, and only "
        "another vip is carried to them",
    ),
}


@dataclass(frozen=True)
class Change:
    """A document that would become another; `old` and `new` are parsed, without what makes no difference."""

    name: str
    old: Any
    new: Any

    def lines(self) -> Iterator[str]:
        """The difference, in the unified form, without what nobody should read."""
        old, new = (yaml.safe_dump(_masked(each), sort_keys=True).splitlines() for each in (self.old, self.new))
        yield from difflib.unified_diff(old, new, self.name, f"{self.name} (wanted)", lineterm="")


def manifests(live: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, Change]:
    """Static pods whose manifests kubeadm would write otherwise; of each the texts, by path."""
    found = {}
    for program in PHASES:
        path = f"{MANIFESTS}/{program}.yaml"
        old, new = _pod(live.get(path, "")), _pod(wanted[path])
        if old != new:
            found[program] = Change(path, old, new)
    return found


def kubelet(live: str, wanted: str, settings: Settings) -> Change | None:
    """How a kubelet's configuration would change."""
    old = _plain(yaml.safe_load(live)) or {}
    new = _kept(old, _plain(yaml.safe_load(wanted)), settings)
    return Change(KUBELET, old, new) if old != new else None


def _kept(old: dict[str, Any], new: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The wanted configuration of a kubelet with what stays as it is; see KEPT."""
    kept = [name for name in KEPT if name not in settings.kubelet_config]
    others = {name: value for name, value in new.items() if name not in kept}
    return {**others, **{name: old[name] for name in kept if name in old}}


def missing_flags(live: str, wanted: str) -> list[str]:
    """Arguments of the kubelet that kubeadm would write and are not in its file of them."""
    return [each for each in _flags(wanted) if each not in _flags(live) and not each.startswith("--hostname-override=")]


def _flags(text: str) -> list[str]:
    return text.partition("=")[2].strip().strip('"').split()


def kubelet_map(version: str) -> str:
    """The ConfigMap of kubelets' configuration (https://github.com/kubernetes/kubeadm/issues/1582)."""
    minor = parse(version)[:2]
    return "kubelet-config" if minor >= (1, 24) else f"kubelet-config-{minor[0]}.{minor[1]}"


def shared(
    live: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]], settings: Settings
) -> dict[str, Change]:
    """ConfigMaps that kubeadm would write otherwise, by name."""
    found = {}
    for name, data in wanted.items():
        keys = [key for key in data if key != "ClusterStatus"]  # of before 1.22: where control planes are
        old = {key: _plain(yaml.safe_load(live.get(name, {}).get(key, ""))) or {} for key in keys}
        new = {key: _plain(yaml.safe_load(data[key])) for key in keys}
        for each in (old, new):
            if "ClusterConfiguration" in each:
                each["ClusterConfiguration"] = _asked_for(each["ClusterConfiguration"])
        stored = old.get("ClusterConfiguration")
        moves = stored and stored.get("controlPlaneEndpoint") != new["ClusterConfiguration"].get("controlPlaneEndpoint")
        if stored and not moves and not missing_names(stored, settings):
            new["ClusterConfiguration"]["apiServer"]["certSANs"] = names_of(stored)
        if old.get("kubelet"):
            new["kubelet"] = _kept(old["kubelet"], new["kubelet"], settings)
        if old != new:
            found[name] = Change(f"ConfigMap {name}", old, new)
    return found


def _asked_for(document: dict[str, Any]) -> dict[str, Any]:
    """A ClusterConfiguration without OWN_ARGUMENT, in either form of arguments."""
    api_server = {**document.get("apiServer", {})}
    arguments = api_server.pop("extraArgs", {})
    if isinstance(arguments, dict):
        arguments = dict(each for each in arguments.items() if each != OWN_ARGUMENT)
    else:
        arguments = [each for each in arguments if (each["name"], each.get("value")) != OWN_ARGUMENT]
    return {**document, "apiServer": {**api_server, **({"extraArgs": arguments} if arguments else {})}}


def names_of(stored: Mapping[str, Any]) -> list[str]:
    """The names for API servers' certificates in a ClusterConfiguration."""
    names: list[str] = (stored.get("apiServer") or {}).get("certSANs") or []
    return names


def missing_names(stored: Mapping[str, Any], settings: Settings) -> list[str]:
    """Names of the settings that the cluster's ClusterConfiguration lacks for API servers' certificates.

    Hosts that come and go are no reason to restart the others; deploys/renew_certificates.py has those too.
    """
    return [name for name in settings.api_cert_extra_sans if name not in names_of(stored)]


def left(stored: Mapping[str, Any], settings: Settings, topology: Topology) -> Endpoint | None:
    """Where the cluster's nodes find the API as long as they do not follow the settings to another virtual IP; None
    where they are to stay, or cannot follow.

    The ClusterConfiguration says it, which is changed when all else has been.
    """
    try:
        old = Endpoint.parse(str(stored.get("controlPlaneEndpoint")))
    except ValueError:
        return None
    new = endpoint(settings, topology)
    addresses = old.name is None and new.host == settings.virtual_ip
    return old if addresses and old != new and old.port == new.port else None


def refused(stored: Mapping[str, Any], wanted: Mapping[str, Any], moves: bool = False) -> list[str]:
    """Settings that a cluster which is there cannot follow, a line each; see FIXED.

    To another virtual IP it `moves`, if that is all that is other about the endpoint.
    """
    lines = []
    for path, (setting, why) in FIXED.items():
        old, new = _get(stored, path), _get(wanted, path)
        if old != new and not (moves and path == "controlPlaneEndpoint"):
            lines.append(
                f"{setting}: the cluster has {path} {old}, and the settings ask for {new}. It cannot be changed once "
                f"there is a cluster: {why}. Set it back; for another one, make a new cluster (docs/reconfigure.md)."
            )
    return lines


def configmaps(said: str) -> dict[str, dict[str, str]]:
    """Data of the ConfigMaps that `kubeadm init --dry-run` prints, by name.

    Each object follows a line of its own, up to kubeadm's next word; before 1.27 it is indented by a tab.
    """
    found, block, inside = {}, list[str](), False
    for line in [*said.splitlines(), "[end]"]:
        if re.match(r"\[|[IWE]\d{4} ", line):  # klog: the severity, month and day
            document = yaml.safe_load("\n".join(block)) if "kind: ConfigMap" in block else None
            if document:
                found[document["metadata"]["name"]] = document["data"]
            block, inside = [], line.startswith("[dryrun] Attached object")
        elif inside:
            block.append(line.removeprefix("\t"))
    return found


def _pod(text: str) -> Any:
    """A static pod, parsed, without what kubeadm writes of itself."""
    document = _plain(yaml.safe_load(text)) or {}
    document.pop("status", None)
    for container in document.get("spec", {}).get("containers", ()):
        if "command" in container:  # one that a site's patches have put there may have none
            container["command"] = [each for each in container["command"] if not each.startswith(BOOTSTRAP)]
    return document


def _plain(value: Any) -> Any:
    """Without fields that say nothing, which versions of kubeadm write or leave out."""
    if isinstance(value, dict):
        below = {key: _plain(each) for key, each in value.items()}
        return {key: each for key, each in below.items() if each is not None and each != {}}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _masked(value: Any) -> Any:
    """With variables of the environment as digests: they may be secret."""
    if isinstance(value, dict):
        return {
            key: [_variable(each) for each in below] if key in ("env", "extraEnvs") else _masked(below)
            for key, below in value.items()
        }
    return [_masked(each) for each in value] if isinstance(value, list) else value


def _variable(entry: dict[str, Any]) -> dict[str, Any]:
    if "value" not in entry:
        return entry
    digest = hashlib.sha256(json.dumps(entry["value"]).encode()).hexdigest()
    return {**entry, "value": f"(not shown, sha256 {digest[:8]})"}


def _get(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


assert set(PHASES) == set(STATIC_PODS)
