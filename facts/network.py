"""What answers in a host's own network, and beyond."""

from __future__ import annotations

import re
import shlex
from typing import Literal, cast

from pyinfra.api import FactBase

ATTEMPT = 2  # seconds that an attempt without a reply takes


class Answers(FactBase[str | None]):
    """The MAC address that answers for an IPv4 address of this host's network, or None when nothing does.

    ::

        "52:54:00:12:34:56"

    A machine that drops every packet to itself still answers ARP, so the kernel's neighbour table is read after
    an attempt to reach it (https://man7.org/linux/man-pages/man8/ip-neighbour.8.html).
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self, address: str) -> str:
        quoted = shlex.quote(address)
        return (
            f"{{ ping -c 1 -W 1 {quoted} || timeout 1 bash -c ': > /dev/tcp/{quoted}/9'; }} >/dev/null 2>&1 "
            f"&& echo replied; ip -s -o neigh show to {quoted} 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> str | None:
        # 10.0.0.100 dev eth0 lladdr 52:54:00:12:34:56 used 4/1/1probes 1 REACHABLE
        for line in output:
            mac = re.search(r" lladdr (\S+)", line)
            confirmed = re.search(r" used \d+/(\d+)/", line)  # seconds ago
            # An entry that this attempt has not confirmed may be of a machine that has left.
            if mac and ("replied" in output or (confirmed and int(confirmed[1]) <= ATTEMPT)):
                return mac[1]
        return None


Way = Literal["open", "refused", "silent", "unknown"]


class Reached(FactBase[Way]):
    """How far a host comes on its way to a TCP port of another one, by name or address.

    ::

        "refused"

    "unknown": the name is not known here. "silent": nobody answers within three seconds, or there is no route.
    "refused": a machine answers that nothing listens. "open": it takes the connection.
    """

    @staticmethod
    def default() -> Way:
        return "unknown"

    def command(self, host: str, port: int) -> str:
        quoted = shlex.quote(host)
        return (
            f"if ! getent ahosts {quoted} >/dev/null; then echo unknown; "
            f"else said=$(LC_ALL=C timeout 3 bash -c ': < \"/dev/tcp/$0/$1\"' {quoted} {port} 2>&1) && echo open || "
            'case "$said" in *"Connection refused"*) echo refused;; *) echo silent;; esac; fi'
        )

    def process(self, output: list[str]) -> Way:
        state = output[0].strip()
        if state not in ("open", "refused", "silent", "unknown"):
            raise ValueError(f"not an answer of this fact: {state!r}")
        return cast("Way", state)
