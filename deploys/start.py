"""A cluster that was stopped, or whose machines were switched on again, begun in order (docs/nodes.md).

    pyinfra inventories/prod.py deploys/start.py

Hosts: all. Changes: HAProxy and Keepalived, kubelets of control planes, then those of workers are started where they do
not run; each is waited for. The cluster is verified at the end. Undo: deploys/stop.py.
"""

from pyinfra.api import deploy

from deploys import plan
from deploys.verify import verify
from operations import power, service


@deploy("Start")
def start() -> None:
    topology, me = plan.topology(), plan.me()
    if me in plan.balancers():
        service.unit(name="Start HAProxy", unit="haproxy.service")
        service.unit(name="Start Keepalived", unit="keepalived.service")
    if me not in topology.load_balancers:
        service.unit(name="Start the container runtime", unit=plan.runtime().unit)
    plan.barrier("load balancers and runtimes")
    # All at once: one member of etcd alone has no quorum to answer with.
    if me in topology.control_planes:
        service.unit(name="Start the control plane's kubelet", unit="kubelet.service")
    plan.barrier("kubelets of control planes")
    if me in topology.control_planes:
        power.control_plane_up(name="Wait for etcd and the API server", node=me)
    plan.barrier("control planes")
    if me in topology.workers:
        service.unit(name="Start the worker's kubelet", unit="kubelet.service")
    plan.barrier("workers")
    verify()


plan.run(__name__, start)
