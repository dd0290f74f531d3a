"""The cluster's CAs replaced while it works: what each phase wants of a node, and how far a node is by its files.

In phase 1 the old CA is trusted and the new one too, in phase 2 certificates are the new one's, in phase 3 the old one
is trusted no more (https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/). Between them every node
is trusted by every other: a phase is begun where the one before is whole on all nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cluster.certificates import CONFIGS, KINDS, KUBELET_CLIENT, PKI, PROGRAMS, Kind, Program, work
from cluster.certificates import State as Served

# The cluster's own, that of aggregated API servers, and etcd's; names below kubeadm's directory.
AUTHORITIES = ("ca", "front-proxy-ca", "etcd/ca")
# Both CAs, on every control plane for as long as a rotation is under way: old/ca.crt, new/etcd/ca.key and so on.
ROTATION = f"{PKI}/rotation"
CONTROLLER_MANAGER = f"{CONFIGS}/manifests/kube-controller-manager.yaml"
KUBELET_CONF = f"{CONFIGS}/kubelet.conf"
KUBECONFIGS = tuple(
    f"{CONFIGS}/{name}.conf" for name in ("admin", "super-admin", "controller-manager", "scheduler", "kubelet")
)
PHASES = {
    1: "both CAs are trusted",
    2: "certificates are signed by the new CA",
    3: "the old CA is trusted no more",
}
# A CA's own file for the controller that signs, which takes one certificate and no bundle.
SIGNING = {1: f"{ROTATION}/old/ca", 2: f"{ROTATION}/new/ca", 3: f"{PKI}/ca"}
# What programs read of CAs when they start.
READ: Mapping[Program, tuple[str, ...]] = {
    "etcd": (f"{PKI}/etcd/ca.crt",),
    "kube-apiserver": tuple(f"{PKI}/{name}.crt" for name in AUTHORITIES),
    "kube-controller-manager": (f"{PKI}/ca.crt", f"{PKI}/front-proxy-ca.crt", CONTROLLER_MANAGER),
    "kube-scheduler": (),
}
# kubeadm lets certificates begin so long before they are made, lest clocks differ.
BACKDATED = timedelta(minutes=5)


class State(TypedDict):
    """What the fact `Authorities` says of a host: certificates by file, public keys by the file of their private one,
    when files were changed, and which certificate signs by kube-controller-manager's manifest and where that runs."""

    certificates: dict[str, list[str]]
    keys: dict[str, str]
    changed: dict[str, int]
    signing: str | None
    running: str | None


@dataclass(frozen=True)
class Pair:
    """A CA and the one that takes its place, as PEM."""

    old: str
    new: str

    def bundle(self, phase: int) -> list[str]:
        """What is trusted in a phase; kubeadm signs by the first."""
        return {0: [self.old], 1: [self.old, self.new], 2: [self.new, self.old], 3: [self.new]}[phase]


Pairs = Mapping[str, Pair]


def pairs(state: State) -> Pairs | None:
    """The CAs of a rotation that a control plane holds; None where none is under way."""
    found = {}
    for name in AUTHORITIES:
        old, new = (state["certificates"].get(f"{ROTATION}/{each}/{name}.crt", []) for each in ("old", "new"))
        if len(old) != 1 or len(new) != 1:
            return None
        found[name] = Pair(old[0], new[0])
    return found


def phase(state: State, known: Pairs) -> int | None:
    """The phase that a node is in or has begun, by the files of CAs; None where they are of no phase."""
    found = set()
    for name in AUTHORITIES:
        have = state["certificates"].get(f"{PKI}/{name}.crt")
        if have is not None:
            found.add(next((each for each in range(4) if have == known[name].bundle(each)), None))
    steps = [each for each in found if each is not None]
    if not steps or None in found or max(steps) - min(steps) > 1:
        return None
    return max(steps)


def differs(state: State, wanted: int, known: Pairs, control_plane: bool) -> list[str]:
    """Files of a node that are not as a phase wants them."""
    found = [
        f"{PKI}/{name}.crt"
        for name in AUTHORITIES
        if (have := state["certificates"].get(f"{PKI}/{name}.crt")) is not None and have != known[name].bundle(wanted)
    ]
    data = known["ca"].bundle(wanted)
    found += [path for path in KUBECONFIGS if state["certificates"].get(path, data) != data]
    if control_plane:
        for name in AUTHORITIES:
            signer = known[name].old if wanted < 2 else known[name].new
            if state["keys"].get(f"{PKI}/{name}.key") != public_key(signer):
                found.append(f"{PKI}/{name}.key")
        if state["signing"] != f"{SIGNING[wanted]}.crt":
            found.append(CONTROLLER_MANAGER)
    return found


def signer(kind: Kind) -> str:
    """The CA that signs a certificate."""
    if kind.name.startswith(("etcd-", "apiserver-etcd-")):
        return "etcd/ca"
    return "front-proxy-ca" if kind.name == "front-proxy-client" else "ca"


def signed(pem: str | None, authority: str) -> bool:
    """Whether a certificate is signed by this CA; two of the same name differ by their keys."""
    try:
        x509.load_pem_x509_certificate((pem or "").encode()).verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority.encode())
        )
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def unsigned(served: Served, known: Pairs) -> tuple[Kind, ...]:
    """Certificates of a control plane that are not signed by the new CA."""
    files = served["files"]
    return tuple(
        kind for kind in KINDS if kind.path in files and not signed(files[kind.path]["pem"], known[signer(kind)].new)
    )


def stale(state: State, served: Served, wanted: int) -> tuple[Program, ...]:
    """Programs of a control plane that have read other CAs or certificates than are on its disk, in order."""
    old = set(work(served, 0, frozenset()).stale)
    for program, paths in READ.items():
        started = served["started"].get(program, 0)
        if any(state["changed"].get(path, 0) > started for path in paths):
            old.add(program)
    if state["running"] != f"{SIGNING[wanted]}.crt":
        old.add("kube-controller-manager")
    return tuple(program for program in PROGRAMS if program in old)


def public_key(pem: str) -> str:
    """The public key of a certificate, as OpenSSL prints it. Raises ValueError for what is no certificate."""
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def digest(pem: str) -> str:
    """A short name of a CA, which says nothing but that it is another."""
    return hashlib.sha256(pem.encode()).hexdigest()[:16]


def due(pems: Sequence[str], made_before: datetime | None, within: int, now: datetime) -> bool:
    """Whether a CA is to be replaced: one was made before this moment, or ends within these days."""
    for pem in pems:
        found = x509.load_pem_x509_certificate(pem.encode())
        if found.not_valid_after_utc < now + timedelta(days=within):
            return True
        if made_before and found.not_valid_before_utc + BACKDATED < made_before:
            return True
    return False


def moment(text: object) -> datetime:
    """A date or time in UTC, such as 2026-11-25 or 2026-11-25T18:00:00Z. Raises ValueError."""
    found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def problems(name: str, state: State, control_plane: bool) -> list[str]:
    """Why the CAs of a node cannot be rotated, before anything was begun, in words."""
    found = []
    for each in AUTHORITIES if control_plane else ("ca",):
        path = f"{PKI}/{each}.crt"
        have = state["certificates"].get(path, [])
        if len(have) != 1:
            found.append(
                f"{name}: {path} has {len(have) or 'no'} certificates, and no rotation of this project is under way "
                "there. Leave the CA in it that signs, or end the rotation that was begun by other means."
            )
        elif control_plane and f"{PKI}/{each}.key" not in state["keys"]:
            found.append(
                f"{name}: there is no {PKI}/{each}.key, so the CA is kept elsewhere and cannot be replaced from here. "
                "Replace it where it is kept (docs/certificates.md)."
            )
        elif control_plane and state["keys"][f"{PKI}/{each}.key"] != public_key(have[0]):
            found.append(f"{name}: {PKI}/{each}.key is not the key of {path}. Put the right one back.")
    if KUBELET_CLIENT not in state["certificates"]:
        found.append(
            f"{name}: there is no {KUBELET_CLIENT}, so the kubelet's certificate is one that the cluster does not "
            "renew. Set rotateCertificates for it, or rotate by hand (docs/certificates.md)."
        )
    if control_plane and state["signing"] != f"{PKI}/ca.crt":
        found.append(
            f"{name}: {CONTROLLER_MANAGER} signs by {state['signing'] or 'no file of its own'}, not by {PKI}/ca.crt, "
            "and which CA that is, is not known here. Rotate by hand (docs/certificates.md)."
        )
    return found


def disagreements(states: Mapping[str, State]) -> list[str]:
    """Nodes whose CA is another than that of the first, in words."""
    found = []
    for path in (f"{PKI}/{name}.crt" for name in AUTHORITIES):
        have = {name: state["certificates"][path] for name, state in states.items() if path in state["certificates"]}
        first = next(iter(have), None)
        others = [name for name, pems in have.items() if first and pems != have[first]]
        if others:
            found.append(
                f"{', '.join(others)}: {path} is another than that of {first}, though no rotation is under way. "
                "Nodes of one cluster have one CA: put it back, or take out and join again what is another cluster's."
            )
    return found


def mixed(phases: Mapping[str, int | None]) -> list[str]:
    """Nodes of a rotation under way that no interrupted run leaves so, in words."""
    found = [
        f"{name}: its CAs are neither the old ones, nor the new ones, nor both. Put the files of {PKI} back from "
        f"{ROTATION} of a control plane, or take the node out and join it again."
        for name, each in phases.items()
        if each is None
    ]
    known = {name: each for name, each in phases.items() if each is not None}
    last = max(known.values(), default=0)
    late = [name for name, each in known.items() if each < last - 1]
    if late:
        found.append(
            f"{', '.join(late)}: still as before phase {last - 1}, while others are in phase {last}, so it cannot know "
            "them. Take it out and join it again (docs/nodes.md), then run this once more."
        )
    return found
