"""Routes and rules of the network of bridges, as the kernel has them."""

from __future__ import annotations

import shlex
from typing import TypedDict

from pyinfra.api import FactBase


class PodNetworkState(TypedDict):
    written: bool
    routes: dict[str, str]
    rules: list[str]


class PodNetwork(FactBase[PodNetworkState]):
    """Live routes of a routing protocol's number, and rules that name a chain; nothing where the script is not there.

    ::

        {"written": True, "routes": {"10.244.1.0/24": "10.0.0.22"}, "rules": ["nat -A POSTROUTING -j POD-NETWORK"]}

    The packet filter is asked only where the script has been written: asking may load the kernel's modules.
    """

    @staticmethod
    def default() -> PodNetworkState:
        return PodNetworkState(written=False, routes={}, rules=[])

    def command(self, script: str, protocol: int, chain: str) -> str:
        asked = "; ".join(
            f"iptables -w 10 -t {table} -S 2>/dev/null | grep -w -e {chain} | sed 's/^/rule {table} /'"
            for table in ("nat", "filter")
        )
        return (
            f"if test -e {shlex.quote(script)}; then echo written; "
            f"ip -4 -o route show proto {protocol} | sed 's/^/route /'; {asked}; fi; true"
        )

    def process(self, output: list[str]) -> PodNetworkState:
        found = self.default()
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "written":
                found["written"] = True
            elif kind == "route":  # 10.244.1.0/24 via 10.0.0.22 dev eth0
                subnet, _, hop, *_ = [*rest.split(), "", "", ""]
                found["routes"][subnet] = hop
            elif kind == "rule" and " -A " in rest:
                found["rules"].append(rest.strip())
        return found
