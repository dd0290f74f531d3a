"""Workers join, all at once (guide 5.3).

Hosts: worker. Changes: /etc/kubernetes, /var/lib/kubelet. Undo: drain, delete the Node, `kubeadm reset`.
"""

from pyinfra.api import deploy

from deploys import plan
from operations import kubeadm


@deploy("Workers")
def workers() -> None:
    if plan.in_group("worker"):
        patches = plan.kubelet_patch()
        kubeadm.join(
            name="Join the worker",
            settings=plan.settings(), topology=plan.topology(), node=plan.me(), control_plane=False,
            patches=patches,
        )  # fmt: skip
        kubeadm.private(name="Keep keys and kubeconfigs from others")
    plan.barrier("joins of workers")


plan.run(__name__, workers)
