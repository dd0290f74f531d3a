"""Which load balancer carries the virtual IP."""

from __future__ import annotations

import shlex
from typing import TypedDict

from pyinfra.api import FactBase


class VrrpState(TypedDict):
    installed: bool
    running: bool
    holds_vip: bool


class Vrrp(FactBase[VrrpState]):
    """Keepalived on this host, and whether the virtual IP is on one of its interfaces now.

    ::

        {"installed": True, "running": True, "holds_vip": False}

    The address itself is looked at: asking keepalived to dump its state would write a file.
    """

    @staticmethod
    def default() -> VrrpState:
        return VrrpState(installed=False, running=False, holds_vip=False)

    def command(self, vip: str) -> str:
        return (
            "command -v keepalived >/dev/null && echo installed; "
            "systemctl is-active -q keepalived 2>/dev/null && echo running; "
            f"ip -o addr show to {shlex.quote(vip)} 2>/dev/null | grep -q . && echo vip; true"
        )

    def process(self, output: list[str]) -> VrrpState:
        return VrrpState(installed="installed" in output, running="running" in output, holds_vip="vip" in output)
