"""A node taken to another version of Kubernetes: its control plane, then, without pods, its kubelet.

How far it has come is read from the node. A mark on the Node says that it has begun, and how the Node was before; what
was interrupted is done again from there (https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/).
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping

import gevent
from pyinfra import host, inventory
from pyinfra.api import OperationError, StringCommand, operation

from cluster.kubeadm import init_documents
from cluster.lock import File
from cluster.settings import Settings
from cluster.topology import Node, Topology
from cluster.upgrade import stale, tag
from facts.etcd import Members
from facts.kubeadm import STATIC_PODS, KubeadmNode
from facts.upgrade import MARK, Nodes, NodeState, NodeVersions
from operations import remote
from operations.bundle import install, other_programs
from operations.change import will
from operations.drain import evict
from operations.kubeadm import (
    KUBECTL,
    bootstrap_token,
    certificate_key,
    find_seed,
    idle,
    own_api,
    ready,
    with_config,
)
from operations.verify import etcd_unhealthy

KUBEADM = "/usr/bin/kubeadm"
# Where kubeadm leaves all of a member's data, each time that it upgrades one (GetPathManagerForUpgrade,
# https://github.com/kubernetes/kubernetes/blob/v1.36.2/cmd/kubeadm/app/phases/upgrade/staticpods.go).
COPIES = "/etc/kubernetes/tmp/kubeadm-backup-etcd-*"


def wait_for(name: str, version: str, control_plane: bool, seconds: int = 300) -> str:
    """Shell that waits until a node is Ready with a kubelet of this version, and its static pods are.

    A static pod is not in the API for a moment when the kubelet begins it anew.
    """
    node = shlex.quote(name)
    ready = '{{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}}'
    shown = f"{{{{.status.nodeInfo.kubeletVersion}}}} {ready}"
    pods = f'{{{{range .items}}}}{{{{.metadata.name}}}} {ready}{{{{"\\n"}}}}{{{{end}}}}'
    wanted = [f"{version} True", *(f"{pod}-{name} True" for pod in STATIC_PODS if control_plane)]
    return (
        # By the clock: an API that is away lets each question wait for half a minute.
        f"end=$(($(date +%s) + {seconds})); while :; do "
        f"said=$({KUBECTL} get node {node} -o go-template='{shown}' 2>&1; echo; "
        f"{KUBECTL} get pods -n kube-system -l tier=control-plane --field-selector spec.nodeName={node} "
        f"-o go-template='{pods}' 2>&1); "
        f'lacks=$(printf "%s\\n" {shlex.join(wanted)} | grep -vxF -e "$said"); '
        'test -n "$lacks" && test $(date +%s) -lt $end || break; sleep 2; done; '
        f'test -z "$lacks" || {{ printf "%s\\n" "{name} is not Ready with a kubelet {version} after {seconds} s:" '
        '"$said" "Look there with journalctl -u kubelet and crictl ps -a, then run again." >&2; exit 1; }'
    )


def give_back(name: str, mark: str) -> str:
    """Shell that lets pods onto a node again, if they could be there before, and takes the mark off."""
    node = shlex.quote(name)
    uncordon = f"{KUBECTL} uncordon {node} >/dev/null && " if mark == "schedulable" else ""
    return f"{uncordon}{KUBECTL} annotate node {node} {MARK}- >/dev/null"


def is_first(topology: Topology, node: Node, wanted: Mapping[str, str]) -> bool:
    """Whether no other control plane runs the wanted API server: then `kubeadm upgrade apply` is this one's."""
    others = [inventory.get_host(each.name).get_fact(NodeVersions) for each in topology.control_planes if each != node]
    servers = {found["images"].get("kube-apiserver") for found in others}
    return tag(wanted["kube-apiserver"]) not in {tag(image) for image in servers if image}


def command(settings: Settings, first: bool, patches: str) -> str:
    """kubeadm's own upgrade of a node; the cluster does not keep by which `patches` it was made."""
    verb = f"apply {settings.kubernetes_version} -y" if first else "node"
    ignored = settings.ignore_preflight_errors
    flags = f" --ignore-preflight-errors={','.join(ignored)}" if ignored else ""
    flags += f" --patches={shlex.quote(patches)}" if patches else ""
    return f"timeout 1200 kubeadm upgrade {verb}{flags} >/dev/null"


@operation()
def node(
    settings: Settings,
    topology: Topology,
    node: Node,
    images: Mapping[str, str],
    programs: Mapping[str, File],
    patches: str = "",
) -> Generator[StringCommand, None, None]:
    """
    Take this node to the settings' version of Kubernetes: static pods, kubelet and the programs beside it.

    Pods are evicted within their disruption budgets; when they do not go, the node is given back and the run ends.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    + images: static pods' short name -> image wanted
    + programs: destination path -> piece of the bundle
    + patches: the directory of those that kubeadm lays over what it writes; none is empty
    """
    version = settings.kubernetes_version
    yield from idle(host.get_fact(KubeadmNode))
    seed, nodes = _nodes(topology)
    found, state = host.get_fact(NodeVersions), nodes.get(node.name)
    if state is None:
        host.noop(f"{node.name} is no node of the cluster yet")
        return
    old = stale(found["images"], images)
    if not old and found["running"] == version and not state["mark"]:
        host.noop(f"{node.name} runs {version}")
        return
    is_control_plane = node in topology.control_planes
    first = is_control_plane and is_first(topology, node, images)
    again = ", going on with what was interrupted" if state["mark"] else ""
    will(f"upgrade {node.name} from {found['running']} to {version}{again}", effect=f"drains {node.name}")
    for name in old:
        will(f"replace {name}: {tag(found['images'][name])} -> {tag(images[name])}")
    differing = other_programs(programs)
    mark = state["mark"] or ("cordoned" if state["cordoned"] else "schedulable")
    if host.state.is_executing:
        remote.on(
            seed.name, f"{KUBECTL} annotate --overwrite node {shlex.quote(node.name)} {MARK}={mark} >/dev/null",
            why="marking the node",
        )  # fmt: skip
    if KUBEADM in differing:
        yield install(KUBEADM, differing.pop(KUBEADM))
    if first:
        yield StringCommand(
            with_config("kubeadm init phase upload-config all", 120) + " >/dev/null",
            _stdin=init_documents(settings, topology, node, bootstrap_token(), certificate_key()),
        )
    if is_control_plane:
        yield StringCommand(command(settings, first, patches))
        yield StringCommand(ready(own_api(node)))
    if host.state.is_executing:
        try:
            evict(seed, node, settings.drain_timeout, mark == "cordoned", "its kubelet was not upgraded")
        except OperationError:
            remote.on(seed.name, give_back(node.name, mark), why=f"giving {node.name} back")
            raise
    if not is_control_plane:
        yield StringCommand(command(settings, first, patches))
    for dest, file in differing.items():
        yield install(dest, file)
    yield StringCommand("systemctl daemon-reload && timeout 90 systemctl restart kubelet.service")
    if host.state.is_executing:
        remote.on(seed.name, wait_for(node.name, version, is_control_plane), why=f"waiting for {node.name}")
        if is_control_plane:
            _await_members([each.name for each in topology.control_planes if each.name in nodes], seed)
            yield StringCommand(f"rm -rf {COPIES}")
        remote.on(seed.name, give_back(node.name, mark), why=f"giving {node.name} back")


def _nodes(topology: Topology) -> tuple[Node, dict[str, NodeState]]:
    """A control plane that answers, and the cluster's nodes by it. Raises OperationError."""
    seed, _ = find_seed(topology)
    nodes = inventory.get_host(seed.name).get_fact(Nodes) if seed else {}
    if seed is None or not nodes:
        what = f"{seed.name}: its API server lists no nodes" if seed else "no control plane answers as initialised"
        raise OperationError(
            f"{what}, so nothing is upgraded. Look at the control planes with `crictl ps -a` and `journalctl -u "
            "kubelet`, then run again."
        )
    return seed, nodes


def _await_members(wanted: list[str], seed: Node, seconds: int = 120) -> None:
    """Wait until every member of etcd is healthy: the next node takes one of them away."""
    found: list[str] = []
    for _ in range(0, seconds, 3):
        found = etcd_unhealthy(inventory.get_host(seed.name).get_fact(Members), wanted)
        if not found:
            return
        gevent.sleep(3)
    raise OperationError(f"etcd is not healthy after {seconds} s: {'; '.join(found)}. Mend it, then run again.")


@operation()
def ready_for_it(topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Assert before the first change that nodes and etcd are well, those of this run apart that one was interrupted on.

    + topology: all nodes
    """
    seed, nodes = _nodes(topology)
    run = {each.name for each in host.state.inventory if host.state.is_host_in_limit(each)}
    begun = [name for name, each in nodes.items() if each["mark"] and name in run]
    lines = [f"node {name} is not Ready" for name, each in nodes.items() if not each["ready"] and name not in begun]
    known = [each.name for each in topology.control_planes if each.name in nodes]
    etcd = inventory.get_host(seed.name).get_fact(Members)
    others = [each for each in etcd["members"] if each["name"] not in begun]
    lines += etcd_unhealthy({**etcd, "members": others}, [name for name in known if name not in begun])
    if lines:
        text = "\n".join(["The cluster is not well, so it is not upgraded:", *(f"  - {line}" for line in lines)])
        raise OperationError(f"{text}\nMend it, see deploys/verify.py, then run again.")
    host.noop("nodes and etcd are well")
    return
    yield
