"""Changed settings carried to a cluster that is there, one control plane at a time (docs/reconfigure.md).

Hosts: control_plane, worker; all for another virtual IP. Changes: static pods' manifests, /var/lib/kubelet/config.yaml,
/etc/kubernetes/audit, the certificate of an API server that gets another name, the ConfigMaps kubeadm-config,
kubelet-config and kube-proxy; for another virtual IP also Keepalived, kubeconfigs in /etc/kubernetes, the ConfigMap
cluster-info, flannel and secrets/ on the control machine; restarts of what these configure. It stops at the first
failure, with what failed as it was before; what the cluster keeps is written when every node has it.
Undo: set the settings back and run it again; what was replaced is in /var/lib/pyinfra-kubeadm/replaced-configuration.
"""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from cluster import audit
from cluster.certificates import ADMIN
from cluster.endpoint import Endpoint
from cluster.reconfiguration import kubelet_map
from deploys import expiry, live, plan
from deploys.load_balancer import keepalived, load_balancer
from deploys.network import network
from facts.kubeadm import KubeadmNode
from facts.reconfigure import Servers
from operations import certificates, endpoint, file, pki
from operations import reconfigure as operations


@deploy("Reconfiguration")
def reconfigure() -> None:
    live.refuse()
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    first = topology.first_control_plane
    shared = plan.settings(first.name)
    for each in host.loop(topology.control_planes):
        if me == each:
            # Who is yet to join gets a certificate of all names then.
            if live.new_names() and host.get_fact(KubeadmNode)["state"] == "control-plane":
                name_anew()
            operations.control_plane(
                name=f"Have static pods of {each.name} follow the settings",
                settings=settings, shared=shared, topology=topology, node=me,
            )  # fmt: skip
            operations.kubelet(
                name=f"Have the kubelet of {each.name} follow the settings",
                settings=settings, shared=shared, topology=topology, node=me,
            )  # fmt: skip
        plan.barrier(f"configuration of {each.name}")
    if me in topology.workers:
        operations.kubelet(
            name="Have the worker's kubelet follow the settings",
            settings=settings, shared=shared, topology=topology, node=me,
        )  # fmt: skip
    plan.barrier("configuration of workers")
    left = live.left()
    if left:
        follow(left)
    if me == first:
        keep(last=left is None)
    plan.barrier("configuration that the cluster keeps")


def audit_policy() -> None:
    """Write the audit policy, before an API server is told to read it."""
    policy = plan.settings().audit_policy
    if policy and plan.in_group("control_plane"):
        file.content(name="Write the audit policy", dest=audit.path(policy), content=audit.text(policy), mode="600")


def name_anew() -> None:
    """Make the certificate of this control plane's API server for all its names; the one that is left stays in it."""
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    if left := live.left():
        names = (*settings.api_cert_extra_sans, str(left.host))
        settings = settings.model_copy(update={"api_cert_extra_sans": names})
    question = expiry.question(me)
    certificates.renew(
        name=f"Make the API server's certificate of {me.name} for its names",
        settings=settings, topology=topology, node=me, question=question, within=0, together=False,
    )  # fmt: skip
    certificates.restart(
        name=f"Restart the API server of {me.name} for its certificate",
        settings=settings, topology=topology, node=me, question=question, within=0, together=False,
    )  # fmt: skip


def follow(left: Endpoint) -> None:
    """Lead one node after the other to the API at another virtual IP, then those that join, and people."""
    settings, topology, me, new = plan.settings(), plan.topology(), plan.me(), plan.endpoint()
    for each in host.loop((*topology.control_planes, *topology.workers)):
        if me == each:
            endpoint.follow(name=f"Lead {each.name} to {new}", topology=topology, node=me, old=left, new=new)
        plan.barrier(f"way of {each.name}")
    if me == topology.first_control_plane:
        endpoint.inform(name=f"Lead nodes that join to {new}", old=left, new=new)
        pki.kubeconfig(
            name="Keep the administrator's kubeconfig",
            dest=str(Path(settings.secrets_dir) / settings.cluster_name / "admin.conf"),
            renewed=host.get_fact(Servers).get(ADMIN) == f"https://{left}",
        )  # fmt: skip
    plan.barrier("ways to the API")


@deploy("Arrival at another virtual IP")
def arrive() -> None:
    """Forget the virtual IP that was left, when nothing leads there: kubeadm's configuration is how it is known."""
    left, me = live.left(), plan.me()
    if left is None:
        return
    first = me == plan.topology().first_control_plane
    if first:
        keep_kubeadm()
    plan.barrier("kubeadm's configuration")
    if me in plan.balancers():
        keepalived()
    plan.barrier("the virtual IP that was left")
    if first:
        endpoint.answered(
            name="See that the API answers there",
            at=plan.endpoint(), among_nodes=plan.settings().load_balancing == "control-planes",
        )  # fmt: skip
    plan.barrier("another virtual IP")


def keep_kubeadm() -> None:
    """Have the cluster keep what kubeadm is configured by."""
    operations.keep(
        name="Have the cluster keep kubeadm's configuration",
        settings=plan.settings(), topology=plan.topology(), name_of_map="kubeadm-config",
        effect="for nodes that join, upgrades, and certificates that are made from now on",
    )  # fmt: skip


def keep(last: bool) -> None:
    """Have the cluster keep what its nodes have; kubeadm's part where it is the `last` to follow."""
    settings, topology = plan.settings(), plan.topology()
    operations.proxy(name="Have kube-proxy follow the settings", settings=settings, topology=topology)
    operations.keep(
        name="Have the cluster keep the configuration of kubelets",
        settings=settings, topology=topology, name_of_map=kubelet_map(settings.kubernetes_version),
        effect="for nodes that join, and upgrades",
    )  # fmt: skip
    if last:
        keep_kubeadm()


def alone() -> None:
    """With what comes before it and after it in deploys/cluster.py."""
    if live.left():
        load_balancer()
    audit_policy()
    reconfigure()
    if live.left():
        network()
        arrive()


plan.run(__name__, alone)
