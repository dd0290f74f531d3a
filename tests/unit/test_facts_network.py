"""Facts of the way to the API: HAProxy, Keepalived, the network, the time. Output of odd machines is hand-written."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness import Machine, answer, recorded

from facts.haproxy import Backends
from facts.keepalived import Vrrp
from facts.network import Answers, Listeners, Pings, Reach, RoutesAndNames
from facts.sudo import Sudo
from facts.time import Time, TimeSynchronized

STAT = "\n".join(recorded("Backends.cluster")[1:])
NEIGHBOUR = "10.0.0.100 dev eth0 lladdr 52:54:00:12:34:56"


def test_backends_of_a_recorded_load_balancer() -> None:
    assert answer(Backends, recorded("Backends.cluster")) == {
        "state": "running",
        "servers": {
            "kube-apiserver": {
                f"cp{number}": {"address": f"10.88.0.2{number}:6443", "status": "UP", "check": "L7OK"}
                for number in (1, 2, 3)
            }
        },
    }


def test_backend_that_is_down_says_by_which_check() -> None:
    lines = [line.replace(",UP,", ",DOWN,").replace("L7OK", "L4CON") for line in recorded("Backends.cluster")]
    found = answer(Backends, lines)
    assert found["servers"]["kube-apiserver"]["cp2"] == {
        "address": "10.88.0.22:6443",
        "status": "DOWN",
        "check": "L4CON",
    }


def test_backends_are_absent_without_haproxy(machine: Machine) -> None:
    assert machine.ask(Backends) == {"state": "absent", "servers": {}}


def test_backends_are_unreachable_without_a_socket(machine: Machine) -> None:
    machine.program("haproxy", "exit 1")
    machine.program("socat", "echo 'Connection refused' >&2; exit 1")
    assert machine.ask(Backends) == {"state": "unreachable", "servers": {}}


def test_backends_are_asked_of_the_socket(machine: Machine) -> None:
    machine.program("haproxy", "exit 1")
    machine.program(
        "socat",
        f'read -r asked; test "$asked" = "show stat" && test "$2" = "UNIX-CONNECT:/a b" && cat <<"E"\n{STAT}\n\nE',
    )
    found = machine.ask(Backends, socket="/a b")
    assert found["state"] == "running"
    assert list(found["servers"]["kube-apiserver"]) == ["cp1", "cp2", "cp3"]


@pytest.mark.parametrize(("name", "holds"), [("Vrrp.cluster-lb1", False), ("Vrrp.cluster-lb2", True)])
def test_vrrp_of_recorded_load_balancers(name: str, holds: bool) -> None:
    assert answer(Vrrp, recorded(name)) == {"installed": True, "running": True, "holds_vip": holds}


def test_vrrp_is_not_there_without_keepalived(machine: Machine) -> None:
    assert machine.ask(Vrrp, vip="10.0.0.10") == {"installed": False, "running": False, "holds_vip": False}


def test_vrrp_that_is_stopped_does_not_hold_the_address(machine: Machine) -> None:
    machine.program("keepalived", "exit 1")
    machine.program("systemctl", "exit 3")
    machine.program("ip", "exit 0")
    assert machine.ask(Vrrp, vip="10.0.0.10") == {"installed": True, "running": False, "holds_vip": False}


def test_vrrp_looks_for_the_address_on_real_interfaces(machine: Machine) -> None:
    machine.program("ip")
    assert machine.ask(Vrrp, vip="127.0.0.1")["holds_vip"] is True
    assert machine.ask(Vrrp, vip="192.0.2.1")["holds_vip"] is False


@pytest.mark.parametrize(
    ("output", "mac"),
    [
        (["replied", f"{NEIGHBOUR} used 9/9/9probes 1 REACHABLE"], "52:54:00:12:34:56"),
        (["replied", f"{NEIGHBOUR} used 1155/1157/1129probes 1 STALE"], "52:54:00:12:34:56"),
        ([f"{NEIGHBOUR} used 2/2/2probes 1 REACHABLE"], "52:54:00:12:34:56"),
        ([f"{NEIGHBOUR} ref 1 used 3/0/2 probes 1 REACHABLE"], "52:54:00:12:34:56"),
        ([f"{NEIGHBOUR} used 0/3/3probes 1 REACHABLE"], None),
        ([f"{NEIGHBOUR} used 0/40/40probes 1 DELAY"], None),
        ([f"{NEIGHBOUR} PERMANENT"], None),
        (["10.0.0.100 dev eth0  FAILED"], None),
        (["10.0.0.100 dev eth0  INCOMPLETE"], None),
        (["replied"], None),
        ([], None),
    ],
)
def test_an_address_is_answered_for_by_whoever_is_there_now(output: list[str], mac: str | None) -> None:
    assert answer(Answers, output) == mac


def test_nothing_answers_on_a_machine_without_ip_ping_and_bash(machine: Machine) -> None:
    assert machine.ask(Answers, address="10.0.0.100") is None


@pytest.mark.parametrize(("reply", "mac"), [("exit 0", "52:54:00:12:34:56"), ("exit 1", None)])
def test_an_answer_counts_when_the_machine_replies(machine: Machine, reply: str, mac: str | None) -> None:
    machine.program("ping", reply)
    machine.program("ip", f'test "$*" = "-s -o neigh show to 10.0.0.100" && echo "{NEIGHBOUR} STALE"')
    assert machine.ask(Answers, address="10.0.0.100") == mac


def test_an_answer_is_looked_for_by_tcp_when_ping_gets_none(machine: Machine) -> None:
    machine.program("ping", "exit 1")
    machine.program("bash", f'echo "$2" > {machine.root}/asked; exit 0')
    machine.program("ip", f'echo "{NEIGHBOUR} DELAY"')
    assert machine.ask(Answers, address="10.0.0.100") == "52:54:00:12:34:56"
    assert machine.path("asked").read_text() == ": > /dev/tcp/10.0.0.100/9\n"


@pytest.mark.parametrize(("printed", "kept"), [("yes", True), ("no", False), ("", None)])
def test_time_is_kept_or_not_or_unknown(machine: Machine, printed: str, kept: bool | None) -> None:
    machine.program("timedatectl", f'test "$*" = "show -p NTPSynchronized --value" && echo {printed}')
    assert machine.ask(TimeSynchronized) is kept


def test_time_is_unknown_without_timedatectl_or_when_it_fails(machine: Machine) -> None:
    assert machine.ask(TimeSynchronized) is None
    machine.program("timedatectl", "echo 'Failed to connect to bus' >&2; exit 1")
    assert machine.ask(TimeSynchronized) is None


@pytest.mark.parametrize(("status", "works"), [(0, True), (1, False)])
def test_sudo_works_without_asking_or_not(machine: Machine, status: int, works: bool) -> None:
    machine.program("sudo", f'test "$*" = "-n true" && exit {status}')
    assert machine.ask(Sudo) is works


def test_sudo_does_not_work_where_there_is_none(machine: Machine) -> None:
    assert machine.ask(Sudo) is False


def test_routes_and_names_of_a_machine(machine: Machine) -> None:
    machine.file(
        "/proc/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "*\t0000600A\t00000000\t0201\t0\t0\t0\t0000F0FF\t0\t0\t0\n",
    )
    machine.file(
        "/etc/resolv.conf", "# nameserver 10.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n nameserver  ::1\n"
    )
    machine.file("/run/systemd/resolve/resolv.conf", "nameserver 10.0.0.2\n")
    machine.file(
        "/etc/hosts",
        "127.0.0.1 localhost\n127.0.1.1\tcp1.example.org cp1 # of the installer\n#10.0.0.5 cp2\n10.0.0.6 cp22\n"
        "# BEGIN pyinfra-kubeadm\n10.0.0.7 cp2\n# END pyinfra-kubeadm\n",
    )
    machine.program("systemctl", 'test "$3" = systemd-resolved')
    assert machine.ask(RoutesAndNames, names=("cp1", "cp2")) == {
        "routes": ["0.0.0.0/0", "10.0.0.0/24"],
        "nameservers": ["127.0.0.53", "::1"],
        "resolved": True,
        "resolved_nameservers": ["10.0.0.2"],
        "hosts": [["127.0.1.1", "cp1.example.org", "cp1"]],
    }


def test_routes_of_ipv6_are_those_that_lead_somewhere(machine: Machine) -> None:
    """As a kernel has them that has an address, a default route, and one that it has itself to refuse."""
    nowhere = "0" * 32
    machine.file(
        "/proc/net/ipv6_route",
        f"fd{'0' * 30} 40 {nowhere} 00 {nowhere} 00000100 00000001 00000000 00000001     eth0\n"
        f"{nowhere} 00 {nowhere} 00 fd{'0' * 29}1 00000400 00000001 00000000 00000003     eth0\n"
        f"{nowhere} 00 {nowhere} 00 {nowhere} ffffffff 00000001 00000000 00200200       lo\n",
    )
    assert machine.ask(RoutesAndNames, names=("cp1",))["routes"] == ["fd00::/64", "::/0"]


def test_routes_and_names_of_a_machine_without_any_file(machine: Machine) -> None:
    assert machine.ask(RoutesAndNames, names=("cp1",)) == RoutesAndNames.default()


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100
   1: 0100007F:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100
   2: 1500000A:280A 1F00000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100
"""


def test_what_listens_is_told_from_what_is_connected(machine: Machine) -> None:
    machine.file("/proc/net/tcp", TCP)
    assert machine.ask(Listeners, ports=(6443, 2375, 10250)) == {
        port: {"process": "", "unit": ""} for port in (6443, 2375)
    }


def test_a_listener_of_this_very_machine_is_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = Listeners().command(ports=(port,))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    found = answer(Listeners, done.stdout.splitlines())
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert {each: row["process"] for each, row in found.items()} == {port: name}


def test_listeners_that_nobody_is_known_of() -> None:
    lines = ["192B haproxy.service haproxy", "192B haproxy.service haproxy", "0947 - etcd", "2808 - "]
    assert answer(Listeners, lines) == {
        6443: {"process": "haproxy", "unit": "haproxy.service"},
        2375: {"process": "etcd", "unit": ""},
        10248: {"process": "", "unit": ""},
    }


def test_a_port_is_reached_that_answers_or_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # taken, and nobody listens
        (opened, shut) = (f"127.0.0.1:{each.getsockname()[1]}" for each in (server, silent))
        command = Reach().command(targets=(opened, shut))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert answer(Reach, done.stdout.splitlines()) == {opened: "open", shut: "Connection refused"}


def test_a_port_of_ipv6_is_reached_by_its_address_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        opened = f"[::1]:{server.getsockname()[1]}"
        command = Reach().command(targets=(opened,))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert answer(Reach, done.stdout.splitlines()) == {opened: "open"}


# What bash 5.2 says where packets were dropped, prohibited, or had no way; seen with nftables in a network namespace.
SAID = {
    "1": ("exit 124", "timeout"),
    "2": ("echo 'bash: connect: No route to host' >&2; echo 'bash: line 1: /dev/tcp/x/2: No route to host' >&2; exit 1",
          "No route to host"),
    "3": ("echo 'bash: connect: Network is unreachable' >&2; exit 1", "Network is unreachable"),
}  # fmt: skip


@pytest.mark.parametrize("port", SAID)
def test_what_is_not_reached_says_why(machine: Machine, port: str) -> None:
    machine.program("bash", SAID[port][0])
    assert machine.ask(Reach, targets=(f"192.0.2.1:{port}",)) == {f"192.0.2.1:{port}": SAID[port][1]}


def test_without_bash_it_is_not_known_what_is_reached(machine: Machine) -> None:
    found = machine.ask(Reach, targets=("192.0.2.1:6443",))
    assert found["192.0.2.1:6443"] not in ("open", "Connection refused", "timeout")


@pytest.mark.parametrize(
    ("ping", "passed"),
    [
        ("exit 0", "full"),
        ('case "$*" in *"-M do -s 1472"*) exit 1;; esac', "small"),
        ("exit 1", "none"),
        # The first is lost, as while ARP asks.
        ("test -e tried || { echo > tried; exit 1; }", "full"),
    ],
)
def test_pings_of_full_size_pass_or_small_ones_or_none(machine: Machine, ping: str, passed: str) -> None:
    machine.program("ping", ping)
    assert machine.ask(Pings, addresses=("192.0.2.1", "192.0.2.2"), mtu=1500)["192.0.2.1"] == passed


def test_the_headers_of_ipv6_are_larger_than_those_of_ipv4(machine: Machine) -> None:
    machine.program("ping", 'echo "$*" >> asked')
    machine.ask(Pings, addresses=("192.0.2.1", "2001:db8::1"), mtu=1500)
    assert sorted((machine.root / "asked").read_text().splitlines()) == [
        "-q -c 1 -W 2 -M do -s 1452 2001:db8::1",
        "-q -c 1 -W 2 -M do -s 1472 192.0.2.1",
    ]


def test_without_ping_nothing_is_known_of_packets(machine: Machine) -> None:
    assert machine.ask(Pings, addresses=("192.0.2.1",), mtu=1500) == {}


def test_the_time_of_this_very_machine(machine: Machine) -> None:
    before = time.time()
    assert before - 0.1 <= machine.ask(Time) <= time.time() + 0.1
