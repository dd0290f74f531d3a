"""The live cluster, asserted (guide 6.2): nodes, pods, etcd, backends, VIP, DNS, pod and service network.

Hosts: asks all, through the first control plane. Changes nothing that stays: its probe pods are removed.
"""

from pyinfra.api import deploy

from cluster.pieces import image
from deploys import plan
from operations import backup, runtime
from operations import verify as operations


@deploy("Verify")
def verify() -> None:
    topology = plan.topology()
    if plan.me() not in topology.load_balancers:
        runtime.agrees(name="Assert that runtime and kubelet run as configured", wanted=plan.runtime())
    if plan.me() in topology.control_planes:
        backup.report(name="Say which backups there are")
    if plan.me() == topology.first_control_plane:
        operations.healthy(
            name="Assert that the cluster is healthy",
            settings=plan.settings(), topology=topology, image=image(plan.lock(), "agnhost").name,
        )  # fmt: skip


plan.run(__name__, verify)
