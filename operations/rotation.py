"""The CAs of a cluster replaced, one node and one phase at a time (cluster/rotation.py).

What is done is decided by the files of each node and by what its programs have read, so that a run which was killed is
continued by the next. Files are written beside and renamed, and only where they differ.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator

import gevent
import yaml
from pyinfra import host, inventory, logger
from pyinfra.api import OperationError, StringCommand, operation

from cluster import rotation
from cluster.certificates import CA, CONFIGS, HAPROXY_CA, KUBELET_CLIENT, PKI, PROGRAMS, ROTATED, Program, Work
from cluster.endpoint import Endpoint
from cluster.kubeadm import certificate_documents
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBECONFIGS, KUBELET_CONF, ROTATION, SIGNING, Pairs
from cluster.settings import Settings
from cluster.topology import Node, Topology
from facts.authority import MARK, Authorities, Published
from facts.certificate import Certificates
from facts.kubernetes import kubectl
from facts.service import Unit
from operations import file, remote
from operations.certificates import LIMIT, Question, check, renew_script, restarted
from operations.change import will
from operations.kubeadm import answers
from operations.workload import settled

MAKING = f"{PKI}/.rotation"
KUBECTL = f"{kubectl()} --request-timeout=20s"
# What a kubelet reads when it starts; one that is older is restarted.
KUBELET_READS = (CA, KUBELET_CONF, KUBELET_CLIENT)
HEALTHY = (
    "for i in $(seq 60); do curl -sf --max-time 2 http://127.0.0.1:10248/healthz >/dev/null && exit 0; sleep 1; done; "
    "journalctl -u kubelet -n 20 --no-pager >&2; exit 1"
)


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


def begin_script() -> str:
    """Shell that has kubeadm make new CAs, and puts them beside the old ones; standard input is its configuration."""
    copies = " && ".join(f"cp -p {PKI}/{name}.crt {PKI}/{name}.key {_parent('old', name)}" for name in AUTHORITIES)
    phases = " && ".join(
        f'timeout 120 kubeadm init phase certs {each} --config "$f" >/dev/null'
        for each in ("ca", "front-proxy-ca", "etcd-ca")
    )
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f"rm -rf {MAKING} && mkdir -p {MAKING}/old/etcd {MAKING}/new/etcd && {copies} && {phases} && "
        f"sync -f {MAKING} && mv -T {MAKING} {ROTATION}"
    )


def _parent(which: str, name: str) -> str:
    return f"{MAKING}/{which}/{name}".rpartition("/")[0]


def begin_documents(settings: Settings, topology: Topology, node: Node) -> str:
    """kubeadm's configuration with another directory for what it makes."""
    documents = list(yaml.safe_load_all(certificate_documents(settings, topology, node)))
    for each in documents:
        if each["kind"] == "ClusterConfiguration":
            each["certificatesDir"] = f"{MAKING}/new"
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


SEND = f"tar -C {ROTATION} -c old new | base64 -w 76"
WHOLE = " && ".join(
    f"test -s {MAKING}/{which}/{name}.{suffix}"
    for which in ("old", "new")
    for name in AUTHORITIES
    for suffix in ("crt", "key")
)
RECEIVE = (
    f"umask 077; rm -rf {MAKING} && mkdir {MAKING} && base64 -d > {MAKING}/tar && "
    f"tar -C {MAKING} -x -f {MAKING}/tar && rm {MAKING}/tar && {WHOLE} && sync -f {MAKING} && mv -T {MAKING} {ROTATION}"
)
# `put MODE DEST` writes standard input beside a file and renames it, where that differs. A name that begins with a dot
# is none of a static pod's.
PUT = (
    'put() { t="${2%/*}/.${2##*/}.rotation"; cat > "$t" && chmod "$1" "$t" && sync "$t" && '
    '{ cmp -s "$t" "$2" && rm -f "$t" || mv -fT "$t" "$2"; }; }; '
)


def lay_script(wanted: int) -> str:
    """Shell that gives a control plane's files the CAs of a phase."""
    order = {1: ("old", "new"), 2: ("new", "old"), 3: ("new",)}[wanted]
    signer = "old" if wanted < 2 else "new"
    parts = []
    for name in AUTHORITIES:
        bundle = " ".join(f"{ROTATION}/{each}/{name}.crt" for each in order)
        parts.append(f"put 600 {PKI}/{name}.key < {ROTATION}/{signer}/{name}.key")
        parts.append(f"cat {bundle} | put 644 {PKI}/{name}.crt")
    # Written elsewhere first: the kubelet reads what is in the directory of manifests.
    edited = f"{CONFIGS}/.manifest"
    manifest = (
        f"sed -E 's#(--cluster-signing-cert-file=).*#\\1{SIGNING[wanted]}.crt#; "
        f"s#(--cluster-signing-key-file=).*#\\1{SIGNING[wanted]}.key#' {CONTROLLER_MANAGER} > {edited} && "
        f"{{ cmp -s {edited} {CONTROLLER_MANAGER} && rm {edited} || {{ chmod 600 {edited} && sync {edited} && "
        f"mv -fT {edited} {CONTROLLER_MANAGER}; }}; }}"
    )
    return f"umask 077; {PUT}{' && '.join(parts)} && {_kubeconfigs()} && {manifest}"


def lay_worker_script() -> str:
    """Shell that gives a worker's files the CAs of standard input."""
    return f"umask 077; {PUT}put 644 {PKI}/ca.crt && {_kubeconfigs()}"


def _kubeconfigs() -> str:
    """Shell that has the kubeconfigs that are here trust what ca.crt has."""
    return (
        f'b=$(base64 -w 0 < {PKI}/ca.crt) && for f in {" ".join(KUBECONFIGS)}; do test -e "$f" || continue; '
        'sed -E "s#^( *certificate-authority-data: *).*#\\1$b#" "$f" | put 600 "$f" || exit 1; done'
    )


def client_script(node: Node) -> str:
    """Shell that gets the kubelet a certificate of the new CA, which is standard input, and restarts it with that.

    The kubelet's own right to ask is used, which the cluster approves by itself, and the key does not leave the node
    (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
    """
    directory = KUBELET_CLIENT.rpartition("/")[0]
    kubelet = f"kubectl --kubeconfig {KUBELET_CONF} --request-timeout=10s"
    request = json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "NAME"},
            "spec": {
                "request": "REQUEST", "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["digital signature", "key encipherment", "client auth"],
            },
        }
    )  # fmt: skip
    return (
        f"umask 077; w=$(mktemp -d {directory}/.rotation.XXXXXXXX) && trap 'rm -rf \"$w\"' EXIT && cat > $w/ca && "
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $w/key "
        f"-subj '/O=system:nodes/CN=system:node:{node.name}' -out $w/csr 2>/dev/null && "
        "n=node-csr-rotation-$(sha256sum < $w/csr | cut -c 1-16) && r=$(base64 -w 0 < $w/csr) && "
        f'echo {shlex.quote(request)} | sed "s#REQUEST#$r#; s#NAME#$n#" | '
        f"{kubelet} create --validate=false -f - >/dev/null && "
        f"for i in $(seq 60); do {kubelet} get csr $n -o 'jsonpath={{.status.certificate}}' 2>/dev/null | base64 -d "
        "> $w/crt; test -s $w/crt && break; sleep 1; done && "
        "{ openssl verify -CAfile $w/ca $w/crt >/dev/null || { "
        f"echo '{node.name}: no certificate of the new CA came for the kubelet; crictl logs of "
        "kube-controller-manager, which signs, says why' >&2; exit 1; }; } && "
        f"d={directory}/kubelet-client-$(date -u +%Y-%m-%d-%H-%M-%S).pem && cat $w/crt $w/key > $w/pem && "
        f"sync $w/pem && mv -fT $w/pem $d && ln -s $d $w/link && mv -fT $w/link {KUBELET_CLIENT} && "
        f"rm -f {ROTATED} && timeout 120 systemctl restart kubelet.service && {HEALTHY}"
    )


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
    yield StringCommand(begin_script(), _stdin=begin_documents(settings, topology, node))


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
        text = "\n".join(remote.on(holder.name, SEND, why="reading both CAs")) + "\n"
    yield StringCommand(RECEIVE, _stdin=text)


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
    yield StringCommand(lay_script(wanted))
    if wanted == 2:
        documents = certificate_documents(settings, topology, node)
        if renewed or not host.state.is_executing:
            yield StringCommand(renew_script(Work(renewed=renewed)), _stdin=documents)
        # kubeadm has kubeconfigs that it renews trust the CA alone that it has signed by.
        yield StringCommand(lay_script(wanted))


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
    yield StringCommand(lay_worker_script(), _stdin="".join(pair["ca"].bundle(wanted)) if pair else "")


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
        yield StringCommand(client_script(node), _stdin=pair["ca"].new if pair else "")
    elif rotation.phase(state, pair) == 2 and host.get_fact(Unit, unit="kubelet.service", files=KUBELET_READS)["stale"]:
        will("restart kubelet.service")
        yield StringCommand(f"timeout 120 systemctl restart kubelet.service && {HEALTHY}")
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
        yield StringCommand(inform_script(), _stdin=bundle)
    if host.state.is_executing and pair:
        _await_roots(wanted, pair)
    for name in old:
        yield StringCommand(begin_anew(name, mark))
    if host.state.is_executing and wanted == 1:
        for name in state["workloads"]:
            remote.on(host.name, rolled_out(name), why=f"waiting for the pods of {name}")
    if not pending and not old:
        host.noop("everyone is told")


def inform_script() -> str:
    """Shell that has the ConfigMap cluster-info, by which nodes join, tell of the CAs of standard input."""
    return (
        f"b=$(base64 -w 0) && c=$({KUBECTL} get configmap cluster-info -n kube-public "
        "-o jsonpath='{.data.kubeconfig}') && { printf 'data:\\n  kubeconfig: |\\n' && echo \"$c\" | "
        'sed -E "s#^( *certificate-authority-data: *).*#\\1$b#; s#^#    #"; } | '
        f"{KUBECTL} patch configmap cluster-info -n kube-public --type=merge --patch-file=/dev/stdin >/dev/null"
    )


def begin_anew(workload: str, mark: str) -> str:
    """Shell that has a workload's pods begun anew, by its strategy."""
    namespace, name = workload.split()
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": {MARK: mark}}}}})
    return f"{KUBECTL} patch -n {namespace} {name} --type=merge -p {shlex.quote(patch)} >/dev/null"


def rolled_out(workload: str, seconds: int = 300) -> str:
    """Shell that waits until a workload's pods are those of its template."""
    namespace, name = workload.split()
    return f"{kubectl()} rollout status -n {namespace} {name} --timeout={seconds}s"


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
    yield StringCommand(f"rm -rf {MAKING} && mv -T {ROTATION} {MAKING} && rm -rf {MAKING}")
