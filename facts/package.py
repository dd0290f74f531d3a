"""Installed packages."""

from __future__ import annotations

import shlex
from typing import Literal, TypedDict

from pyinfra.api import FactBase

# dnf-versionlock(8): one line of its list locks one package to one version, as name-epoch:version-release.*.
LOCKED = "cat \"$(sed -n 's/^ *locklist *= *//p' /etc/dnf/plugins/versionlock.conf)\""


class PackageState(TypedDict):
    version: str
    held: bool


class Packages(FactBase[dict[str, PackageState]]):
    """Versions of packages that are installed, of those asked for; what is not installed is not in it.

    ::

        {"haproxy": {"version": "2.6.12-1+deb12u4", "held": False}}

    A package that is removed with its configuration left, or half installed, counts as not installed. One of format
    "rpm" is held when dnf's versionlock has the very version that is installed; an epoch of 0 is left out. What
    another package provides in its place counts as installed, such as curl by curl-minimal, which conflicts with it.
    """

    @staticmethod
    def default() -> dict[str, PackageState]:
        return {}

    def command(self, names: tuple[str, ...], format: Literal["deb", "rpm"] = "deb") -> str:
        if not names:
            return "true"
        if format == "rpm":
            row = "%{EPOCHNUM}:%{VERSION}-%{RELEASE} rpm installed\\n"
            return (
                f'{{ for n in {shlex.join(names)}; do rpm -q --qf "$n {row}" "$n" || '
                f'rpm -q --whatprovides --qf "$n {row}" "$n"; done; {LOCKED}; }} 2>/dev/null || true'
            )
        return (
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\\n' "
            f"{shlex.join(names)} 2>/dev/null || true"
        )

    def process(self, output: list[str]) -> dict[str, PackageState]:
        rows = [line.split() for line in output]
        locked = {row[0] for row in rows if len(row) == 1}
        return {
            row[0]: PackageState(
                version=row[1].removeprefix("0:") if row[2] == "rpm" else row[1],
                held=row[2] == "hold" or (row[2] == "rpm" and f"{row[0]}-{row[1]}.*" in locked),
            )
            for row in rows
            if len(row) == 4 and row[3] == "installed"
        }
