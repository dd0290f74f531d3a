"""The certificates of a cluster: which there are, what is wrong with them, and what would put it right.

kubeadm's: https://kubernetes.io/docs/setup/best-practices/certificates/ and
https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-certs/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

from cryptography import x509
from cryptography.x509.oid import NameOID

from cluster.endpoint import API_SERVER_PORT, Endpoint
from cluster.topology import Node

PKI, CONFIGS = "/etc/kubernetes/pki", "/etc/kubernetes"
CA = f"{PKI}/ca.crt"
API_SERVER = f"{PKI}/apiserver.crt"
ADMIN = f"{CONFIGS}/admin.conf"
KUBELET, ROTATED = "/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet-server-current.pem"
KUBELET_CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
BUNDLE_SERVER, HAPROXY_CA = "/etc/bundle-server/server.crt", "/etc/haproxy/kubernetes-ca.crt"
DAY = 24 * 60 * 60
Program = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
ETCD = (f"{PKI}/etcd/server.crt", f"{PKI}/etcd/peer.crt")
# In the order in which they are restarted: each needs those before it.
PROGRAMS: tuple[Program, ...] = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Kind:
    """A certificate that kubeadm makes on a control plane.

    `name` is that of `kubeadm certs renew`, `phase` what makes it anew under `kubeadm init phase`, `program` the static
    pod that has it, `port` where that serves it.
    """

    path: str
    name: str
    phase: str
    program: Program | None = None
    port: str | None = None


KINDS = (
    Kind(API_SERVER, "apiserver", "certs apiserver", "kube-apiserver", "6443"),
    Kind(
        f"{PKI}/apiserver-kubelet-client.crt",
        "apiserver-kubelet-client", "certs apiserver-kubelet-client", "kube-apiserver",
    ),
    Kind(f"{PKI}/apiserver-etcd-client.crt", "apiserver-etcd-client", "certs apiserver-etcd-client", "kube-apiserver"),
    Kind(f"{PKI}/front-proxy-client.crt", "front-proxy-client", "certs front-proxy-client", "kube-apiserver"),
    Kind(f"{PKI}/etcd/server.crt", "etcd-server", "certs etcd-server", "etcd", "2379"),
    Kind(f"{PKI}/etcd/peer.crt", "etcd-peer", "certs etcd-peer", "etcd", "2380"),
    Kind(f"{PKI}/etcd/healthcheck-client.crt", "etcd-healthcheck-client", "certs etcd-healthcheck-client"),
    Kind(ADMIN, "admin.conf", "kubeconfig admin"),
    # Of the node on which `init` ran, from Kubernetes 1.29 on.
    Kind(f"{CONFIGS}/super-admin.conf", "super-admin.conf", "kubeconfig super-admin"),
    Kind(
        f"{CONFIGS}/controller-manager.conf",
        "controller-manager.conf", "kubeconfig controller-manager", "kube-controller-manager",
    ),
    Kind(f"{CONFIGS}/scheduler.conf", "scheduler.conf", "kubeconfig scheduler", "kube-scheduler"),
)  # fmt: skip
OPTIONAL = {f"{CONFIGS}/super-admin.conf"}
BY_PATH = {kind.path: kind for kind in KINDS}
# Certificates that programs make for themselves when they start, and have in no file.
LOOPBACK = "6443 loopback"
UNFILED: dict[str, Program] = {
    LOOPBACK: "kube-apiserver", "10257": "kube-controller-manager", "10259": "kube-scheduler",
}  # fmt: skip
# The certificate by which kube-apiserver asks itself, served to whoever asks for this name. Once it has ended, the API
# server does not work until it is restarted (https://github.com/kubernetes/kubernetes/issues/86552).
LOOPBACK_NAME = "apiserver-loopback-client"
RENEW = "deploys/renew_certificates.py renews it."
RESTART = "deploys/renew_certificates.py restarts what has the old one."


class File(TypedDict):
    """A certificate in a file: when that was written, the certificate if it can be read, and whether its key fits."""

    changed: int
    pem: str | None
    paired: bool


class State(TypedDict):
    """What the fact `Certificates` says of a host; times are in seconds since 1970."""

    now: int
    files: dict[str, File]
    ports: dict[str, str | None]
    started: dict[str, int]


def ports(node: Node, control_plane: bool, kubelet: bool, bundle_port: int | None) -> tuple[tuple[str, str, str], ...]:
    """Where a host is asked what it serves: name, address and port, and the server's name to ask for."""
    own = {name: str(Endpoint(node.address, int(name))) for name in ("6443", "2379", "2380", "10250")}
    found: list[tuple[str, str, str]] = []
    if control_plane:
        found += [("6443", own["6443"], ""), (LOOPBACK, own[str(API_SERVER_PORT)], LOOPBACK_NAME)]
        found += [("2379", own["2379"], ""), ("2380", own["2380"], "")]
        found += [(name, f"127.0.0.1:{name}", "") for name in ("10257", "10259")]
    if kubelet:
        found.append(("10250", own["10250"], ""))
    if bundle_port:
        found.append((str(bundle_port), str(Endpoint(node.address, bundle_port)), ""))
    return tuple(found)


def loaded(pem: str | None) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode()) if pem else None
    except ValueError:
        return None


def common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def ends(pem: str | None) -> int | None:
    """When a certificate ends, in seconds since 1970; None for what is none."""
    found = loaded(pem)
    return int(found.not_valid_after_utc.timestamp()) if found else None


def days(pem: str | None, now: int) -> int:
    """Whole days that a certificate still has, negative once it has ended; of what is none, none."""
    end = ends(pem)
    return -1 if end is None else (end - now) // DAY


def names(pem: str | None) -> frozenset[str]:
    """Names and addresses that a certificate is for."""
    found = loaded(pem)
    try:
        san = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value if found else None
    except x509.ExtensionNotFound:
        san = None
    return frozenset(str(each.value) for each in san or ())


def served_by(path: str, bundle_port: str) -> str | None:
    """The port that serves the certificate of a file."""
    own = {KUBELET: "10250", ROTATED: "10250", BUNDLE_SERVER: bundle_port}
    kind = BY_PATH.get(path)
    return kind.port if kind else own.get(path)


Use = Literal["yes", "no", "silent", "-"]


def use(state: State, path: str, bundle_port: str = "") -> Use:
    """Whether the certificate of a file is the one in use: by what its port serves, or by when its program started.

    "silent": the port shows none; "-": nothing holds it, it is read each time.
    """
    file, port = state["files"][path], served_by(path, bundle_port)
    if port is not None and port in state["ports"]:
        served = state["ports"][port]
        return "silent" if served is None else "yes" if loaded(served) == loaded(file["pem"]) else "no"
    kind = BY_PATH.get(path)
    if kind is None or kind.program is None:
        return "-"
    started = state["started"].get(kind.program)
    return "silent" if started is None else "yes" if started >= file["changed"] else "no"


@dataclass(frozen=True)
class Work:
    """What of a control plane's certificates is to be done: made anew, renewed, and programs to restart as they are."""

    anew: tuple[Kind, ...] = ()
    renewed: tuple[Kind, ...] = ()
    stale: tuple[Program, ...] = ()

    @property
    def files(self) -> tuple[Kind, ...]:
        """All certificates that are written."""
        return (*self.anew, *self.renewed)

    @property
    def restarts(self) -> tuple[Program, ...]:
        """Programs that are restarted once that is done, in order."""
        after = {kind.program for kind in self.files}
        return tuple(program for program in PROGRAMS if program in self.stale or program in after)


def work(state: State, within: int, wanted_names: frozenset[str]) -> Work:
    """What to do on a control plane, by what its files and ports say.

    Made anew is what cannot be read or is not there, and an API server's certificate for other names than
    `wanted_names`: a renewal keeps the names that there are. Renewed is what ends `within` days, and a certificate
    whose key is another's, as a kubeadm that was killed leaves it.
    """
    files = state["files"]
    anew, renewed = [], []
    for kind in KINDS:
        file = files.get(kind.path)
        if file is None or file["pem"] is None:
            if file is not None or kind.path not in OPTIONAL:
                anew.append(kind)
        elif kind.path == API_SERVER and names(file["pem"]) != wanted_names:
            anew.append(kind)
        elif days(file["pem"], state["now"]) < within or not file["paired"]:
            renewed.append(kind)
    old = {kind.program for kind in KINDS if kind.program and kind.path in files and _stale(state, kind.path)}
    old |= {
        program for port, program in UNFILED.items() if port in state["ports"] and _unfiled_ends(state, port, within)
    }
    return Work(tuple(anew), tuple(renewed), tuple(program for program in PROGRAMS if program in old))


def _stale(state: State, path: str) -> bool:
    """Whether the program of a certificate is to be restarted: it has another, or may have read this one only in part.

    kube-apiserver and etcd read some of theirs again by themselves. kubeadm's documentation asks for a restart all the
    same, and what is announced must not depend on who is quicker.
    """
    kind = BY_PATH[path]
    older = kind.program is not None and state["started"].get(kind.program, 0) < state["files"][path]["changed"]
    return older or use(state, path) in ("no", "silent")


def _unfiled_ends(state: State, port: str, within: int) -> bool:
    """Whether a program is to be restarted for the certificate that it has in no file; one is made at each start."""
    return days(state["ports"][port], state["now"]) < within


def kubelet_ends(state: State, within: int) -> bool:
    """Whether the certificate that a kubelet has signed itself ends within these days, or is not what it serves."""
    file = state["files"].get(KUBELET)
    return file is not None and (days(file["pem"], state["now"]) < within or use(state, KUBELET) == "no")


def ended(state: State) -> bool:
    """Whether certificates with which a control plane's etcd works have ended, on disk or as they are served."""
    pems = [state["files"][path]["pem"] for path in ETCD if path in state["files"]]
    pems += [state["ports"].get(port) for port in ("2379", "2380")]
    return any(pem and days(pem, state["now"]) < 0 for pem in pems)


def down(states: Iterable[State], members: int) -> bool:
    """Whether certificates of etcd have ended on so many of these control planes that its members have no quorum."""
    return sum(map(ended, states)) > members - (members // 2 + 1)
