"""A link between two network namespaces on which every packet to the far one is late.

    python3 bench/link.py PID     # from this namespace to that of a process; prints "up" and relays until it is killed

It stands in for `tc netem`, which kernels may lack: two TUN devices, and this process between them.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

DELAY = 0.020  # seconds
NEAR, FAR = "192.0.2.1/30", "192.0.2.2/30"
HOSTS = "10.0.0.0/16"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 1, 0x1000
PACKET = 1 << 16


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def connect(pid: int) -> None:
    """Give the ends `near0` and `far0` their addresses and routes; the far one goes to the namespace of a process."""
    ip(f"link set far0 netns {pid}")
    for name, address, inside in (("near0", NEAR, []), ("far0", FAR, ["nsenter", "-t", str(pid), "-n"])):
        for words in (f"address add {address} dev {name}", f"link set {name} up"):
            subprocess.run([*inside, "ip", *words.split()], check=True)
    ip(f"route add {HOSTS} via {FAR.partition('/')[0]}")


def tun(name: str) -> int:
    """A new TUN device; it goes when this process does."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def relay(near: int, far: int) -> None:
    """Pass packets on for ever: to the far end after the delay, to the near one at once."""
    late: deque[tuple[float, bytes]] = deque()
    poll = select.poll()
    for device in (near, far):
        poll.register(device, select.POLLIN)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) * 1000 if late else None
        ready = {device for device, _ in poll.poll(wait)}
        for packet in packets(far) if far in ready else ():
            os.write(near, packet)
        for packet in packets(near) if near in ready else ():
            late.append((time.monotonic() + DELAY, packet))
        while late and late[0][0] <= time.monotonic():
            os.write(far, late.popleft()[1])


def packets(device: int, most: int = 64) -> list[bytes]:
    """What a device has now, up to a number."""
    found = []
    while len(found) < most:
        try:
            found.append(os.read(device, PACKET))
        except BlockingIOError:
            break
    return found


def main() -> None:
    near, far = tun("near0"), tun("far0")
    connect(int(sys.argv[1]))
    print("up", flush=True)
    relay(near, far)


if __name__ == "__main__":
    main()
