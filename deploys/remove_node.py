"""Hosts taken out of the cluster, while their lines are still in the inventory (docs/nodes.md).

    pyinfra inventories/prod.py deploys/remove_node.py --data remove=NAME[,NAME]
    pyinfra inventories/prod.py deploys/remove_node.py --exclude NAME --data remove=NAME --data gone=true

Hosts: those that go, one control plane that stays, and all that know of them. Changes: pods leave, the etcd member and
the Node are removed, the host is cleaned as by deploys/reset.py; HAProxy's backends, /etc/hosts, firewalls and the
bundle's servers of those that stay. Undo: deploys/cluster.py takes the host in again.
"""

from pyinfra import host, logger
from pyinfra.api import deploy

from cluster.topology import Node, bundle_servers
from deploys import plan
from deploys.addons import addons
from deploys.cleanup import clean
from deploys.control_plane import keep_kubeconfig
from deploys.distribute import distribute, serve
from deploys.firewall import firewall
from deploys.load_balancer import load_balancer
from deploys.network import network
from deploys.node import names
from deploys.removal import in_run, removal_of_this_run
from deploys.runtime import runtime
from operations import removal


@deploy("Remove node")
def remove_node() -> None:
    found = removal_of_this_run()
    # One at a time: etcd must have settled on its members before another one goes.
    for node in host.loop(found.nodes):
        if plan.me() == found.seed:
            if found.drained(node):
                removal.drain(
                    name=f"Drain {node.name}",
                    seed=found.seed, node=node, seconds=plan.settings().drain_timeout,
                )  # fmt: skip
            if node in plan.everybody().control_planes:
                removal.member(name=f"Remove etcd's member {node.name}", node=node)
            removal.deleted(name=f"Delete the Node {node.name}", seed=found.seed, node=node)
        plan.barrier(f"removal of {node.name}")
    if plan.me() in found.nodes:
        clean()
    plan.barrier("cleaning")
    if plan.me() not in found.nodes:
        tell()
    if plan.me() == found.seed:
        _say(found.nodes)


def tell() -> None:
    """Have a host that stays know no more of those that have gone."""
    first, moved = plan.topology().first_control_plane, _first_changes()
    firewall()
    names()
    if _servers_change():
        distribute()
        runtime()
    elif plan.me() in plan.bundle_servers():
        serve(after=())
    load_balancer()
    if plan.settings().cni == "bridge" or moved:
        network()
    if moved:  # what the first control plane keeps is now this one's
        addons()
        if plan.me() == first:
            keep_kubeconfig()


def _first_changes() -> bool:
    return plan.everybody().first_control_plane != plan.topology().first_control_plane


def _servers_change() -> bool:
    """Whether other hosts hand the bundle on when these have gone."""
    return plan.bundle_servers() != bundle_servers(plan.everybody(), plan.settings())


def _say(nodes: tuple[Node, ...]) -> None:
    untold = [node.name for node in plan.topology().nodes if not in_run(node)]
    if untold:
        logger.warning(f"Warning: not in this run, so still told of what goes: {', '.join(untold)}")
    logger.info(
        f"Then delete from the inventory: {', '.join(node.name for node in nodes)}; or leave the line, and "
        "deploys/cluster.py takes a new machine of that name in."
    )


plan.run(__name__, remove_node, options=("remove", "gone"))
