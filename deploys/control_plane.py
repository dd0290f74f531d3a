"""Control planes: `kubeadm init` on the first, then the others join one at a time (guide 5.1, 5.2).
Those that are there follow the settings (deploys/reconfigure.py).

Hosts: control_plane. Changes: /etc/kubernetes, /var/lib/etcd, /var/lib/kubelet, static pods;
secrets/ on the control machine.
Undo: `kubeadm reset` on a host, after removing its etcd member.
"""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from cluster.kubeadm import role_taints
from deploys import plan
from deploys.reconfigure import audit_policy, reconfigure
from operations import kubeadm, pki


@deploy("Control planes")
def control_plane() -> None:
    settings, topology, node = plan.settings(), plan.topology(), plan.me()
    first, *others = topology.control_planes
    audit_policy()
    if node == first:
        kubeadm.init(name=f"Initialise the cluster on {first.name}", settings=settings, topology=topology, node=node)
    plan.barrier("kubeadm init")
    # Before the joins: who joins takes what the cluster keeps.
    reconfigure()
    # One at a time: etcd takes one learner at once, and the barrier keeps every host in step.
    for each in host.loop(others):
        if node == each:
            patches = plan.kubelet_patch()
            kubeadm.join(
                name=f"Join control plane {each.name}",
                settings=settings, topology=topology, node=node, control_plane=True, patches=patches,
            )  # fmt: skip
        plan.barrier(f"join of {each.name}")
    if node in topology.control_planes:
        kubeadm.private(name="Keep keys and kubeconfigs from others")
    if node == first:
        kubeadm.roles(
            name="Have control planes labelled and tainted",
            wanted={
                each.name: role_taints(plan.settings(each.name), each == first) for each in topology.control_planes
            },
        )
        keep_kubeconfig()


def keep_kubeconfig(renewed: bool = False) -> None:
    """Keep the administrator's kubeconfig, that of the first control plane; `renewed` when this run makes another."""
    dest = Path(plan.settings().secrets_dir) / plan.settings().cluster_name / "admin.conf"
    pki.kubeconfig(name="Keep the administrator's kubeconfig", dest=str(dest), renewed=renewed)


plan.run(__name__, control_plane)
