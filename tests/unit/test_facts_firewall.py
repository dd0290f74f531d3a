"""Firewalls as hosts tell of them: words of firewalld 1.3.3 and iptables 1.8.9 with the rules of this project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine, recorded

from facts.firewall import RULES, Firewall
from operations import firewall

MARK = "# BEGIN pyinfra-kubeadm\n-A ufw-before-input -m comment --comment pyinfra-kubeadm-0b37770dfda8a05d\n"
BARE = {"active": [], "version": None, "stale": []}


def firewalld(machine: Machine, running: list[str], disk: list[str]) -> None:
    """firewall-cmd that knows of these lines, and what firewall-offline-cmd reads."""
    machine.program("systemctl", 'test "$*" = "is-active -q firewalld"')
    for name, lines in (("firewall-cmd", running), ("firewall-offline-cmd", disk)):
        machine.file(f"/{name}.txt", "\n".join(lines) + "\n")
        machine.program(
            name,
            'test "$1" = --version && { echo 1.3.3; exit; }; w=${1#*=}; '
            f'grep -q "^$w (" {machine.root}/{name}.txt || {{ echo INVALID_POLICY: $w >&2; exit 140; }}; '
            f"awk -v w=\"$w\" '/^k/ {{ on = ($1 == w) }} on' {machine.root}/{name}.txt",
        )


def test_a_host_without_a_firewall(machine: Machine) -> None:
    assert machine.ask(Firewall) == BARE
    machine.program("systemctl", "exit 3")
    machine.file("/etc/ufw/ufw.conf", "ENABLED=no\nLOGLEVEL=low\n")
    assert machine.ask(Firewall) == BARE


RUNNING = recorded("Firewall.firewalld-1.3.3")


@pytest.mark.parametrize(
    ("running", "disk", "stale"),
    [
        ([], [], []),
        (RUNNING, RUNNING, []),
        ([], RUNNING, ["firewalld"]),
        (RUNNING, [], ["firewalld"]),
        ([line.replace("10250", "10251") for line in RUNNING], RUNNING, ["firewalld"]),
        ([line for line in RUNNING if "10.244" not in line], RUNNING, ["firewalld"]),
    ],
    ids=["bare", "done", "not-loaded", "removed", "changed", "zone-changed"],
)
def test_firewalld_is_compared_with_what_is_on_disk(
    machine: Machine, running: list[str], disk: list[str], stale: list[str]
) -> None:
    firewalld(machine, running, disk)
    assert machine.ask(Firewall) == {"active": ["firewalld"], "version": "1.3.3", "stale": stale}


@pytest.mark.parametrize(
    ("chain", "rules", "stale"),
    [
        ([], "*filter\nCOMMIT\n", []),
        (recorded("Firewall.ufw-0.36.2"), MARK, []),
        ([], MARK, ["ufw"]),
        (recorded("Firewall.ufw-0.36.2"), MARK.replace("0b37", "ffff"), ["ufw"]),
        (recorded("Firewall.ufw-0.36.2"), "*filter\nCOMMIT\n", ["ufw"]),
    ],
    ids=["bare", "done", "not-loaded", "changed", "removed"],
)
def test_ufw_is_compared_by_the_mark_of_its_rules(
    machine: Machine, chain: list[str], rules: str, stale: list[str]
) -> None:
    machine.file("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    machine.file(RULES, rules)
    machine.file("/chain.txt", "\n".join(chain) + "\n")
    machine.program("iptables", f'test "$*" = "-S ufw-before-input" && cat {machine.root}/chain.txt')
    assert machine.ask(Firewall) == {"active": ["ufw"], "version": None, "stale": stale}


Make = Callable[[dict[str, dict[str, Any]]], Hosts]


@pytest.mark.parametrize("name", ["firewalld", "ufw"])
def test_a_firewall_is_reloaded_when_it_does_not_run_with_what_is_on_disk(hosts: Make, name: str) -> None:
    told = hosts({"w1": {Firewall().command(): [f"active {name}", f"stale {name}"]}})
    assert told.plan(firewall.loaded, firewall=name, after=()) == [Command(firewall.RELOAD[name])]
    assert told.announced == [f"reload the rules of {name}"]
    done = hosts({"w1": {Firewall().command(): [f"active {name}"]}})
    assert done.execute(firewall.loaded, firewall=name, after=()) == []
    assert done.noops == [f"{name} runs with the rules on disk"]


def test_firewalld_that_could_not_read_its_files_is_not_told_to(machine: Machine) -> None:
    machine.program("firewall-offline-cmd", "echo 'Configuration error: INVALID_POLICY' >&2; exit 140")
    machine.program("firewall-cmd", f"touch {machine.root}/reloaded")
    assert machine.sh(firewall.RELOAD["firewalld"]).returncode == 140
    assert not machine.path("/reloaded").exists()
