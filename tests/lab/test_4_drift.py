"""Kinds of drift, done by hand to the finished cluster all at once: each is found, told, and taken back by one run.

What was there before is there afterwards, and nothing else is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.changes import Plan
from operations.file import ASIDE
from tests.lab.nodes import MEASURED, NODES, ROOT, Done, deployed, everywhere, foretold, last_plan, pyinfra, ssh
from tests.lab.test_4_survival import wait_for

pytestmark = pytest.mark.usefixtures("cluster")
K = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
PIECES = "/var/lib/pyinfra-kubeadm/bundle"
RUNC = (
    f"cd /tmp && rm -rf drift && dpkg-deb -R {PIECES}/packages/debian-12/runc_*.deb drift && "
    "sed -i 's/^Version: .*/&+drift/' drift/DEBIAN/control && dpkg-deb -b drift drift.deb >/dev/null && "
    "dpkg -i --force-hold drift.deb >/dev/null 2>&1 && rm -rf drift drift.deb"
)
STALE = '{"cniVersion": "0.3.1", "name": "stale", "plugins": [{"type": "loopback"}]}'
# The argument stays with the process, for a kubelet that is stopped does not see the file go back.
LIVE = (
    "m=/etc/kubernetes/manifests/kube-scheduler.yaml; cp -a $m /root/drift.yaml && "
    "sed -i 's/    - kube-scheduler$/&\\n    - --v=3/' $m && "
    "for i in $(seq 60); do pgrep -f 'kube-scheduler .*--v=3' >/dev/null && break; sleep 1; done && "
    "pgrep -f 'kube-scheduler .*--v=3' >/dev/null && systemctl stop kubelet && mv /root/drift.yaml $m"
)


def configmap(name: str, old: str, new: str, namespace: str = "kube-system") -> str:
    """Shell that edits a ConfigMap, and fails where there is nothing to edit."""
    get = f"{K} -n {namespace} get configmap {name} -o yaml"
    return f"{get} | grep -q '{old}' && {get} | sed 's#{old}#{new}#' | {K} replace -f - >/dev/null"


@dataclass(frozen=True)
class Kind:
    """What is done to a host, and the operation that must find it, with words that it says."""

    name: str
    host: str
    command: str
    operation: str
    words: str


KINDS = [
    Kind("swap at the next boot", "w1", "echo '/dev/zz none swap sw 0 0' >> /etc/fstab", "Turn swap off", "/dev/zz"),
    Kind("kernel setting, live", "w1", "sysctl -qw net.ipv4.ip_forward=0", "Apply kernel settings", "90-kubernetes"),
    Kind("kernel settings' file", "cp2", "echo 'vm.swappiness = 1' >> /etc/sysctl.d/90-kubernetes.conf",
         "Write kernel settings", "content"),
    Kind("modules' file gone", "cp3", "rm /etc/modules-load.d/kubernetes.conf", "Load kernel modules at boot",
         "create"),
    Kind("name of another host", "cp1", "sed -i 's/^10.88.0.31 w1$/10.88.0.99 w1/' /etc/hosts", "/etc/hosts",
         "content"),
    Kind("host's own name", "lb1", "echo other > /etc/hostname; hostname other", "Set the host name", ""),
    Kind("package not held", "cp1", "apt-mark unhold containerd >/dev/null", "Install containerd", "hold containerd"),
    Kind("package gone", "w1", "dpkg --purge --force-depends conntrack >/dev/null 2>&1", "Install containerd",
         "conntrack none -> "),
    Kind("package of another version", "cp2", RUNC, "Install containerd", "+drift -> "),
    Kind("other program", "cp3", "cp /usr/bin/true /usr/bin/kubectl", "Install kubeadm", "replace /usr/bin/kubectl"),
    Kind("program that may not run", "cp2", "chmod 644 /usr/bin/kubeadm", "Install kubeadm", "/usr/bin/kubeadm"),
    Kind("CNI plugin gone", "w1", "rm /opt/cni/bin/portmap", "Install kubeadm", "install /opt/cni/bin/portmap"),
    Kind("unit's file", "w1", "echo '# drift' >> /etc/systemd/system/kubelet.service", "Write kubelet's service",
         "content"),
    Kind("unit's foreign drop-in", "cp2", "printf '[Service]\\nNice=5\\n' > "
         "/etc/systemd/system/kubelet.service.d/99-drift.conf", "Set aside what else", "99-drift.conf"),
    Kind("second CNI file", "w1", f"echo '{STALE}' > /etc/cni/net.d/00-drift.conflist",
         "Set aside other networks", "00-drift.conflist"),
    Kind("runtime's configuration", "cp3", "echo '# drift' >> /etc/containerd/config.toml",
         "Write containerd's configuration", "config.toml"),
    Kind("mirror gone", "cp2", "rm /etc/containerd/certs.d/_default/hosts.toml", "Have containerd ask", "create"),
    Kind("trust in the bundle's servers", "cp1", "echo >> /etc/containerd/certs.d/bundle-servers.crt",
         "Trust the bundle's servers", "content"),
    Kind("nerdctl's configuration", "w1", "echo >> /etc/nerdctl/nerdctl.toml", "Write nerdctl's", "content"),
    Kind("crictl's configuration gone", "w1", "rm /etc/crictl.yaml", "Write crictl's", "create"),
    Kind("image gone", "w1", "ctr -n k8s.io images rm $(ctr -n k8s.io images ls -q | grep agnhost:) >/dev/null",
         "Import images", "agnhost"),
    Kind("another image by that name", "cp3", "ctr -n k8s.io images tag --force $(ctr -n k8s.io images ls -q | "
         "grep pause: | head -1) $(ctr -n k8s.io images ls -q | grep agnhost:) >/dev/null", "Import images", "agnhost"),
    Kind("piece of the bundle gone", "w1", f"rm {PIECES}/bin/kubectl", "Carry the bundle", "carry 1 of"),
    Kind("extra backend", "lb1", "echo '    server drift 10.88.0.99:6443' >> /etc/haproxy/haproxy.cfg",
         "Write HAProxy's", "haproxy.cfg"),
    Kind("VRRP priority", "lb2", "sed -i 's/priority 100/priority 150/' /etc/keepalived/keepalived.conf",
         "Write Keepalived's configuration", "priority 150"),
    Kind("mode of a check", "lb1", "chmod 644 $(sed -n 's/.*script \"\\(.*\\)\"/\\1/p' "
         "/etc/keepalived/keepalived.conf | head -1)", "Write Keepalived's check", "mode 644 -> 755"),
    Kind("drop-in gone", "lb2", "rm /etc/systemd/system/haproxy.service.d/keepalived.conf", "tell Keepalived",
         "create"),
    Kind("trusted CA", "lb1", "echo >> /etc/haproxy/kubernetes-ca.crt", "Give HAProxy the cluster's CA", "content"),
    Kind("owner of a file", "lb2", "chown haproxy /etc/haproxy/kubernetes-ca.crt", "Give HAProxy", "owner haproxy"),
    Kind("unit not enabled", "lb2", "systemctl disable -q haproxy 2>/dev/null", "Run HAProxy", "haproxy.service"),
    Kind("unit stopped", "lb2", "systemctl stop keepalived", "Run Keepalived", "keepalived.service"),
    Kind("unit masked", "lb1", "systemctl mask -q keepalived", "Run Keepalived", "unmask"),
    Kind("another package not held", "lb1", "apt-mark unhold haproxy >/dev/null", "Install HAProxy", "hold haproxy"),
    Kind("server's configuration", "lb1", "echo '# drift' >> /etc/bundle-server/nginx.conf", "Write the server's conf",
         "content"),
    Kind("server stopped", "lb2", "systemctl stop bundle-server", "Serve the bundle", "inactive"),
    Kind("argument in a manifest", "cp2", "sed -i 's/    - kube-controller-manager$/&\\n    - --v=3/' "
         "/etc/kubernetes/manifests/kube-controller-manager.yaml", "Have static pods of cp2", "controller-manager"),
    Kind("argument that is live alone", "cp3", LIVE, "Enable kubelet", "it is inactive"),
    Kind("kubelet's configuration", "w1", "sed -i 's/^cgroupDriver:.*/&\\nmaxPods: 55/' /var/lib/kubelet/config.yaml",
         "Have the worker's kubelet", "config.yaml"),
    Kind("ConfigMap of kubeadm", "cp1", configmap("kubeadm-config", "scheduler: {}",
         "scheduler: {extraArgs: [{name: v, value: \"3\"}]}"), "Have the cluster keep kubeadm's", "kubeadm-config"),
    Kind("ConfigMap of kubelets", "cp1", configmap("kubelet-config", "    cgroupDriver: systemd",
         "    cgroupDriver: systemd\\n    maxPods: 66"), "keep the configuration of kubelets", "kubelet-config"),
    Kind("ConfigMap of kube-proxy", "cp1", configmap("kube-proxy", "clusterCIDR: 10.244.0.0/16",
         "clusterCIDR: 10.244.0.0/17"), "Have kube-proxy follow", "kube-proxy"),
    Kind("add-on, live", "cp1", configmap("coredns", "ttl 30", "ttl 5"), "Apply coredns", "coredns.yaml"),
    Kind("pod network, live", "cp1", configmap("kube-flannel-cfg", "10.244.0.0/16", "10.244.0.0/17", "kube-flannel"),
         "Apply flannel", "flannel.yaml"),
    Kind("manifest of an add-on", "cp1", "echo '# drift' >> /etc/kubernetes/addons.d/coredns.yaml",
         "Write the manifest of coredns", "content"),
    Kind("timer not enabled", "cp2", "systemctl disable -q --now etcd-backup.timer 2>/dev/null", "Run the timer",
         "etcd-backup.timer"),
    Kind("program of backups", "cp3", "echo '# drift' >> /usr/local/sbin/etcd-backup", "program of backups", "content"),
    Kind("taint gone", "cp1", f"{K} taint node cp2 node-role.kubernetes.io/control-plane:NoSchedule- >/dev/null",
         "labelled and tainted", "taint cp2"),
    Kind("label gone", "cp1", f"{K} label node cp3 node-role.kubernetes.io/control-plane- >/dev/null",
         "labelled and tainted", "label cp3"),
    Kind("key that others read", "cp1", "chmod 644 /etc/kubernetes/pki/ca.key", "Keep keys", "pki/ca.key"),
    Kind("kubeconfig that others read", "cp2", "chmod 644 /etc/kubernetes/admin.conf", "Keep keys", "admin.conf"),
]  # fmt: skip

# What is described, and what lies beside it: content, modes and owners of files, units, packages, kernel settings.
WHOLE = (
    "find /etc /opt/cni /usr/local /usr/bin/kube* /usr/bin/crictl "
    f"{PIECES} \\( -path /etc/kubernetes/tmp -o -name '*-' -o -name '.pwd.lock' -o -path /etc/mtab "
    "-o -path /etc/fstab \\) -prune -o "
    "-type f -printf '%m %U:%G ' -exec sha256sum {} \\; | sort -k3; "
    # What is written in place of kubeadm's has other quotes, and no empty maps.
    "f=/var/lib/kubelet/config.yaml; stat -c '%a %U:%G %n' $f 2>/dev/null; grep -sv '{}$' $f | tr \"'\" '\"'; "
    "find /etc/systemd/system -type l | sort; dpkg-query -W -f '${Package} ${Version} ${db:Status-Want}\\n'; hostname; "
    "systemctl is-active haproxy keepalived bundle-server kubelet containerd etcd-backup.timer; "
    "sysctl net.ipv4.ip_forward vm.overcommit_memory vm.swappiness; "
    "ctr -n k8s.io images ls 2>/dev/null | awk '{print $1, $3}' | grep -v '^sha256' | sort"
)
ADMIN = ROOT / "secrets/lab/admin.conf"


def whole() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}

    def look(node: str) -> None:
        found[node] = set(ssh(node, WHOLE, check=False).splitlines())

    everywhere(look)
    return found


@dataclass(frozen=True)
class Drifted:
    """What nodes were before, and what was said of them when they had drifted."""

    before: dict[str, set[str]]
    found: Done
    plan: Plan


@pytest.fixture(scope="module")
def drifted(cluster: str) -> Iterator[Drifted]:
    again = pyinfra("drift", "-y")
    assert again.returncode == 0, again.stdout[-6000:]
    before = whole()

    def drift(node: str) -> None:
        for kind in KINDS:
            if kind.host == node:
                ssh(node, kind.command)

    # The API's first: others take something away that kubectl needs.
    everywhere(drift)
    ADMIN.write_text(ADMIN.read_text() + "# drift\n")
    left, begun = whole(), time.monotonic()
    found = pyinfra("drift", "-y", "--diff")
    MEASURED.append(f"drift of {len(KINDS) + 1} kinds found in {time.monotonic() - begun:.0f} s")
    assert whole() == left, "a dry run changed something"
    assert found.returncode == 2, found.stdout[-8000:]
    yield Drifted(before, found, last_plan("drift"))


def test_there_are_forty_kinds_and_more() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_drift_is_found_and_told(drifted: Drifted, kind: Kind) -> None:
    rows = {(name, operation): changes for (operation, name), changes in drifted.plan.rows().items()}
    own = {operation: changes for (name, operation), changes in rows.items() if name == kind.host}
    told = [change for operation, changes in own.items() if kind.operation in operation for change in changes]
    assert any(kind.words in f"{change.line()} {change.diff}" for change in told) or (
        not kind.words and any(kind.operation in operation for operation in own)
    ), f"of {kind.host} the plan says {own}"


def test_the_administrators_kubeconfig_here_is_found(drifted: Drifted) -> None:
    assert any("Keep the administrator's kubeconfig" in step.operation for step in drifted.plan.steps)


def test_one_run_takes_it_all_back_as_it_was_planned_and_nothing_else(drifted: Drifted) -> None:
    deployed("cluster", "--dry")
    deployed("cluster", "-y")
    assert foretold("cluster") == []
    again = pyinfra("drift", "-y")
    assert again.returncode == 0, again.stdout[-6000:]
    wait_for(lambda: "--v=3" not in ssh("cp3", "pgrep -af kube-scheduler", check=False), "the old argument", limit=90)
    after = whole()
    for node in NODES:
        new = {line for line in drifted.before[node] ^ after[node] if "/etc/kubernetes/addons.d" not in line}
        assert not new, f"{node}: {sorted(new)[:20]}"
    assert ssh("w1", "grep -c '^# .*/dev/zz' /etc/fstab || true").strip() != "0"  # the line stays, for people
    assert ssh("cp2", f"ls {ASIDE}/etc/systemd/system/kubelet.service.d").split() == ["99-drift.conf"]
    assert ssh("w1", f"ls {ASIDE}/etc/cni/net.d").split() == ["00-drift.conflist"]
    assert "# drift" not in Path(ADMIN).read_text()
