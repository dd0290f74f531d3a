"""Installed packages."""

from __future__ import annotations

import shlex
from typing import TypedDict

from pyinfra.api import FactBase


class PackageState(TypedDict):
    version: str
    held: bool


class Packages(FactBase[dict[str, PackageState]]):
    """Versions of packages that are installed, of those asked for; what is not installed is not in it.

    ::

        {"haproxy": {"version": "2.6.12-1+deb12u4", "held": False}}

    A package that is removed with its configuration left, or half installed, counts as not installed.
    """

    @staticmethod
    def default() -> dict[str, PackageState]:
        return {}

    def command(self, names: tuple[str, ...]) -> str:
        if not names:
            return "true"
        return (
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\\n' "
            f"{shlex.join(names)} 2>/dev/null || true"
        )

    def process(self, output: list[str]) -> dict[str, PackageState]:
        rows = [line.split() for line in output]
        return {
            row[0]: PackageState(version=row[1], held=row[2] == "hold")
            for row in rows
            if len(row) == 4 and row[3] == "installed"
        }
