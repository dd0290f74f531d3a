"""Facts of a machine itself: control groups, hardware, kernel, swap. Output of odd machines is hand-written."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import pytest
from harness import Machine, answer, recorded

from facts.cgroup import Cgroup
from facts.disk import FileSystems, SyncWrites
from facts.hardware import Hardware
from facts.kernel import KernelModules, Sysctl
from facts.leftovers import Leftovers
from facts.surroundings import Surroundings
from facts.swap import Swap

ZRAM = "[zram0]\nzram-size = ram / 2\n"


def test_cgroup_drivers_are_read_from_both_configurations() -> None:
    assert answer(Cgroup, recorded("Cgroup.cluster")) == {
        "version": 1,
        "controllers": [],
        "systemd": None,
        "kubelet_driver": "systemd",
        "runtime_driver": "systemd",
    }


def test_cgroup_has_no_drivers_before_there_is_a_configuration(machine: Machine) -> None:
    assert machine.ask(Cgroup) == {
        "version": 1,
        "controllers": [],
        "systemd": None,
        "kubelet_driver": None,
        "runtime_driver": None,
    }


def test_cgroup_of_a_configured_machine(machine: Machine) -> None:
    machine.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    machine.file("/var/lib/kubelet/config.yaml", "apiVersion: v1\ncgroupDriver: cgroupfs\ncgroupRoot: /\n")
    machine.file("/etc/containerd/config.toml", "          [runc.options]\n            SystemdCgroup = false\n")
    assert machine.ask(Cgroup) == {
        "version": 2,
        "controllers": ["cpu", "memory"],
        "systemd": None,
        "kubelet_driver": "cgroupfs",
        "runtime_driver": "cgroupfs",
    }


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
            {"interface": "lo", "address": "127.0.0.1", "prefix": 8, "mac": "00:00:00:00:00:00", "mtu": 65536},
            {"interface": "eth0", "address": "10.88.0.21", "prefix": 24, "mac": "02:00:0a:58:00:15", "mtu": 1500},
            {"interface": "flannel.1", "address": "10.244.0.0", "prefix": 32, "mac": "aa:c2:46:1f:b3:d9", "mtu": 1450},
            {"interface": "cni0", "address": "10.244.0.1", "prefix": 24, "mac": "9a:85:4a:bc:fc:eb", "mtu": 1450},
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


def test_sysctl_of_an_interface_whose_name_has_a_dot(machine: Machine) -> None:
    machine.file("/proc/sys/net/ipv6/conf/eth0.100/accept_ra", "1\n")
    key = "net.ipv6.conf.eth0/100.accept_ra"
    assert machine.ask(Sysctl, keys=(key,)) == {key: "1"}


def test_hardware_has_addresses_of_ipv6_but_link_local_ones() -> None:
    addr = (
        '[{"ifname":"eth0","address":"6e:77:af:54:64:ce","mtu":1500,"addr_info":['
        '{"family":"inet6","local":"fd00::21","prefixlen":64,"scope":"global"},'
        '{"family":"inet6","local":"fe80::6c77:afff:fe54:64ce","prefixlen":64,"scope":"link"}]}]'
    )
    lines = [*(each for each in recorded("Hardware.cluster") if not each.startswith("addr ")), f"addr {addr}"]
    assert answer(Hardware, lines)["addresses"] == [
        {"interface": "eth0", "address": "fd00::21", "prefix": 64, "mac": "6e:77:af:54:64:ce", "mtu": 1500}
    ]


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


def test_cgroup_controllers_and_systemds_version(machine: Machine) -> None:
    machine.program("systemctl", "printf 'systemd 257 (257.7-1)\\n+PAM +AUDIT\\n'")
    machine.file(
        "/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t9\t1\nmemory\t0\t1\t0\npids\t8\t1\t1\n"
    )
    found = machine.ask(Cgroup)
    assert (found["version"], found["controllers"], found["systemd"]) == (1, ["cpu", "pids"], 257)
    machine.file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n")
    found = machine.ask(Cgroup)
    assert (found["version"], found["controllers"]) == (2, ["cpu", "cpuset", "io", "memory"])


def test_kernel_modules_that_leave_no_other_sign_are_known_by_a_function_of_theirs(machine: Machine) -> None:
    lines = [
        "ffffffff81f3a030 T nf_conntrack_in",
        "ffffffff81dd7540 t vxlan_xmit",
        "ffffffffc0 t nft_do_chain\t[nf_tables]",
        "ffffffff81efb6e0 T cls_bpf_classify",
        "ffffffff81ef6190 t clsact_init",
        "ffffffff81fc2860 t hash_ip_create",
    ]
    machine.file("/proc/kallsyms", "\n".join(lines) + "\n")
    names = ("nf_conntrack", "vxlan", "nf_tables", "ip_vs", "cls_bpf", "sch_ingress", "ip_set_hash_ip")
    assert machine.ask(KernelModules, names=names) == {
        "nf_conntrack": "builtin",
        "vxlan": "builtin",
        "nf_tables": "absent",
        "ip_vs": "absent",
        "cls_bpf": "builtin",
        "sch_ingress": "builtin",
        "ip_set_hash_ip": "builtin",
    }


def test_kernel_modules_can_be_loaded_that_modules_dep_lists_even_without_modinfo(machine: Machine) -> None:
    machine.program("uname", "echo 6.1.0")
    machine.file(
        "/lib/modules/6.1.0/modules.dep", "kernel/net/netfilter/ipvs/ip_vs.ko.xz: a.ko\nkernel/x/ip_vs_rr.ko:\n"
    )
    assert machine.ask(KernelModules, names=("ip_vs", "ip_vs_wrr", "vs")) == {
        "ip_vs": "available",
        "ip_vs_wrr": "absent",
        "vs": "absent",
    }


def test_file_systems_of_paths_that_are_there_or_will_be(machine: Machine) -> None:
    machine.file("/var/lib/some/file", b"x" * 3 * 2**20)
    machine.program("du")
    paths = (f"{machine.root}/var/lib/some", f"{machine.root}/var/lib/not/there")
    some, none = machine.ask(FileSystems, paths=paths, measured=((paths[0], paths[0]), (paths[1], paths[1])))
    assert (some["path"], none["path"]) == paths
    assert some["mount"] == none["mount"]
    assert 0 < some["free_mib"] <= some["size_mib"]
    assert 3 <= some["used_mib"] <= 4  # with what the directory takes itself
    assert none["used_mib"] == 0


def test_file_systems_without_a_number_of_inodes_have_none() -> None:
    output = ["room / 90000 80000 /", "inodes / - -", "room /data 10 5 /data", "inodes /data 0 0", "used /data"]
    assert [(row["mount"], row["inodes"], row["used_mib"]) for row in answer(FileSystems, output)] == [
        ("/", 0, 0),
        ("/data", 0, 0),
    ]


# As dd of coreutils 9.1 says it, the last as one of busybox does.
WRITES = [
    "2300 bytes (2.3 kB, 2.2 KiB) copied, 0.000812 s, 2.8 MB/s",
    "2300 bytes (2.3 kB, 2.2 KiB) copied, 9.2e-05 s, 25.0 MB/s",
    "2300 bytes (2.2KB) copied, 0.025000 seconds, 89.8KB/s",
]


def test_write_times_are_those_that_dd_tells() -> None:
    assert answer(SyncWrites, ["path /var/lib", "1+0 records in", "1+0 records out", *WRITES]) == {
        "path": "/var/lib",
        "writes": 3,
        "median_ms": pytest.approx(0.812),
        "p99_ms": pytest.approx(25.0),
    }


def test_the_slowest_of_a_hundred_writes_is_left_out() -> None:
    assert answer(SyncWrites, ["path /x", *WRITES[:1] * 99, WRITES[2]])["p99_ms"] == pytest.approx(0.812)


def test_writes_leave_nothing_behind(machine: Machine) -> None:
    machine.program("dd")
    machine.path("/var/lib/etcd").mkdir(parents=True)
    found = machine.ask(SyncWrites)
    assert found["path"] == f"{machine.root}/var/lib/etcd"
    assert 0 < found["writes"] <= 100
    assert list(machine.path("/var/lib/etcd").iterdir()) == []


def test_writes_have_no_name_while_they_are_made(machine: Machine) -> None:
    machine.path("/var/lib").mkdir(parents=True)
    machine.program("dd", f'ls -A {machine.root}/var/lib >> {machine.root}/seen; echo "copied, 0.001 s" >&2')
    assert machine.ask(SyncWrites)["writes"] == 100
    assert machine.path("seen").read_text() == ""


def test_writes_are_not_tried_where_none_can_be_made(machine: Machine) -> None:
    machine.path("/var/lib").mkdir(parents=True)
    machine.program("mktemp", "exit 1")
    assert machine.ask(SyncWrites) is None


def test_leftovers_of_a_bare_machine_are_none(machine: Machine) -> None:
    assert machine.ask(Leftovers) == Leftovers.default()


def test_leftovers_of_every_kind(machine: Machine) -> None:
    for path in ("/etc/cni/net.d/10-calico.conflist", "/etc/cni/net.d/calico-kubeconfig", "/etc/cni/net.d/1.conf"):
        machine.file(path)
    machine.file("/var/lib/etcd/lost+found/x")
    machine.file("/var/lib/pyinfra-kubeadm/bundle/bin/kubelet")
    for name in ("eth0", "cni0", "flannel.1", "cali1234567890a"):
        machine.file(f"/sys/class/net/{name}/mtu")
    machine.file("/proc/net/ip_tables_names", "filter\n")
    machine.program("iptables-legacy-save", "echo ':KUBE-FORWARD - [0:0]'")
    assert machine.ask(Leftovers) == {
        "ours": True,
        "cni_files": ["1.conf", "10-calico.conflist"],
        "etcd_files": ["lost+found"],
        "interfaces": ["cni0", "flannel.1", "cali1234567890a"],
        "chains": True,
    }


@pytest.mark.parametrize(
    ("program", "printed", "chains"),
    [
        ("iptables-nft-save", ":KUBE-SERVICES - [0:0]", True),
        ("nft", "table ip kube-proxy", True),
        ("nft", "table ip filter", False),
        ("iptables-nft-save", ":INPUT ACCEPT [0:0]", False),
    ],
)
def test_chains_of_kubernetes_are_looked_for_in_nf_tables(
    machine: Machine, program: str, printed: str, chains: bool
) -> None:
    machine.program(program, f"echo '{printed}'")
    assert machine.ask(Leftovers)["chains"] is False, "a packet filter that is not at work is not asked"
    machine.file("/proc/kallsyms", "ffffffffc0200000 t nft_do_chain\t[nf_tables]\n")
    assert machine.ask(Leftovers)["chains"] is chains


def test_surroundings_of_a_bare_machine_are_tools_that_there_are_not(machine: Machine) -> None:
    assert machine.ask(Surroundings) == {**Surroundings.default(), "missing": ["ip", "ping", "bash"]}


def test_surroundings_of_every_kind(machine: Machine) -> None:
    machine.program("systemctl", 'case "$3" in firewalld | NetworkManager) exit 0;; *) exit 3;; esac')
    machine.file("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    machine.file("/sys/fs/selinux/enforce", "1")
    machine.file("/sys/module/apparmor/parameters/enabled", "Y\n")
    machine.program("dpkg-query", "echo 'installed docker-ce'; echo 'config-files containerd.io'; exit 1")
    machine.file("/etc/containerd/config.toml", 'disabled_plugins = ["cri"]\n')
    machine.file("/etc/systemd/system/containerd.service.d/own.conf", "[Service]\n")
    for name in ("ip", "ping", "bash"):
        machine.program(name, "exit 0")
    assert machine.ask(Surroundings) == {
        "proxies": {},
        "firewalls": ["firewalld", "ufw"],
        "selinux": "enforcing",
        "apparmor_without_parser": True,
        "network_manager": True,
        "sockets": [],
        "packages": ["docker-ce"],
        "containerd_config": True,
        "drop_ins": [f"{machine.root}/etc/systemd/system/containerd.service.d/own.conf"],
        "missing": [],
    }


@pytest.mark.parametrize("sign", ["=", "+="])
def test_network_manager_may_run_that_leaves_interfaces_alone(machine: Machine, sign: str) -> None:
    machine.program("systemctl", 'test "$3" = NetworkManager')
    machine.file("/etc/NetworkManager/conf.d/pods.conf", f"[keyfile]\nunmanaged-devices{sign}interface-name:cni*\n")
    assert machine.ask(Surroundings)["network_manager"] is False


def test_another_runtime_is_known_by_its_socket(machine: Machine) -> None:
    machine.path("/run/crio").mkdir(parents=True)
    here = os.getcwd()
    os.chdir(machine.path("/run/crio"))  # a socket's path is short, a test's may be long
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("crio.sock")
            assert machine.ask(Surroundings)["sockets"] == [f"{machine.root}/run/crio/crio.sock"]
    finally:
        os.chdir(here)


def test_proxies_are_read_without_their_passwords(machine: Machine) -> None:
    machine.file(
        "/etc/environment",
        'PATH="/usr/bin"\nHTTPS_PROXY="http://user:p@ss@10.0.0.9:3128/"\nno_proxy="localhost, 10.0.0.0/24"\n#http_proxy=http://old\n',
    )
    machine.file(
        "/etc/systemd/system/containerd.service.d/proxy.conf",
        '[Service]\nEnvironment="HTTP_PROXY=http://10.0.0.8:1" "NO_PROXY=.example.org,10.0.0.1"\n',
    )
    assert machine.ask(Surroundings)["proxies"] == {
        f"{machine.root}/etc/environment": {
            "https_proxy": "http://10.0.0.9:3128/",
            "no_proxy": "localhost, 10.0.0.0/24",
        },
        f"{machine.root}/etc/systemd/system/containerd.service.d/proxy.conf": {
            "http_proxy": "http://10.0.0.8:1",
            "no_proxy": ".example.org,10.0.0.1",
        },
    }
    assert "p@ss" not in machine.sh(Surroundings().command()).stdout
