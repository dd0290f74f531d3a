"""`kubeadm init` and `kubeadm join`, decided by what the nodes are and never by a marker file.

Both are configured by a file that lives in /run, 0600, for as long as the command runs. The bootstrap token
and certificate key are made for one run and kept in memory only; kubeadm expires them by itself
(token: 2 h as set here; certificates: 2 h, https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-init/).
"""

from __future__ import annotations

import secrets
import shlex
import string
from collections.abc import Collection, Generator, Mapping
from functools import cache
from typing import Literal

from gevent.lock import RLock
from pyinfra import host, inventory
from pyinfra.api import OperationError, StringCommand, operation

from cluster.balancing import endpoint
from cluster.endpoint import API_SERVER_PORT, Endpoint
from cluster.kubeadm import ROLE, cri_socket, init_documents, join_documents
from cluster.networks import CNI_FILES
from cluster.settings import Settings
from cluster.topology import Node, Topology
from facts.etcd import ETCDCTL, Members
from facts.kubeadm import ClusterConfig, JoinInfo, KubeadmNode, MemberNode, NodeState, Readable
from operations import remote
from operations.change import will

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=30s"
ALPHABET = string.ascii_lowercase + string.digits
Role = Literal["control-plane", "worker"]
NodeAction = Literal["none", "run", "clean-and-run", "refuse"]

# What a killed init leaves behind; kubeadm's phases take it up again where it is sound.
RESUME = "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml,"
RESUME += "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml,"
RESUME += "FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml,"
RESUME += "FileAvailable--etc-kubernetes-manifests-etcd.yaml,"
RESUME += "Port-6443,Port-10259,Port-10257,Port-10250,Port-2379,Port-2380,DirAvailable--var-lib-etcd"


@cache
def bootstrap_token() -> str:
    """This run's token in kubeadm's form, `[a-z0-9]{6}.[a-z0-9]{16}`."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(22))
    return f"{letters[:6]}.{letters[6:]}"


@cache
def certificate_key() -> str:
    """This run's key for the `kubeadm-certs` Secret: 32 bytes, hexadecimal."""
    return secrets.token_hex(32)


def with_config(command: str, seconds: int) -> str:
    """Shell that keeps standard input in a private file while a kubeadm command reads it."""
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f'timeout {seconds} {command} --config "$f"'
    )


def own_api(node: Node) -> Endpoint:
    """A control plane's own API server."""
    return Endpoint(node.address, API_SERVER_PORT)


def ready(at: Endpoint, seconds: int = 120) -> str:
    """Shell that waits for one API server and fails, with its log, when time runs out."""
    return (
        f"for i in $(seq {seconds}); do curl -sf --max-time 2 --cacert /etc/kubernetes/pki/ca.crt "
        f"https://{at}/readyz >/dev/null && exit 0; sleep 1; done; "
        f"echo 'https://{at}/readyz did not answer in {seconds} s; kubelet says:' >&2; "
        "journalctl -u kubelet -n 30 --no-pager >&2; crictl ps -a >&2; exit 1"
    )


def answers(at: Endpoint, seconds: int = 60) -> str:
    """Shell that waits until an API server of this cluster answers at the endpoint, and fails with the last reason.

    What answers there may be another cluster's: its CA is checked.
    """
    return (
        f"for i in $(seq {seconds}); do said=$(curl -sSf --max-time 2 --cacert /etc/kubernetes/pki/ca.crt "
        f"https://{at}/readyz 2>&1) && exit 0; sleep 1; done; "
        f'echo "https://{at}/readyz did not answer as this cluster in {seconds} s, though its API server is up: $said. '
        'Mend the load balancer or DNS name, then run again." >&2; exit 1'
    )


def find_seed(topology: Topology, joining: Node | None = None) -> tuple[Node | None, dict[str, MemberNode]]:
    """A control plane, other than the joining one, whose API has an initialised cluster; with its nodes.

    One that cannot be reached is passed over as long as another has the cluster. Raises OperationError when none has:
    it is not known then that there is no cluster.
    """
    others, asked = [node for node in topology.control_planes if node != joining], []
    for node in remote.reached(others):
        asked.append(node)
        state = remote.shared(node.name, ClusterConfig)  # of all nodes: hundreds of workers ask for it
        if state["state"] == "initialised":
            return node, state["nodes"]
    if lost := [node.name for node in others if node not in asked]:
        raise OperationError(
            f"{', '.join(lost)}: cannot be reached, and no other control plane answers as initialised, so it is not "
            "known whether there is a cluster. Bring it back and run again; if its machine is gone for good, take it "
            "out with deploys/remove_node.py (docs/nodes.md)."
        )
    return None, {}


def idle(state: NodeState) -> Generator[StringCommand, None, NodeState]:
    """Wait for a kubeadm that an earlier run left at work on this host; what it has made is then looked at anew."""
    if not (state["busy"] and host.state.is_executing):
        return state
    yield StringCommand(
        "timeout 1260 sh -c 'while pgrep -x kubeadm >/dev/null; do sleep 1; done' || "
        "{ echo 'a kubeadm that this run did not start is still at work:' >&2; pgrep -ax kubeadm >&2; exit 1; }"
    )
    return host.get_fact(KubeadmNode)


@operation()
def init(settings: Settings, topology: Topology, node: Node) -> Generator[StringCommand, None, None]:
    """
    Initialise the cluster on its first control plane, finish an `init` that was interrupted, or join it anew.

    + settings: the cluster's settings
    + topology: all of its nodes; used for certificate names and to see that no other node has the cluster
    + node: this host
    """
    seed, _ = find_seed(topology)
    if seed == node:
        host.noop("the cluster is initialised")
        return
    if seed:  # This machine was replaced: it joins what the others have kept.
        yield from join._inner(settings=settings, topology=topology, node=node, control_plane=True)
        return
    for other in topology.control_planes:
        if other.name != node.name and inventory.get_host(other.name).get_fact(KubeadmNode)["etcd_data"]:
            raise OperationError(
                f"{node.name}: no API server answers, yet {other.name} holds etcd data of a cluster. A second "
                f"cluster is not started beside it. Bring the API on {other.name} back (`crictl ps -a`, "
                "`journalctl -u kubelet`) and run again, or reset that host if its cluster is to go."
            )
    local = yield from idle(host.get_fact(KubeadmNode))
    will(f"{'finish' if local['etcd_data'] or local['state'] != 'none' else 'initialise'} the cluster on {node.name}")
    if local["etcd_data"]:
        # Its API comes up by itself or must be mended first: what this etcd holds is not put at risk by another init.
        yield StringCommand(ready(own_api(node)))
        if find_seed(topology)[0]:
            return
    ignored = list(settings.ignore_preflight_errors)
    if local["state"] != "none":
        ignored.append(RESUME)
    flags = f" --ignore-preflight-errors={','.join(ignored)}" if ignored else ""
    yield StringCommand(
        # It would print the token, which is a secret. Every version has this flag.
        with_config(f"kubeadm init --skip-token-print{flags}", seconds=600),
        _stdin=init_documents(settings, topology, node, bootstrap_token(), certificate_key()),
    )
    yield StringCommand(ready(own_api(node)))


def join_action(local: str, known: MemberNode | None, wanted: Role, votes: bool = False) -> NodeAction:
    """What a node needs, from its own state and from what the cluster knows of it.

    A control plane's label is the last that its join sets (kubeadm 1.36, cmd/join.go). One whose etcd `votes` has
    joined without it: it is never thrown away, and `roles` gives it the label.
    """
    if local == "none" and known is None:
        return "run"
    joined = known is not None and (wanted == "worker" or "control-plane" in known["roles"] or votes)
    if local == wanted:
        return "none" if joined else "clean-and-run"
    # What was whole once is not thrown away for a file that is missing, or for another group in the inventory.
    if known is not None and (local in ("worker", "control-plane") or (local == "partial" and known["roles"])):
        return "refuse"
    return "clean-and-run"


_issuing = RLock()
_issued: set[str] = set()


def issue_credentials(settings: Settings, topology: Topology, seed: Node, control_plane: bool) -> None:
    """Have an initialised control plane accept this run's token, and share its certificates; once a run.

    Before that the API must answer where the joining nodes will ask for it, which kubeadm would try for minutes.
    """
    with _issuing:
        if not _issued:
            at = endpoint(settings, topology)
            remote.on(seed.name, answers(at), why="asking for the API where joining nodes will")
        if "token" not in _issued:
            known = inventory.get_host(seed.name).get_fact(JoinInfo)["tokens"]
            if bootstrap_token().split(".")[0] not in [token["id"] for token in known]:
                documents = init_documents(settings, topology, seed, bootstrap_token(), certificate_key())
                create = with_config("kubeadm token create", 60) + " >/dev/null"
                remote.on(seed.name, create, documents, "creating a bootstrap token")
            _issued.add("token")
        if control_plane and "certificates" not in _issued:
            documents = init_documents(settings, topology, seed, bootstrap_token(), certificate_key())
            upload = with_config("kubeadm init phase upload-certs --upload-certs --skip-certificate-key-print", 60)
            remote.on(seed.name, upload, documents, "uploading the control plane certificates")
            _issued.add("certificates")


def drop_member(node: Node) -> str:
    """Shell that removes a node's etcd member, which may be none, at a member that stays."""
    return (
        f'all=$({ETCDCTL} member list) && id=$(echo "$all" | '
        f"awk -F', ' '$4 == \"{peer(node)}\" {{print $1}}') && "
        f'{{ test -z "$id" || {ETCDCTL} member remove "$id"; }}'
    )


def delete_node(seed: Node, node: Node) -> str:
    """Shell that deletes a Node, which may not be there, at the seed's own API server: behind the endpoint may still be
    the one whose etcd has just been dropped. It tries more than once, for etcd may be choosing a leader."""
    return (
        f"for i in 1 2 3 4 5 6; do {KUBECTL} --server=https://{own_api(seed)} delete node {node.name} "
        "--ignore-not-found && exit 0; sleep 5; done; exit 1"
    )


def peer(node: Node) -> str:
    """The URL at which other members find a node's etcd."""
    return f"https://{Endpoint(node.address, 2380)}"


def forget(seed: Node, node: Node) -> None:
    """Remove what a broken join left of a node in the cluster: its etcd member and its Node."""
    script = f"{drop_member(node)} && {delete_node(seed, node)}"
    remote.on(seed.name, script, why=f"removing what an interrupted join left of {node.name}")


@operation()
def join(
    settings: Settings, topology: Topology, node: Node, control_plane: bool, patches: bool = False
) -> Generator[StringCommand, None, None]:
    """
    Join this host to the cluster; a join that was interrupted is cleaned up and done again.

    While planning on bare hosts there is no CA to hash yet: the command is announced, its file is known later.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    + control_plane: as a control plane with an etcd member, or as a worker
    + patches: have kubeadm lay the host's patches over the kubelet's configuration
    """
    seed, nodes = find_seed(topology, joining=node)
    known = nodes.get(node.name)
    wanted: Role = "control-plane" if control_plane else "worker"
    local = yield from idle(host.get_fact(KubeadmNode))
    action = join_action(local["state"], known, wanted)
    ghost = False
    if control_plane and seed and (action == "run" or (action == "clean-and-run" and known)):
        members = inventory.get_host(seed.name).get_fact(Members)["members"]
        votes = any(each["name"] == node.name and not each["learner"] for each in members)
        action = join_action(local["state"], known, wanted, votes)
        # Its Node was deleted by hand. kubeadm takes a member of that address for the one that it joins, and etcd would
        # begin it with nothing of what it has acknowledged and voted for, or end in a panic.
        ghost = action == "run" and any(peer(node) in each["peer_urls"] for each in members)
    if action == "none":
        host.noop(f"{node.name} is a {wanted} of this cluster")
        return
    if action == "refuse":
        raise OperationError(
            f"{node.name}: the cluster has it as {'/'.join(known['roles']) if known and known['roles'] else 'worker'}, "
            f"its disk says {local['state']}, the inventory wants a {wanted}. Put back what is missing in "
            "/etc/kubernetes, or correct the inventory, or drain it, delete its Node and run `kubeadm reset` there. "
            "Then run again."
        )
    ca_hash = inventory.get_host(seed.name).get_fact(KubeadmNode)["ca_cert_hash"] if seed else None
    if seed and local["ca_cert_hash"] not in (None, ca_hash):
        raise OperationError(
            f"{node.name}: holds the CA of another cluster ({local['ca_cert_hash']}, here {ca_hash}). It is not taken "
            "from that one: run `kubeadm reset` there yourself, remove /etc/kubernetes, then run again."
        )
    if seed is None and local["state"] == wanted and not host.state.is_executing:
        host.noop(f"{node.name} was joined; no API answers now, so this is looked at again when it runs")
        return
    if seed is None and host.state.is_executing:
        raise OperationError(
            f"{node.name}: no control plane answers as initialised, so there is nothing to join. "
            "Look at the first control plane with `crictl ps -a` and `journalctl -u kubelet`, then run again."
        )
    first = "clean up what is left on it and " if action == "clean-and-run" else ""
    if ghost:
        first = "remove its old member from etcd and "
    will(f"{first}join {node.name} as a {wanted}", later="" if seed else "the CA's hash is known once it is made")
    if (action == "clean-and-run" or ghost) and seed is not None and host.state.is_executing:
        # Before the reset: a living etcd member can be removed, a wiped one may have taken the quorum along.
        forget(seed, node)
    if action == "clean-and-run":
        if settings.cni in CNI_FILES:  # first: on a host that is no node any more it would be taken for another's
            # The cluster may give another range of addresses with another Node, which flannel then writes anew, and
            # Cilium would keep pods with addresses of the old one.
            yield StringCommand(f"rm -rf /etc/cni/net.d/{CNI_FILES[settings.cni]} /run/flannel /run/cilium/state")
        yield StringCommand(f"timeout 300 kubeadm reset -f --cri-socket {cri_socket(settings)}")
    documents = ""
    if seed is not None and host.state.is_executing:
        issue_credentials(settings, topology, seed, control_plane)
        if ca_hash is None:
            raise OperationError(f"{seed.name}: /etc/kubernetes/pki/ca.crt cannot be read, so {node.name} cannot join.")
        key = certificate_key() if control_plane else None
        documents = join_documents(settings, topology, node, bootstrap_token(), ca_hash, key, patches)
    ignored = settings.ignore_preflight_errors
    flags = f" --ignore-preflight-errors={','.join(ignored)}" if ignored else ""
    yield StringCommand(with_config(f"kubeadm join{flags}", seconds=600), _stdin=documents)
    if control_plane:
        yield StringCommand(ready(own_api(node)))


@operation()
def roles(wanted: Mapping[str, Collection[str]]) -> Generator[StringCommand, None, None]:
    """
    Have control planes labelled and tainted, as kubeadm does when they join.

    + wanted: name of a control plane -> roles by whose taints pods stay away from it
    """
    nodes = host.get_fact(ClusterConfig)["nodes"]
    commands = []
    for name, taints in wanted.items():
        if (known := nodes.get(name)) is None:
            continue
        if "control-plane" not in known["roles"]:
            will(f"label {name} as a control plane")
            commands.append(f"{KUBECTL} label --overwrite node {name} {ROLE}control-plane=")
        for role in sorted({*taints} - {*known["taints"]}):
            will(f"taint {name} with {ROLE}{role}", effect=f"no more pods come to {name} that do not tolerate it")
            commands.append(f"{KUBECTL} taint --overwrite node {name} {ROLE}{role}:NoSchedule")
        for role in sorted({*known["taints"]} - {*taints}):
            will(f"take the taint {ROLE}{role} from {name}", effect=f"pods may come to {name}")
            commands.append(f"{KUBECTL} taint node {name} {ROLE}{role}:NoSchedule-")
    if not commands:
        host.noop("control planes have their labels and taints")
        return
    yield StringCommand(" && ".join(commands))


@operation()
def private() -> Generator[StringCommand, None, None]:
    """Keep keys, kubeconfigs, manifests and etcd's data, which may hold secrets, from all but their owners."""
    found = host.get_fact(Readable)
    if not found:
        host.noop("keys and kubeconfigs are their owners' alone")
        return
    for path, mode in found.items():
        will(f"keep {path} from others (mode {mode})")
    yield StringCommand(f"chmod go-rwx -- {shlex.join(found)}")
