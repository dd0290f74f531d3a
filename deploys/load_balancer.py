"""HAProxy and Keepalived: one address for the API, whichever hosts are up (guide 4).

Hosts: load_balancer, or with load_balancing "control-planes" those; none when nobody balances or the site does. The
first control plane makes the cluster's CA, by which HAProxy knows API servers.
Changes: packages, /etc/haproxy, /etc/keepalived, both services. Undo: stop the services, remove the packages.
"""

from ipaddress import ip_address

from pyinfra import host
from pyinfra.api import deploy

from cluster.endpoint import Endpoint
from deploys import labels, live, plan
from facts.hardware import Hardware
from operations import file, pki, service

CA = "/etc/haproxy/kubernetes-ca.crt"
HAPROXY = "/etc/haproxy/haproxy.cfg"
DROP_IN = "/etc/systemd/system/haproxy.service.d/keepalived.conf"
KEEPALIVED = "/etc/keepalived/keepalived.conf"
HELD = ("haproxy", "keepalived")


@deploy("Load balancers")
def load_balancer() -> None:
    topology, me, balancers = plan.topology(), plan.me(), plan.balancers()
    if balancers and me == topology.first_control_plane:
        pki.authority(name="Make the cluster's CA", settings=plan.settings(), topology=topology)
    plan.barrier("the cluster's CA")
    if me in balancers:
        plan.packages("load_balancer", hold=HELD, name="Install HAProxy and Keepalived")
        labels.balance()
        haproxy()
        keepalived(live.left())
    plan.barrier("load balancers")


def haproxy() -> None:
    topology = plan.topology()
    trusted = pki.trust(name="Give HAProxy the cluster's CA", dest=CA, topology=topology)
    text = plan.template("haproxy/haproxy.cfg.j2", control_planes=topology.control_planes, ca_file=CA)
    written = file.content(
        name="Write HAProxy's configuration", dest=HAPROXY, content=text, validate="haproxy -c -q -f {}", packaged=True
    )
    told = file.content(
        name="Have systemd tell Keepalived of HAProxy",
        dest=DROP_IN,
        content=plan.template("haproxy/keepalived.conf.j2"),
    )
    service.unit(
        name="Run HAProxy",
        unit="haproxy.service", restart_on=[told], reload_on=[trusted, written],
        config_files=[CA, HAPROXY, DROP_IN],
        effect="connections to the API through this host are cut",
    )  # fmt: skip


def keepalived(left: Endpoint | None = None) -> None:
    """Keepalived with the virtual IPs, and that which the cluster is about to leave (deploys/reconfigure.py)."""
    me = plan.me()
    peers = [each for each in plan.balancers() if each != me]
    script = plan.family().keepalived_check
    check = file.content(
        name="Write Keepalived's check",
        dest=script,
        mode="755",
        content=plan.template("keepalived/check-api.j2", ca_file=CA, endpoint=left or plan.endpoint()),
    )
    labels.restore("Keepalived's check", [script], [check])
    # Adverts name the first alone, so that hosts agree on them while the others come.
    vips = [*([ip_address(str(left.host))] if left else []), *plan.settings().virtual_ips]
    carried = [(vip, interface(vip.version)) for vip in vips]
    text = plan.template("keepalived/keepalived.conf.j2", node=me, peers=peers, carried=carried, check=script)
    written = file.content(
        name="Write Keepalived's configuration",
        dest=KEEPALIVED,
        content=text,
        validate="keepalived -t -f {}",
        packaged=True,
    )
    # A reload leaves the address where it is; of restarts of all hosts at once nobody would have it for seconds.
    service.unit(
        name="Run Keepalived",
        unit="keepalived.service", reload_on=[check, written], config_files=[script, KEEPALIVED],
        effect="the virtual IP goes to another host, if it was here",
    )  # fmt: skip


def interface(version: int) -> str:
    """The interface that carries a family's virtual IP: as set, else the one with this host's address."""
    if name := plan.settings().vip_interface:
        return name
    address = str(plan.me().of(version))
    rows = host.get_fact(Hardware)["addresses"]
    found = [row["interface"] for row in rows if row["address"] == address]
    if not found:
        raise plan.InputError(
            f"{host.name}: no interface has its address {address}; it has {', '.join(row['address'] for row in rows)}. "
            "Correct `address` in the inventory, or set `vip_interface`."
        )
    return found[0]


plan.run(__name__, load_balancer)
