"""Which file each setting of each host is from, and what it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.settings import NAMES, load

DEFAULT = "default"
# What is said of one host, from the file that goes first to the one that goes last: file -> its names and values.
Layers = Sequence[tuple[str, Mapping[str, Any]]]


class Row(NamedTuple):
    """A setting with one value from one file, and the hosts of which that is true."""

    name: str
    value: Any
    origin: str
    hosts: tuple[str, ...]


def rows(by_host: Mapping[str, Layers]) -> list[Row]:
    """Every setting in the order of docs/settings.md, once for each value and file. Raises SettingsError."""
    found: list[Row] = []
    settings = {
        host: load({name: value for _, data in reversed(layers) for name, value in data.items()})
        for host, layers in by_host.items()
    }
    for name in NAMES:
        seen: dict[tuple[str, str], Row] = {}
        for host, layers in by_host.items():
            value = getattr(settings[host], name)
            origin = next((file for file, data in layers if name in data), DEFAULT)
            hosts = (*seen[repr(value), origin].hosts, host) if (repr(value), origin) in seen else (host,)
            seen[repr(value), origin] = Row(name, value, origin, hosts)
        found += seen.values()
    return found
