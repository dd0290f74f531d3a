"""What the machines of fake_nodes.py are beneath all that is put on them: hardware, kernel, swap, disks and time."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from pyinfra.facts.server import Hostname, TmpDir, Which

from cluster.pieces import NODE_DIRECTORY
from facts.cgroup import Cgroup
from facts.disk import FileSystems, SyncWrites
from facts.hardware import Hardware
from facts.kernel import KernelModules, Sysctl
from facts.sudo import Sudo
from facts.surroundings import Surroundings
from facts.swap import Swap
from facts.time import Time, TimeSynchronized
from operations import swap
from tests.plan.fake_nodes import ETCD_DATA, UNMANAGED, Node, Refused, command, fact, like

# What any kernel of a distribution has; the node layer loads the others.
COMPILED_IN = ("nf_conntrack", "nf_tables", "ip_tables", "vxlan", "ip_set", "xt_set")
COMPILED_IN += ("bpf", "cgroup2", "cls_bpf", "sch_ingress", "ip_set_hash_ip")
BRIDGE = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


@fact(Hostname)
def _(node: Node) -> str:
    return node.state["hostname"]


@fact(Which, command="ANY_program")
def _(node: Node, program: str) -> str:
    return "" if program == "sepolicy" else f"/usr/bin/{program}"


@fact(TmpDir)
def _(node: Node) -> str:
    return "/tmp"


@fact(Cgroup)
def _(node: Node) -> str:
    kubelet = "kubelet systemd\n" if "/var/lib/kubelet/config.yaml" in node.files else ""
    return f"version 2\ncontrollers cpuset cpu io memory pids\nsystemd 252\n{kubelet}"


@fact(Hardware)
def _(node: Node) -> str:
    rows: list[dict[str, Any]] = [
        {"family": "inet6", "local": each, "prefixlen": 64, "scope": "global"}
        if ":" in each
        else {"family": "inet", "local": each, "prefixlen": 24}
        for each in node.addresses
    ]
    links = [{"ifname": "eth0", "address": node.mac, "mtu": node.state["mtu"], "addr_info": rows}]
    machine = {
        "hostname": node.state["hostname"], "cpus": node.state["cpus"], "memory": 4096, "kernel": "6.1.0-31-amd64",
        "machine": "x86_64", "os_id": node.state["os"].rpartition("-")[0],
        "os_version": node.state["os"].rpartition("-")[2], "machine_id": f"machine-{node.name}",
        "systemd": "yes", "disk": 51200, "addr": json.dumps(links),
    }  # fmt: skip
    return "\n".join(f"{key} {value}" for key, value in machine.items())


@fact(Swap)
def _(node: Node) -> str:
    on = [f"device {device} partition 1 0 -2" for device in node.state["swap"]]
    return "\n".join([*on, *(f"fstab {line}" for line in node.state["fstab"])])


@fact(KernelModules, names=("ANY_names",))
def _(node: Node, names: str) -> str:
    there = dict.fromkeys(COMPILED_IN, "builtin") | node.state["modules"]
    return "\n".join(f"{name} {there.get(name, 'absent')}" for name in shlex.split(names))


@fact(Sysctl, keys=("ANY_keys",))
def _(node: Node, keys: str) -> str:
    live = node.state["sysctl"]
    return "\n".join(f"{key}={live.get(key, 0)}" if known(node, key) else key for key in shlex.split(keys))


def known(node: Node, key: str) -> bool:
    """Settings of bridges are there once their module is."""
    return key not in BRIDGE or node.state["modules"]["br_netfilter"] == "loaded"


@command(like(FileSystems().command(paths=("ANY_paths",), measured=(("ANY_measured", "ANY_below"),))), "fact")
def _(node: Node, paths: str, measured: str, below: str) -> str:
    rows = [f"room {path} 100000 90000 /\ninodes {path} 6000000 5000000" for path in shlex.split(paths)]
    used = 1 if any(path.startswith(NODE_DIRECTORY) for path in node.files) else 0
    return "\n".join([*rows, f"used {NODE_DIRECTORY} {used}"])


@fact(SyncWrites)
def _(node: Node) -> str:
    if ETCD_DATA in node.files:
        raise Refused("a disk with an etcd on it is not written to")
    return "path /var/lib\n" + "2300 bytes (2.3 kB, 2.2 KiB) copied, 0.000812 s, 2.8 MB/s\n" * 100


@fact(Surroundings)
def _(node: Node) -> str:
    lines = ["config"] if "/etc/containerd/config.toml" in node.files else []
    if firewall := node.state["firewall"]:
        lines.append(f"firewall {firewall}")
    if node.state["selinux"]:
        lines.append("selinux 1")
    if node.active("NetworkManager.service") and UNMANAGED not in node.files:
        lines.append("networkmanager")
    return "\n".join(lines)


@fact(Time)
def _(node: Node) -> str:
    return f"{time.time() + node.state['ahead']:.9f}"


@fact(TimeSynchronized)
def _(node: Node) -> str:
    return "yes" if node.state["synchronized"] else "no"


@fact(Sudo)
def _(node: Node) -> str:
    return "yes"


@command(r"printf '%s\\n' (?P<words>.*) >&2; exit 1", "read")
def _(node: Node, words: str) -> None:
    raise Refused(shlex.split(words)[0])


@command(r"hostnamectl set-hostname (?P<name>\S+)")
def _(node: Node, name: str) -> None:
    node.state["hostname"] = name


@command(like(swap.FSTAB))
def _(node: Node) -> None:
    node.state["fstab"] = []


@command("swapoff -a")
def _(node: Node) -> None:
    node.state["swap"] = []


@command(r"modprobe -a (?P<names>.+)")
def _(node: Node, names: str) -> None:
    loaded = dict.fromkeys(shlex.split(names), "loaded")
    node.state["modules"].update(loaded)
    if "br_netfilter" in loaded:  # The kernel's own defaults.
        node.state["sysctl"].update(dict.fromkeys(BRIDGE, "1"))


@command(r"sysctl -q -p (?P<path>\S+)")
def _(node: Node, path: str) -> None:
    for key, value in (line.split(" = ") for line in node.files[path]["text"].splitlines()):
        if not known(node, key):
            raise Refused(f"sysctl: cannot stat /proc/sys/{key.replace('.', '/')}: No such file or directory")
        node.state["sysctl"][key] = value
