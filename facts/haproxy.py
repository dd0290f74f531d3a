"""What HAProxy thinks of its servers."""

from __future__ import annotations

import csv
import shlex
from typing import Literal, TypedDict

from pyinfra.api import FactBase


class Server(TypedDict):
    address: str
    status: str
    check: str


class BackendsState(TypedDict):
    state: Literal["absent", "unreachable", "running"]
    servers: dict[str, dict[str, Server]]


class Backends(FactBase[BackendsState]):
    """Servers by backend, from `show stat` on the statistics socket.

    ::

        {"state": "running", "servers": {"kube-apiserver": {"cp1": {"address": "10.0.0.1:6443",
         "status": "UP", "check": "L7OK"}}}}
    """

    @staticmethod
    def default() -> BackendsState:
        return BackendsState(state="absent", servers={})

    def command(self, socket: str = "/run/haproxy/admin.sock") -> str:
        return (
            "if ! command -v haproxy >/dev/null; then echo absent; "
            f"elif s=$(echo 'show stat' | timeout 5 socat - UNIX-CONNECT:{shlex.quote(socket)} 2>/dev/null); "
            'then echo running; echo "$s"; else echo unreachable; fi'
        )

    def process(self, output: list[str]) -> BackendsState:
        state = output[0].strip()
        if state != "running":
            return BackendsState(state="absent" if state == "absent" else "unreachable", servers={})
        servers: dict[str, dict[str, Server]] = {}
        for row in csv.DictReader(line.removeprefix("# ") for line in output[1:] if line.strip()):
            if row["svname"] not in ("FRONTEND", "BACKEND"):
                server = Server(address=row["addr"] or "", status=row["status"], check=row["check_status"] or "")
                servers.setdefault(row["pxname"], {})[row["svname"]] = server
        return BackendsState(state="running", servers=servers)
