"""Hosts that hand the bundle on: their certificates, and pieces fetched from them by the others.

The control machine sends the bundle once. nginx serves the pieces where they lie, over TLS, and the same files as a
registry that can only be read (templates/bundle-server/nginx.conf.j2).
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from pathlib import Path
from urllib.parse import quote

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.endpoint import Endpoint
from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY
from cluster.relay import batches
from cluster.topology import Node
from facts.certificate import Certificate, CertificateState
from facts.file import FileState
from operations import file, remote
from operations.bundle import DATE, Progress, announce, lacking, room
from operations.change import will

DIRECTORY = "/etc/bundle-server"
CERTIFICATE = f"{DIRECTORY}/server.crt"
KEY = f"{DIRECTORY}/server.key"
DAYS = 3650
# Asked for at a time. Each is one command, so that it can be said how far a host is.
BATCH = 128 * 1024 * 1024  # bytes
# Where pieces lie until they are whole and checked; a later run goes on with what is there.
INCOMING = "/var/lib/pyinfra-kubeadm/incoming"
FETCH = Path(__file__).with_name("fetch.sh").read_text()


def url(server: Node, port: int) -> str:
    """Where a server is found."""
    return f"https://{Endpoint(server.address, port)}"


def registry(server: Node, port: int) -> str:
    """Where a runtime finds a server as a registry, without the scheme: one of IPv6 by its name, which /etc/hosts has.

    containerd before 2.0 reads no hosts.toml with a bracket in a table's key.
    """
    return str(Endpoint(server.address if server.address.version == 4 else server.name, port))


@operation()
def certificate(node: Node) -> Generator[StringCommand, None, None]:
    """
    Give a server a key of its own and a certificate that it has signed itself; others are told it over SSH.

    One that is of another address or ends within a month is replaced.

    + node: the server
    """
    found = _state(node)
    if found["state"] == "valid":
        host.noop(f"the certificate for {node.address} is good until {found['not_after']}")
        return
    will(f"make a certificate for {node.address}, good for ten years")
    yield StringCommand(certificate_script(node))


def _state(node: Node) -> CertificateState:
    return remote.shared(node.name, Certificate, path=CERTIFICATE, address=str(node.address))


def certificate_script(node: Node) -> str:
    """Shell that makes a server's key and certificate, and puts them in place when both are whole."""
    name = shlex.quote(node.name)
    return (
        f"umask 077; mkdir -p {DIRECTORY} && cd {DIRECTORY} && openssl req -x509 -newkey ec "
        f"-pkeyopt ec_paramgen_curve:P-256 -nodes -days {DAYS} -subj /CN={name} "
        f"-addext subjectAltName=IP:{node.address},DNS:{name} -keyout server.key.new -out server.crt.new 2>&1 && "
        "chmod 644 server.crt.new && mv -fT server.key.new server.key && mv -fT server.crt.new server.crt"
    )


def certificates(servers: Sequence[Node]) -> dict[str, str]:
    """PEM of each server that has a certificate, by name."""
    states = {node.name: remote.shared(node.name, FileState, path=CERTIFICATE) for node in servers}
    return {name: state["content"] for name, state in states.items() if state and state["content"]}


@operation()
def trust(dest: str, servers: Sequence[Node]) -> Generator[StringCommand, None, None]:
    """
    Have the servers' certificates in one file. While one is yet to be made, a plan says that it is known later.

    + dest: path of the file
    + servers: the hosts that serve the bundle
    """
    found = certificates(servers)
    stay = host.state.is_executing or all(_state(node)["state"] == "valid" for node in servers)
    if stay and len(found) == len(servers):
        yield from file.content._inner(dest=dest, content="".join(found.values()))
        return
    if host.state.is_executing:
        missing = [node.name for node in servers if node.name not in found]
        raise OperationError(f"{host.name}: {_without(missing)}")
    file.announce(dest, "its content is known once the servers have their certificates")
    yield StringCommand("# the servers do not have their certificates yet")


def _without(missing: Sequence[str]) -> str:
    return (
        f"{', '.join(missing)} does not serve the bundle: there is no {CERTIFICATE}. If it has failed above, mend it "
        "first; else run deploys/distribute.py without --limit."
    )


def request(files: Sequence[File]) -> str:
    """A line `sha256  size  path-in-a-URL  path` for each piece."""
    return "".join(f"{file.sha256}  {file.size}  {quote(file.path)}  {file.path}\n" for file in files)


def fetch_script(urls: Sequence[str], target: str, incoming: str) -> str:
    """Shell that fetches pieces from the first of some servers that has them, checks each and puts it in place.

    Standard input holds the servers' certificates, then the lines of `request`. All servers are asked twice, there and
    back: the last may have continued what another had begun wrong.
    """
    set_up = f"target={shlex.quote(target)} incoming={shlex.quote(incoming)} date=@{DATE}"
    return f"{set_up}; set -- {shlex.join([*urls, *reversed(urls)])}\n{FETCH}"


@operation()
def fetch(
    files: Sequence[File], servers: Sequence[Node], port: int, later: Sequence[File] = ()
) -> Generator[StringCommand, None, None]:
    """
    Fetch those pieces of the bundle that the host does not have from hosts that serve it, and check each.

    + files: the pieces, from bundle.lock
    + servers: hosts to ask, in this order
    + port: where they serve
    + later: pieces that will follow, and need room as well
    """
    wanted = lacking(files)
    if not wanted:
        host.noop(f"{len(files)} pieces of the bundle are there")
        return
    announce(wanted, files)
    if not host.state.is_executing:
        yield StringCommand(f"# {len(wanted)} pieces")
        return
    known = certificates(servers)
    if not known:
        raise OperationError(f"{host.name}: {_without([node.name for node in servers])}")
    yield room(wanted, later)
    script = fetch_script([url(node, port) for node in servers if node.name in known], NODE_DIRECTORY, INCOMING)
    progress = Progress(wanted)
    for batch in batches(wanted, BATCH):
        yield StringCommand(script, _stdin="".join(known.values()) + request(batch))
        progress.add(batch)
