"""Facts of the way to the API: HAProxy, Keepalived, the network, the time. Output of odd machines is hand-written."""

from __future__ import annotations

import socket

import pytest
from harness import Machine, answer, recorded

from facts.haproxy import Backends
from facts.keepalived import Vrrp
from facts.network import Answers, Reached
from facts.sudo import Sudo
from facts.time import TimeSynchronized

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


@pytest.fixture
def caller(machine: Machine) -> Machine:
    """A machine that can look names up and connect."""
    for name in ("getent", "timeout", "bash"):
        machine.program(name)
    return machine


def test_a_port_that_takes_connections_is_open(caller: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert caller.ask(Reached, host="localhost", port=server.getsockname()[1]) == "open"


def test_a_port_on_which_nothing_listens_is_refused(caller: Machine) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert caller.ask(Reached, host="127.0.0.1", port=unused.getsockname()[1]) == "refused"


def test_an_endpoint_that_says_nothing_is_silent(caller: Machine) -> None:
    caller.program("timeout", "exit 124")
    assert caller.ask(Reached, host="127.0.0.1", port=6443) == "silent"
    caller.program("timeout", "echo 'bash: connect: No route to host' >&2; exit 1")
    assert caller.ask(Reached, host="127.0.0.1", port=6443) == "silent"


def test_a_name_that_cannot_be_looked_up_is_unknown(caller: Machine) -> None:
    caller.program("getent", 'test "$*" = "ahosts api.example.org" && exit 2')
    assert caller.ask(Reached, host="api.example.org", port=6443) == "unknown"


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
