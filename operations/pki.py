"""The cluster's CA and the administrator's kubeconfig."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

from pyinfra import host, inventory
from pyinfra.api import FunctionCommand, OperationError, StringCommand, operation

from cluster.kubeadm import authority_documents
from cluster.settings import Settings
from cluster.topology import Topology
from facts.file import FileState
from facts.kubeadm import KubeadmNode
from operations import file, remote
from operations.change import will
from operations.kubeadm import with_config

CA = "/etc/kubernetes/pki/ca.crt"
ADMIN = "/etc/kubernetes/admin.conf"


@operation()
def authority(settings: Settings, topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Make the cluster's CA before `kubeadm init` does, which then uses it; a CA that is there is never replaced.

    + settings: the cluster's settings
    + topology: its nodes; a CA on any control plane is the cluster's
    """
    if any(inventory.get_host(n.name).get_fact(KubeadmNode)["ca_cert_hash"] for n in topology.control_planes):
        host.noop("the cluster has a CA")
        return
    will("make the cluster's CA")
    # A key without its certificate is what a killed run leaves; nothing was ever signed by it.
    clean = f"test -e {CA} || rm -f /etc/kubernetes/pki/ca.key; "
    yield StringCommand(
        clean + with_config("kubeadm init phase certs ca", 60) + " >/dev/null",
        _stdin=authority_documents(settings, topology),
    )


@operation()
def trust(dest: str, topology: Topology) -> Generator[StringCommand, None, None]:
    """
    Have the cluster's CA certificate on a host that is not a node. Before there is one, a plan says that it is
    known later.

    + dest: path of the certificate
    + topology: the cluster's nodes
    """
    asked = remote.reached(topology.control_planes)
    states = (inventory.get_host(node.name).get_fact(FileState, path=CA) for node in asked)
    text = next((state["content"] for state in states if state and state["content"]), None)
    if text is not None:
        yield from file.content._inner(dest=dest, content=text)
        return
    if host.state.is_executing:
        raise OperationError(
            f"{host.name}: no control plane has {CA}. If one has failed above, mend it first; else run "
            "deploys/load_balancer.py without --limit, so that the first control plane makes it."
        )
    file.announce(dest, "its content is known once the CA is made")
    yield StringCommand("# the CA is not made yet")


def keep(path: Path, text: str, owner: os.stat_result | None = None) -> None:
    """Write a secret file beside and rename it; its directory is the owner's alone. Root may keep it for another."""
    for parent in reversed(path.parents):  # `parents=True` would give the mode to the last one only
        parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "w") as target:
        if owner and os.geteuid() == 0:
            os.fchown(target.fileno(), owner.st_uid, owner.st_gid)
        target.write(text)
    Path(beside).rename(path)


@operation()
def kubeconfig(dest: str, renewed: bool = False) -> Generator[FunctionCommand, None, None]:
    """
    Keep the administrator's kubeconfig on the control machine, 0600.

    + dest: path on the control machine
    + renewed: an earlier operation of this run makes another
    """
    path = Path(dest)
    remote_state = host.get_fact(FileState, path=ADMIN, secret=True)
    local = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    coming = renewed and not host.state.is_executing
    if remote_state is not None and remote_state["sha256"] == local and not coming:
        host.noop(f"{dest} is the cluster's")
        return
    will(f"write {path.name} of the cluster on the machine that runs this")

    def fetch() -> None:
        keep(path, "\n".join(remote.on(host.name, f"cat {ADMIN}", why="reading the kubeconfig")) + "\n")

    yield FunctionCommand(fetch, (), {})
