"""What goes into a bundle of each minor of Kubernetes: versions.yaml, typed, as changes of the catalogue."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from bundle import references
from bundle.command import BuildError
from cluster.compatibility import parse

PATH = Path(__file__).with_name("versions.yaml")
# What kubeadm lists images of, and so decides the version of.
LISTED = ("etcd", "coredns")
# Where the tree of Kubernetes says which Go built it.
OWN_GO = ".go-version"


class NoSuchMinor(BuildError):
    """The table has no row for a minor; the message names the nearest that it has."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Model):
    """What a bundle of a minor is made of; versions.yaml describes each field."""

    kubernetes: str
    go: str | None = None
    etcd: str
    coredns: str
    crictl: str
    agnhost: str
    cilium: str
    require: dict[str, str] = {}

    def module(self, path: str) -> str:
        """The version of one of Kubernetes' published modules, such as k8s.io/kubelet."""
        return self.require.get(path) or self.kubernetes.replace("v1.", "v0.", 1)


class Older(_Model):
    """How releases of a component differ from what the catalogue says of it: modules, and programs that they lack."""

    build: tuple[dict[str, Any], ...]
    without: tuple[str, ...] = ()


class Versions(_Model):
    """The whole of versions.yaml; minors from the oldest to the newest, none left out between, `before` as well."""

    minors: dict[str, Row]
    before: dict[str, dict[str, Older]]


@functools.cache
def load() -> Versions:
    """The table, read once."""
    return Versions.model_validate(yaml.safe_load(PATH.read_text()))


def row(kubernetes: str) -> Row:
    """The row of a version of Kubernetes. Raises BuildError: NoSuchMinor when there is none."""
    try:
        minor = ".".join(map(str, parse(kubernetes)[:2]))
    except ValueError as error:
        raise BuildError(f"{error} Correct it in bundle.yaml.") from None
    rows = load().minors
    if minor not in rows:
        first, *_, last = rows
        nearest = rows[first if parse(minor) < parse(first) else last].kubernetes
        raise NoSuchMinor(
            f"Kubernetes {minor} cannot be bundled: bundle/versions.yaml has {first} to {last}. Take {nearest}."
        )
    return rows[minor]


def of_kubernetes(text: Mapping[str, Any], kubernetes: str, listed: Mapping[str, str]) -> dict[str, Any]:
    """What a version of Kubernetes changes of the catalogue, as text. Raises BuildError.

    `listed` is the versions of images that its kubeadm lists, where that was asked already; see `of_images`.
    """
    found = row(kubernetes)
    versions = {"etcd": found.etcd, "coredns": found.coredns, "crictl": found.crictl, "cilium": found.cilium, **listed}
    changes: dict[str, dict[str, Any]] = {name: {"version": version} for name, version in versions.items()}
    for name in ("kubernetes", *LISTED):
        changes[name] = {**changes.get(name, {}), **({"go": found.go} if found.go else {})}
    # Patches before 1.29 may be of a Go that does not build them here (versions.yaml).
    if found.go and kubernetes != found.kubernetes and parse(kubernetes) >= (1, 29):
        changes["kubernetes"]["go"] = OWN_GO
    if found.require and kubernetes == found.kubernetes:
        changes["kubernetes"] |= {"require": found.require}
    images = [
        f"{image.rpartition(':')[0]}:{found.agnhost}" if references.parse(image).short == "agnhost" else image
        for image in text["extra_images"]
    ]
    return {
        "components": {name: change for name, change in changes.items() if name in text["components"]},
        "extra_images": images,
    }


def of_images(names: list[str]) -> dict[str, str]:
    """The versions of etcd and CoreDNS, by the references of their images: of etcd:3.5.12-0 it is v3.5.12."""
    parsed = [references.parse(name) for name in names]
    return {each.short: f"v{each.tag.lstrip('v').partition('-')[0]}" for each in parsed if each.short in LISTED}


def of_releases(text: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    """The catalogue, as text, with what these releases of components (name -> version) differ in."""
    older = {name: found for name, version in versions.items() if (found := _older(name, version))}
    gone = {program for each in older.values() for program in each.without}

    def left(programs: Mapping[str, str]) -> dict[str, str]:
        return {program: member for program, member in programs.items() if program not in gone}

    components = {}
    for name, component in text["components"].items():
        changed = dict(component)
        if name in older:
            changed["build"] = list(older[name].build)
        if "download" in changed:
            changed["download"] = {**changed["download"], "programs": left(changed["download"]["programs"])}
        components[name] = changed
    recipes = {
        name: {**recipe, "files": {path: program for path, program in recipe["files"].items() if program not in gone}}
        for name, recipe in text["recipes"].items()
    }
    programs = {place: [name for name in names if name not in gone] for place, names in text["programs"].items()}
    return {**text, "components": components, "recipes": recipes, "programs": programs}


def _older(name: str, version: str) -> Older | None:
    """How a release of a component differs, if it does; what is no version is said elsewhere."""
    try:
        given = parse(version)
    except ValueError:
        return None
    before = load().before.get(name, {})
    return next((older for first, older in before.items() if given < parse(first)), None)
