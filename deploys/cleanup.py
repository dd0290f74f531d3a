"""What this project and kubeadm put on a host, taken away again: by deploys/reset.py, and of a host that is removed.

What stays, and why, is in docs/nodes.md.
"""

from pyinfra import host, logger

from cluster import audit, bridge, families, firewall, pieces
from cluster.networks import CNI_FILES
from cluster.runtime import REGISTRIES, UNITS
from deploys import load_balancer, packages, plan, rules, runtime
from deploys.distribute import UNIT as BUNDLE_SERVER
from deploys.node import NETWORK_MANAGER, UNMANAGED
from facts.backup import NAME as BACKUPS
from facts.certificate import RENEWAL
from facts.firewall import RULES as UFW
from facts.firewall import Firewall
from facts.network import BEGIN, END
from facts.traces import METADATA, Others, Traces
from operations import bundle_server, cleanup, containerd, crio, service, timer
from operations import firewall as firewalls
from operations.package import STATE

BRIDGE = f"/etc/systemd/system/{bridge.UNIT}"
CONTAINERD = "/var/lib/containerd"
# Directories that hold nothing but what kubeadm, the kubelet, etcd and pods' network write, and pieces of the bundle.
TREES = (
    "/etc/kubernetes", "/var/lib/kubelet", "/var/lib/etcd", "/var/lib/cni", "/var/log/pods", "/var/log/containers",
    "/usr/libexec/kubernetes", "/run/flannel", "/var/lib/calico", "/run/calico", "/var/log/calico", "/root/.kube/cache",
    "/run/cilium", "/var/lib/cilium", audit.LOGS, STATE,
)  # fmt: skip
NODE = (
    "/etc/modules-load.d/kubernetes.conf", "/etc/sysctl.d/90-kubernetes.conf", "/etc/crictl.yaml",
    *(f"/etc/cni/net.d/{name}" for name in CNI_FILES.values()), "/etc/cni/net.d/calico-kubeconfig",
    "/opt/cni/bin/cilium-cni", "/etc/sysctl.d/99-zzz-override_cilium.conf",
    packages.UNIT, packages.DROP_IN, bridge.SCRIPT, BRIDGE,
)  # fmt: skip
BALANCER = (load_balancer.HAPROXY, load_balancer.CA, load_balancer.DROP_IN, load_balancer.KEEPALIVED)
SERVER = (BUNDLE_SERVER, bundle_server.DIRECTORY)
OF_CRIO = (crio.CONFIG, crio.POLICY, runtime.MIRRORS, f"/etc/systemd/system/{UNITS['cri-o']}")
# With its data where that is the cluster's alone.
OF_CONTAINERD = (
    containerd.CONFIG, runtime.HOSTS, runtime.TRUST, "/etc/nerdctl/nerdctl.toml", CONTAINERD, "/run/containerd",
    f"/etc/systemd/system/{UNITS['containerd']}",
)  # fmt: skip
# Of the packages of balancers and bundle servers, what such a host alone has.
OF_ROLES = {"haproxy", "keepalived", "nginx"}
PARENTS = (
    "/etc/cni/net.d", "/etc/cni", "/opt/cni/bin", "/opt/cni", f"{REGISTRIES}/_default", REGISTRIES,
    containerd.DROP_INS, "/etc/containerd", "/etc/nerdctl", crio.DROP_INS, "/etc/crio", f"{packages.UNIT}.d",
    "/etc/systemd/system/haproxy.service.d", "/etc/haproxy", "/etc/keepalived", "/opt/containerd/bin",
    "/opt/containerd/lib", "/opt/containerd", "/root/.kube",
)  # fmt: skip


def clean(purge: bool = False) -> None:
    """Take everything away from this host; packages too when that is asked."""
    name, shared = plan.settings().container_runtime, _shared()
    stays = shared and name == "containerd"
    _balancer()
    cleanup.stopped(name="Stop the bundle's server", unit="bundle-server.service")
    timer.absent(name="Remove the timer of backups", timer=BACKUPS)
    timer.absent(name="Remove the timer of renewal", timer=RENEWAL)
    cleanup.kubeadm(name="Undo what kubeadm has made", settings=plan.settings())
    cleanup.stopped(name="Disable kubelet", unit="kubelet.service")
    cleanup.stopped(name="Stop routes to other nodes' pods", unit=bridge.UNIT)
    if not stays:
        # Else a run that is killed between this and the files' removal would leave data that nobody can be asked about.
        known = METADATA if name == "containerd" else ""
        cleanup.stopped(name=f"Stop {name}", unit=UNITS[name], file=known)
    cleanup.network(
        name="Remove interfaces, routes and rules of pods' network",
        subnets=[str(subnet) for subnet in plan.settings().pod_subnet.each],
    )  # fmt: skip
    cleanup.without_lines(name="Take the nodes out of /etc/hosts", path="/etc/hosts", begin=BEGIN, end=END)
    _firewalls()
    cleanup.swap_back(name="Turn swap on as it was")
    _packages(purge, stays)
    unmanaged = cleanup.removed(name="Have NetworkManager manage all interfaces again", paths=[UNMANAGED])
    if host.get_fact(Traces, paths=(UNMANAGED,)):
        service.unit(
            name="Tell NetworkManager",
            unit=NETWORK_MANAGER, reload_on=[unmanaged], enabled=False,
        )  # fmt: skip
    cleanup.removed(name="Remove files", paths=paths(shared, stays), parents=PARENTS)


def _shared() -> bool:
    """Whether containerd has, or may have, what is not the cluster's."""
    others = host.get_fact(Others)
    if others == []:
        return False
    words, then = f"has containers of others here ({', '.join(others or ())})", ""
    if others is None:
        words = "does not answer here, and its data may be others' too"
        then = " Start it and run this again; if it was the cluster's alone, you may also remove its data yourself."
    logger.warning(
        f"{host.print_prefix}containerd {words}, so it, its data and its configuration are left as they are.{then}"
    )
    return True


def paths(shared: bool, stays: bool) -> list[str]:
    """Everything that this project and kubeadm write on any host; nothing of a containerd that is `shared`, and none of
    its programs where it `stays` as the cluster's runtime."""
    programs = pieces.programs(plan.lock(), plan.GROUPS)
    own = set(pieces.runtime_programs(plan.lock(), plan.GROUPS)) if stays else set()
    check = [family.keepalived_check for family in families.load().values()]
    servers = [bundle_server.registry(node, plan.settings().bundle_port) for node in plan.everybody().nodes]
    trusted = [f"/etc/containers/certs.d/{server}" for server in servers]
    return [
        *(each for each in programs if each not in own), *TREES, *NODE, *BALANCER, *check, *SERVER,
        *OF_CRIO, *trusted, *(() if shared else OF_CONTAINERD),
    ]  # fmt: skip


def _balancer() -> None:
    """Keepalived first: the virtual IP moves to another host while HAProxy still answers."""
    if host.get_fact(Traces, paths=(load_balancer.DROP_IN,)):
        cleanup.stopped(name="Stop Keepalived", unit="keepalived.service")
        cleanup.stopped(name="Stop HAProxy", unit="haproxy.service")


def _firewalls() -> None:
    active = host.get_fact(Firewall)["active"]
    files = (*rules.EVERYWHERE, *rules.ON_NODES)
    gone = cleanup.removed(name="Remove the cluster's rules of firewalld", paths=files)
    if "firewalld" in active:
        firewalls.loaded(name="Have firewalld filter without them", firewall="firewalld", after=[gone])
    cut = cleanup.without_lines(
        name="Take the cluster's block out of ufw's rules", path=UFW, begin=firewall.BEGIN, end=firewall.END
    )
    if "ufw" in active:
        firewalls.loaded(name="Have ufw filter without it", firewall="ufw", after=[cut])


def _packages(purge: bool, stays: bool) -> None:
    """Those that serve the cluster alone; what any host may use besides, such as curl, is never removed, and a runtime
    that `stays` is not either."""
    sets = plan.lock().package_sets[plan.release()]
    roles = {*sets["load_balancer"], *sets["mirror"]} & OF_ROLES
    if purge and stays:
        _packages_of(set(sets["runtime"]) - roles, purge=False)
        _packages_of(roles, purge=True)
    else:
        _packages_of({*sets["runtime"], *roles}, purge)


def _packages_of(names: set[str], purge: bool) -> None:
    cleanup.packages(
        name="Remove packages" if purge else "Release packages that are held",
        names=sorted(names), release=plan.release(), format=plan.family().format, purge=purge,
        masked=plan.family().unstarted,
    )  # fmt: skip
