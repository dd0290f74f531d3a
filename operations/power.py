"""What a node runs for Kubernetes, ended in order and begun again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.topology import Node
from facts.etcd import Members
from facts.kubeadm import ClusterConfig
from facts.running import STATIC, Running
from facts.service import Unit
from operations.change import will
from operations.kubeadm import own_api, ready

Which = Literal["ordinary", "control plane", "etcd"]
GRACE = 30  # seconds that a container is given to end
AT_ONCE = 8  # pods


def chosen(pods: dict[str, str], which: Which, node: str) -> list[str]:
    """Ids of those of a node's pods: `ordinary` ones, those of the `control plane` but for etcd, or `etcd`."""
    static = {f"kube-system/{name}-{node}": name for name in STATIC}
    kinds = {each: "ordinary" if name not in static else "control plane" for each, name in pods.items()}
    kinds |= {each: "etcd" for each, name in pods.items() if static.get(name) == "etcd"}
    return [each for each in pods if kinds[each] == which]


def stop_script(ids: Sequence[str]) -> str:
    """Shell that ends pods, eight at a time: their containers together with grace, then what they ran in.

    Its limit is twice what it takes when every container needs all of its grace.
    """
    one = f"crictl ps -q --pod $0 | xargs -r -n 1 -P 0 crictl stop --timeout {GRACE} && crictl stopp $0"
    limit = 2 * GRACE * (len(ids) // AT_ONCE + 1)
    return (
        f"printf '%s\\n' {' '.join(ids)} | timeout {limit} xargs -r -n 1 -P {AT_ONCE} sh -c '{one}' >/dev/null || "
        f"{{ code=$?; test $code -ne 124 || echo 'pods have not ended within {limit} s: see there with crictl ps and "
        "dmesg what hangs, then run again' >&2; exit $code; }"
    )


@operation()
def kubelet_stopped() -> Generator[StringCommand, None, None]:
    """Stop the kubelet, which would begin again what is ended; it starts when the host boots."""
    if not host.get_fact(Running)["kubelet"]:
        host.noop("the kubelet does not run")
        return
    will("stop the kubelet")
    yield StringCommand("timeout 90 systemctl stop kubelet.service")


@operation()
def pods_stopped(node: Node, which: Which, runtime: str) -> Generator[StringCommand, None, None]:
    """
    End pods of this node. They stay its pods in the API, and begin again with the kubelet.

    + node: this host
    + which: `ordinary` pods, those of the `control plane` but for etcd, or `etcd`
    + runtime: the container runtime's unit
    """
    running = host.get_fact(Running)
    if running["pods"] is None:
        if host.get_fact(Unit, unit=runtime)["active"] == "active":
            raise OperationError(f"{host.name}: the container runtime does not answer. `crictl pods` says why.")
        host.noop("no container runtime runs here")
        return
    ids = chosen(running["pods"], which, node.name)
    if not ids:
        host.noop(f"no {which} pod runs")
        return
    will(f"end {len(ids)} pods: {', '.join(sorted(running['pods'][each] for each in ids))}")
    yield StringCommand(f"{stop_script(ids)} && sync")


@operation()
def control_plane_up(node: Node) -> Generator[StringCommand, None, None]:
    """
    Wait until etcd and the API server of this host answer.

    + node: this host
    """
    state, etcd = host.get_fact(ClusterConfig)["state"], host.get_fact(Members)["state"]
    if (state, etcd) == ("initialised", "running"):
        host.noop("etcd and the API server answer")
        return
    will("wait for etcd and the API server")
    yield StringCommand(ready(own_api(node), seconds=240))
