"""Certificates of control planes renewed by kubeadm, and what has them restarted until its ports serve them.

What is done is decided by what files and ports say, so that a run which was killed is continued by the next.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypedDict

import yaml
from pyinfra import host, inventory, logger
from pyinfra.api import OperationError, StringCommand, operation

from cluster import certificates
from cluster.certificates import (
    CA,
    CONFIGS,
    KINDS,
    KUBELET,
    OPTIONAL,
    PROGRAMS,
    ROTATED,
    UNFILED,
    Kind,
    Program,
    State,
    Work,
    work,
)
from cluster.endpoint import API_SERVER_PORT
from cluster.kubeadm import api_server_names, certificate_documents, cri_socket, shared_names
from cluster.rotation import ROTATION
from cluster.settings import Settings
from cluster.topology import Node, Topology
from facts.certificate import Certificates
from facts.etcd import ETCDCTL, Members
from facts.kubeadm import ClusterConfig, StoredConfiguration
from facts.kubernetes import kubectl
from operations import remote
from operations.change import will
from operations.kubeadm import own_api, ready
from operations.workload import settled

# What is replaced is kept here, a directory for each time; nothing is ever removed from it.
REPLACED = "/var/lib/pyinfra-kubeadm/replaced-certificates"
LIMIT = 300  # seconds until ports must serve what is on disk
KEEP = (
    f"install -d -m 755 /var/lib/pyinfra-kubeadm && install -d -m 700 {REPLACED} && "
    f'old={REPLACED}/$(date -u +%Y%m%dT%H%M%SZ) && install -d -m 700 "$old" && '
)
STATIC = "--label io.kubernetes.pod.namespace=kube-system"


class Question(TypedDict):
    """The arguments of the fact `Certificates`."""

    ports: tuple[tuple[str, str, str], ...]
    files: tuple[str, ...]


def renew_script(todo: Work) -> str:
    """Shell that sets aside what a control plane has and has kubeadm make and renew certificates.

    Standard input is kubeadm's configuration.
    """
    return renewal([*map(_anew, todo.anew), *(f"renew {kind.name} {kind.path}" for kind in todo.renewed)])


def renewal(calls: Iterable[str]) -> str:
    """Shell that sets aside what there is, then goes through these calls of its functions `k PHASE`, which is kubeadm's
    by the configuration on standard input, and `renew NAME FILE`.

    Files are compared, for `kubeadm certs renew` succeeds too where it has renewed nothing
    (https://github.com/kubernetes/kubernetes/blob/v1.36.2/cmd/kubeadm/app/cmd/certs.go renewCert).
    """
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f'{KEEP}cp -a {CONFIGS}/pki {CONFIGS}/*.conf "$old" && sync -f "$old" && '
        'k() { timeout 120 kubeadm "$@" --config "$f" >/dev/null; } && '
        'renew() { b=$(sha256sum < "$2") && k certs renew "$1" && test "$b" != "$(sha256sum < "$2")" || '
        '{ echo "kubeadm has not renewed $1: is the key of its CA in /etc/kubernetes/pki?" >&2; exit 1; }; } && '
        + " && ".join(calls)
    )


def _anew(kind: Kind) -> str:
    """A certificate made from nothing; the old one is put back when that fails."""
    paths = [kind.path, *([f"{kind.path.removesuffix('.crt')}.key"] if kind.path.endswith(".crt") else [])]
    back = " ".join(
        f'{{ ! test -e "$old{(at := path.removeprefix(CONFIGS))}" || cp -a "$old{at}" {path}; }};' for path in paths
    )
    return f"rm -f {' '.join(paths)} && {{ k init phase {kind.phase} || {{ {back} exit 1; }}; }}"


def restart_script(program: Program) -> str:
    """Shell that ends a static pod, of which the kubelet makes another at once.

    The manifest stays where it is: a run that is killed never leaves a node without it. The container is asked to stop
    first; then the whole pod is removed, for one that stays is restarted with a delay that grows.
    """
    return (
        f"set -- $(crictl ps -q --state Running --name '^{program}$' {STATIC}); "
        'test $# -eq 0 || timeout 90 crictl stop --timeout 30 "$@" >/dev/null; '
        f"set -- $(crictl pods -q {STATIC} --label component={program}); "
        # The kubelet may have removed it already; what comes next waits for the new one.
        'test $# -eq 0 || timeout 90 crictl rmp -f "$@" >/dev/null || true'
    )


def etcd_healthy(seconds: int = 120) -> str:
    """Shell that waits until the etcd member here takes part in its cluster, and fails with its log if it does not."""
    return (
        f"for i in $(seq {seconds}); do timeout 5 {ETCDCTL} endpoint health >/dev/null 2>&1 && exit 0; sleep 1; done; "
        f"echo 'etcd was not healthy within {seconds} s of its restart; its last words:' >&2; "
        f"crictl logs --tail 20 $(crictl ps -aq --name '^etcd$' {STATIC} | head -n 1) >&2; exit 1"
    )


def sick(topology: Topology, node: Node) -> list[str]:
    """Control planes other than this one whose etcd members are not healthy, by the first that can be asked."""
    others = [each for each in topology.control_planes if each != node]
    names = [each.name for each in others]
    for each in remote.reached(others):
        state = inventory.get_host(each.name).get_fact(Members)
        if state["state"] == "running":
            healthy = {member["name"] for member in state["members"] if member["healthy"] and not member["learner"]}
            return [name for name in names if name not in healthy]
    return names


def refusal(topology: Topology, node: Node) -> str | None:
    """Why a control plane's etcd cannot be restarted now, in words, if it cannot."""
    found = sick(topology, node)
    if not found:
        return None
    return (
        f"{node.name}: its etcd is not restarted while that of {' and '.join(found)} is not healthy: the cluster might "
        "lose its quorum. Look there with `crictl ps -a` and `journalctl -u kubelet`, or take out a machine that is "
        "gone (deploys/remove_node.py), then run again."
    )


def check(topology: Topology, node: Node) -> None:
    """See that this control plane's etcd can be restarted now. Raises OperationError."""
    if host.state.is_executing and (found := refusal(joined(topology), node)):
        raise OperationError(found)


def joined(topology: Topology) -> Topology:
    """Without control planes that this run or another is yet to join; with all where the cluster does not answer."""
    known = host.get_fact(ClusterConfig)
    if known["state"] != "initialised":
        return topology
    there = tuple(each for each in topology.control_planes if each.name in known["nodes"])
    return replace(topology, control_planes=there)


@operation()
def renew(
    settings: Settings, topology: Topology, node: Node, question: Question, within: int, together: bool
) -> Generator[StringCommand, None, None]:
    """
    Renew a control plane's certificates on its disk; what they replace is kept in REPLACED.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    + question: the arguments of the fact `Certificates` here
    + within: renew what ends within this many days
    + together: etcd has no quorum, so there is no health to ask for
    """
    todo = work(host.get_fact(Certificates, **question), within, api_server_names(settings, topology, node))
    if not todo.files:
        host.noop("every certificate has its names and time left")
        return
    if todo.anew:
        will(f"make {', '.join(kind.name for kind in todo.anew)} anew")
    if todo.renewed:
        will(f"renew {', '.join(kind.name for kind in todo.renewed)}")
    if not together:
        check(topology, node)
    yield StringCommand(renew_script(todo), _stdin=certificate_documents(settings, topology, node))


@operation()
def restart(
    settings: Settings, topology: Topology, node: Node, question: Question, within: int, together: bool
) -> Generator[StringCommand, None, None]:
    """
    Restart what has other certificates than those on disk, one after the other, and wait until ports serve these.

    + settings: the cluster's settings
    + topology: all of its nodes
    + node: this host
    + question: the arguments of the fact `Certificates` here
    + within: restart too what has made a certificate for itself that ends within this many days
    + together: other control planes must be restarted too before any can work; `prove` waits for them
    """
    todo = work(host.get_fact(Certificates, **question), within, api_server_names(settings, topology, node))
    # What is written before this one runs, is read when it is executed.
    programs = todo.stale if host.state.is_executing else todo.restarts
    if not programs:
        host.noop("every program has the certificates that are on disk")
        return
    will(f"restart {', '.join(programs)}")
    yield from restarted(programs, topology, node, together)
    if not together:
        yield from _proof(node, question)


def restarted(
    programs: tuple[Program, ...], topology: Topology, node: Node, together: bool = False
) -> Generator[StringCommand, None, None]:
    """Restart static pods one after the other, each when the one before works; with `together` wait for none."""
    for program in programs:
        if not together and program == "etcd":
            check(topology, node)
        yield StringCommand(restart_script(program))
        if not together and program == "etcd":
            yield StringCommand(etcd_healthy())
        elif not together and program == "kube-apiserver":
            yield StringCommand(ready(own_api(node)))


@operation()
def prove(node: Node, question: Question) -> Generator[StringCommand, None, None]:
    """
    Wait until a control plane that was restarted without a quorum answers, and its ports serve what is on its disk.

    + node: this host
    + question: the arguments of the fact `Certificates` here
    """
    yield StringCommand(ready(own_api(node), seconds=LIMIT))
    yield from _proof(node, question)


def _proof(node: Node, question: Question) -> Generator[StringCommand, None, None]:
    """Wait for it; commands only where it does not come."""
    if not host.state.is_executing:
        return
    left = settled(lambda: list(work(host.get_fact(Certificates, **question), 0, frozenset()).stale), LIMIT)
    if not left:
        logger.info("%s%s", host.print_prefix, proof(host.get_fact(Certificates, **question)))
        return
    words = (
        f"{node.name}: {', '.join(left)} did not serve the certificates on disk within {LIMIT} s. `crictl ps -a` and "
        "`journalctl -u kubelet` there say why; the ones before are in " + REPLACED + ". Run again to continue."
    )
    yield StringCommand(f"printf '%s\\n' {shlex.quote(words)} >&2; exit 1")


def proof(state: State) -> str:
    """What ports serve, in words."""
    pems = [state["files"][kind.path]["pem"] for kind in KINDS if kind.port]
    end = min(filter(None, map(certificates.ends, pems)))
    ports = ", ".join(sorted(kind.port for kind in KINDS if kind.port))
    return f"ports {ports} serve what is on disk, until {datetime.fromtimestamp(end, UTC):%Y-%m-%d}"


def kubelet_script() -> str:
    """Shell that sets the kubelet's own certificate aside, restarts it, and waits until it has made another."""
    key = f"{KUBELET.removesuffix('.crt')}.key"
    return (
        f'{KEEP}mv {KUBELET} {key} "$old" && {{ timeout 120 systemctl restart kubelet.service && '
        f"for i in $(seq 60); do test -e {KUBELET} && curl -sf --max-time 2 http://127.0.0.1:10248/healthz >/dev/null "
        "&& exit 0; sleep 1; done; journalctl -u kubelet -n 20 --no-pager >&2; exit 1; }"
    )


def on_the_node(settings: Settings, node: Node) -> dict[str, Any]:
    """What the program that renews a control plane's certificates by a timer is made of, for its template."""
    asked = {name: (at, server) for name, at, server in certificates.ports(node, True, True, None)}
    quoted = {name: tuple(map(shlex.quote, filter(None, each))) for name, each in asked.items()}
    return {
        "node": node,
        "api_port": API_SERVER_PORT,
        "cri_socket": cri_socket(settings),
        "etcdctl": ETCDCTL,
        "static": STATIC,
        "ca": CA,
        "rotation": ROTATION,
        "kinds": KINDS,
        "optional": OPTIONAL,
        "programs": PROGRAMS,
        "files": {program: [kind.path for kind in KINDS if kind.program == program] for program in PROGRAMS},
        "unfiled": {program: [quoted[port] for port, own in UNFILED.items() if own == program] for program in PROGRAMS},
        "at": {name: each[0] for name, each in quoted.items()},
        "stored": StoredConfiguration().command(),
        "renewal": renewal(['for each in $todo; do renew "${each%%=*}" "${each#*=}"; done']),
        "restarts": {program: restart_script(program) for program in PROGRAMS},
        "etcd_healthy": etcd_healthy(),
        "api_ready": ready(own_api(node)),
        "limit": LIMIT,
        "replaced": REPLACED,
        "kubelet": KUBELET,
        "rotated": ROTATED,
        "kubelet_script": kubelet_script(),
    }


@operation()
def kubelet(question: Question, within: int) -> Generator[StringCommand, None, None]:
    """
    Have a kubelet that serves by a certificate it has signed itself make another before that ends.

    One that the cluster has signed is renewed by the kubelet. Pods run on while the kubelet is restarted.

    + question: the arguments of the fact `Certificates` here
    + within: when it ends within this many days
    """
    state = host.get_fact(Certificates, **question)
    if not certificates.kubelet_ends(state, within):
        host.noop("the kubelet's certificate has time left")
        return
    will("renew the kubelet's serving certificate", effect="restarts kubelet")
    yield StringCommand(kubelet_script())


@operation()
def share_names(settings: Settings, topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Have the configuration that the cluster keeps for kubeadm ask for the names that API servers' certificates have.

    Nothing else of it is changed. Control planes that join, and upgrades, take it from there.

    + settings: the cluster's settings
    + topology: all of its nodes
    """
    text = host.get_fact(StoredConfiguration)
    wanted = shared_names(settings, topology)
    stored: dict[str, Any] = yaml.safe_load(text) if text else {}
    if text and (stored.get("apiServer") or {}).get("certSANs") == wanted:
        host.noop("the cluster's configuration has these names")
        return
    if text is None:
        if host.state.is_executing:
            raise OperationError(
                f"{host.name}: the API does not show the ConfigMap kubeadm-config; mend it, run again."
            )
        host.noop("no API answers now; the names are looked at when this runs")
        return
    will(f"have {', '.join(wanted)} in kubeadm-config as names of API servers")
    changed = {**stored, "apiServer": {**(stored.get("apiServer") or {}), "certSANs": wanted}}
    patch = yaml.safe_dump({"data": {"ClusterConfiguration": yaml.safe_dump(changed)}})
    yield StringCommand(
        f"{kubectl()} patch configmap kubeadm-config -n kube-system --type=merge --patch-file=/dev/stdin", _stdin=patch
    )
