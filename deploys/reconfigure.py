"""Changed settings carried to a cluster that is there, one control plane at a time (docs/reconfigure.md).

Hosts: control_plane, worker. Changes: static pods' manifests, /var/lib/kubelet/config.yaml, /etc/kubernetes/audit, the
certificate of an API server that gets another name, the ConfigMaps kubeadm-config, kubelet-config and kube-proxy;
restarts of what these configure. It stops at the first failure, with what failed as it was before; what the cluster
keeps is written when every node has it.
Undo: set the settings back and run it again; what was replaced is in /var/lib/pyinfra-kubeadm/replaced-configuration.
"""

from pyinfra import host
from pyinfra.api import deploy

from cluster import audit
from cluster.reconfiguration import kubelet_map
from deploys import expiry, live, plan
from operations import certificates, file
from operations import reconfigure as operations


@deploy("Reconfiguration")
def reconfigure() -> None:
    live.refuse()
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    first = topology.first_control_plane
    shared = plan.settings(first.name)
    audit_policy()
    for each in host.loop(topology.control_planes):
        if me == each:
            if live.new_names():
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
    if me == first:
        keep()
    plan.barrier("configuration that the cluster keeps")


def audit_policy() -> None:
    """Write the audit policy, before an API server is told to read it."""
    policy = plan.settings().audit_policy
    if policy and plan.in_group("control_plane"):
        file.content(name="Write the audit policy", dest=audit.path(policy), content=audit.text(policy), mode="600")


def name_anew() -> None:
    """Make the certificate of this control plane's API server for all its names."""
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    question = expiry.question(me)
    certificates.renew(
        name=f"Make the API server's certificate of {me.name} for its names",
        settings=settings, topology=topology, node=me, question=question, within=0, together=False,
    )  # fmt: skip
    certificates.restart(
        name=f"Restart the API server of {me.name} for its certificate",
        settings=settings, topology=topology, node=me, question=question, within=0, together=False,
    )  # fmt: skip


def keep() -> None:
    """Have the cluster keep what its nodes have."""
    settings, topology = plan.settings(), plan.topology()
    operations.keep(
        name="Have the cluster keep kubeadm's configuration",
        settings=settings, topology=topology, name_of_map="kubeadm-config",
        effect="for nodes that join, upgrades, and certificates that are made from now on",
    )  # fmt: skip
    operations.keep(
        name="Have the cluster keep the configuration of kubelets",
        settings=settings, topology=topology, name_of_map=kubelet_map(settings.kubernetes_version),
        effect="for nodes that join, and upgrades",
    )  # fmt: skip
    operations.proxy(name="Have kube-proxy follow the settings", settings=settings, topology=topology)


plan.run(__name__, reconfigure)
