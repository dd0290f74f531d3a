"""Kubeconfigs of people, whose private keys are made on the control machine and never leave it.

The cluster signs a request for them. So nobody handles its CA's key, Kubernetes itself refuses the group system:masters
(https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#certificatesubjectrestriction), and no
certificate lasts longer than the cluster lets any. `kubeadm kubeconfig user` makes the key on a control plane, prints
it, and signs whatever it is told.
"""

from __future__ import annotations

import base64
import json
import secrets
import tempfile
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import gevent
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, OperationError, operation
from pyinfra.api.operation import OperationMeta

from cluster import kubeconfigs, users
from cluster.users import User
from facts.file import FileState
from facts.kubernetes import kubectl
from operations import remote
from operations.change import any_changes, will
from operations.pki import CA, keep

KUBECTL = f"{kubectl()} --request-timeout=20s"
SECONDS = 60


@operation()
def kubeconfig(dest: str, user: User, cluster: str, server: str) -> Generator[FunctionCommand, None, None]:
    """
    Keep a user's kubeconfig on the control machine, 0600; made anew before it ends or when it is to be another.

    + dest: path on the control machine
    + user: name, groups and days
    + cluster: the cluster's name
    + server: the API's URL
    """
    state, path = host.get_fact(FileState, path=CA), Path(dest)
    if state is None or state["content"] is None:
        raise OperationError(
            f"{host.name}: has no {CA}, so there is no cluster to sign for {user.name}. Deploy it first."
        )
    ca = state["content"]
    why = "there is none"
    if path.exists():
        why = users.outdated(path.read_text(), user, server, ca, datetime.now(UTC)) or ""
        if not why:
            host.noop(f"{dest} is good")
            return
    will(f"have a certificate signed for {user.name}: {why}")

    def make() -> None:
        private = users.key()
        keep(path, users.kubeconfig(user, cluster, server, ca, _signed(user, private), private))

    yield FunctionCommand(make, (), {})


def _signed(user: User, private: EllipticCurvePrivateKey) -> str:
    """A certificate that the cluster has signed, as PEM; the request is gone from the cluster within a day."""
    name = f"user-{secrets.token_hex(8)}"
    request = json.dumps(users.request(user, private, name))
    remote.on(host.name, f"{KUBECTL} create -f - >/dev/null", request, why=f"asking for a certificate of {user.name}")
    remote.on(host.name, f"{KUBECTL} certificate approve {name} >/dev/null", why=f"approving that of {user.name}")
    for _ in range(SECONDS):
        text = "\n".join(remote.on(host.name, f"{KUBECTL} get csr {name} -o json", why="reading the certificate"))
        if packed := json.loads(text).get("status", {}).get("certificate"):
            return base64.b64decode(packed).decode()
        gevent.sleep(1)
    raise OperationError(
        f"{host.name}: no certificate came for {user.name} within {SECONDS} s; the request is {name}. "
        "`crictl logs` of kube-controller-manager, which signs, says why. Then run again."
    )


@operation()
def merge(into: str, dest: str, cluster: str, after: Sequence[OperationMeta]) -> Generator[FunctionCommand, None, None]:
    """
    Have a kubeconfig's context in a person's own kubeconfig on the control machine; the one of before is kept beside.

    + into: the person's
    + dest: the kubeconfig, on the control machine too
    + cluster: the cluster's name
    + after: operations that make it
    """
    path = Path(into).expanduser().resolve()
    _writable(path)
    if host.state.is_executing or not any_changes(after):
        own, wanted = _merged(path, Path(dest), cluster)
        if own == wanted:
            host.noop(f"{into} has the context")
            return
    will(f"put the context of {dest} into {into}")

    def write() -> None:
        own, wanted = _merged(path, Path(dest), cluster)
        owner = path.stat() if path.exists() else None
        if own:
            keep(path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"), own, owner)
        keep(path, wanted, owner)

    yield FunctionCommand(write, (), {})


def _writable(path: Path) -> None:
    """See that a file can be written beside this one and renamed. Raises OperationError."""
    try:
        with tempfile.TemporaryFile(dir=next(each for each in path.parents if each.exists())):
            pass
    except OSError as error:
        raise OperationError(f"{path} is left as it is: nothing can be written beside it: {error.strerror}") from None


def _merged(path: Path, added: Path, cluster: str) -> tuple[str, str]:
    """A person's kubeconfig as it is and with the added one."""
    try:
        own = path.read_text() if path.exists() else ""
        return own, kubeconfigs.merged(own, added.read_text(), cluster)
    except (kubeconfigs.MergeError, OSError, UnicodeDecodeError) as error:
        raise OperationError(f"{path} is left as it is: {error}") from None


@operation()
def tell(dest: str) -> Generator[str, None, None]:
    """
    Say until when a kubeconfig on the control machine lets in, and what it is.

    + dest: its path
    """
    if host.state.is_executing:
        found = users.certificate(Path(dest).read_text())
        left = (found.not_valid_after_utc - datetime.now(UTC)).days
        who = found.subject.rfc4514_string()
        logger.info(f"{host.print_prefix}{dest}: {who}, until {found.not_valid_after_utc:%Y-%m-%d} ({left} days)")
    host.noop("said")
    return
    yield
