"""The cluster to the bundle's version of Kubernetes, one node at a time (docs/upgrade.md).

Hosts: all. Changes: static pods, /etc/kubernetes, the kubelet and its configuration, programs; each node is drained
meanwhile. It stops at the first failure; run again, it goes on where the nodes are.
Undo: none. Restore a snapshot of etcd under the old version.
"""

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from cluster.configuration import PATCHES
from cluster.topology import Node
from deploys import authorities, labels, live, plan, survey, versions
from deploys.addons import addons
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
from operations import upgrade as operations
from operations.change import any_changes
from operations.reconfigure import patches as patches_of

# The check that finds nodes of an older version.
BEHIND = "kubernetes-version"


@deploy("Upgrade")
def upgrade() -> None:
    plan.refuse(obstacles())
    topology, me = plan.topology(), plan.me()
    # The last control plane makes what kubeadm installs anew.
    upgraded = bool(versions.pending(plan.in_run(topology.control_planes)))
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


def one(me: Node) -> OperationMeta:
    """Upgrade this host."""
    settings, topology = plan.settings(), plan.topology()
    # kubeadm renews certificates for the names that they have; reconfigure.py knows new ones by what the cluster keeps.
    known = tuple(name for name in settings.api_cert_extra_sans if name not in live.new_names())
    settings = settings.model_copy(update={"api_cert_extra_sans": known})
    patches = PATCHES if plan.kubelet_patch() else patches_of(settings, topology, me)
    done = operations.node(
        name=f"Upgrade {me.name} to {settings.kubernetes_version}",
        settings=settings, topology=topology, node=me, images=versions.wanted(), programs=programs(), patches=patches,
    )  # fmt: skip
    labels.restore("programs of Kubernetes", list(programs()), [done])
    return done


def obstacles() -> list[str]:
    """What preflight found but for the versions that this is to change, a rotation of CAs, another virtual IP, settings
    that the cluster cannot follow, hosts that are no nodes, what `--limit` would leave behind, and pods that hold a
    node."""
    return [
        *authorities.interrupted(),
        *live.moving(),
        *live.fixed(),
        *versions.strangers(),
        *versions.left_behind(),
        *_found(),
        *versions.held(),
    ]


def _found() -> list[str]:
    return [
        each.line()
        for each in survey.findings().findings
        if each.severity == "error" and not each.waived and each.check != BEHIND
    ]


plan.run(__name__, upgrade)
