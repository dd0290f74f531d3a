"""A host without what this project and kubeadm have put there."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster.kubeadm import cri_socket
from cluster.settings import Settings
from facts.file import FileState
from facts.kubeadm import KubeadmNode
from facts.package import Packages
from facts.running import Running
from facts.service import Unit
from facts.traces import PINS, RULES, TABLES, Remains, Traces
from operations import file
from operations.change import will
from operations.package import MANAGERS
from operations.swap import COMMENT

# Takes Cilium's programs off interfaces that stay. Without the maps that are kept with them they drop every packet, so
# that comes before (https://github.com/cilium/cilium/blob/v1.20.2/cilium-dbg/cmd/post_uninstall_cleanup.go).
FILTERS = (
    "for i in $(ls /sys/class/net); do for w in ingress egress; do tc filter show dev $i $w 2>/dev/null | "
    "sed -n 's/.* pref \\([0-9]*\\) bpf .* handle \\(0x[0-9a-f]*\\) cil_.*/\\1 handle \\2/p' | while read -r f; do "
    "tc filter del dev $i $w pref $f bpf || exit 1; done || exit 1; done; done"
)


@operation()
def stopped(unit: str, file: str = "") -> Generator[StringCommand, None, None]:
    """
    Stop a unit, and have it stay stopped when the host boots.

    + unit: the unit, which may not be there
    + file: a file that is gone as soon as it has stopped
    """
    state = host.get_fact(Unit, unit=unit)
    if state["load"] != "loaded" or (state["active"] in ("inactive", "failed") and state["enabled"] != "enabled"):
        host.noop(f"{unit} does not run, now or at boot")
        return
    will(f"stop {unit}, now and at boot")
    also = f" && rm -f {shlex.quote(file)}" if file else ""
    yield StringCommand(f"timeout 120 systemctl disable --now {shlex.quote(unit)}{also}")


@operation()
def kubeadm(settings: Settings) -> Generator[StringCommand, None, None]:
    """
    Undo `kubeadm init` or `join` and end all pods. The cluster is not asked: what it knows of this host is another
    matter, and it may be no more.

    + settings: the cluster's settings
    """
    local, running = host.get_fact(KubeadmNode), host.get_fact(Running)
    if local["state"] == "none" and not local["etcd_data"] and not running["kubelet"] and not running["pods"]:
        host.noop("this host is no node")
        return
    will(f"end {len(running['pods'] or ())} pods and what makes this host a {local['state']}")
    # With a kubeconfig that is not there kubeadm asks nobody, which it would do for minutes where nobody answers.
    yield StringCommand(
        "if command -v kubeadm >/dev/null; then timeout 300 kubeadm reset -f --kubeconfig /nonexistent "
        f"--cri-socket {cri_socket(settings)} 2>&1; else systemctl stop kubelet.service; fi && "
        # Pods that an earlier run has left when it was killed.
        "{ crictl pods -q 2>/dev/null | xargs -r crictl rmp -f >/dev/null; }"
    )


@operation()
def network(subnets: Sequence[str]) -> Generator[StringCommand, None, None]:
    """
    Remove interfaces, routes and programs of pods' network, and rules of Kubernetes from the packet filter; other rules
    stay.

    + subnets: addresses of pods
    """
    found = host.get_fact(Remains, subnets=tuple(subnets))
    if not any(found.values()):
        host.noop("there is nothing of pods' network")
        return
    rules = ", ".join(f"{count} of {program}" for program, count in found["rules"].items())
    what = [*found["interfaces"], f"{len(found['routes'])} routes", f"rules: {rules or 'none'}"]
    what += [*(["programs and maps of eBPF"] if found["pins"] else []), *found["mounts"]]
    will(f"remove {', '.join(what)}")
    for program in found["rules"]:
        if program == "nft":
            yield StringCommand(
                f"nft list tables | grep -E {shlex.quote(TABLES)} | while read -r l; do nft delete $l || exit 1; done"
            )
        else:  # each table changes at once; -c keeps the counters of what stays
            yield StringCommand(f"{program}-save -c | grep -vE {shlex.quote(RULES)} | {program}-restore -c")
    if "kube-ipvs0" in found["interfaces"]:
        yield StringCommand("! command -v ipvsadm >/dev/null || ipvsadm --clear")
    for name in found["interfaces"]:
        yield StringCommand(f"! ip link show {shlex.quote(name)} >/dev/null 2>&1 || ip link delete {shlex.quote(name)}")
    if found["pins"]:
        yield StringCommand(f"{FILTERS} && rm -rf {PINS}")
    for path in reversed(found["mounts"]):
        yield StringCommand(f"umount {shlex.quote(path)}")
    for subnet in subnets:
        yield StringCommand(f"ip route flush root {subnet}")


@operation()
def removed(paths: Sequence[str], parents: Sequence[str] = ()) -> Generator[StringCommand, None, None]:
    """
    Remove files and directories with all that is in them; nothing that is mounted below.

    + paths: absolute paths
    + parents: directories that go too when they are empty then, the deepest first
    """
    there = host.get_fact(Traces, paths=tuple(paths))
    if not there:
        host.noop("none of it is there")
        return
    later = "what `kubeadm reset` and packages take with them is gone by then"
    will("remove files and directories", [f"-{path}" for path in there], later=later)
    yield StringCommand(
        f'for p in {shlex.join(there)}; do rm -rf --one-file-system -- "$p" 2>/dev/null; '
        'if test -e "$p" && ! { mountpoint -q "$p" && test -z "$(ls -A "$p")"; }; then '
        'echo "$p: not removed; is something mounted there or held open?" >&2; findmnt -R "$p" >&2; exit 1; fi; done'
        + (f"; rmdir --ignore-fail-on-non-empty {shlex.join(parents)} 2>/dev/null" if parents else "")
        + "; systemctl daemon-reload"
    )


@operation()
def without_lines(path: str, begin: str, end: str) -> Generator[StringCommand, None, None]:
    """
    Take the project's block out of a file; what others wrote there stays.

    + path: the file
    + begin: the block's first line
    + end: its last
    """
    current = host.get_fact(FileState, path=path)
    text = (current and current["content"]) or ""
    before, marked, rest = text.partition(f"{begin}\n")
    if not current or not marked:
        host.noop(f"{path} has nothing of ours")
        return
    left = before + rest.partition(f"{end}\n")[2]
    yield from file.content._inner(
        dest=path, content=left, mode=current["mode"], user=current["user"], group=current["group"]
    )


@operation()
def swap_back() -> Generator[StringCommand, None, None]:
    """Take the comments off lines of /etc/fstab by which swap was turned off, and turn it on."""
    current = host.get_fact(FileState, path="/etc/fstab")
    if not current or COMMENT not in (current["content"] or ""):
        host.noop("/etc/fstab is as it was")
        return
    text = (current["content"] or "").replace(COMMENT, "")
    yield from file.content._inner(
        dest="/etc/fstab", content=text, mode=current["mode"], user=current["user"], group=current["group"]
    )
    yield StringCommand("swapon -a")


@operation()
def packages(
    names: Sequence[str], release: str, format: str, purge: bool, masked: Mapping[str, str]
) -> Generator[StringCommand, None, None]:
    """
    Let packages be upgraded again, or remove them with their configuration.

    + names: packages of the bundle
    + release: whose they are, such as "debian-12"
    + format: "deb" or "rpm"
    + purge: remove them; refused by the package manager where others need them
    + masked: package -> its unit, which was masked before it was installed
    """
    installed = host.get_fact(Packages, names=tuple(names), format=format)
    held = [name for name in names if name in installed and installed[name]["held"]]
    gone = [name for name in names if name in installed] if purge else []
    if not held and not gone:
        host.noop("no package is held" if not purge else "none of these packages is installed")
        return
    for verb, what in (("release", held), ("remove", gone)):
        if what:
            will(f"{verb} {', '.join(what)}")
    if held:
        yield StringCommand(MANAGERS[format].release(release, held))
    if gone:
        quoted = shlex.join(gone)
        yield StringCommand(f"dpkg --purge {quoted} >/dev/null" if format == "deb" else f"rpm -e {quoted}")
        if units := [masked[name] for name in gone if name in masked]:
            yield StringCommand(f"systemctl unmask {shlex.join(units)}")
