"""Operations of a node's own system: swap, kernel, units. All states of hosts are hand-written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine, recorded
from pyinfra.api import OperationError
from pyinfra.api.operation import OperationMeta
from pyinfra.connectors.util import CommandOutput

from facts.kernel import KernelModules, Sysctl
from facts.service import Unit
from facts.swap import Swap
from operations import kernel, service, swap
from operations.change import any_changes

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
SYSCTL = {"net.ipv4.ip_forward": "1", "vm.overcommit_memory": "1"}
SYSCTL_FILE = "/etc/sysctl.d/90-kubernetes.conf"
RUNNING = {"load": "loaded", "active": "active", "enabled": "enabled", "stale": False}
RESTART = (
    "timeout 90 systemctl restart haproxy.service || { systemctl status -n 20 --no-pager haproxy.service >&2; exit 1; }"
)


def planned(changes: bool) -> OperationMeta:
    """An operation that has been planned and not run."""
    return OperationMeta("planned", changes)


def done(*commands: str, planned_change: bool | None = None) -> OperationMeta:
    """An operation that has run these commands."""
    meta = OperationMeta("done", planned_change)
    meta.set_complete(True, list(commands), CommandOutput([]))
    return meta


def test_changes_are_those_made_once_it_ran_and_those_planned_before() -> None:
    assert any_changes([planned(False), planned(True)]) is True
    assert any_changes([planned(False), done()]) is False
    assert any_changes([done("systemctl restart x")]) is True
    assert any_changes([done(planned_change=True)]) is False
    assert any_changes([]) is False


def test_swap_that_is_not_there_needs_nothing(hosts: Make) -> None:
    bare = hosts({"cp1": {Swap().command(): recorded("Swap.cluster")}})
    assert bare.plan(swap.off) == []
    assert bare.execute(swap.off) == []
    assert bare.noops == ["there is no swap"] * 2


def test_swap_is_turned_off_in_every_place_and_live_last(hosts: Make) -> None:
    output = ["device /dev/sda2 partition 1 0 -2", "fstab /dev/sda2 none swap sw 0 0", "unit odd.swap", "zram /etc/x"]
    swapping = hosts({"cp1": {Swap().command(): output}})
    assert swapping.execute(swap.off) == [
        Command(swap.FSTAB),
        Command("systemctl mask --now odd.swap"),
        Command("truncate -s 0 /etc/systemd/zram-generator.conf && systemctl daemon-reload"),
        Command("swapoff -a"),
    ]
    assert swapping.announced == [
        "turn off swap: devices ['/dev/sda2'], fstab ['/dev/sda2 none swap sw 0 0'], units ['odd.swap'], zram True"
    ]


def test_swap_that_is_only_live_is_only_turned_off_live(hosts: Make) -> None:
    live = hosts({"cp1": {Swap().command(): ["device /swap.img file 1 0 -2"]}})
    assert live.execute(swap.off) == [Command("swapoff -a")]


def test_swap_lines_of_fstab_become_comments_and_nothing_else_does(machine: Machine) -> None:
    kept = "# /dev/sdz none swap sw 0 0\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/sdb1 /swap ext4 rw 0 2\n\n"
    table = machine.file(
        "/etc/fstab", f"{kept}UUID=1-2 none swap sw 0 0\n  /swap.img\tnone\tswap\tsw\t0\t0\n/a none swap"
    )
    table.chmod(0o640)
    ran = machine.sh(swap.FSTAB)
    assert (ran.returncode, ran.stderr) == (0, "")
    off = "# off for Kubernetes: "
    assert table.read_text() == (
        f"{kept}{off}UUID=1-2 none swap sw 0 0\n{off}  /swap.img\tnone\tswap\tsw\t0\t0\n{off}/a none swap"
    )
    assert table.stat().st_mode & 0o7777 == 0o640
    assert list(table.parent.iterdir()) == [table]
    assert machine.ask(Swap) == Swap.default()


def modules(hosts: Make, *output: str) -> Hosts:
    return hosts({"cp1": {KernelModules().command(("overlay", "br_netfilter")): list(output)}})


def test_modules_that_are_to_be_had_are_loaded(hosts: Make) -> None:
    drifted = modules(hosts, "overlay builtin", "br_netfilter available")
    assert drifted.execute(kernel.modules, names=["overlay", "br_netfilter"]) == [Command("modprobe -a br_netfilter")]
    bare = modules(hosts, "overlay available", "br_netfilter available")
    assert bare.plan(kernel.modules, names=["overlay", "br_netfilter"]) == [Command("modprobe -a overlay br_netfilter")]
    assert bare.announced == ["load kernel modules overlay, br_netfilter"]


def test_modules_that_are_there_need_nothing(hosts: Make) -> None:
    there = modules(hosts, *recorded("KernelModules.cluster")[:2])
    assert there.execute(kernel.modules, names=["overlay", "br_netfilter"]) == []
    assert there.noops == ["overlay, br_netfilter are loaded or compiled in"]


def test_modules_that_are_not_to_be_had_stop_the_run(hosts: Make) -> None:
    words = r"^cp1: the kernel has no module br_netfilter, neither loadable nor compiled in\. Install the kernel's"
    with pytest.raises(OperationError, match=words):
        modules(hosts, "overlay loaded", "br_netfilter absent").plan(kernel.modules, names=["overlay", "br_netfilter"])


@pytest.mark.parametrize(
    ("live", "written", "yields"),
    [
        (("net.ipv4.ip_forward=1", "vm.overcommit_memory=1"), False, False),
        (("net.ipv4.ip_forward=0", "vm.overcommit_memory=1"), False, True),
        (("net.ipv4.ip_forward", "vm.overcommit_memory=1"), False, True),
        (("net.ipv4.ip_forward=1", "vm.overcommit_memory=1"), True, True),
    ],
    ids=["done", "drifted", "unknown", "file-changes"],
)
def test_sysctl_is_applied_when_a_value_differs_or_the_file_changes(
    hosts: Make, live: tuple[str, ...], written: bool, yields: bool
) -> None:
    node = hosts({"cp1": {Sysctl().command(tuple(SYSCTL)): list(live)}})
    arguments = {"wanted": SYSCTL, "path": SYSCTL_FILE, "after": [planned(written)]}
    wanted = [Command(f"sysctl -q -p {SYSCTL_FILE}")] if yields else []
    assert node.execute(kernel.sysctl, **arguments) == wanted
    assert node.plan(kernel.sysctl, **arguments) == wanted
    assert node.noops == ([] if yields else ["2 kernel settings have their values"] * 2)


def test_sysctl_says_which_values_it_will_set(hosts: Make) -> None:
    node = hosts({"cp1": {Sysctl().command(tuple(SYSCTL)): ["net.ipv4.ip_forward=0", "vm.overcommit_memory"]}})
    node.plan(kernel.sysctl, wanted=SYSCTL, path=SYSCTL_FILE, after=[planned(False)])
    (change,) = node.changes
    assert change.words == f"load {SYSCTL_FILE}"
    assert change.diff == ("-net.ipv4.ip_forward = 0", "+net.ipv4.ip_forward = 1")
    assert "modules that are not loaded" in change.later


@pytest.mark.parametrize(
    ("state", "restart", "reload", "verbs"),
    [
        ({}, False, False, []),
        ({"enabled": "static"}, False, False, []),
        ({"enabled": "disabled"}, False, False, ["enable"]),
        ({"enabled": ""}, False, False, ["enable"]),
        ({}, False, True, ["reload-or-restart"]),
        ({}, True, True, ["restart"]),
        ({"stale": True}, False, False, ["restart"]),
        ({"stale": True}, False, True, ["reload-or-restart"]),
        ({"active": "inactive"}, False, True, ["restart"]),
        ({"active": "failed", "stale": True}, True, False, ["restart"]),
        ({"active": "activating"}, False, False, ["restart"]),
        ({"active": "reloading"}, False, False, []),
        ({"enabled": "disabled", "active": "inactive"}, True, False, ["enable", "restart"]),
    ],
)
def test_service_actions_bring_a_unit_to_its_state(
    state: dict[str, Any], restart: bool, reload: bool, verbs: list[str]
) -> None:
    assert service.actions({**RUNNING, **state}, restart, reload, enabled=True, running=True) == verbs


def test_service_actions_leave_alone_what_is_not_asked_for() -> None:
    stopped = {**RUNNING, "active": "inactive", "enabled": "disabled"}
    assert service.actions(stopped, True, False, enabled=True, running=False) == ["enable"]
    assert service.actions(stopped, True, False, enabled=False, running=True) == ["restart"]


def unit(hosts: Make, active: str = "active", enabled: str = "enabled", started: int = 10, changed: int = 9) -> Hosts:
    shown = [
        "LoadState=loaded",
        f"ActiveState={active}",
        f"UnitFileState={enabled}",
        f"ActiveEnterTimestamp=@{started}",
    ]
    files = Unit().command("haproxy.service", ("/etc/haproxy/haproxy.cfg",))
    return hosts({"lb1": {files: [*shown, f"changed={changed}"]}})


ARGUMENTS = {"unit": "haproxy.service", "config_files": ["/etc/haproxy/haproxy.cfg"]}


def test_unit_that_runs_its_present_configuration_is_left_alone(hosts: Make) -> None:
    node = unit(hosts)
    assert node.plan(service.unit, **ARGUMENTS) == []
    assert node.execute(service.unit, **ARGUMENTS, restart_on=[planned(False), done()]) == []
    assert node.noops == ["haproxy.service is enabled and runs with its present configuration"] * 2


def test_unit_that_is_new_is_enabled_and_started(hosts: Make) -> None:
    node = unit(hosts, active="inactive", enabled="disabled")
    wanted = [Command("systemctl daemon-reload"), Command("systemctl enable haproxy.service"), Command(RESTART)]
    assert node.plan(service.unit, **ARGUMENTS) == wanted
    assert node.execute(service.unit, **ARGUMENTS) == wanted


def test_unit_is_restarted_for_a_change_of_this_run_or_of_one_that_was_killed(hosts: Make) -> None:
    wanted = [Command("systemctl daemon-reload"), Command(RESTART)]
    assert unit(hosts).plan(service.unit, **ARGUMENTS, restart_on=[planned(True)]) == wanted
    assert unit(hosts).execute(service.unit, **ARGUMENTS, restart_on=[done("mv")]) == wanted
    assert unit(hosts, changed=11).execute(service.unit, **ARGUMENTS) == wanted


def test_unit_is_reloaded_where_that_is_enough_and_nobody_is_cut_off(hosts: Make) -> None:
    reload = Command(RESTART.replace(" restart ", " reload-or-restart "))
    wanted = [Command("systemctl daemon-reload"), reload]
    effect = {"effect": "connections are cut"}
    node, written = unit(hosts), unit(hosts, changed=11)
    assert node.plan(service.unit, **ARGUMENTS, reload_on=[planned(True)], **effect) == wanted
    assert written.execute(service.unit, **ARGUMENTS, reload_on=[done("mv")], **effect) == wanted
    for (change,) in (node.changes, written.changes):
        assert (change.words, change.effect) == ("reload haproxy.service, for its files change", "")


def test_unit_that_is_not_to_run_yet_learns_of_its_new_file(hosts: Make) -> None:
    node = unit(hosts, active="inactive")
    assert node.execute(service.unit, **ARGUMENTS, running=False, restart_on=[done("mv")]) == [
        Command("systemctl daemon-reload")
    ]
    assert node.execute(service.unit, **ARGUMENTS, running=False) == []


def test_unit_that_does_not_start_fails_with_its_status(machine: Machine) -> None:
    machine.program("systemctl", 'case "$1" in status) echo "bind: no such address";; *) exit 1;; esac')
    ran = machine.sh(RESTART)
    assert (ran.returncode, ran.stderr) == (1, "bind: no such address\n")
