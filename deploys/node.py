"""The machine beneath Kubernetes: swap, kernel modules and settings, names, time (guide 3.1).

Hosts: all, of load balancers only names and time. Changes: /etc/fstab, /etc/modules-load.d, /etc/sysctl.d,
/etc/hostname, /etc/hosts, /etc/NetworkManager/conf.d, chrony's configuration. Undo: remove the files named
kubernetes.conf and 90-kubernetes.conf, and the block in /etc/hosts.
"""

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import server

from cluster import balancing
from cluster.kernel import FORWARDING, NEEDED
from cluster.networks import proxy_modules
from deploys import plan
from facts.hardware import Hardware
from facts.kernel import Sysctl
from facts.service import Unit
from operations import file, hosts, kernel, service, swap

NETWORK_MANAGER = "NetworkManager.service"
UNMANAGED = "/etc/NetworkManager/conf.d/90-kubernetes.conf"
MODULES = ("overlay", "br_netfilter")  # kube-proxy's mode may need more


@deploy("Node")
def node() -> None:
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    if me not in topology.load_balancers:
        modules = (*MODULES, *proxy_modules(settings))
        _network_manager()
        swap.off(name="Turn swap off, now and at boot")
        file.content(
            name="Load kernel modules at boot",
            dest="/etc/modules-load.d/kubernetes.conf", content="".join(f"{name}\n" for name in modules),
        )  # fmt: skip
        loaded = kernel.modules(name="Load kernel modules", names=modules)
        path, wanted = "/etc/sysctl.d/90-kubernetes.conf", sysctls()
        written = file.content(
            name="Write kernel settings",
            dest=path, content="".join(f"{key} = {value}\n" for key, value in wanted.items()),
        )  # fmt: skip
        kernel.sysctl(name="Apply kernel settings", wanted=wanted, path=path, after=[loaded, written])
    server.hostname(name="Set the host name", hostname=me.name)
    names()
    if settings.time_sync == "chrony":
        plan.packages("time", name="Install chrony")
        chrony = plan.family().chrony
        text = plan.template("chrony/chrony.conf.j2", drift=chrony.drift)
        configured = file.content(name="Write chrony's configuration", dest=chrony.config, content=text, packaged=True)
        service.unit(name="Run chrony", unit=chrony.unit, restart_on=[configured], config_files=[chrony.config])
    plan.barrier("node")


def names() -> None:
    """Name every host of the cluster in /etc/hosts.

    The endpoint's own name too: nodes must find the API without a DNS server, and before others know the name.
    """
    settings, topology = plan.settings(), plan.topology()
    found = {each.name: each.addresses for each in topology.nodes} | balancing.names(settings, topology)
    known = {name: [str(address) for address in addresses] for name, addresses in found.items()}
    hosts.entries(name="Name every node in /etc/hosts", names=known)


def _network_manager() -> None:
    if plan.settings().network_manager == "leave" or host.get_fact(Unit, unit=NETWORK_MANAGER)["active"] != "active":
        return
    written = file.content(
        name="Have NetworkManager leave pods' interfaces alone",
        dest=UNMANAGED,
        content=plan.template("networkmanager/90-kubernetes.conf.j2"),
    )
    # It does not need to be enabled to be left alone by; a reload keeps the host's own interfaces as they are.
    service.unit(name="Tell NetworkManager", unit=NETWORK_MANAGER, reload_on=[written], enabled=False)


def sysctls() -> dict[str, str]:
    """Kernel settings of this node; for IPv6 those of the interface that has its address too.

    A host that forwards ignores router advertisements, and forgets the default route that it has by them, unless
    `accept_ra` is 2 (https://docs.kernel.org/networking/ip-sysctl.html). It is set before forwarding is, where the
    kernel listens to them: at 0 something else does, or nobody.
    """
    wanted = {**NEEDED, **plan.settings().sysctl}
    address = plan.me().of(6)
    if address is None:
        return wanted
    rows = host.get_fact(Hardware)["addresses"]
    names = [row["interface"].replace(".", "/") for row in rows if row["address"] == str(address)]
    keys = [f"net.ipv6.conf.{name}.accept_ra" for name in names]
    live = host.get_fact(Sysctl, keys=tuple(keys)) if keys else {}
    return {**{key: "2" for key in keys if live[key] in ("1", "2")}, FORWARDING: "1", **wanted}


plan.run(__name__, node)
