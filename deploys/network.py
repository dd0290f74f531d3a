"""The pod network (guide 6.1): the CNI's manifest, applied by the first control plane.

Hosts: the first control plane. Changes: /etc/kubernetes/addons, namespace kube-flannel.
Undo: `kubectl delete -f /etc/kubernetes/addons/flannel.yaml`.
"""

from pyinfra.api import deploy

from cluster import flannel
from cluster.pieces import image
from deploys import plan
from operations import file, kubernetes

MANIFEST = "/etc/kubernetes/addons/flannel.yaml"


@deploy("Pod network")
def network() -> None:
    if plan.me() == plan.topology().first_control_plane:
        text = plan.template(
            "flannel/flannel.yaml.j2",
            image=image(plan.lock(), "flannel").name,
            endpoint=plan.endpoint(),
            net_conf=flannel.net_conf(plan.settings()),
            interface=flannel.interface(plan.settings(), plan.topology()),
        )
        written = file.content(name="Write flannel's manifest", dest=MANIFEST, content=text)
        kubernetes.apply(
            name="Apply flannel and wait for it on every node",
            path=MANIFEST, written_by=written, wait_for="-n kube-flannel daemonset/kube-flannel-ds",
        )  # fmt: skip
    plan.barrier("pod network")


plan.run(__name__, network)
