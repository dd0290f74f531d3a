"""A cluster that is there, brought to the settings: static pods, kubelets, and the ConfigMaps that kubeadm keeps.

What is done is decided by comparing what is with what kubeadm would write, so a run that was killed is continued by the
next. What a change breaks is put back as it was before the run ends
(https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-reconfigure/).
"""

from __future__ import annotations

from collections.abc import Generator

import yaml
from pyinfra import host, logger
from pyinfra.api import OperationError, StringCommand, operation

from cluster import reconfiguration
from cluster.configuration import given
from cluster.kubeadm import live_documents
from cluster.reconfiguration import FLAGS, KUBELET, MANIFESTS, PHASES, Change, kubelet_map
from cluster.settings import Settings
from cluster.topology import Node, Topology
from facts.kubeadm import OWN, ClusterConfig, KubeadmNode
from facts.reconfigure import Files, NodeFiles, SharedConfiguration
from operations.certificates import joined, refusal
from operations.change import will
from operations.kubeadm import KUBECTL, find_seed, own_api, with_config

# Manifests and kubelets' configurations that were replaced, by time; nothing is ever removed from it.
REPLACED = "/var/lib/pyinfra-kubeadm/replaced-configuration"
LIMIT = 180  # seconds until what was changed must work
KEEP = (
    f"install -d -m 755 /var/lib/pyinfra-kubeadm && install -d -m 700 {REPLACED} && "
    f"old=$(mktemp -d {REPLACED}/$(date -u +%Y%m%dT%H%M%SZ).XXXX) && "
)


def answering(nodes: list[Node]) -> str:
    """Shell that fails unless every one of these API servers is ready."""
    return " && ".join(
        f"{{ curl -sf --max-time 5 --cacert /etc/kubernetes/pki/ca.crt https://{own_api(node)}/readyz >/dev/null || "
        f"{{ echo 'the API server of {node.name} is not ready, so no other is restarted: look there with crictl ps -a' "
        ">&2; exit 1; }; }"
        for node in nodes
    )


def manifest_script(program: str, node: Node) -> str:
    """Shell that has kubeadm write a static pod's manifest and waits until its new pod is ready, or puts the old back.

    Standard input is kubeadm's configuration. The kubelet tells each manifest's pod by a digest of it.
    """
    path = f"{MANIFESTS}/{program}.yaml"
    template = (
        '{{index .metadata.annotations "kubernetes.io/config.hash"}} '
        '{{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}}'
    )
    pod, beside = f"{program}-{node.name}", f"/etc/kubernetes/.{program}.yaml"
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f'{KEEP}cp -a {path} "$old/" && sync -f "$old" && {OWN} '
        f"seen() {{ $k -n kube-system get pod {pod} -o go-template='{template}' 2>/dev/null; }}; "
        f'b=$(seen); b=${{b% *}}; test -n "$b" || {{ echo "the API does not show {pod}" >&2; exit 1; }}; '
        f"await() {{ for i in $(seq {LIMIT // 2}); do s=$(seen); "
        'test "${s#* }" = True && test "${s% *}" $1 "$b" && return 0; sleep 2; done; return 1; }; '
        f'timeout 120 kubeadm init phase {PHASES[program]} --config "$f" >/dev/null && await != && exit 0; '
        f"echo '{program} of {node.name} did not become ready by its new manifest within {LIMIT} s; its last words:' "
        f">&2; crictl logs --tail 20 $(crictl ps -aq --name '^{program}$' | head -n 1) >&2; "
        f'cp -a "$old/{program}.yaml" {beside} && mv -fT {beside} {path}; '
        "await = && echo 'The manifest of before is back, and its pod is ready. Correct the setting, then run again.' "
        f'>&2 || echo "The manifest of before is back, and its pod is not ready: look with crictl ps -a." >&2; exit 1'
    )


def reports(node: Node) -> str:
    """Shell with a function `await` that restarts the kubelet and waits until it has reported its node ready anew; what
    it has reported before is in $b, by the function `seen`."""
    template = '{{range .status.conditions}}{{if eq .type "Ready"}}{{.status}} {{.lastHeartbeatTime}}{{end}}{{end}}'
    get = f"kubectl --kubeconfig /etc/kubernetes/kubelet.conf --request-timeout=10s get node {node.name}"
    return (
        f"seen() {{ {get} -o go-template='{template}' 2>/dev/null; }}; "
        'b=$(seen); test -n "$b" || { echo "the API does not show this node to its kubelet" >&2; exit 1; }; '
        f"await() {{ timeout 90 systemctl restart kubelet.service; for i in $(seq {LIMIT // 2}); do s=$(seen); "
        'test "${s% *}" = True && test "$s" != "$b" && systemctl is-active -q kubelet.service && return 0; sleep 2; '
        "done; return 1; }; "
    )


def kubelet_script(node: Node) -> str:
    """Shell that configures the kubelet by standard input and waits until its node is ready, or puts the old back."""
    return (
        f'umask 077; {KEEP}cp -a {KUBELET} "$old/" && cat > {KUBELET}.new && '
        f'chmod --reference={KUBELET} {KUBELET}.new && sync -f {KUBELET}.new "$old" && {reports(node)}'
        f"mv -fT {KUBELET}.new {KUBELET} && await && exit 0; "
        f"echo 'the kubelet of {node.name} did not report ready within {LIMIT} s; its last words:' >&2; "
        "journalctl -u kubelet -n 15 --no-pager -o cat >&2; b=$(seen); "
        f'cp -a "$old/config.yaml" {KUBELET}.new && mv -fT {KUBELET}.new {KUBELET}; '
        "await && echo 'Its configuration of before is back, and its node is ready. Correct the setting, then run "
        "again.' >&2 || echo 'Its configuration of before is back, and its node is not ready.' >&2; exit 1"
    )


def proxy_script() -> str:
    """Shell that has kubeadm write kube-proxy and restarts its pods by and by, or puts the old ConfigMap back.

    Standard input is kubeadm's configuration.
    """
    proxy = f"{KUBECTL} -n kube-system"
    roll = (
        f"{proxy} rollout restart daemonset kube-proxy >/dev/null && "
        f"{proxy} rollout status daemonset kube-proxy --timeout=$1 --request-timeout=0 >/dev/null"
    )
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f'{KEEP}{proxy} get configmap kube-proxy -o yaml > "$old/kube-proxy.yaml" && sync -f "$old" && '
        f"roll() {{ {roll}; }}; "
        f'timeout 120 kubeadm init phase addon kube-proxy --config "$f" >/dev/null && roll {LIMIT}s && exit 0; '
        "echo 'kube-proxy did not become ready by its new configuration; its last words:' >&2; "
        f"{proxy} logs -l k8s-app=kube-proxy --tail 5 >&2; "
        "sed -i '/^  resourceVersion:/d; /^  uid:/d' \"$old/kube-proxy.yaml\"; "
        f'{proxy} apply --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f "$old/kube-proxy.yaml" '
        f">/dev/null && roll {LIMIT}s && echo 'Its ConfigMap of before is back, and its pods are ready. Correct the "
        "setting, then run again.' >&2 || echo 'Its pods are not ready by the ConfigMap of before.' >&2; exit 1"
    )


def patches(settings: Settings, topology: Topology, node: Node) -> str:
    """The directory of patches that kubeadm was told to lay over what it writes on this node; none is empty."""
    kind = "InitConfiguration" if node == topology.first_control_plane else "JoinConfiguration"
    directory: str = (given(settings)[kind].get("patches") or {}).get("directory", "")
    return directory


def _files(settings: Settings, shared: Settings, topology: Topology, node: Node) -> Files | None:
    """A node's files; None where there are none to change, as on a host that is yet to join."""
    state = host.get_fact(KubeadmNode)["state"]
    control_plane = node in topology.control_planes
    if state != ("control-plane" if control_plane else "worker"):
        return None
    return host.get_fact(
        NodeFiles, control_plane=control_plane, patches=patches(settings, topology, node),
        _stdin=live_documents(settings, shared, topology, node),
    )  # fmt: skip


def _is_left(topology: Topology, node: Node) -> bool:
    """Whether this node is left as it is, for it is a control plane whose join was interrupted and is done anew.

    Raises OperationError for one that is of the cluster while its API server does not answer: what the cluster keeps
    would be written without it.
    """
    if node not in topology.control_planes or host.get_fact(ClusterConfig)["state"] == "initialised":
        return False
    seed, nodes = find_seed(topology, joining=node)
    if seed and not (node.name in nodes and "control-plane" in nodes[node.name]["roles"]):
        return True
    words = "its API server does not answer, so neither its configuration nor what the cluster keeps is changed"
    if host.state.is_executing:
        raise OperationError(
            f"{node.name}: {words}. Look there with `crictl ps -a` and `journalctl -u kubelet`, then run again."
        )
    logger.warning("%s%s unless it does by then", host.print_prefix, words)
    return False


@operation()
def control_plane(
    settings: Settings, shared: Settings, topology: Topology, node: Node
) -> Generator[StringCommand, None, None]:
    """
    Have the static pods of a control plane run by the settings, one after the other, each proved before the next.

    + settings: the host's settings
    + shared: those of the first control plane
    + topology: all nodes
    + node: this host
    """
    files = _files(settings, shared, topology, node)
    changes = reconfiguration.manifests(files["live"], files["wanted"]) if files else {}
    if not changes or _is_left(topology, node):
        is_so = files and not changes
        host.noop("static pods are as the settings have them" if is_so else "kubeadm will write it by the settings")
        return
    for program, change in changes.items():
        will(f"write {change.name}", change.lines(), f"restarts {program} of {node.name}")
    if host.state.is_executing:
        members = joined(topology)
        others = [each for each in members.control_planes if each != node]
        if others:
            if found := refusal(members, node):
                raise OperationError(found)
            yield StringCommand(answering(others))
    for program in changes:
        yield StringCommand(manifest_script(program, node), _stdin=live_documents(settings, shared, topology, node))


@operation()
def kubelet(
    settings: Settings, shared: Settings, topology: Topology, node: Node
) -> Generator[StringCommand, None, None]:
    """
    Have the kubelet of a node run by the settings; pods run on while it is restarted.

    + settings: the host's settings
    + shared: those of the first control plane
    + topology: all nodes
    + node: this host
    """
    files = _files(settings, shared, topology, node)
    if files is None:
        host.noop("kubeadm will write it by the settings")
        return
    left = reconfiguration.missing_flags(files["live"].get(FLAGS, ""), files["wanted"].get(FLAGS, ""))
    if left and not host.state.is_executing:
        logger.warning(
            "%skubelet has not %s, which kubeadm gives it when a node is made: write it into %s there and restart "
            "kubelet, or set the field of kubelet_config that says the same",
            host.print_prefix, " ".join(left), FLAGS,
        )  # fmt: skip
    change = reconfiguration.kubelet(files["live"][KUBELET], files["wanted"][KUBELET], settings)
    if change is None:
        host.noop("kubelet's configuration is as the settings have it")
        return
    if _is_left(topology, node):
        host.noop("kubeadm will write it by the settings")
        return
    will(f"write {change.name}", change.lines(), f"restarts kubelet of {node.name}")
    yield StringCommand(kubelet_script(node), _stdin=yaml.safe_dump(change.new))


def _shared(settings: Settings, topology: Topology) -> dict[str, Change] | None:
    """ConfigMaps that differ; None where there is no cluster."""
    first = topology.first_control_plane
    maps = host.get_fact(
        SharedConfiguration, kubelet=kubelet_map(settings.kubernetes_version),
        _stdin=live_documents(settings, settings, topology, first),
    )  # fmt: skip
    return reconfiguration.shared(maps["live"], maps["wanted"], settings) if maps["live"] else None


@operation()
def keep(settings: Settings, topology: Topology, name_of_map: str, effect: str) -> Generator[StringCommand, None, None]:
    """
    Have the cluster keep what kubeadm or kubelets are configured by, for nodes that join and for upgrades.

    + settings: those of the first control plane
    + topology: all nodes
    + name_of_map: "kubeadm-config", or the ConfigMap of kubelets
    + effect: what comes of it, in words
    """
    yield from _written(settings, topology, name_of_map, effect)


@operation()
def proxy(settings: Settings, topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Have kube-proxy run by the settings, node by node.

    + settings: those of the first control plane
    + topology: all nodes
    """
    yield from _written(settings, topology, "kube-proxy", "restarts kube-proxy, node by node")


def _written(settings: Settings, topology: Topology, name: str, effect: str) -> Generator[StringCommand, None, None]:
    changes = _shared(settings, topology)
    if changes is None and host.state.is_executing and host.get_fact(ClusterConfig)["state"] == "unreachable":
        raise OperationError(
            f"{host.name}: its API server does not answer, so it is not known whether ConfigMap {name} follows the "
            "settings. Look there with `crictl ps -a` and `journalctl -u kubelet`, then run again."
        )
    change = (changes or {}).get(name)
    if change is None:
        host.noop(f"ConfigMap {name} is as the settings have it" if changes is not None else "kubeadm will write it")
        return
    will(f"write {change.name}", change.lines(), effect)
    documents = live_documents(settings, settings, topology, topology.first_control_plane)
    if name == "kube-proxy":
        yield StringCommand(proxy_script(), _stdin=documents)
    else:
        phase = "kubeadm" if name == "kubeadm-config" else "kubelet"
        yield StringCommand(
            with_config(f"kubeadm init phase upload-config {phase}", 120) + " >/dev/null", _stdin=documents
        )
