"""The cluster to the bundle's version of Kubernetes, one node at a time (docs/upgrade.md).

Hosts: all. Changes: static pods, /etc/kubernetes, the kubelet and its configuration, programs; each node is drained
meanwhile. It stops at the first failure; run again, it goes on where the nodes are.
Undo: none. Restore a snapshot of etcd under the old version.
"""

from pyinfra import host, inventory
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from cluster import draining
from cluster.configuration import PATCHES
from cluster.topology import Node
from cluster.upgrade import stale, static_pods
from deploys import authorities, labels, live, plan, survey
from deploys.addons import addons
from deploys.ask import ask
from deploys.control_plane import keep_kubeconfig
from deploys.distribute import distribute
from deploys.etcd_backup import etcd_backup
from deploys.images import images
from deploys.load_balancer import load_balancer
from deploys.network import network
from deploys.node import node
from deploys.packages import programs, service_of_kubelet
from deploys.reconfigure import audit_policy
from deploys.runtime import runtime
from deploys.verify import verify
from facts.pods import NodePods
from facts.upgrade import NodeVersions
from operations import remote
from operations import upgrade as operations
from operations.change import any_changes
from operations.kubeadm import find_seed
from operations.once import once
from operations.reconfigure import patches as patches_of

# The check that finds nodes of an older version.
BEHIND = "kubernetes-version"


@deploy("Upgrade")
def upgrade() -> None:
    plan.refuse(obstacles())
    topology, me = plan.topology(), plan.me()
    # The last control plane makes what kubeadm installs anew.
    upgraded = bool(_pending(plan.in_run(topology.control_planes)))
    if me in plan.in_run((*topology.control_planes, *topology.workers))[:1]:
        operations.ready_for_it(name="Assert that the cluster is well", topology=topology)
    plan.barrier("preflight")
    # With workers alone in the run, the upgrade of the control planes has made it.
    behind = any(each.check == BEHIND for each in survey.findings().findings)
    if behind and plan.in_run(topology.control_planes):
        etcd_backup()
    distribute()
    images()
    audit_policy()
    for each in host.loop((*topology.control_planes, *topology.workers)):
        if each == me:
            done = one(each)
        plan.barrier(f"upgrade of {each.name}")
    if me == topology.first_control_plane:
        keep_kubeconfig(renewed=any_changes([done]))
    node()
    runtime()
    if programs():
        service_of_kubelet()
    plan.barrier("packages")
    load_balancer()
    network()
    addons(upgraded)
    verify()


def wanted() -> dict[str, str]:
    """Images of the bundle's static pods."""
    return static_pods([image.name for image in plan.lock().images])


def one(me: Node) -> OperationMeta:
    """Upgrade this host."""
    settings, topology = plan.settings(), plan.topology()
    # kubeadm renews certificates for the names that they have; reconfigure.py knows new ones by what the cluster keeps.
    known = tuple(name for name in settings.api_cert_extra_sans if name not in live.new_names())
    settings = settings.model_copy(update={"api_cert_extra_sans": known})
    patches = PATCHES if plan.kubelet_patch() else patches_of(settings, topology, me)
    done = operations.node(
        name=f"Upgrade {me.name} to {settings.kubernetes_version}",
        settings=settings, topology=topology, node=me, images=wanted(), programs=programs(), patches=patches,
    )  # fmt: skip
    labels.restore("programs of Kubernetes", list(programs()), [done])
    return done


def obstacles() -> list[str]:
    """What preflight found but for the versions that this is to change, a rotation of CAs, another virtual IP, settings
    that the cluster cannot follow, what `--limit` would leave behind, and pods that hold a node."""
    return [*authorities.interrupted(), *live.moving(), *live.fixed(), *_left_behind(), *_found(), *_held()]


def _left_behind() -> list[str]:
    """Control planes beyond this run that are not upgraded yet: no kubelet may be newer than an API server."""
    planes = plan.topology().control_planes
    left = [each for each in planes if each not in plan.in_run(planes)]
    reached = tuple(remote.reached(left))
    done = [each for each in reached if each not in _pending(reached)]
    return [
        f"{each.name}: is not in this run, and not known to be upgraded. Control planes come before all other nodes: "
        "widen --limit."
        for each in left
        if each not in done
    ]


@once
def _pending(planes: tuple[Node, ...]) -> list[Node]:
    """Those of these control planes that run other static pods than the bundle's."""
    found = ask(NodeVersions, planes)
    return [each for each in planes if stale(found[each.name]["images"], wanted())]


def _held() -> list[str]:
    """Pods that would not leave the nodes that are to be drained, however long one waits."""
    topology, version = plan.topology(), plan.settings().kubernetes_version
    seed, known = find_seed(topology)
    if seed is None:
        return []
    found = []
    for each in plan.in_run((*topology.control_planes, *topology.workers)):
        runs = inventory.get_host(each.name).get_fact(NodeVersions)
        if each.name not in known or (runs["running"] == version and not stale(runs["images"], wanted())):
            continue
        if state := inventory.get_host(seed.name).get_fact(NodePods, node=each.name):
            found += draining.problems(each.name, state["pods"], state["budgets"])
    return found


def _found() -> list[str]:
    return [
        each.line()
        for each in survey.findings().findings
        if each.severity == "error" and not each.waived and each.check != BEHIND
    ]


plan.run(__name__, upgrade)
