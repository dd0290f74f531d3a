"""A host's own network: who answers in it, which ports are taken, what can be reached, routes and names."""

from __future__ import annotations

import re
import shlex
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypedDict, cast

from pyinfra.api import FactBase

ATTEMPT = 2  # seconds that an attempt without a reply takes
# Around this project's own lines in /etc/hosts.
BEGIN, END = "# BEGIN pyinfra-kubeadm", "# END pyinfra-kubeadm"


class Answers(FactBase[str | None]):
    """The MAC address that answers for an address of this host's network, or None when nothing does.

    ::

        "52:54:00:12:34:56"

    A machine that drops every packet to itself still answers ARP, and neighbour discovery mostly, so the kernel's
    neighbour table is read after an attempt to reach it (https://man7.org/linux/man-pages/man8/ip-neighbour.8.html).
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


class Names(TypedDict):
    routes: list[str]
    nameservers: list[str]
    resolved: bool
    resolved_nameservers: list[str]
    hosts: list[list[str]]


class RoutesAndNames(FactBase[Names]):
    """Where packets can go, who is asked for names, and which lines of /etc/hosts have one of these names.

    ::

        {"routes": ["0.0.0.0/0", "10.0.0.0/24"], "nameservers": ["127.0.0.53"], "resolved": True,
         "resolved_nameservers": ["10.0.0.2"], "hosts": [["127.0.1.1", "cp1.example.org", "cp1"]]}

    `nameservers` are those of /etc/resolv.conf, `resolved_nameservers` those that systemd-resolved asks itself;
    `resolved` is whether that runs. Lines of this project in /etc/hosts are left out.
    """

    @staticmethod
    def default() -> Names:
        return Names(routes=[], nameservers=[], resolved=False, resolved_nameservers=[], hosts=[])

    def command(self, names: tuple[str, ...]) -> str:
        patterns = " ".join(f"-e {shlex.quote(name)}" for name in names)
        server = "s/^[[:space:]]*nameserver[[:space:]]*/{} /p"
        return (
            # Bits of its flags: up (1), a route that refuses (0x200).
            "awk 'NR > 1 {print \"route\", $2, $8, $4}' /proc/net/route 2>/dev/null; "
            "awk '{print \"route6\", $1, $2, $9}' /proc/net/ipv6_route 2>/dev/null; "
            f"sed -n '{server.format('nameserver')}' /etc/resolv.conf 2>/dev/null; "
            f"sed -n '{server.format('upstream')}' /run/systemd/resolve/resolv.conf 2>/dev/null; "
            "systemctl is-active -q systemd-resolved 2>/dev/null && echo resolved; "
            f"sed '/^{BEGIN}$/,/^{END}$/d; s/#.*//' /etc/hosts 2>/dev/null | grep -wF {patterns} "
            "| sed 's/^/hosts /'; true"
        )

    def process(self, output: list[str]) -> Names:
        found = self.default()
        for line in output:
            kind, *words = line.split()
            if kind == "route" and int(words[2], 16) & 0x201 == 1:
                found["routes"].append(_network(words[0], words[1]))
            elif kind == "route6" and int(words[2], 16) & 0x201 == 1:
                found["routes"].append(_network6(words[0], words[1]))
            elif kind == "nameserver" and words:
                found["nameservers"].append(words[0])
            elif kind == "upstream" and words:
                found["resolved_nameservers"].append(words[0])
            elif kind == "resolved":
                found["resolved"] = True
            elif kind == "hosts":
                found["hosts"].append(words)
        return found


def _network(destination: str, mask: str) -> str:
    """A network of /proc/net/route, where numbers stand in the order of bytes of a little-endian machine."""
    address, bits = (IPv4Address(bytes.fromhex(each)[::-1]) for each in (destination, mask))
    return str(IPv4Network(f"{address}/{bits}"))


def _network6(destination: str, length: str) -> str:
    """A network of /proc/net/ipv6_route, where all numbers are hexadecimal."""
    return str(IPv6Network((IPv6Address(bytes.fromhex(destination)), int(length, 16))))


class Listener(TypedDict):
    process: str
    unit: str


class Listeners(FactBase[dict[int, Listener]]):
    """Which of these TCP ports something listens on, whatever address, and who.

    ::

        {6443: {"process": "kube-apiserver", "unit": ""}, 5443: {"process": "nginx", "unit": "bundle-server.service"}}

    `process` is the kernel's name of it, of at most 15 bytes; `unit` the systemd service it is of. Both are empty when
    that is not known. Read from /proc, for `ss` is not on every host.
    """

    @staticmethod
    def default() -> dict[int, Listener]:
        return {}

    def command(self, ports: tuple[int, ...]) -> str:
        return (
            f"w=$(printf ' %04X' {' '.join(map(str, ports))}); "
            'l=$(awk -v w="$w " \'$4 == "0A" {split($2, a, ":"); if (index(w, " " a[2] " ")) print a[2], $10}\' '
            '/proc/net/tcp /proc/net/tcp6 2>/dev/null); if test -n "$l"; then '
            "s=$(find /proc/[0-9]*/fd -lname 'socket:*' -printf '%h %l\\n' 2>/dev/null); "
            'echo "$l" | while read -r port inode; do '
            'p=$(echo "$s" | sed -n "s|^/proc/\\([0-9]*\\)/fd socket:\\[$inode\\]\\$|\\1|p" | head -n 1); '
            "u=$(sed -n 's|.*/\\([^/]*\\.service\\).*|\\1|p' /proc/$p/cgroup 2>/dev/null | head -n 1); "
            'echo "$port ${u:--} $(cat /proc/$p/comm 2>/dev/null)"; done; fi; true'
        )

    def process(self, output: list[str]) -> dict[int, Listener]:
        found: dict[int, Listener] = {}
        for line in output:
            port, unit, name = [*line.split(maxsplit=2), ""][:3]
            # The same port of IPv4 and IPv6 is one program's.
            found.setdefault(int(port, 16), Listener(process=name.strip(), unit="" if unit == "-" else unit))
        return found


class Reach(FactBase[dict[str, str]]):
    """What comes of connecting to each of these `address:port` by TCP, all at once.

    ::

        {"10.0.0.21:6443": "open", "10.0.0.21:2379": "Connection refused", "[fd00::31]:10250": "timeout"}

    Else it is the kernel's word for why not, such as "No route to host". What connects says nothing and hangs up.
    """

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, targets: tuple[str, ...]) -> str:
        # bash ends with why: `bash: connect: Connection refused`
        one = (
            "h=${1%:*}; h=${h#\\[}; h=${h%]}; "
            'w=$(LC_ALL=C timeout 3 bash -c ": < /dev/tcp/$h/${1##*:}" 2>&1); case $? in '
            '0) echo "$1 open";; 124) echo "$1 timeout";; *) echo "$1 ${w##*: }";; esac'
        )
        return f"printf '%s\\n' {shlex.join(targets)} | xargs -n 1 -P 100 sh -c '{one}' sh; true"

    def process(self, output: list[str]) -> dict[str, str]:
        rows = (line.partition(" ") for line in output)
        return {target: words.strip() for target, _, words in rows}


Passed = Literal["full", "small", "none"]


class Pings(FactBase[dict[str, Passed]]):
    """Whether pings that fill a packet of this size, unfragmented, come back from these addresses, or small ones do.

    ::

        {"10.0.0.21": "full", "10.0.0.31": "small", "10.0.0.32": "none"}

    Empty where there is no `ping`. 28 bytes of the size are the headers of IPv4 and ICMP, of IPv6 they are 48.
    """

    @staticmethod
    def default() -> dict[str, Passed]:
        return {}

    def command(self, addresses: tuple[str, ...], mtu: int) -> str:
        one = (
            f"case $1 in *:*) s={mtu - 48};; *) s={mtu - 28};; esac; "
            'f="-M do -s $s"; for o in "$f" "$f" ""; do ping -q -c 1 -W 2 $o $1 >/dev/null 2>&1 && '
            '{ test -n "$o" && echo "$1 full" || echo "$1 small"; exit 0; }; done; echo "$1 none"'
        )
        return (
            "if command -v ping >/dev/null; then "
            f"printf '%s\\n' {shlex.join(addresses)} | xargs -n 1 -P 100 sh -c '{one}' sh; fi; true"
        )

    def process(self, output: list[str]) -> dict[str, Passed]:
        return {address: cast("Passed", passed) for address, passed in map(str.split, output)}
