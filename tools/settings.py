"""The settings of an inventory's hosts, with the files that they are from, for people. No host is asked.

python -m tools.settings inventories/prod.py
"""

from __future__ import annotations

import re
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pyinfra.api import Inventory, State
from pyinfra.api.exceptions import InventoryError, PyinfraError
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory

from cluster.ip_families import Families
from cluster.origins import Row, rows
from cluster.settings import Settings, SettingsError


def read(inventory: Path) -> list[Row]:
    """Every setting of an inventory file, which pyinfra itself reads. Raises SettingsError, and PyinfraError of it."""
    if not inventory.is_file():
        raise InventoryError(f"{inventory}: there is no such inventory.")
    with ctx_state.use(State()):
        found = make_inventory(str(inventory), cwd=str(Path.cwd()))
    return rows({host.name: _layers(found, host.name, inventory) for host in found})


def _layers(inventory: Inventory, host: str, file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """What is said of a host, in the order of https://docs.pyinfra.com/en/3.x/inventory-data.html."""
    # Of two groups the last one holds.
    groups = [*reversed(inventory.get_host(host).groups)]
    of_groups = [layer for group in groups for layer in _files(group, inventory.get_group_data(group), file)]
    return [(str(file), inventory.get_host_data(host)), *of_groups, *_files("all", inventory.get_data(), file)]


def _files(group: str, data: Mapping[str, Any], inventory: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """A group's data by the file that holds each name; what is in none is in the inventory."""
    places = [directory / "group_data" / f"{group}.py" for directory in (inventory.parent, Path())]
    texts = {place: place.read_text() for place in places if place.exists()}
    found: dict[str, dict[str, Any]] = {}
    for name, value in data.items():
        where = [str(place) for place, text in texts.items() if re.search(rf"^{name}\b", text, re.MULTILINE)]
        found.setdefault([*where, str(inventory)][0], {})[name] = value
    return list(found.items())


def text(found: Sequence[Row]) -> str:
    """For each setting its value and file, once for each that hosts differ in, and below that what it means."""
    hosts = {host for row in found for host in row.hosts}
    lines = []
    for name, same in groupby(found, lambda row: row.name):
        for row in same:
            some = f", {', '.join(row.hosts)}" if len(row.hosts) < len(hosts) else ""
            lines.append(f"{name} = {_plain(row.value)!r}  ({row.origin}{some})")
        meaning = str(Settings.model_fields[name].description)
        lines += textwrap.wrap(meaning, 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Networks and addresses as people write them."""
    if isinstance(value, dict):
        return {name: str(each) if isinstance(each, Families) else each for name, each in value.items()}
    return value if isinstance(value, bool | int | tuple | dict | None) else str(value)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # people end it by `head` and `less`
    try:
        print(text(read(Path(sys.argv[1]))))
    except (PyinfraError, SettingsError) as problem:
        sys.exit(f"error: {problem}")
