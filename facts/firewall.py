"""Firewalls of a host that run, and whether with the rules that are written."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase

RULES = "/etc/ufw/before.rules"
MARK = "grep -o 'pyinfra-kubeadm-[0-9a-f]*'"


class FirewallState(TypedDict):
    active: list[str]
    version: str | None
    stale: list[str]


class Firewall(FactBase[FirewallState]):
    """::

        {"active": ["firewalld"], "version": "1.3.3", "stale": []}

    `active`: of firewalld and ufw those that filter. `version` is firewalld's. `stale`: those that do not run with the
    rules of this project that are on disk, as after a run that was interrupted before it reloaded them.
    """

    @staticmethod
    def default() -> FirewallState:
        return FirewallState(active=[], version=None, stale=[])

    def command(self) -> str:
        whats = "policy=kubernetes policy=kubernetes-fwd zone=kubernetes-pods"
        return (
            "if systemctl is-active -q firewalld 2>/dev/null; then echo active firewalld; "
            'echo "version $(firewall-cmd --version)"; '
            f"for w in {whats}; do "
            'test "$(firewall-cmd --info-$w 2>/dev/null)" = "$(firewall-offline-cmd --info-$w 2>/dev/null)" || '
            "echo stale firewalld; done; fi; "
            "if grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf; then echo active ufw; "
            f'test "$({MARK} {RULES})" = "$(iptables -S ufw-before-input 2>/dev/null | {MARK})" || echo stale ufw; fi; '
            "true"
        )

    def process(self, output: list[str]) -> FirewallState:
        found = self.default()
        for line in output:
            kind, _, value = line.partition(" ")
            if kind == "version":
                found["version"] = value
            elif kind == "active":
                found["active"].append(value)
            elif kind == "stale" and value not in found["stale"]:
                found["stale"].append(value)
        return found
