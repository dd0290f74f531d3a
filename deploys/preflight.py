"""Everything that would make the deploy fail, found before the first change (guide 2.1).

Hosts: all. Changes nothing. All findings of all hosts are reported at once.
"""

from functools import cache
from ipaddress import IPv4Interface

from pyinfra import host, inventory
from pyinfra.api import deploy

from cluster import preflight as requirements
from cluster.topology import check_vip
from deploys import plan
from facts.hardware import Hardware
from facts.keepalived import Vrrp
from facts.network import Answers
from facts.time import TimeSynchronized


@cache
def findings() -> list[str]:
    """Problems of all hosts of this run; looked for once, whichever host comes first."""
    settings, topology = plan.settings(), plan.topology()
    asked = [node for node in topology.nodes if host.state.is_host_in_limit(inventory.get_host(node.name))]
    hardware = {node.name: inventory.get_host(node.name).get_fact(Hardware) for node in asked}
    balancers = [node for node in topology.load_balancers if node in asked]
    subnets = [
        IPv4Interface(f"{row['address']}/{row['prefix']}")
        for node in balancers
        for row in hardware[node.name]["addresses"]
        if row["address"] == str(node.address)
    ]
    return [
        *plan.damage(),
        *requirements.check_hardware(hardware, topology, plan.lock().platform, settings.waived_checks),
        *(_clocks([node.name for node in asked]) if settings.time_sync == "check" else ()),
        *check_vip(settings, subnets),
        *_vip_taken([node.name for node in balancers]),
    ]


def _clocks(names: list[str]) -> list[str]:
    kept = {name: inventory.get_host(name).get_fact(TimeSynchronized) for name in names}
    return requirements.check_time(kept, plan.settings().waived_checks)


def _vip_taken(balancers: list[str]) -> list[str]:
    """Whether a machine that is none of the load balancers has the virtual IP."""
    vip = str(plan.settings().vip)
    hosts = [inventory.get_host(name) for name in balancers]
    if any(each.get_fact(Vrrp, vip=vip)["holds_vip"] for each in hosts):
        return []
    for each in hosts:
        if mac := each.get_fact(Answers, address=vip):
            return [
                f"vip {vip}: something answers at it already ({mac}, as seen by {each.name}) and no load balancer has "
                "it. Choose a free address, or find that machine and free this one."
            ]
    return []


@deploy("Preflight")
def preflight() -> None:
    plan.refuse(findings())
    plan.barrier("preflight")


plan.run(__name__, preflight)
