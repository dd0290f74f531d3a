"""An endpoint: a name or an address, and a port, written in one way wherever it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self
from urllib.parse import urlsplit

from cluster.ip_families import Address

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
NAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*")
# Where kube-apiserver listens on every control plane.
API_SERVER_PORT = 6443


@dataclass(frozen=True)
class Endpoint:
    """Where something is served. What has an address and a port together is written by this, and by nothing else."""

    host: str | Address
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """An endpoint from `k8s.example.org:6443`, `192.0.2.1:6443` or `[2001:db8::1]:6443`; without a port, the API
        server's own. Raises ValueError for anything else."""
        wanted = "must be a DNS name or an address, with a port, such as k8s.example.org:6443"
        try:
            parts = urlsplit(f"//{text}")
            port = parts.port
        except ValueError:
            raise ValueError(wanted) from None
        host = parts.hostname or ""
        if parts.netloc != text or "@" in text or text.endswith(":") or port == 0:
            raise ValueError(wanted)
        try:
            address = ip_address(host)
        except ValueError:
            # 10.0.0.300 is a mistake in an address, not a name.
            if not NAME.fullmatch(host) or host.rpartition(".")[2].isdigit():
                raise ValueError(wanted) from None
            return cls(host, port or API_SERVER_PORT)
        return cls(address, port or API_SERVER_PORT)

    @property
    def name(self) -> str | None:
        """The DNS name, unless it is an address."""
        return self.host if isinstance(self.host, str) else None

    def __str__(self) -> str:
        """As in a URL: an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{self.host}:{self.port}"
