"""Families of distributions (families.yaml): which one a host is of, and what differs there."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

PATH = Path(__file__).with_suffix(".yaml")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Chrony(_Model):
    unit: str
    config: str
    drift: str


class Family(_Model):
    """One family of families.yaml, which describes each field."""

    releases: dict[str, str]
    format: Literal["deb", "rpm"]
    sets: dict[str, tuple[str, ...]]
    unstarted: dict[str, str]
    chrony: Chrony
    kubelet_environment: str
    keepalived_check: str


@functools.cache
def load() -> dict[str, Family]:
    """All families by name, read once."""
    return TypeAdapter(dict[str, Family]).validate_python(yaml.safe_load(PATH.read_text()))


def of(release: str) -> Family | None:
    """The family of a release, such as "rocky-9"."""
    return next((family for family in load().values() if release in family.releases), None)


def system(hardware: Mapping[str, Any]) -> str:
    """What a host is by its /etc/os-release, from the fact Hardware: `rocky-9.4`."""
    return f"{hardware['os_id']}-{hardware['os_version']}"


def release(system: str, releases: Collection[str]) -> str | None:
    """Which of these releases a system is of: itself, or its first number, for `rocky-9.4` is `rocky-9`."""
    return next((name for name in (system, system.partition(".")[0]) if name in releases), None)


def package_sets(roles: Collection[str], chrony: bool) -> Iterator[str]:
    """The sets that a host needs: as a node, balancer or bundle server, and for its time."""
    needed = {
        "node": ("base", "runtime"), "balancer": ("load_balancer",), "bundle_server": ("mirror",),
    }  # fmt: skip
    for role in roles:
        yield from needed[role]
    if chrony:
        yield "time"


def problems(system: str, sets: Mapping[str, Mapping[str, Collection[str]]], needed: Collection[str]) -> list[str]:
    """Why a host that is this system cannot have its packages from a bundle with these sets by release, in words."""
    found = release(system, sets)
    if found is None:
        return [f"it is {system}, the bundle has packages for {', '.join(sets) or 'none'}"]
    if of(found) is None:
        known = ", ".join(name for family in load().values() for name in family.releases)
        return [f"it is {system}, which this project does not know; it knows {known}"]
    lacking = [name for name in dict.fromkeys(needed) if name not in sets[found]]
    return [f"the bundle has no set {', '.join(lacking)} of packages of {found}"] if lacking else []


def defaults(release: str) -> dict[str, Any]:
    """What a catalogue of packages says of a release unless told otherwise; nothing of one that is not known."""
    family = of(release)
    if family is None:
        return {}
    return {"format": family.format, "suite": family.releases[release], "sets": dict(family.sets)}
