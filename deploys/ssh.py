"""How pyinfra's SSH connections are tuned; named in group_data/all.py."""

from __future__ import annotations

import socket
from typing import Any

from paramiko import Transport

KEEPALIVE = 15  # seconds; a dead link is noticed during a long command, and firewalls keep an idle one
# Seconds after which a connection on which nothing comes looks whether it is to end or to send a keepalive. paramiko's
# own 0.1 s are a third of a run's work with hundreds of hosts, all of which are connected from its first second on.
LOOK = 5.0


def transport(sock: Any, **options: Any) -> Transport:
    """A paramiko transport without Nagle's algorithm, which costs each short command 40 ms.

    paramiko 4 leaves it on; `transport_factory` of SSHClient.connect is its way in
    (https://docs.paramiko.org/en/stable/api/client.html). A proxy command's socket has no such option.
    """
    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made = Transport(sock, **options)
    made.set_keepalive(KEEPALIVE)
    made.sock.settimeout(LOOK)
    # AES-GCM first where the server has it too: without a MAC of its own, pieces of the bundle cost fewer cycles.
    security = made.get_security_options()
    security.ciphers = sorted(security.ciphers, key=lambda name: "gcm" not in name)
    return made
