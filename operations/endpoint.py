"""A cluster that is there, led to the API at another virtual IP.

What is done is decided by where nodes and the cluster are led, so a run that was killed is continued by the next. Both
virtual IPs lead to the API meanwhile, and its servers' certificates have both.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

import gevent
import yaml
from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster.certificates import BY_PATH, CONFIGS, Program
from cluster.endpoint import Endpoint
from cluster.topology import Node, Topology
from facts.kubernetes import kubectl
from facts.reconfigure import ClusterInfo, Servers
from facts.service import Unit
from operations import remote
from operations.certificates import restarted
from operations.change import will
from operations.kubeadm import answers
from operations.reconfigure import KEEP, reports

# Seconds after which Kubernetes' programs ask whether a silent connection is alive, and after which they give it up
# (https://github.com/kubernetes/kubernetes/blob/v1.36.2/staging/src/k8s.io/apimachinery/pkg/util/net/http.go).
NOTICED = 30 + 15
KUBELET_CONF = f"{CONFIGS}/kubelet.conf"


def follow_script(node: Node, paths: Sequence[str], old: Endpoint, new: Endpoint) -> str:
    """Shell that leads kubeconfigs of a node to another endpoint and waits until its kubelet has reported by it, or
    leads them back."""
    files = shlex.join(paths)
    edit = f"s#^\\( *server: *\\)https://{old}$#\\1https://{new}#"
    kept = f'cp -a {files} "$old/" && sync -f "$old" && ' if paths else ""
    led = f"sed -i '{edit}' {files} && sync {files} && " if paths else ""
    back = f'cp -a "$old"/*.conf {CONFIGS}/; ' if paths else ""
    return (
        f"umask 077; ( {answers(new)} ) || exit 1; {KEEP}{kept}{reports(node)}{led}await && exit 0; "
        f"echo 'the kubelet of {node.name} did not report ready by https://{new}; its last words:' >&2; "
        f"journalctl -u kubelet -n 15 --no-pager -o cat >&2; b=$(seen); {back}"
        "await && echo 'Its kubeconfigs of before are back, and its node is ready.' >&2 || "
        "echo 'Its kubeconfigs of before are back, and its node is not ready.' >&2; exit 1"
    )


@operation()
def follow(topology: Topology, node: Node, old: Endpoint, new: Endpoint) -> Generator[StringCommand, None, None]:
    """
    Lead the kubeconfigs of a node to another endpoint, and restart what reads them.

    + topology: all nodes
    + node: this host
    + old: where they lead
    + new: where they are to lead; the API answers at both
    """
    paths = [path for path, server in host.get_fact(Servers).items() if server == f"https://{old}"]
    # One that was killed has written them, and not restarted it.
    stale = host.get_fact(Unit, unit="kubelet.service", files=(KUBELET_CONF,))["stale"]
    if not paths and not stale:
        host.noop(f"its kubelet finds the API at {new}")
        return
    will(f"lead {', '.join(paths) or 'none'} to {new}", effect=f"restarts kubelet of {node.name}")
    yield StringCommand(follow_script(node, paths, old, new))
    # Those of today ask their own API server.
    programs: tuple[Program, ...] = tuple(
        each.program for path in paths if (each := BY_PATH.get(path)) is not None and each.program
    )
    yield from restarted(programs, topology, node)


@operation()
def inform(old: Endpoint, new: Endpoint) -> Generator[StringCommand, None, None]:
    """
    Have the ConfigMap cluster-info lead nodes that join to another endpoint.

    The signatures by which they trust it are made anew by kube-controller-manager.

    + old: where it leads
    + new: where it is to lead
    """
    text = host.get_fact(ClusterInfo)
    document = yaml.safe_load(text) if text else {"clusters": []}
    clusters = [each["cluster"] for each in document["clusters"] if each["cluster"]["server"] == f"https://{old}"]
    if not clusters:
        host.noop(f"cluster-info leads to {new}")
        return
    for each in clusters:
        each["server"] = f"https://{new}"
    will(f"have cluster-info lead to {new}")
    yield StringCommand(
        f"{kubectl()} patch configmap cluster-info -n kube-public --type=merge --patch-file=/dev/stdin",
        _stdin=yaml.safe_dump({"data": {"kubeconfig": yaml.safe_dump(document)}}),
    )


@operation()
def answered(at: Endpoint, among_nodes: bool) -> Generator[StringCommand, None, None]:
    """
    See that the API answers at its endpoint, and give clients time to notice that it has moved; changes nothing.

    + at: the endpoint
    + among_nodes: it was on a node, whose own connections to it had its address at both ends: nobody tells them that it
      is gone
    """
    host.noop("it is asked when this runs")
    if host.state.is_executing:
        remote.on(host.name, answers(at), why=f"asking for the API at {at}")
        gevent.sleep(NOTICED if among_nodes else 0)
    return
    yield
