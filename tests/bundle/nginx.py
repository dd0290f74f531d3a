"""A host that serves the bundle: nginx with the project's own configuration and certificate, on loopback.

with nginx.serve(tmp_path / "lb1", bundle) as server:
    ... f"{server.url}/pieces/bin/kubelet", trusting server.certificate ...
    assert server.seen == [Seen("127.0.0.1", "GET", "/pieces/bin/kubelet", "", 200, 400)]
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import servers

from bundle.oci import MANIFEST
from cluster.lock import Lock
from cluster.pieces import by_registry
from cluster.settings import load
from cluster.topology import Node
from deploys.plan import TEMPLATES
from operations import bundle_server

LOOPBACK = IPv4Address("127.0.0.1")
LOG = "$remote_addr\t$request_method\t$request_uri\t$http_range\t$status\t$body_bytes_sent\t$http_user_agent"


class Seen(NamedTuple):
    """A request as nginx has logged it; `range` is empty where the client sent none, `sent` is bytes of the body."""

    client: str
    method: str
    path: str
    range: str
    status: int
    sent: int


@dataclass
class Server:
    """A server of a directory of pieces, running or stopped; `certificate` is its PEM text."""

    directory: Path
    config: str
    port: int
    certificate: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return bundle_server.url(Node("", LOOPBACK), self.port)

    def start(self, slowly: bool = False) -> None:
        """Start it; slowly, it sends 200 kB of a file in a second."""
        text = self.config.replace("sendfile on;", "limit_rate 200k;") if slowly else self.config
        path = self.directory / "nginx.conf"
        path.write_text(text)
        # As the service does. Workers of another user could not read the tests' directories.
        words = "daemon off;" if os.geteuid() else "daemon off; user root;"
        with (self.directory / "errors").open("wb") as errors:
            self.process = subprocess.Popen(["nginx", "-c", path, "-g", words], stderr=errors)
        servers.wait_for_port(self.port)

    def cut(self) -> None:
        """Break all connections; new ones are taken at once."""
        assert self.process is not None
        own = self.process.pid
        for worker in Path(f"/proc/{own}/task/{own}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def _lines(self) -> list[list[str]]:
        return [line.split("\t") for line in (self.directory / "log").read_text().splitlines()]

    @property
    def seen(self) -> list[Seen]:
        """What it was asked for so far; a request is logged when it has ended."""
        return [
            Seen(client, method, path, asked.removeprefix("-"), int(status), int(sent))
            for client, method, path, asked, status, sent, _ in self._lines()
        ]

    @property
    def pieces(self) -> list[Seen]:
        """Requests for pieces alone."""
        return [row for row in self.seen if row.path.startswith("/pieces/")]

    @property
    def programs(self) -> set[str]:
        """The programs that have asked, as they call themselves."""
        return {row[6].split("/")[0] for row in self._lines()}


def make_certificate(directory: Path, node: Node) -> str:
    """Have a server's key and certificate made in a directory; the certificate's PEM text."""
    command = bundle_server.certificate_script(node).replace(bundle_server.DIRECTORY, str(directory))
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    return (directory / "server.crt").read_text()


def configuration(directory: Path, bundle: Path, port: int, lock: Lock | None, clients: Sequence[Node]) -> str:
    """The configuration of deploys/distribute.py, with the certificate, the log and the process's id in a directory."""
    text = TEMPLATES.get_template("bundle-server/nginx.conf.j2").render(
        settings=load({"vip": "127.0.0.100", "bundle_port": port}),
        certificate=directory / "server.crt",
        key=directory / "server.key",
        directory=bundle,
        node=Node("lb1", LOOPBACK),
        clients=clients,
        images=by_registry(lock) if lock else [],
        media_type=MANIFEST,
    )
    for product, here in {
        "pid /run/bundle-server.pid;": f"pid {directory}/pid;",
        "access_log off;": f"log_format seen '{LOG}'; access_log {directory}/log seen;",
    }.items():
        assert text.count(product) == 1
        text = text.replace(product, here)
    return text


@contextmanager
def serve(directory: Path, bundle: Path, lock: Lock | None = None, certified: str = "127.0.0.1") -> Iterator[Server]:
    """A running server of a bundle's directory for clients of 127.0.0.1; its certificate may be for another address."""
    directory.mkdir()
    port = servers.free_port()
    certificate = make_certificate(directory, Node("lb1", IPv4Address(certified)))
    config = configuration(directory, bundle, port, lock, [Node("w1", LOOPBACK)])
    server = Server(directory, config, port, certificate)
    try:
        server.start()
        (directory / "log").write_text("")
        yield server
    finally:
        server.stop()
