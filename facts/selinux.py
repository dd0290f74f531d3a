"""SELinux: how it is, and which files have another label than its policy says."""

from __future__ import annotations

import shlex
from typing import Literal

from pyinfra.api import FactBase

Mode = Literal["enforcing", "permissive", "none"]


class SELinux(FactBase[Mode]):
    """Whether the kernel runs with SELinux: "enforcing", "permissive" or "none"."""

    @staticmethod
    def default() -> Mode:
        return "none"

    def command(self) -> str:
        return "cat /sys/fs/selinux/enforce 2>/dev/null || echo none"

    def process(self, output: list[str]) -> Mode:
        modes: dict[str, Mode] = {"0": "permissive", "1": "enforcing"}
        return modes.get(output[0].strip(), "none")


class Mislabelled(FactBase[list[str]]):
    """What restorecon(8) would change of these files and of all beneath, a line each."""

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, paths: tuple[str, ...]) -> str:
        return f"restorecon -R -n -v {shlex.join(paths)} 2>/dev/null | grep '^Would relabel ' || true"

    def process(self, output: list[str]) -> list[str]:
        return output
