"""The whole cluster ended in order, so that the machines can be switched off (docs/nodes.md).

    pyinfra inventories/prod.py deploys/stop.py

Hosts: control_plane, worker; load balancers keep nothing and are left as they are. Changes: kubelets are stopped and
pods end, first on workers, then on control planes, etcd last. Undo: deploys/start.py. Machines that are switched off
and on begin again by themselves.
"""

from pyinfra.api import deploy

from deploys import plan
from operations import power


def _end(name: str, which: power.Which) -> None:
    power.pods_stopped(name=name, node=plan.me(), which=which, runtime=plan.runtime().unit)


@deploy("Stop")
def stop() -> None:
    topology, me = plan.topology(), plan.me()
    if me in topology.workers:
        power.kubelet_stopped(name="Stop the worker's kubelet")
        _end("End the worker's pods", "ordinary")
    plan.barrier("workers stopped")
    if me in topology.control_planes:
        power.kubelet_stopped(name="Stop the control plane's kubelet")
        _end("End ordinary pods", "ordinary")
    plan.barrier("kubelets stopped")
    if me in topology.control_planes:
        _end("End the API server, controllers and scheduler", "control plane")
    # Nothing writes any more when etcd's members end.
    plan.barrier("API servers stopped")
    if me in topology.control_planes:
        _end("End etcd", "etcd")
    plan.barrier("etcd stopped")


plan.run(__name__, stop)
