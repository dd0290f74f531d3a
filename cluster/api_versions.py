"""One model of kubeadm's documents, and how it is written for the version of the API that a kubeadm reads.

The model is v1beta4, which Kubernetes reads from 1.31 on. What earlier versions write in another way is in DIFFERENCES,
one function each. Fields that a version lacks altogether are not here but in fields.tsv; what is written of ourselves
all versions have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.compatibility import kubeadm_api, parse
from cluster.fields import COMPONENTS

Document = dict[str, Any]
Documents = dict[str, Document]  # kind -> document, without its apiVersion and kind
COMPONENT_APIS = {
    "KubeletConfiguration": "kubelet.config.k8s.io/v1beta1",
    "KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
}
# Where documents have arguments of programs.
ARGUMENTS = {
    "InitConfiguration": (("nodeRegistration", "kubeletExtraArgs"),),
    "JoinConfiguration": (("nodeRegistration", "kubeletExtraArgs"),),
    "ClusterConfiguration": (
        ("apiServer", "extraArgs"),
        ("controllerManager", "extraArgs"),
        ("scheduler", "extraArgs"),
        ("etcd", "local", "extraArgs"),
    ),
}


@dataclass(frozen=True)
class Difference:
    """What is written in another way before a minor of Kubernetes."""

    before: str
    write: Callable[[Documents], Documents]


def api_version(kind: str, kubernetes: str) -> str:
    """The apiVersion of a kind of document for a version of Kubernetes. Raises LookupError for an unknown one."""
    return COMPONENT_APIS[kind] if kind in COMPONENTS else kubeadm_api(kubernetes)


def written(documents: Mapping[str, Document], kubernetes: str) -> Documents:
    """Documents of the model as the kubeadm of a version of Kubernetes reads them; those given stay as they are."""
    result = dict(documents)
    for difference in DIFFERENCES:
        if parse(kubernetes)[:2] < parse(difference.before)[:2]:
            result = difference.write(result)
    return result


def arguments_as_maps(documents: Documents) -> Documents:
    """Arguments were a map, in which each is once, before they were a list of name and value."""
    for kind, places in ARGUMENTS.items():
        for place in places:
            found = _get(documents.get(kind), place)
            if isinstance(found, list) and all(_is_argument(each) for each in found):
                found = {each["name"]: each["value"] for each in found}
                documents = {**documents, kind: _put(documents[kind], place, found)}
    return documents


def control_plane_timeout_of_the_cluster(documents: Documents) -> Documents:
    """How long `init` waits for the control plane was the cluster's before it was the node's."""
    own = ("InitConfiguration", "timeouts", "controlPlaneComponentHealthCheck")
    return _moved(documents, own, ("ClusterConfiguration", "apiServer", "timeoutForControlPlane"))


def discovery_timeout_of_discovery(documents: Documents) -> Documents:
    """How long `join` looks for the cluster had no place among other timeouts."""
    own = ("JoinConfiguration", "timeouts", "discovery")
    return _moved(documents, own, ("JoinConfiguration", "discovery", "timeout"))


# https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ and
# kubeadm/app/apis/kubeadm/v1beta3/conversion.go of Kubernetes 1.31 have them all.
DIFFERENCES = (
    Difference("1.31", arguments_as_maps),
    Difference("1.31", control_plane_timeout_of_the_cluster),
    Difference("1.31", discovery_timeout_of_discovery),
)
# Fields of before 1.31 -> the settings that say the same for every version.
SUCCESSORS = {
    "apiServer.timeoutForControlPlane": "init_configuration.timeouts.controlPlaneComponentHealthCheck",
    "discovery.timeout": "join_configuration.timeouts.discovery",
}


def modelled(kind: str, document: Mapping[str, Any]) -> Document:
    """What a person wrote, as the model has it: arguments may be a map whatever the version, and tuples are lists."""
    result: Document = _lists(document)
    for place in ARGUMENTS.get(kind, ()):
        found = _get(result, place)
        if isinstance(found, dict):
            result = _put(result, place, [{"name": name, "value": value} for name, value in found.items()])
    return result


def argument_problems(kind: str, document: Document, kubernetes: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the arguments of a document of the model: (path, what)."""
    for place in ARGUMENTS.get(kind, ()):
        found = _get(document, place)
        if not isinstance(found, list):
            continue
        path, whole = ".".join(place), [each for each in found if _is_argument(each)]
        if whole != found:
            yield path, "must be names and values, or a list of entries of `name` and `value` each"
        names = [each["name"] for each in whole]
        twice = {name for name in names if names.count(name) > 1}
        if twice and parse(kubernetes)[:2] < parse("1.31")[:2]:
            yield path, f"has {', '.join(sorted(twice))} more than once, which Kubernetes takes from 1.31 on"


def _is_argument(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"name", "value"} and isinstance(value["name"], str)


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _lists(each) for name, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, list | tuple) else value


def _get(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def _put(document: Document, path: tuple[str, ...], value: Any) -> Document:
    name, *rest = path
    below = document.get(name)
    own = below if isinstance(below, dict) else {}
    return {**document, name: _put(own, tuple(rest), value) if rest else value}


def _without(document: Document, path: tuple[str, ...]) -> Document:
    """Without a field, and without what holds nothing else."""
    name, *rest = path
    below = _without(document[name], tuple(rest)) if rest else {}
    others = {key: each for key, each in document.items() if key != name}
    return {**others, name: below} if below else others


def _moved(documents: Documents, old: tuple[str, ...], new: tuple[str, ...]) -> Documents:
    """Documents with a field elsewhere; the paths begin with the kind."""
    value = _get(documents, old)
    if value is None:
        return documents
    rest = _without(documents[old[0]], old[1:])
    return _put({**documents, old[0]: rest}, new, value)
