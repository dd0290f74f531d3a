"""Everything that would make the deploy fail, found before the first change (guide 2.1).

Hosts: all. Changes nothing. All findings of all hosts are reported at once.
"""

import sys
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Interface
from typing import TypeVar

from gevent.lock import RLock
from gevent.pool import Pool
from pyinfra import host, inventory
from pyinfra.api import FactBase, deploy

from cluster import preflight as requirements
from cluster.topology import Node, check_vip
from deploys import plan
from facts.hardware import Hardware
from facts.keepalived import Vrrp
from facts.network import Answers, Reached
from facts.sudo import Sudo
from facts.time import TimeSynchronized

Fact = TypeVar("Fact")
_once = RLock()


def ask(fact: type[FactBase[Fact]], nodes: Iterable[Node], **arguments: str | int) -> dict[str, Fact]:
    """A fact of many hosts at once, by name."""
    hosts = [inventory.get_host(node.name) for node in nodes]
    answers = Pool(host.state.config.PARALLEL).map(lambda each: each.get_fact(fact, **arguments), hosts)
    return {each.name: answer for each, answer in zip(hosts, answers, strict=True)}


def _findings() -> list[str]:
    settings, topology = plan.settings(), plan.topology()
    asked = [node for node in topology.nodes if host.state.is_host_in_limit(inventory.get_host(node.name))]
    if found := _without_sudo(asked):
        return found
    hardware = ask(Hardware, asked)
    balancers = [node for node in plan.balancers() if node in asked]
    subnets = [
        IPv4Interface(f"{row['address']}/{row['prefix']}")
        for node in balancers
        for row in hardware[node.name]["addresses"]
        if row["address"] == str(node.address)
    ]
    return [
        *plan.damage(),
        *requirements.check_hardware(hardware, topology, plan.lock().platform, settings.waived_checks),
        *requirements.check_kernel(hardware, topology, settings.kubernetes_version, settings.waived_checks),
        *(_clocks(asked) if settings.time_sync == "check" else ()),
        *(check_vip(settings.virtual_ip, subnets) if settings.virtual_ip else ()),
        *_vip_taken(balancers),
        *(_external(asked) if settings.load_balancing == "external" else ()),
    ]


@cache
def _outcome() -> list[str] | Exception:
    try:
        return _findings()
    except Exception as error:  # kept, so that no other host asks everyone again
        return error


def findings() -> list[str]:
    """Problems of all hosts of this run; looked for once, whichever host comes first while the others wait."""
    with _once:
        outcome = _outcome()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _without_sudo(nodes: list[Node]) -> list[str]:
    """Hosts on which sudo would ask for a password; at a terminal pyinfra asks the person there for it."""
    silent = [node for node in nodes if _may_not_ask(inventory.get_host(node.name).data.dict())]
    return [
        f"{name}: the SSH user may not sudo without a password. Allow it there (NOPASSWD), or set `_sudo_password` "
        "from a file that only you can read (group_data/all.py)."
        for name, works in ask(Sudo, silent, _sudo=False).items()
        if not works
    ]


def _may_not_ask(data: dict[str, object]) -> bool:
    return bool(data.get("_sudo")) and not data.get("_sudo_password") and not sys.stdin.isatty()


def _clocks(nodes: list[Node]) -> list[str]:
    return requirements.check_time(ask(TimeSynchronized, nodes), plan.settings().waived_checks)


def _vip_taken(balancers: list[Node]) -> list[str]:
    """Whether a machine that is none of the balancing hosts has the virtual IP."""
    vip = str(plan.settings().virtual_ip)
    if not balancers or len(balancers) < len(plan.balancers()):
        return []  # there is none, or a host beyond --limit may have it
    if any(state["holds_vip"] for state in ask(Vrrp, balancers, vip=vip).values()):
        return []
    seen = {name: mac for name, mac in ask(Answers, balancers, address=vip).items() if mac}
    return [
        f"vip {vip}: something answers at it already ({mac}, as seen by {name}) and no balancing host has it. Choose a "
        "free address, or find that machine and free this one."
        for name, mac in list(seen.items())[:1]
    ]


def _external(asked: list[Node]) -> list[str]:
    """Whether nodes find the site's load balancer."""
    topology, settings, endpoint = plan.topology(), plan.settings(), plan.endpoint()
    nodes = [node for node in (*topology.control_planes, *topology.workers) if node in asked]
    reached = ask(Reached, nodes, host=str(endpoint.host), port=endpoint.port)
    return requirements.check_endpoint(reached, endpoint, settings.waived_checks)


@deploy("Preflight")
def preflight() -> None:
    plan.refuse(findings())
    plan.barrier("preflight")


plan.run(__name__, preflight)
