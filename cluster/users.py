"""People who use the cluster: what they may be called, their requests for a certificate, and their kubeconfigs."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.compatibility import parse

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._@]{0,62}[A-Za-z0-9])?")
# https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
SIGNER = "kubernetes.io/kube-apiserver-client"
# A request says for how long from this minor on (https://github.com/kubernetes/kubernetes/pull/99494).
EXPIRATION = "1.22"
DAYS, LONGEST = 30, 365


@dataclass(frozen=True)
class User:
    """A person's name and groups, as Kubernetes will know them, and for how many days; None: as the cluster has it."""

    name: str
    groups: tuple[str, ...]
    days: int | None


class UserError(ValueError):
    """What was asked for cannot be, all of it in one message."""


def user(name: object, groups: object, days: object, kubernetes_version: str) -> User:
    """A user as `--data` names one. Raises UserError with every problem."""
    found = []
    if not isinstance(name, str) or not NAME.fullmatch(name):
        found.append(f"user: must be letters, digits, '-', '.', '_' and '@', 64 at most, not {name!r}.")
    listed = [str(each).strip() for each in (groups if isinstance(groups, list) else str(groups or "").split(","))]
    listed = [each for each in dict.fromkeys(listed) if each]
    for each in listed:
        if each == "system:masters":
            found.append(
                "groups: whoever is in system:masters may do everything for as long as the certificate lasts, and no "
                "RBAC takes it away. Name a group of your own and bind it to the ClusterRole cluster-admin."
            )
        elif not NAME.fullmatch(each):
            found.append(f"groups: {each!r} is no name of a group: letters, digits, '-', '.', '_' and '@'.")
    old = parse(kubernetes_version) < parse(EXPIRATION)
    if old and days is not None:
        found.append(f"days: a request says for how long from Kubernetes {EXPIRATION} on. Leave it out.")
    elif days is not None and (isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= LONGEST):
        found.append(f"days: must be from 1 to {LONGEST}, not {days!r}: a certificate cannot be taken back.")
    if found:
        lines = "\n".join(f"  - {line}" for line in found)
        raise UserError(f"There can be no such user; nothing was changed on any host:\n{lines}")
    return User(str(name), tuple(listed), None if old else days if isinstance(days, int) else DAYS)


def key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def request(user: User, private: ec.EllipticCurvePrivateKey, name: str) -> dict[str, Any]:
    """The CertificateSigningRequest of a user, by this name."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in user.groups]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user.name))
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).sign(private, hashes.SHA256())
    pem = asked.public_bytes(serialization.Encoding.PEM)
    seconds = {} if user.days is None else {"expirationSeconds": int(timedelta(days=user.days).total_seconds())}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(), "signerName": SIGNER, "usages": ["client auth"], **seconds,
        },
    }  # fmt: skip


def kubeconfig(
    user: User, cluster: str, server: str, ca: str, certificate: str, private: ec.EllipticCurvePrivateKey
) -> str:
    """A kubeconfig of one context, `USER@CLUSTER`; holds the private key."""
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = f"{user.name}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": _packed(ca)}}],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _packed(certificate),
                    "client-key-data": base64.b64encode(pem).decode(),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": context}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def certificate(text: str) -> x509.Certificate:
    """The client certificate of the first user in a kubeconfig. Raises ValueError where there is none."""
    try:
        (first, *_) = yaml.safe_load(text)["users"]
        return x509.load_pem_x509_certificate(base64.b64decode(first["user"]["client-certificate-data"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no kubeconfig with a client certificate: {error}") from None


def outdated(text: str, user: User, server: str, ca: str, now: datetime) -> str | None:
    """Why a user's kubeconfig is to be made anew, in words; None while it is good.

    One is renewed when a third of its time is left, and when its groups, its time, the CA or the endpoint are others.
    """
    try:
        found = certificate(text)
        cluster = yaml.safe_load(text)["clusters"][0]["cluster"]
    except (ValueError, KeyError, TypeError, IndexError):
        return "it cannot be read"
    start, end = found.not_valid_before_utc, found.not_valid_after_utc
    groups = {str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)}
    if cluster != {"server": server, "certificate-authority-data": _packed(ca)}:
        return "it is of another CA or endpoint"
    if groups != set(user.groups):
        return f"its groups are {', '.join(sorted(groups)) or 'none'}"
    # The cluster lets a certificate begin some minutes before it was asked for.
    lasts = round((end - start) / timedelta(days=1))
    if user.days not in (None, lasts):
        return f"it is for {lasts} days"
    if end - now < (end - start) / 3:
        return f"it ends on {end:%Y-%m-%d}"
    return None
