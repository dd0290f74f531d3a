"""What of a list of things is on a host."""

from __future__ import annotations

import shlex
from typing import TypedDict

from pyinfra.api import FactBase

# Interfaces that pods' networks of this project and kube-proxy make.
INTERFACES = (
    r"cni0|flannel(-v6)?\..*|kube-ipvs0|nodelocaldns|vxlan(-v6)?\.calico|cali.*|cilium_.*|lxc(_health|[0-9a-f]{12})"
)
# Lines of `iptables-save -c` that Kubernetes, its networks and CNI plugins have written: chains, what is in them, what
# leads to them, and what Calico and older flannels write into chains of the kernel's.
CHAINS = r"(KUBE-|CNI-|FLANNEL-|POD-NETWORK|cali-|(OLD_)?CILIUM_)"
RULES = rf"^:{CHAINS}|-[Ajg] {CHAINS}|--comment \"(flanneld |cali:)"
# What Cilium keeps of its programs and maps of eBPF (pkg/defaults and pkg/bpf of its source).
PINS = "/sys/fs/bpf/cilium /sys/fs/bpf/tc/globals/cilium_*"
# What containerd knows of namespaces, containers and images
# (https://github.com/containerd/containerd/blob/main/docs/ops.md#bolt-metadata).
METADATA = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
# kube-proxy's own tables, in mode nftables.
TABLES = "^table (ip|ip6|inet) kube-proxy"


class Traces(FactBase[list[str]]):
    """Those of these paths at which there is something; a directory that is mounted and empty is nothing."""

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, paths: tuple[str, ...]) -> str:
        return (
            f"for p in {shlex.join(paths)}; do "
            'if test -e "$p" -o -L "$p"; then test -d "$p" && mountpoint -q "$p" && test -z "$(ls -A "$p")" || '
            'echo "$p"; fi; done'
        )

    def process(self, output: list[str]) -> list[str]:
        return [line.strip() for line in output]


class RemainsState(TypedDict):
    interfaces: list[str]
    routes: list[str]
    rules: dict[str, int]
    pins: list[str]
    mounts: list[str]


class Remains(FactBase[RemainsState]):
    """What pods' network and kube-proxy have made in the kernel.

    ::

        {"interfaces": ["cni0"], "routes": ["10.244.1.0/24 via 10.0.0.31 dev flannel.1 onlink"],
         "rules": {"iptables-nft": 41}, "pins": ["/sys/fs/bpf/cilium"], "mounts": ["/run/cilium/cgroupv2"]}

    `routes` are those into pods' subnets; `rules` counts lines by the program that has them, `nft` the tables of
    kube-proxy. A packet filter that the kernel does not have at work is not asked, for that would load its modules.
    `pins` and `mounts` are Cilium's: programs and maps of eBPF that are kept, and what is mounted in its directory.
    """

    @staticmethod
    def default() -> RemainsState:
        return RemainsState(interfaces=[], routes=[], rules={}, pins=[], mounts=[])

    def command(self, subnets: tuple[str, ...]) -> str:
        asked = "; ".join(f"ip -o route show root {subnet} | sed 's/^/route /'" for subnet in subnets)
        count = f"n=$($t-save -c 2>/dev/null | grep -cE {shlex.quote(RULES)}); test $n -eq 0 || echo rules $t $n"
        return (
            # Not from /sys/class/net, which may be that of another network namespace.
            f"ip -o link show | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/' | grep -xE {shlex.quote(INTERFACES)} "
            f"| sed 's/^/link /'; {asked}; "
            f"{{ for t in iptables ip6tables; do f=/proc/net/${{t%tables}}_tables_names; grep -qs . $f && "
            f"echo $t-legacy; grep -qs nft_do_chain /proc/kallsyms && echo $t-nft; done; }} | while read -r t; do "
            f"command -v $t-save >/dev/null || continue; {count}; done; "
            "if grep -qs nft_do_chain /proc/kallsyms && command -v nft >/dev/null; then "
            f"n=$(nft list tables 2>/dev/null | grep -cE {shlex.quote(TABLES)}); test $n -eq 0 || echo rules nft $n; "
            f"fi; ls -d {PINS} 2>/dev/null | sed 's/^/pin /'; "
            "sed -n 's#^[^ ]* \\(/run/cilium/[^ ]*\\) .*#mount \\1#p' /proc/mounts 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> RemainsState:
        found = self.default()
        for line in output:
            kind, _, rest = line.strip().partition(" ")
            if kind == "link":
                found["interfaces"].append(rest)
            elif kind == "route":
                found["routes"].append(rest)
            elif kind in ("pin", "mount"):
                (found["pins"] if kind == "pin" else found["mounts"]).append(rest)
            elif kind == "rules":
                program, _, number = rest.partition(" ")
                found["rules"][program] = int(number)
        return found


class Others(FactBase[list[str] | None]):
    """Namespaces of containerd in which others have something, such as "moby" of Docker; None where containerd does not
    answer and has data, so that nobody knows.

    ::

        ["default", "moby"]

    `default`, which is ctr's and nerdctl's own, counts by its containers: the first `ctr` makes it.
    """

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self) -> str:
        return (
            "if n=$(timeout 20 ctr namespaces ls -q 2>/dev/null) && "
            "c=$(timeout 20 ctr -n default containers ls -q 2>/dev/null); then "
            'test -z "$c" || echo namespace default; '
            "echo \"$n\" | grep -vx -e k8s.io -e default -e '' | sed 's/^/namespace /'; "
            f"elif test -e {METADATA}; then echo unknown; fi; true"
        )

    def process(self, output: list[str]) -> list[str] | None:
        if output == ["unknown"]:
            return None
        return [line.split()[1] for line in output]
