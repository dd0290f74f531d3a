"""What of a bundle the pod network needs, and whether it is there."""

from __future__ import annotations

from pathlib import Path

from bundle import extras, manifests
from bundle.command import BuildError
from cluster import calico, cilium
from cluster.lock import Lock
from cluster.settings import Settings


def calico_files(settings: Settings, lock: Lock) -> dict[str, str]:
    """Upstream's manifests of Calico that this way of installing it takes and the bundle has: name -> text."""
    there = {file.path for file in lock.files}
    names = [name for name in calico.FILES[settings.calico_installation] if f"{extras.DIRECTORY}/{name}" in there]
    return {name: _path(settings, name).read_text() for name in names}


def problems(settings: Settings, lock: Lock) -> list[str]:
    """Why the bundle cannot give the network that the settings ask for, in words."""
    if settings.cni == "calico":
        texts = calico_files(settings, lock)
        found = calico.problems(settings, lock, texts)
        return found or [line for name in texts for line in _lacking_images("cni", _path(settings, name), lock)]
    if settings.cni == "cilium":
        found = cilium.problems(settings, lock)
        return found or _lacking_images("cni", Path(settings.bundle_dir, cilium.path(settings)), lock)
    if not settings.cni_manifest:
        return []
    if not Path(settings.cni_manifest).is_file():
        return [f"cni_manifest: there is no file {settings.cni_manifest}. Correct it, or set it to None."]
    return _lacking_images("cni_manifest", Path(settings.cni_manifest), lock)


def _path(settings: Settings, name: str) -> Path:
    return Path(settings.bundle_dir, extras.DIRECTORY, name)


def _lacking_images(setting: str, path: Path, lock: Lock) -> list[str]:
    """Images that a manifest names and the bundle has not."""
    try:
        wanted = manifests.images([path])
    except BuildError as error:
        return [f"{setting}: {error}"]
    present = {image.name for image in lock.images}
    return [
        f"{setting}: {path} names {name}, which the bundle has not. Add the file to `manifests` in bundle.yaml and "
        "build the bundle anew."
        for name in wanted
        if name not in present
    ]
