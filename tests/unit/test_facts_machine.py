"""Facts of a machine itself: control groups, hardware, kernel, swap. Output of odd machines is hand-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from harness import Machine, answer, recorded

from facts.cgroup import Cgroup
from facts.hardware import Hardware
from facts.kernel import KernelModules, Sysctl
from facts.swap import Swap

ZRAM = "[zram0]\nzram-size = ram / 2\n"


def test_cgroup_drivers_are_read_from_both_configurations() -> None:
    assert answer(Cgroup, recorded("Cgroup.cluster")) == {
        "version": 1,
        "kubelet_driver": "systemd",
        "runtime_driver": "systemd",
    }


def test_cgroup_has_no_drivers_before_there_is_a_configuration(machine: Machine) -> None:
    assert machine.ask(Cgroup) == {"version": 1, "kubelet_driver": None, "runtime_driver": None}


def test_cgroup_of_a_configured_machine(machine: Machine) -> None:
    machine.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    machine.file("/var/lib/kubelet/config.yaml", "apiVersion: v1\ncgroupDriver: cgroupfs\ncgroupRoot: /\n")
    machine.file("/etc/containerd/config.toml", "          [runc.options]\n            SystemdCgroup = false\n")
    assert machine.ask(Cgroup) == {"version": 2, "kubelet_driver": "cgroupfs", "runtime_driver": "cgroupfs"}


def test_cgroup_driver_that_is_left_empty_is_none(machine: Machine) -> None:
    machine.file("/var/lib/kubelet/config.yaml", "cgroupDriver:\n")
    assert machine.ask(Cgroup)["kubelet_driver"] is None


def test_hardware_of_a_recorded_node() -> None:
    assert answer(Hardware, recorded("Hardware.cluster")) == {
        "hostname": "cp1",
        "cpus": 2,
        "memory_mib": 24105,
        "kernel": "6.18.44-fc-v669",
        "architecture": "amd64",
        "os_id": "debian",
        "os_version": "12",
        "machine_id": "e7fcc6d637a34944adb55eab41edd86d",
        "product_uuid": None,
        "systemd": True,
        "disk_free_mib": 62012,
        "addresses": [
            {"interface": "lo", "address": "127.0.0.1", "prefix": 8, "mac": "00:00:00:00:00:00"},
            {"interface": "eth0", "address": "10.88.0.21", "prefix": 24, "mac": "02:00:0a:58:00:15"},
            {"interface": "flannel.1", "address": "10.244.0.0", "prefix": 32, "mac": "aa:c2:46:1f:b3:d9"},
            {"interface": "cni0", "address": "10.244.0.1", "prefix": 24, "mac": "9a:85:4a:bc:fc:eb"},
        ],
    }


def test_hardware_of_a_machine_without_systemd_identity_or_ip() -> None:
    output = ["hostname pi", "cpus 4", "kernel 6.6.1", "machine riscv64", "memory 512", "machine_id", "disk 90"]
    assert answer(Hardware, output) == {
        "hostname": "pi",
        "cpus": 4,
        "memory_mib": 512,
        "kernel": "6.6.1",
        "architecture": "riscv64",
        "os_id": "",
        "os_version": "",
        "machine_id": None,
        "product_uuid": None,
        "systemd": False,
        "disk_free_mib": 90,
        "addresses": [],
    }


def test_hardware_architecture_has_gos_name() -> None:
    lines = ["machine aarch64" if line.startswith("machine ") else line for line in recorded("Hardware.cluster")]
    assert answer(Hardware, lines)["architecture"] == "arm64"


def test_hardware_command_runs_on_this_very_machine() -> None:
    done = subprocess.run(["sh", "-c", Hardware().command()], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    found = answer(Hardware, done.stdout.splitlines())
    assert found["hostname"] == os.uname().nodename
    assert found["kernel"] == os.uname().release
    assert found["cpus"] == len(os.sched_getaffinity(0))
    assert found["memory_mib"] > 0
    assert found["disk_free_mib"] > 0
    assert ("lo", "127.0.0.1", 8) in [(row["interface"], row["address"], row["prefix"]) for row in found["addresses"]]


def test_kernel_modules_of_a_recorded_node() -> None:
    assert answer(KernelModules, recorded("KernelModules.cluster")) == {
        "overlay": "builtin",
        "br_netfilter": "builtin",
        "ip_vs": "absent",
        "no_such": "absent",
    }


def test_kernel_modules_by_every_sign_of_one(machine: Machine) -> None:
    machine.file("/proc/modules", "nf_nat 57344 2 xt_MASQUERADE, Live 0x0\nip_vs_rr 16384 0 - Live 0x0\n")
    machine.file("/proc/filesystems", "nodev\toverlay\n\text4\n")
    machine.file("/sys/module/vxlan/refcnt")
    machine.file("/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
    machine.program("uname", "echo 6.1.0")
    machine.file("/lib/modules/6.1.0/modules.builtin", "kernel/net/ipv4/netfilter/ip_tables.ko\n")
    machine.program("modinfo", 'test "$1" = dummy')
    names = ("nf-nat", "overlay", "vxlan", "br_netfilter", "ip_tables", "dummy", "ip_vs")
    assert machine.ask(KernelModules, names=names) == {
        "nf_nat": "loaded",
        "overlay": "builtin",
        "vxlan": "builtin",
        "br_netfilter": "builtin",
        "ip_tables": "builtin",
        "dummy": "available",
        "ip_vs": "absent",
    }


def test_kernel_modules_are_absent_without_kmod(machine: Machine) -> None:
    assert machine.ask(KernelModules, names=("overlay", "br_netfilter")) == {
        "overlay": "absent",
        "br_netfilter": "absent",
    }


def test_sysctl_of_a_recorded_node_has_single_spaces_and_no_value_for_an_unknown_key() -> None:
    assert answer(Sysctl, recorded("Sysctl.cluster")) == {
        "net.ipv4.ip_forward": "1",
        "net.bridge.bridge-nf-call-iptables": "1",
        "net.ipv4.tcp_rmem": "4096 131072 33554432",
        "no.such": None,
    }


def test_sysctl_reads_live_values(machine: Machine) -> None:
    machine.file("/proc/sys/net/ipv4/ip_forward", "0\n")
    machine.file("/proc/sys/kernel/core_pattern", "core=%p\n")
    machine.file("/proc/sys/kernel/domainname", "\n")
    keys = ("net.ipv4.ip_forward", "kernel.core_pattern", "kernel.domainname", "net.bridge.bridge-nf-call-iptables")
    assert machine.ask(Sysctl, keys=keys) == {
        "net.ipv4.ip_forward": "0",
        "kernel.core_pattern": "core=%p",
        "kernel.domainname": "",
        "net.bridge.bridge-nf-call-iptables": None,
    }


def test_swap_of_a_recorded_node_is_nothing() -> None:
    assert answer(Swap, recorded("Swap.cluster")) == {"devices": [], "fstab": [], "units": [], "zram": False}


def test_swap_is_nothing_on_a_bare_machine(machine: Machine) -> None:
    assert machine.ask(Swap) == Swap.default()


def test_swap_from_every_place_that_can_have_it(machine: Machine) -> None:
    heads = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    machine.file("/proc/swaps", f"{heads}/dev/sda2                               partition\t999420\t\t0\t\t-2\n")
    machine.file("/etc/fstab", "# /dev/sdz none swap sw 0 0\nUUID=1-2 none swap sw 0 0\n/dev/sda1 / ext4 rw 0 1\n")
    machine.program("systemctl", "printf '%s\\n' 'a.swap enabled -' 'b.swap masked -' 'dev-sda2.swap generated -'")
    machine.file("/etc/systemd/zram-generator.conf", ZRAM)
    assert machine.ask(Swap) == {
        "devices": ["/dev/sda2"],
        "fstab": ["UUID=1-2 none swap sw 0 0"],
        "units": ["a.swap"],
        "zram": True,
    }


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("/swap.img\tnone\tswap\tsw\t0\t0", True),
        ("  /dev/sda2 none swap", True),
        ("#/dev/sda2 none swap sw 0 0", False),
        ("  # /dev/sda2 none swap sw 0 0", False),
        ("/dev/sda2 /swap ext4 rw 0 2", False),
        ("/dev/sda2 /srv swapfs rw 0 2", False),
    ],
)
def test_swap_lines_of_fstab_are_told_by_their_type(machine: Machine, line: str, counts: bool) -> None:
    machine.file("/etc/fstab", f"{line}\n")
    assert machine.ask(Swap)["fstab"] == ([line.strip()] if counts else [])


@pytest.mark.parametrize("place", ["/etc/systemd/zram-generator.conf", "/usr/lib/systemd/zram-generator.conf"])
def test_swap_from_the_zram_generator(machine: Machine, place: str) -> None:
    machine.file(place, ZRAM)
    assert machine.ask(Swap)["zram"] is True


def test_swap_from_the_vendors_zram_generator_is_off_once_an_empty_file_masks_it(machine: Machine) -> None:
    machine.file("/usr/lib/systemd/zram-generator.conf", ZRAM)
    machine.file("/etc/systemd/zram-generator.conf", "")
    assert machine.ask(Swap)["zram"] is False


@pytest.mark.parametrize(
    "ask",
    [lambda machine: machine.ask(KernelModules, names=()), lambda machine: machine.ask(Sysctl, keys=())],
    ids=["KernelModules", "Sysctl"],
)
def test_asked_for_nothing_it_answers_nothing(machine: Machine, ask: Callable[[Machine], object]) -> None:
    assert ask(machine) == {}
