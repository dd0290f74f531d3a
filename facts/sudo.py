"""Whether the SSH user may become root."""

from __future__ import annotations

from pyinfra.api import FactBase


class Sudo(FactBase[bool]):
    """Whether `sudo` works without asking; to be asked without sudo itself (`_sudo=False`).

    ::

        True
    """

    @staticmethod
    def default() -> bool:
        return False

    def command(self) -> str:
        return "sudo -n true 2>/dev/null && echo yes || echo no"

    def process(self, output: list[str]) -> bool:
        return output[-1].strip() == "yes"
