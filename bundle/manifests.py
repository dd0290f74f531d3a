"""Images that Kubernetes manifests name, and what Calico's Installation changes about its own.

Containers: https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#podspec-v1-core; volumes that are
images: https://kubernetes.io/docs/tasks/configure-pod-container/image-volumes/; the Installation:
https://docs.tigera.io/calico/latest/reference/installation/api.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from bundle import references
from bundle.command import BuildError

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
PLACEMENT = ("registry", "imagePath", "imagePrefix")
# Every scalar as a string: some CRDs hold a bare `=`, which YAML 1.1 has a type for that PyYAML does not know.
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def images(paths: Iterable[Path]) -> list[str]:
    """Full references of all images that the manifests name, sorted. Raises BuildError, which names the file."""
    found = set()
    for path in paths:
        for text in _named(list(_documents(path))):
            try:
                found.add(references.parse(text).name)
            except BuildError as error:
                raise BuildError(f"{path}: {error}") from None
    return sorted(found)


def calico_placement(paths: Iterable[Path]) -> dict[str, str]:
    """Where an Installation of the manifests has Calico's images from: registry, imagePath, imagePrefix if given."""
    found: dict[str, str] = {}
    for path in paths:
        for each in _objects(_documents(path)):
            if each.get("kind") == "Installation" and str(each.get("apiVersion")).startswith("operator.tigera.io/"):
                spec = each.get("spec") or {}
                found.update({name: spec[name] for name in PLACEMENT if spec.get(name, "") not in ("", "UseDefault")})
    return found


def _documents(path: Path) -> Iterator[Any]:
    """The documents of a file. Raises BuildError."""
    try:
        yield from yaml.load_all(path.read_text(), LOADER)
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror}. Correct `manifests` in bundle.yaml.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BuildError(f"{path}: is no YAML: {error}. A template must be rendered first.") from None


def _objects(documents: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The objects of documents, those in lists too."""
    for each in documents:
        if isinstance(each, dict):
            yield each
            items = each.get("items")
            yield from _objects(items if isinstance(items, list) else [])


def _named(value: Any) -> Iterator[str]:
    """The image of every container, and of every volume that is one, at any depth.

    Nowhere else: `image` may be anything in other places, such as a block device in Ceph.
    """
    if isinstance(value, list):
        for each in value:
            yield from _named(each)
    if not isinstance(value, dict):
        return
    for key, each in value.items():
        yield from _named(each)
        rows = [row for row in each if isinstance(row, dict)] if isinstance(each, list) else []
        if key in CONTAINERS:
            yield from (row["image"] for row in rows if row.get("image") and isinstance(row["image"], str))
        elif key == "volumes":
            sources = [row["image"] for row in rows if isinstance(row.get("image"), dict)]
            yield from (source["reference"] for source in sources if isinstance(source.get("reference"), str))
