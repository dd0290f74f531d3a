"""Add-ons of a site's own: its manifests, and charts rendered by helm, one file of the bundle each.

What an earlier lock has of the same source is taken again as it was, for a chart may make secrets or times that differ
with every rendering.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from bundle import cache, charts
from bundle.assemble import Contents, Label
from bundle.catalogue import Catalogue, Chart, OwnAddon, RemoteFile
from bundle.command import BuildError, run
from bundle.download import Unavailable, fetch, has, sha256_of
from bundle.manifests import LOADER
from bundle.progress import say, step
from bundle.sources import candidates_of
from cluster.addons import OWN
from cluster.lock import Lock

DIRECTORY = OWN
# Namespaces that every cluster has.
THERE = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True)
class Manifest:
    """A manifest at hand. `source` is what it follows from."""

    path: Path
    version: str
    source: str
    namespace: str = ""
    licence: str = ""


def manifests(wanted: Catalogue, helm: Callable[[], Path], pinned: Lock | None, output: Path) -> dict[str, Manifest]:
    """The manifest of every add-on of the site's own, by name. Raises BuildError.

    `helm` gives the program, and is asked only for charts that must be rendered. `pinned` is the lock of the bundle
    in `output`, whose manifests are taken again.
    """
    return {name: _manifest(wanted, name, each, helm, pinned, output) for name, each in wanted.own_addons.items()}


def lay_out(beside: Path, made: Mapping[str, Manifest], directory: str = DIRECTORY) -> None:
    """Put the manifests into a bundle that is being laid out."""
    for name, manifest in made.items():
        (beside / directory).mkdir(exist_ok=True)
        shutil.copyfile(manifest.path, beside / directory / f"{name}.yaml")


def labels(made: Mapping[str, Manifest], directory: str) -> dict[str, Label]:
    """What a lock says of the manifests, by their paths in a bundle."""
    return {
        f"{directory}/{name}.yaml": Label(name, each.version, each.source, each.licence) for name, each in made.items()
    }


def described(known: Contents, made: Mapping[str, Manifest]) -> Contents:
    """What is known of a bundle, with its add-ons."""
    more = labels(made, DIRECTORY)
    return replace(known, labels={**known.labels, **more}, addons={name: each.namespace for name, each in made.items()})


def _manifest(
    wanted: Catalogue, name: str, addon: OwnAddon, helm: Callable[[], Path], pinned: Lock | None, output: Path
) -> Manifest:
    files = [] if addon.chart else [_at_hand(wanted, name, each) for each in addon.manifests]
    source = _source(wanted, name, addon, files)
    version = addon.chart.version if addon.chart and addon.chart.version else "-"
    path = f"{DIRECTORY}/{name}.yaml"
    if kept := as_pinned(path, source, pinned, output):
        say(f"add-on {name}: as bundle.lock pins it")
        return Manifest(kept.path, kept.version, source, addon.namespace)
    if addon.chart:
        text, version = _rendered(wanted, name, addon.chart, addon.namespace, helm())
    else:
        text = "".join(f"---\n{file.read_text().rstrip()}\n" for file in files)
        say(f"add-on {name}: {', '.join(_shown(each) for each in addon.manifests)}")
    return Manifest(kept_text(_with_namespace(name, text, addon.namespace)), version, source, addon.namespace)


def as_pinned(path: str, source: str, pinned: Lock | None, output: Path) -> Manifest | None:
    """The manifest at a path of the bundle in `output`, if that has it whole and it follows from the same source."""
    for file in pinned.files if pinned else ():
        if (file.path, file.source) == (path, source) and has(output / path, file.sha256):
            return Manifest(kept_text((output / path).read_text()), file.version, source)
    return None


def kept_text(text: str) -> Path:
    """A file of the cache with this text."""

    def make(made: Path) -> None:
        (made / "manifest.yaml").write_text(text)

    return cache.directory("addon", [text], make) / "manifest.yaml"


def _shown(manifest: str | RemoteFile) -> str:
    return manifest if isinstance(manifest, str) else manifest.url


def _source(wanted: Catalogue, name: str, addon: OwnAddon, files: list[Path]) -> str:
    """What a manifest follows from, in words that change with it."""
    if addon.chart is None:
        parts = [
            each.url if isinstance(each, RemoteFile) else f"file:{Path(each).name}@sha256:{sha256_of(path)}"
            for each, path in zip(addon.manifests, files, strict=True)
        ]
        return f"{', '.join(parts)} namespace {addon.namespace}"
    chart = addon.chart
    where = f"{chart.repository}/{chart.name}@{chart.version}"
    if chart.path:
        path = _there(name, chart.path)
        where = f"{path.name}@sha256:{_tree(path)}"
    values = "".join(f" values:sha256:{sha256_of(_there(name, each))}" for each in chart.values)
    helm = wanted.components["helm"].version
    return f"chart:{where}{values} namespace {addon.namespace} helm {helm} Kubernetes {wanted.kubernetes_version}"


def _there(name: str, path: str) -> Path:
    """A path of bundle.yaml's. Raises BuildError when nothing is there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise BuildError(f"own_addons.{name}: {path} is not there. Correct it in bundle.yaml.")
    return found


def _tree(path: Path) -> str:
    """The sha256 of a file, or of all files of a directory with their names."""
    if path.is_file():
        return sha256_of(path)
    rows = sorted((str(each.relative_to(path)), sha256_of(each)) for each in path.rglob("*") if each.is_file())
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _at_hand(wanted: Catalogue, name: str, manifest: str | RemoteFile) -> Path:
    """A manifest as a file of this machine. Raises BuildError."""
    if isinstance(manifest, str):
        return _there(name, manifest)
    parts = urlsplit(manifest.url)
    target = cache.ROOT / "downloads" / manifest.sha256 / Path(parts.path).name
    reasons = []
    for kind in (each for each in wanted.sources if each in ("upstream", "mirror")):
        for place in candidates_of(wanted, kind, parts.netloc):
            # Upstream's address may say itself that it is without TLS.
            url = manifest.url if kind == "upstream" else place.url(manifest.url)
            try:
                with step(f"downloading {target.name} of add-on {name}") as report:
                    fetch(url, target, manifest.sha256, report)
                return target
            except Unavailable as error:
                reasons.append(str(error))
    raise BuildError("\n".join(reasons) or f"{manifest.url}: `sources` has neither `upstream` nor `mirror`.")


def _rendered(wanted: Catalogue, name: str, chart: Chart, namespace: str, helm: Path) -> tuple[str, str]:
    """The manifest that a chart gives, and the chart's version. Raises BuildError with helm's words."""
    values = [_there(name, each).resolve() for each in chart.values]
    with charts.environment() as (scratch, env), step(f"rendering the chart of add-on {name}"):
        path = _there(name, chart.path) if chart.path else _pulled(chart, helm, scratch, env)
        version = str(yaml.load(run(helm, "show", "chart", path, env=env), LOADER).get("version", "-"))
        kept, hooks = charts.rendered(helm, name, path, namespace, wanted.kubernetes_version, values, env)
    if hooks:
        say(f"add-on {name}: hooks of its chart are left out, for helm alone runs them: {', '.join(hooks)}")
    return kept, version


def _pulled(chart: Chart, helm: Path, scratch: Path, env: Mapping[str, str]) -> Path:
    """A chart of a repository, as its archive. Raises BuildError."""
    where = (
        [f"{chart.repository}/{chart.name}"]
        if chart.repository.startswith("oci://")
        else [chart.name, "--repo", chart.repository]
    )
    run(helm, "pull", *where, "--version", chart.version, "--destination", scratch, env=env)
    (archive,) = scratch.glob("*.tgz")
    if chart.sha256 and sha256_of(archive) != chart.sha256:
        raise BuildError(
            f"{chart.repository}/{chart.name} {chart.version}: has sha256 {sha256_of(archive)}, and bundle.yaml says "
            f"{chart.sha256}. Find out who changed it before anything else."
        )
    return archive


def _with_namespace(name: str, text: str, namespace: str) -> str:
    """A manifest with the namespace it is in, unless it makes that itself. Raises BuildError when it is no manifest."""
    try:
        objects = [each for each in yaml.load_all(text, LOADER) if each]
    except yaml.YAMLError as error:
        raise BuildError(f"own_addons.{name}: is no YAML: {error}.") from None
    wrong = [each for each in objects if not (isinstance(each, dict) and each.get("kind") and each.get("apiVersion"))]
    if wrong or not objects:
        raise BuildError(f"own_addons.{name}: is no manifest: each document must have apiVersion and kind.")
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    if namespace in (*THERE, *made):
        return text
    return f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n{text}"
