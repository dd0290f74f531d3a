"""What a diagnosis asks hosts: commands that only look, each with limits of time and size."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase

from cluster.endpoint import API_SERVER_PORT, Endpoint
from cluster.ip_families import Address
from cluster.runtime import REGISTRIES, SOCKETS, UNITS
from facts.disk import FileSystems
from facts.etcd import ETCDCTL, Members
from facts.haproxy import Backends
from facts.keepalived import Vrrp
from facts.kubeadm import KUBECTL
from facts.runtime import Runtime
from facts.time import Time
from facts.timer import Timer
from facts.upgrade import NodeVersions

KIB, MIB = 2**10, 2**20
PATHS = ("/", "/var/lib", "/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet", "/var/log")
# Namespaces of what this project and kubeadm install; pods of others may say anything in their logs.
NAMESPACES = "kube-system kube-flannel calico-system calico-apiserver tigera-operator ingress-nginx"
STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# ConfigMaps that tell how the cluster was made; data of no others is asked, of Secrets none.
CONFIGMAPS = ("kubeadm-config", "kubelet-config", "kube-proxy", "coredns", "cilium-config")


@dataclass(frozen=True)
class Question:
    """A shell script whose words become a file of the archive; of more than `limit` bytes the last.

    With a `fact` its words are that fact's too. What is not `kept` is looked at, and not put into the archive.
    """

    file: str
    script: str
    seconds: int = 10
    limit: int = 256 * KIB
    fact: type[FactBase[Any]] | None = None
    kept: bool = True

    @property
    def command(self) -> str:
        """The script with its limits: the exit status comes last, and all of it in a form that any bytes survive."""
        asked = f"timeout -k 2 {self.seconds} sh -c {shlex.quote(self.script)}"
        return f'{{ {asked}; echo "# exit $?"; }} </dev/null 2>&1 | tail -c {self.limit} | gzip -c | base64 -w 4000'


def of_fact(kind: type[FactBase[Any]], seconds: int = 20, limit: int = 256 * KIB, **arguments: Any) -> Question:
    """The question that a fact asks."""
    script = str(kind().command(**arguments))
    return Question(f"facts/{kind.__name__}.txt", script, seconds, limit, fact=kind)


def journal(file: str, unit: str, since: str, options: str = "", limit: int = MIB) -> Question:
    """A unit's lines of the journal; only the last are read, however many there are."""
    of = f"-u {shlex.quote(unit)}" if unit else ""
    # journalctl's own time of the past begins with a minus.
    script = (
        f"journalctl --no-pager -q -o short-iso --utc -n 5000 --since=-{shlex.quote(since)} {of} {options}".rstrip()
    )
    return Question(f"journal/{file}.log" if unit else f"{file}.log", script, 20, limit)


def shown(paths: str) -> str:
    """A script that prints files, each below its name."""
    return f'for f in {paths}; do test -f "$f" || continue; echo "==> $f"; cat "$f"; done'


def ends_of(paths: str, size: int) -> str:
    """A script that prints the ends of logs, each below its name; the newest comes last."""
    # Without any path ls would list whatever directory it is in.
    return (
        f"for f in $(ls -rt /dev/null {paths} 2>/dev/null); do "
        f'test -f "$f" || continue; echo "==> $f"; tail -c {size} "$f"; echo; done'
    )


def everywhere(units: Sequence[str], since: str) -> tuple[Question, ...]:
    """Of any host; `units` are those that are to be active there."""
    show = "systemctl show -p Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,ActiveEnterTimestamp"
    return (
        of_fact(Time, seconds=5),
        of_fact(FileSystems, paths=PATHS),
        Question(
            "system.txt",
            "uname -a; cat /etc/os-release; uptime; free -m; df -hT; df -i; cat /proc/pressure/* 2>/dev/null; "
            "cat /etc/hosts /etc/resolv.conf",
        ),
        # Without arguments of programs, which may be secrets.
        Question("processes.txt", "ps -eo pid,ppid,stat,etime,time,rss,comm --sort=-rss | head -n 200"),
        Question("units.txt", f"{show} {shlex.join(units)}"),
        Question("failed.txt", "systemctl list-units --failed --plain --no-legend --no-pager"),
        Question("unit-files.txt", f"systemctl cat --no-pager {shlex.join(units)}"),
        Question(
            "network.txt",
            "ip -br addr; ip -br link; ip route show table all; ip -6 route; ip neigh; ss -tulnp; ss -s; "
            "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.bridge.bridge-nf-call-iptables; "
            "nft list tables 2>/dev/null",
        ),
        journal("kernel", "", since, "-k", 512 * KIB),
        journal("warnings", "", since, "-p warning", 512 * KIB),
    )


def of_node(runtime: str, since: str) -> tuple[Question, ...]:
    """Of a control plane or worker."""
    crictl = f"crictl --timeout 5s --runtime-endpoint unix://{SOCKETS[runtime]}"
    others = " ".join(f"/var/log/pods/{name}_*/*/*.log" for name in NAMESPACES.split())
    own = "|".join(f"kube-system_{name}-" for name in STATIC)
    return (
        of_fact(Runtime, runtime=runtime, socket=SOCKETS[runtime]),
        of_fact(NodeVersions),
        journal("kubelet", "kubelet.service", since),
        journal("runtime", UNITS[runtime], since),
        Question("crictl.txt", "; ".join(f"{crictl} {each}" for each in ("version", "pods", "ps -a", "images")), 20),
        Question(
            "configuration.txt",
            shown(
                "/var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /var/lib/kubelet/instance-config.yaml "
                f"/etc/cni/net.d/* /etc/containerd/config.toml {REGISTRIES}/*/hosts.toml /etc/crio/crio.conf.d/* "
                "/etc/crictl.yaml"
            ),
        ),
        Question("pods/others.log", ends_of(f"$(ls {others} 2>/dev/null | grep -vE '{own}')", 64 * KIB), 20, MIB),
    )


def kubectl(at: Address) -> str:
    """kubectl as the administrator, at one API server; its certificate is checked."""
    return f"{KUBECTL} --server=https://{Endpoint(at, API_SERVER_PORT)}"


def of_control_plane(at: Address, endpoint: Endpoint) -> tuple[Question, ...]:
    """Of a control plane: its API server, and etcd as its member sees it."""
    ctl = f'c() {{ timeout 12 {ETCDCTL} --command-timeout=4s "$@"; }}; '
    logs = (
        Question(f"pods/{name}.log", ends_of(f"/var/log/pods/kube-system_{name}-*/*/*.log", 384 * KIB), limit=512 * KIB)
        for name in STATIC
    )
    return (
        Question("readyz.txt", f"{kubectl(at)} get --raw='/readyz?verbose'", 12),
        Question("endpoint.txt", f"{KUBECTL} --server=https://{endpoint} get --raw=/readyz", 12),
        of_fact(Members, seconds=30),
        Question("etcd-alarms.txt", f"{ctl}c alarm list", 15),
        Question("etcd.txt", f"{ctl}c member list -w table; c endpoint status --cluster -w table", 30),
        Question("etcd-status.json", f"{ctl}c endpoint status -w json 2>/dev/null", 15),
        Question("manifests.txt", shown("/etc/kubernetes/manifests/*.yaml")),
        *logs,
    )


def of_timer(name: str, since: str) -> tuple[Question, ...]:
    """Of a host on which a timer of ours runs something."""
    return (of_fact(Timer, timer=name), journal(name, f"{name}.service", since, limit=64 * KIB))


def of_balancer(vips: Sequence[str], since: str) -> tuple[Question, ...]:
    """Of a host that runs HAProxy and Keepalived."""
    socket = "timeout 5 socat - UNIX-CONNECT:/run/haproxy/admin.sock"
    held = [of_fact(Vrrp, vip=vip) for vip in vips]
    return (
        of_fact(Backends),
        *(Question(f"facts/Vrrp-{vip}.txt", each.script, fact=Vrrp) for vip, each in zip(vips, held, strict=True)),
        Question("haproxy.txt", f"echo 'show info' | {socket}; echo 'show stat' | {socket}"),
        Question("balancer.txt", shown("/etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf /run/haproxy/weight")),
        journal("haproxy", "haproxy.service", since),
        journal("keepalived", "keepalived.service", since),
    )


def of_cluster(at: Address) -> tuple[Question, ...]:
    """Of the cluster, through one API server. Of pods their state is kept, not what they are made of."""
    k = kubectl(at)
    return (
        Question("nodes.json", f"{k} get nodes -o json", 20, 16 * MIB, kept=False),
        Question("pods.json", f"{k} get pods -A -o json", 30, 48 * MIB, kept=False),
        Question("nodes.txt", f"{k} get nodes -o wide; {k} describe nodes", 30, 2 * MIB),
        Question("pods.txt", f"{k} get pods -A -o wide", 20, 2 * MIB),
        Question("events.txt", _events(k), 20, MIB),
        Question("versions.txt", f"{k} version; {k} get --raw=/version"),
        Question(
            "objects.txt",
            f"{k} get deployments,daemonsets,statefulsets,jobs,services,endpointslices,poddisruptionbudgets,pvc -A "
            f"-o wide; {k} get namespaces,pv,storageclasses,apiservices,csr,priorityclasses,runtimeclasses; "
            f"{k} get validatingwebhookconfigurations,mutatingwebhookconfigurations; {k} -n kube-system get leases",
            40, MIB,
        ),
        Question(
            "configuration.yaml",
            f"{k} -n kube-system get configmap {' '.join(CONFIGMAPS)} -o yaml --ignore-not-found",
        ),
    )  # fmt: skip


def _events(k: str) -> str:
    """Warnings and others with their time first, as logs have it."""
    row = (
        "{range .items[*]}{.lastTimestamp} {.eventTime} {.type} {.metadata.namespace}/{.involvedObject.kind}/"
        '{.involvedObject.name} {.reason}: {.message} (x{.count}){"\\n"}{end}'
    )
    return f"{k} get events -A --sort-by=.metadata.creationTimestamp -o jsonpath={shlex.quote(row)} | tail -n 3000"
