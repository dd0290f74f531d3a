"""A cluster's context in a person's own kubeconfig, beside whatever else is there."""

from __future__ import annotations

from typing import Any

import yaml

# What kubectl does not take beside the CA in the file itself.
OTHER_TRUST = ("certificate-authority", "insecure-skip-tls-verify")


class MergeError(ValueError):
    """A person's own kubeconfig that nothing is written into, and why."""


class _Scalar(str):
    """A scalar as it is written: PyYAML and kubectl do not agree on which are numbers and truths."""

    tag: str
    style: str | None


class _Loader(yaml.SafeLoader):
    """Leaves scalars as they are written."""


class _Dumper(yaml.SafeDumper):
    """Writes them so again."""


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> _Scalar:
    found = _Scalar(loader.construct_scalar(node))
    found.tag, found.style = node.tag, node.style
    return found


for _kind in ("str", "bool", "int", "float", "timestamp", "binary", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _scalar)
_Dumper.add_representer(_Scalar, lambda dumper, each: dumper.represent_scalar(each.tag, each, each.style))


def merged(own: str, added: str, cluster: str) -> str:
    """A person's kubeconfig with the context that another one has; the same text where it has that already.

    kubeadm names the administrator alike in every cluster, so here user and context are USER@CLUSTER. Entries of other
    names stay as they are, and so do the context that is in use and what the person has set in this one, such as a
    namespace or a proxy; comments do not.

    + own: the person's, or nothing
    + added: a kubeconfig whose current context is taken
    + cluster: the cluster's name

    Raises MergeError: `own` cannot be read, or has another cluster of this name.
    """
    document, source = _read(own), yaml.load(added, _Loader)
    context = _entry(source, "contexts", source["current-context"])["context"]
    name = f"{context['user'].removesuffix(f'@{cluster}')}@{cluster}"
    wanted = _entry(source, "clusters", context["cluster"])["cluster"]
    known = _entry(document, "clusters", cluster).get("cluster") or {}
    alike = {key for key in ("server", "certificate-authority-data") if known.get(key) == wanted[key]}
    if known and not alike:
        raise MergeError(
            f"it has another cluster {cluster}, at {known.get('server')}. Rename that one's entry under `clusters`, "
            "and where a context has its name."
        )
    before = _entry(document, "contexts", name).get("context") or {}
    own_way = {key: value for key, value in known.items() if key not in OTHER_TRUST}
    changed = _with(document, "clusters", {"name": cluster, "cluster": {**own_way, **wanted}})
    changed |= _with(document, "users", {"name": name, "user": _entry(source, "users", context["user"])["user"]})
    changed |= _with(document, "contexts", {"name": name, "context": {**before, "cluster": cluster, "user": name}})
    if not document.get("current-context"):
        document["current-context"] = name
        changed = True
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False) if changed else own


def _read(own: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = yaml.load(own, _Loader) or {"apiVersion": "v1", "kind": "Config"}
        for kind in ("clusters", "users", "contexts"):
            document[kind] = document.get(kind) or []
            [str(each["name"]) for each in document[kind]]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise MergeError(f"it is no kubeconfig: {' '.join(str(error).split())}") from None
    return document


def _entry(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next((each for each in document[kind] if each["name"] == name), {})


def _with(document: dict[str, Any], kind: str, entry: dict[str, Any]) -> bool:
    """Have an entry in the place of the one of its name; whether that changed anything."""
    known = _entry(document, kind, entry["name"])
    if known == entry:
        return False
    if known:
        document[kind][document[kind].index(known)] = entry
    else:
        document[kind].append(entry)
    return True
