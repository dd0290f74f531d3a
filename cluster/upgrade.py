"""Static pods of nodes, and whether they are of the bundle's versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.pieces import STATIC_PODS, short_name


def tag(image: str) -> str:
    """`v1.36.2` of `registry.k8s.io/kube-apiserver:v1.36.2`."""
    return image.rpartition(":")[2]


def static_pods(images: Iterable[str]) -> dict[str, str]:
    """Images of static pods among those of a bundle: short name -> image."""
    return {short_name(image): image for image in images if short_name(image) in STATIC_PODS}


def stale(images: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Static pods of a node whose image has another tag than the wanted one. Registries may differ."""
    return [name for name, image in images.items() if name in wanted and tag(image) != tag(wanted[name])]
