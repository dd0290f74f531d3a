"""What people lay over kubeadm's documents by settings, and what of it is refused before any host is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import yaml

from cluster import fields, owned
from cluster.api_versions import SUCCESSORS, Document, Documents, argument_problems, modelled, written
from cluster.compatibility import parse
from cluster.settings import Settings

# Kind of document -> the setting that is laid over it.
SETTINGS = {
    "InitConfiguration": "init_configuration",
    "ClusterConfiguration": "cluster_configuration",
    "JoinConfiguration": "join_configuration",
    "KubeletConfiguration": "kubelet_config",
    "KubeProxyConfiguration": "kube_proxy_config",
}
# A kubelet's own configuration is a patch that kubeadm applies, from this minor on
# (https://github.com/kubernetes/kubernetes/pull/110405).
PATCHES_OF_KUBELETS = "1.25"
PATCHES = "/etc/kubernetes/patches"
KUBELET_PATCH = f"{PATCHES}/kubeletconfiguration+merge.yaml"

TEXT = """\
# Configuration of Kubernetes

Every field of the documents that kubeadm reads can be set:

{0}

What is set is laid over what the deploy writes itself (`cluster/kubeadm.py`): objects name by name, lists of entries
that have a `name` by their names, everything else whole. `null` takes back a single value of the deploy's.

    cluster_configuration = {{
        "apiServer": {{"extraArgs": {{"audit-log-path": "/var/log/kubernetes/audit.log", "audit-log-maxage": "30"}}}},
        "certificateValidityPeriod": "4380h0m0s",
    }}
    init_configuration = {{"timeouts": {{"controlPlaneComponentHealthCheck": "6m0s"}}}}
    join_configuration = {{"nodeRegistration": {{"taints": [{{"key": "gpu", "effect": "NoSchedule"}}]}}}}
    kubelet_config = {{"maxPods": 200, "evictionHard": {{"memory.available": "500Mi"}}}}

Settings stay the same over upgrades where Kubernetes means the same:

- Arguments of programs (`extraArgs`, `kubeletExtraArgs`) are a map, or a list of entries of `name` and `value`, for
  every version; each version of kubeadm gets them as it reads them. An argument that is set takes the place of the
  deploy's of that name. One that is given several times, which a list can do, needs Kubernetes 1.31.
- `init_configuration.timeouts.controlPlaneComponentHealthCheck` and `join_configuration.timeouts.discovery` are written
  where versions before 1.31 have them. kubeadm 1.30 reads the first and waits no longer for it
  ([#133513](https://github.com/kubernetes/kubernetes/pull/133513)).

Before any host is touched each field is looked up in those of the Kubernetes that is to run (`cluster/fields.tsv`, from
the Go types of Kubernetes itself). One that it does not have is refused with the versions that have it, or the nearest
that there is; so is a value of another type.

`init_configuration` counts on the first control plane, `join_configuration` on all others. Both can be a host's own, in
the inventory. So can `kubelet_config`, from Kubernetes 1.25 on: what a host that joins has there is laid over the first
control plane's by a patch of kubeadm, `{patch}`.

A change later reaches a cluster that is there by `deploys/cluster.py`, one control plane at a time, but for
`init_configuration` and `join_configuration`, which count when a node is made: [reconfigure.md](reconfigure.md).

## What the deploy decides

These are refused. Arguments of programs are below by their names.

{1}
"""


def given(settings: Settings) -> Documents:
    """What a host's settings lay over each kind of document, as the model has it."""
    return {kind: modelled(kind, getattr(settings, name)) for kind, name in SETTINGS.items()}


def merged(base: Document, over: Mapping[str, Any]) -> Document:
    """`over` laid on `base`: objects key by key, lists of things with a name by their names, everything else whole."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(old, value)
        elif _named(old) and _named(value):
            mine = [each["name"] for each in value]
            result[key] = [*(each for each in old if each["name"] not in mine), *value]
        elif value is not None or not isinstance(old, dict | list):  # null is to Kubernetes a field that is not there
            result[key] = value
    return result


def _named(value: Any) -> TypeGuard[list[Document]]:
    return isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in value
    )


def problems(settings: Settings) -> list[str]:
    """What Kubernetes would not take of a host's settings for its documents, in words, by the setting's name."""
    minor = ".".join(map(str, parse(settings.kubernetes_version)[:2]))
    if absent := fields.absent(minor):
        return [absent]
    over = given(settings)
    found = [(kind, *each) for kind, document in over.items() for each in owned.problems(kind, document)]
    found += [(kind, *each) for kind, document in over.items() for each in argument_problems(kind, document, minor)]
    refused = {(kind, path) for kind, path, _ in found}
    for kind, document in written(over, minor).items():
        for path, words in fields.problems(kind, document, minor):
            if (kind, path) not in refused:
                instead = SUCCESSORS.get(path)
                found.append((kind, path, f"{words}; set {instead} instead" if instead else words))
    return [f"{SETTINGS[kind]}.{path}: {words}{'' if words.endswith('?') else '.'}" for kind, path, words in found]


def kubelet_patch(settings: Settings, shared: Settings) -> str | None:
    """What a host's kubelet_config has that the cluster's has not, as kubeadm's patch of the kubelet's configuration.

    + settings: the host's
    + shared: those of the host on which `init` ran, whose kubelet_config the cluster keeps
    """
    if settings.kubelet_config == shared.kubelet_config:
        return None
    return yaml.safe_dump(modelled("KubeletConfiguration", settings.kubelet_config), sort_keys=False)


def kubelet_problems(settings: Settings, shared: Settings) -> list[str]:
    """Why a host's kubelet cannot be configured otherwise than the cluster's, in words; see kubelet_patch."""
    if kubelet_patch(settings, shared) is None:
        return []
    found = []
    if parse(settings.kubernetes_version) < parse(PATCHES_OF_KUBELETS):
        found.append(
            f"kubelet_config: is not that of the first control plane. A kubelet has a configuration of its own from "
            f"Kubernetes {PATCHES_OF_KUBELETS} on: set it in group_data/all.py, for all."
        )
    if settings.join_configuration.get("patches"):
        found.append(
            "kubelet_config: is not that of the first control plane, which takes a patch, and "
            "join_configuration.patches names patches of yours. Put it there as kubeletconfiguration+merge.yaml."
        )
    return found


def markdown() -> str:
    """docs/configuration.md: how the settings are laid over the documents, and what the deploy decides itself."""
    rows = [f"| `{name}` | {kind} |" for kind, name in SETTINGS.items()]
    decided = [
        f"| `{SETTINGS[kind]}` | `{path}` | {words} |"
        for kind, paths in owned.OWNED.items()
        for path, words in paths.items()
    ]
    tables = (
        ["| setting | document |", "| --- | --- |", *rows],
        ["| setting | field | why, or what instead |", "| --- | --- | --- |", *decided],
    )
    return TEXT.format(*("\n".join(lines) for lines in tables), patch=KUBELET_PATCH)
