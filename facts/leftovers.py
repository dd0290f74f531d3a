"""What Kubernetes, and who ran it, may have left on a node."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase

# Interfaces that network plugins and kube-proxy make.
INTERFACES = (
    "cni0 cni-podman0 flannel.* flannel-v6.* cali* vxlan.calico cilium_* lxc_health weave vethwe-* kube-ipvs0 "
    "kube-bridge nodelocaldns antrea-gw0 ovn0"
)


class LeftoversState(TypedDict):
    ours: bool
    cni_files: list[str]
    etcd_files: list[str]
    interfaces: list[str]
    chains: bool


class Leftovers(FactBase[LeftoversState]):
    """What there is of a cluster beside kubeadm's own files, which the fact KubeadmNode has.

    ::

        {"ours": False, "cni_files": ["10-calico.conflist"], "etcd_files": ["lost+found"], "interfaces": ["cni0"],
         "chains": True}

    `ours`: this project has been here, whole or half-way. `cni_files` are those that containerd reads from
    /etc/cni/net.d; `chains`: the packet filter has chains of Kubernetes. Only a packet filter that the kernel has at
    work is asked, for asking another would load its modules.
    """

    @staticmethod
    def default() -> LeftoversState:
        return LeftoversState(ours=False, cni_files=[], etcd_files=[], interfaces=[], chains=False)

    def command(self) -> str:
        return (
            "test -d /var/lib/pyinfra-kubeadm && echo ours; "
            "for f in /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist /etc/cni/net.d/*.json; do "
            'test -e "$f" && echo "cni ${f##*/}"; done; '
            "ls -A /var/lib/etcd 2>/dev/null | sed 's/^/etcd /'; "
            f"cd /sys/class/net && for i in {INTERFACES}; do test -e $i && echo link $i; done; "
            "{ if grep -qs . /proc/net/ip_tables_names; then "
            "timeout 10 iptables-legacy-save || timeout 10 iptables-save; fi; "
            "if grep -qs nft_do_chain /proc/kallsyms; then "
            "timeout 10 iptables-nft-save; timeout 10 nft list tables; fi; } "
            "2>/dev/null | grep -qE '^:KUBE-|table (ip|inet) kube-proxy' && echo chains; true"
        )

    def process(self, output: list[str]) -> LeftoversState:
        found = self.default()
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "ours":
                found["ours"] = True
            elif kind == "cni":
                found["cni_files"].append(rest)
            elif kind == "etcd":
                found["etcd_files"].append(rest)
            elif kind == "link":
                found["interfaces"].append(rest)
            elif kind == "chains":
                found["chains"] = True
        return found
