"""The CAs of a cluster replaced, one node and one phase at a time (cluster/rotation.py).

What is done is decided by the files of each node and by what its programs have read, so that a run which was killed is
continued by the next. Files are written beside and renamed, and only where they differ.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator

import gevent
import yaml
from pyinfra import host, inventory, logger
from pyinfra.api import OperationError, StringCommand, operation

from cluster import rotation
from cluster.certificates import CA, HAPROXY_CA, KUBELET_CLIENT, PROGRAMS, ROTATED, Program, Work
from cluster.endpoint import Endpoint
from cluster.kubeadm import certificate_documents
from cluster.rotation import KUBELET_CONF, ROTATION, Pairs
from cluster.settings import Settings
from cluster.topology import Node, Topology
from facts.authority import Authorities, Published
from facts.certificate import Certificates
from facts.service import Unit
from operations import file, remote
from operations import rotation_scripts as scripts
from operations.certificates import LIMIT, Question, check, renew_script, restarted
from operations.change import will
from operations.kubeadm import answers
from operations.workload import settled

# What a kubelet reads when it starts; one that is older is restarted.
KUBELET_READS = (CA, KUBELET_CONF, KUBELET_CLIENT)


def known(topology: Topology) -> Pairs | None:
    """Both CAs of the rotation that is under way, by the first control plane that holds them."""
    for node in remote.reached(topology.control_planes):
        if found := rotation.pairs(inventory.get_host(node.name).get_fact(Authorities)):
            return found
    return None


def _known(topology: Topology) -> Pairs | None:
    """The same; once it runs there must be some. Raises OperationError."""
    found = known(topology)
    if found is None and host.state.is_executing:
        raise OperationError(
            f"{host.name}: no control plane holds {ROTATION}, though its CAs are being rotated. Put it back from "
            "another's backup, then run again."
        )
    return found


def begin_documents(settings: Settings, topology: Topology, node: Node) -> str:
    """kubeadm's configuration with another directory for what it makes."""
    documents = list(yaml.safe_load_all(certificate_documents(settings, topology, node)))
    for each in documents:
        if each["kind"] == "ClusterConfiguration":
            each["certificatesDir"] = f"{scripts.MAKING}/new"
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


@operation()
def begin(settings: Settings, topology: Topology, node: Node) -> Generator[StringCommand, None, None]:
    """
    Make new CAs on a control plane, beside the old ones, unless a rotation is under way.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    """
    if known(topology):
        host.noop("a rotation is under way")
        return
    will("make new CAs of the cluster, of aggregated API servers and of etcd")
    yield StringCommand(scripts.begin(), _stdin=begin_documents(settings, topology, node))


@operation()
def copy(topology: Topology, node: Node) -> Generator[StringCommand, None, None]:
    """
    Have both CAs on this control plane too.

    + topology: all nodes
    + node: this host
    """
    pair, own = _known(topology), host.get_fact(Authorities)
    here = (
        rotation.pairs(own) == pair or rotation.phase(own, pair) == 3 if pair else node == topology.first_control_plane
    )
    if here:
        host.noop("it has both CAs")
        return
    will("have both CAs here")
    text = ""
    if host.state.is_executing:
        holder = next(
            node for node in remote.reached(topology.control_planes)
            if rotation.pairs(inventory.get_host(node.name).get_fact(Authorities)) == pair
        )  # fmt: skip
        text = "\n".join(remote.on(holder.name, scripts.SEND, why="reading both CAs")) + "\n"
    yield StringCommand(scripts.RECEIVE, _stdin=text)


def _is_further(wanted: int, pair: Pairs | None) -> bool:
    """Whether this node has had a phase and is in a later one."""
    return pair is not None and (rotation.phase(host.get_fact(Authorities), pair) or 0) > wanted


def _pending(wanted: int, pair: Pairs | None, control_plane: bool) -> bool:
    """Whether this node's files are still to be laid for a phase; before the new CA is made, they are."""
    if pair is None:
        return True
    own = host.get_fact(Authorities)
    at = rotation.phase(own, pair)
    return at is None or at < wanted or (at == wanted and bool(rotation.differs(own, wanted, pair, control_plane)))


@operation()
def lay(
    settings: Settings, topology: Topology, node: Node, question: Question, wanted: int
) -> Generator[StringCommand, None, None]:
    """
    Give a control plane's files the CAs of a phase; in the second its certificates are made by the new one too.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    + question: the arguments of the fact `Certificates` here
    + wanted: the phase
    """
    pair = _known(topology)
    if _is_further(wanted, pair):
        host.noop("it is further")
        return
    renewed = rotation.unsigned(host.get_fact(Certificates, **question), pair) if pair and wanted == 2 else ()
    if not _pending(wanted, pair, control_plane=True) and not renewed:
        host.noop(f"{rotation.PHASES[wanted]} here")
        return
    check(topology, node)
    will(rotation.PHASES[wanted])
    if wanted == 2:
        will("renew every certificate and kubeconfig of kubeadm's by the new CA")
    yield StringCommand(scripts.lay(wanted))
    if wanted == 2:
        documents = certificate_documents(settings, topology, node)
        if renewed or not host.state.is_executing:
            yield StringCommand(renew_script(Work(renewed=renewed)), _stdin=documents)
        # kubeadm has kubeconfigs that it renews trust the CA alone that it has signed by.
        yield StringCommand(scripts.lay(wanted))


@operation()
def lay_worker(topology: Topology, wanted: int) -> Generator[StringCommand, None, None]:
    """
    Give a worker's files the CAs of a phase.

    + topology: all nodes
    + wanted: the phase
    """
    pair = _known(topology)
    if _is_further(wanted, pair):
        host.noop("it is further")
        return
    if not _pending(wanted, pair, control_plane=False):
        host.noop(f"{rotation.PHASES[wanted]} here")
        return
    will(rotation.PHASES[wanted])
    yield StringCommand(scripts.lay_on_worker(), _stdin="".join(pair["ca"].bundle(wanted)) if pair else "")


@operation()
def restart(topology: Topology, node: Node, question: Question, wanted: int) -> Generator[StringCommand, None, None]:
    """
    Restart what has read other CAs or certificates than are on disk, one after the other, and wait for each.

    + topology: all nodes
    + node: this host
    + question: the arguments of the fact `Certificates` here
    + wanted: the phase
    """
    pair = _known(topology)
    if _is_further(wanted, pair):
        host.noop("it is further")
        return
    coming = not host.state.is_executing and _pending(wanted, pair, control_plane=True)
    programs = PROGRAMS if coming else _stale(wanted, question)
    if not programs:
        host.noop("every program has read what is on disk")
        return
    will(
        "restart what has not read it",
        effect=f"restarts {', '.join(programs)}, one after the other",
        later="" if host.state.is_executing else "which of them had read it is known then",
    )
    yield from restarted(programs, topology, node)
    if host.state.is_executing:
        yield from _settled(node, question, wanted)


def _stale(wanted: int, question: Question) -> tuple[Program, ...]:
    return rotation.stale(host.get_fact(Authorities), host.get_fact(Certificates, **question), wanted)


def _settled(node: Node, question: Question, wanted: int) -> Generator[StringCommand, None, None]:
    """Wait until every program has read what is on disk, and ports serve it; a command only where it does not come."""
    left = settled(lambda: list(_stale(wanted, question)), LIMIT)
    if not left:
        logger.info("%s%s: %s", host.print_prefix, node.name, rotation.PHASES[wanted])
        return
    words = (
        f"{node.name}: {', '.join(left)} did not run with what is on disk within {LIMIT} s. `crictl ps -a` and "
        "`journalctl -u kubelet` there say why. Run again to continue."
    )
    yield StringCommand(f"printf '%s\\n' {shlex.quote(words)} >&2; exit 1")


@operation()
def client(topology: Topology, node: Node) -> Generator[StringCommand, None, None]:
    """
    Get this node's kubelet certificates of the new CA: the one by which it asks, and the one by which it serves, if
    that is of the cluster's CA.

    + topology: all nodes
    + node: this host
    """
    pair = _known(topology)
    state = host.get_fact(Authorities)
    found = state["certificates"]
    own = [pems[0] if pems else None for path in (KUBELET_CLIENT, ROTATED) if (pems := found.get(path)) is not None]
    if not (pair and own and all(rotation.signed(pem, pair["ca"].new) for pem in own)):
        will("have the new CA sign the kubelet's client certificate", effect="restarts kubelet")
        yield StringCommand(scripts.client(node), _stdin=pair["ca"].new if pair else "")
    elif rotation.phase(state, pair) == 2 and host.get_fact(Unit, unit="kubelet.service", files=KUBELET_READS)["stale"]:
        will("restart kubelet.service")
        yield StringCommand(f"timeout 120 systemctl restart kubelet.service && {scripts.HEALTHY}")
    else:
        host.noop("the kubelet runs with certificates of the new CA")


@operation()
def balancer(topology: Topology, wanted: int) -> Generator[StringCommand, None, None]:
    """
    Have HAProxy's file of CAs as a phase wants it.

    + topology: all nodes
    + wanted: the phase
    """
    pair = _known(topology)
    have = host.get_fact(Authorities)["certificates"].get(HAPROXY_CA, [])
    steps = [pair["ca"].bundle(each) for each in range(wanted, 4)] if pair else []
    if have in steps:
        host.noop(f"{HAPROXY_CA} is as wanted")
        return
    will(f"modify {HAPROXY_CA}", later="" if pair else "its content is known once the CA is made")
    text = "".join(pair["ca"].bundle(wanted)) if pair else "known once the CA is made\n"
    yield StringCommand(file.write_script(HAPROXY_CA, "644", "root", "root", None), _stdin=text)


def _reached(pems: list[str], wanted: int, pair: Pairs) -> bool:
    """Whether what is told is as far as a phase."""
    new = pair["ca"].new
    return pems == [new] if wanted == 3 else new in pems


@operation()
def publish(topology: Topology, at: Endpoint, wanted: int) -> Generator[StringCommand, None, None]:
    """
    Have nodes that will join and pods told of the CAs of a phase, and wait until they are; after the first, begin the
    pods anew that are kubeadm's and this project's, for a program reads its CA when it starts.

    + topology: all nodes
    + at: where everyone asks for the API
    + wanted: the phase
    """
    pair = _known(topology)
    state = host.get_fact(Published)
    if host.state.is_executing and state["state"] == "unreachable":
        raise OperationError(f"{host.name}: its API does not answer. `crictl ps -a` there says why; then run again.")
    pending = pair is None or not _reached(state["cluster_info"], wanted, pair)
    mark = rotation.digest(pair["ca"].new) if pair else ""
    old = [name for name, each in state["workloads"].items() if each != mark or pair is None] if wanted == 1 else []
    if host.state.is_executing and pair:
        remote.on(host.name, answers(at), why="asking for the API at its endpoint")
    if pending:
        will(f"write cluster-info: {rotation.PHASES[wanted]}")
    if old:
        will(f"begin anew the pods of {', '.join(old)}")
    if pending:
        bundle = "".join(pair["ca"].bundle(wanted)) if pair else ""
        yield StringCommand(scripts.inform(), _stdin=bundle)
    if host.state.is_executing and pair:
        _await_roots(wanted, pair)
    for name in old:
        yield StringCommand(scripts.begin_anew(name, mark))
    if host.state.is_executing and wanted == 1:
        for name in state["workloads"]:
            remote.on(host.name, scripts.rolled_out(name), why=f"waiting for the pods of {name}")
    if not pending and not old:
        host.noop("everyone is told")


def _await_roots(wanted: int, pair: Pairs, seconds: int = 120) -> None:
    """Wait until kube-controller-manager has told all namespaces, by the ConfigMap kube-root-ca.crt."""
    late: list[str] = []
    for _ in range(0, seconds, 2):
        found = host.get_fact(Published)["namespaces"]
        late = [name for name, pems in found.items() if not _reached(pems, wanted, pair)]
        if found and not late:
            return
        gevent.sleep(2)
    raise OperationError(
        f"{host.name}: ConfigMaps kube-root-ca.crt of {', '.join(late) or 'all namespaces'} do not have the CAs on "
        f"disk after {seconds} s. kube-controller-manager writes them; `crictl logs` of it says why. Then run again."
    )


@operation()
def end(topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Forget the old CA: remove both from beside the one in use. What was replaced stays in the directory of renewals.

    + topology: all nodes
    """
    own = host.get_fact(Authorities)
    pair = known(topology)
    done = host.state.is_executing or (pair is not None and rotation.phase(own, pair) == 3)
    if rotation.pairs(own) is None and done:
        host.noop("both CAs are gone from here")
        return
    will(f"remove {ROTATION}, where both CAs were")
    yield StringCommand(f"rm -rf {scripts.MAKING} && mv -T {ROTATION} {scripts.MAKING} && rm -rf {scripts.MAKING}")
