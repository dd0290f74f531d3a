"""Real servers on loopback, with certificates of their own, that can be told to fail.

    with servers.serve(directory, certificates.server) as server:
        server.fault("/kubelet", servers.cut(1000), times=1)
        ... server.url + "/kubelet" ...
        assert server.ranges("/kubelet") == ["", "bytes=1000-"]

The fixtures `certificates`, `server` and `trusted` are in conftest.py.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

ALWAYS = 1_000_000
_HELD: list[socket.socket] = []
# What a handler does in place of an answer; it gets the file's bytes, or None when there is no such file.
Fault = Callable[["_Handler", bytes | None], None]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """A CA, and certificates for 127.0.0.1: a good one, one that has expired, and one of a CA that nobody knows."""

    ca: Path
    server: Pair
    expired: Pair
    unknown: Pair


@dataclass(frozen=True)
class Request:
    """What a client has asked for. `range` and `authorization` are empty where the header was not sent."""

    path: str
    range: str
    authorization: str


@dataclass
class Server:
    """A running server of a directory's files. `address` is host:port, `url` the same with its scheme."""

    root: Path
    address: str
    url: str
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    _faults: dict[str, tuple[Fault, int]] = field(default_factory=dict)

    def fault(self, path: str, fault: Fault, times: int = ALWAYS) -> None:
        """Let the next so many requests for a path fail like this."""
        self._faults[path] = (fault, times)

    def mend(self) -> None:
        """Serve every path rightly again."""
        self._faults.clear()

    def ranges(self, path: str) -> list[str]:
        """The Range header of each request for a path."""
        return [request.range for request in self.requests if request.path == path]

    def due(self, path: str) -> Fault | None:
        """The fault that this request meets."""
        fault, times = self._faults.get(path, (None, 0))
        if fault is not None and times > 0:
            self._faults[path] = (fault, times - 1)
            return fault
        return None


def cut(after: int) -> Fault:
    """Say the right length, and break the connection after so many bytes of the body."""

    def fault(handler: _Handler, data: bytes | None) -> None:
        body = handler.begin(data or b"")
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    return fault


def stall(after: int) -> Fault:
    """Say nothing more after so many bytes of the body, until the server ends."""

    def fault(handler: _Handler, data: bytes | None) -> None:
        body = handler.begin(data or b"")
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        handler.owner.over.wait()

    return fault


def wrong_length(length: int) -> Fault:
    """Send the whole file and say that it has another length."""
    return lambda handler, data: handler.answer(200, data or b"", {"Content-Length": str(length)})


def no_length(after: int) -> Fault:
    """Send so many bytes, and neither a length nor a mark of the end."""

    def fault(handler: _Handler, data: bytes | None) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write((data or b"")[:after])

    return fault


def no_ranges(handler: _Handler, data: bytes | None) -> None:
    """Answer with the whole file, whatever range was asked for."""
    handler.answer(200, data or b"", {})


def wrong_bytes(other: bytes) -> Fault:
    """Serve these bytes in the file's place, ranges of them too."""
    return lambda handler, data: handler.serve(other)


def status(code: int) -> Fault:
    """Answer with this status."""
    return lambda handler, data: handler.answer(code, b"a page about the error", {})


def redirect(url: str) -> Fault:
    """Send the client to another URL."""
    return lambda handler, data: handler.answer(302, b"", {"Location": url})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def do_GET(self) -> None:
        headers = (self.headers.get(name, "") for name in ("Range", "Authorization"))
        self.owner.requests.append(Request(self.path, *headers))
        self.close_connection = True
        file = self.owner.root / unquote(self.path).lstrip("/")
        data = file.read_bytes() if file.is_file() else None
        if fault := self.owner.due(self.path):
            fault(self, data)
        elif data is None:
            self.answer(404, b"not found", {})
        else:
            self.serve(data)

    def serve(self, data: bytes) -> None:
        """Answer with a file, or with the part of it that was asked for."""
        self.wfile.write(self.begin(data))

    def begin(self, data: bytes) -> bytes:
        """Send the headers of a right answer; the body is returned."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start == 0:
            headers, code = {"Content-Length": str(len(data))}, 200
        elif start < len(data):
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            headers, code = {"Content-Length": str(len(data) - start), "Content-Range": span}, 206
        else:
            start, code = len(data), 416
            headers = {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"}
        self._head(code, headers)
        return data[start:]

    def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a whole answer; `headers` may change the length it says."""
        self._head(code, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `requests` instead."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up or do not trust the certificate are what is tested."""


@contextmanager
def serve(root: Path, pair: Pair | None) -> Iterator[Server]:
    """A server of a directory on a free port of 127.0.0.1; over TLS with a certificate, over plain HTTP without."""
    handler = type("Handler", (_Handler,), {})
    listening = _Server(("127.0.0.1", 0), handler)
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        # The handshake is left to the connection's own thread, so that one client's does not hold up the others.
        listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    address = f"127.0.0.1:{listening.server_port}"
    handler.owner = server = Server(root, address, f"{'https' if pair else 'http'}://{address}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        listening.shutdown()
        thread.join()
        listening.server_close()


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens at once or never. Raises AssertionError when it does not."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dead_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and nobody will before the tests are over."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return int(held.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until a server that was started listens on a port of 127.0.0.1. Raises AssertionError when it does not."""

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens)


def make_certificates(directory: Path) -> Certificates:
    """Make all certificates with openssl, which takes a fraction of a second."""
    ca, other = _authority(directory / "ca"), _authority(directory / "other")
    return Certificates(
        ca=ca.certificate,
        server=_signed(directory / "server", ca, "20200101000000Z", "20991231000000Z"),
        expired=_signed(directory / "expired", ca, "20200101000000Z", "20200102000000Z"),
        unknown=_signed(directory / "unknown", other, "20200101000000Z", "20991231000000Z"),
    )


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def _authority(directory: Path) -> Pair:
    directory.mkdir()
    pair = Pair(directory / "certificate.pem", directory / "key.pem")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", pair.key)
    _openssl("req", "-x509", *new, "-subj", f"/CN=tests' {directory.name}", "-days", "10", "-out", pair.certificate)
    return pair


def _signed(directory: Path, by: Pair, start: str, end: str) -> Pair:
    """A certificate for 127.0.0.1, valid from `start` to `end`; only `openssl ca` takes dates that are past."""
    directory.mkdir()
    pair, request = Pair(directory / "certificate.pem", directory / "key.pem"), directory / "request.pem"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", pair.key)
    _openssl("req", *new, "-subj", "/CN=127.0.0.1", "-out", request)
    (directory / "index").touch()
    config = directory / "ca.cnf"
    config.write_text(
        "[ca]\ndefault_ca = this\n[this]\n"
        f"database = {directory}/index\nnew_certs_dir = {directory}\nrand_serial = yes\n"
        f"certificate = {by.certificate}\nprivate_key = {by.key}\n"
        "default_md = sha256\npolicy = any\nx509_extensions = server\nunique_subject = no\n"
        "[any]\ncommonName = supplied\n[server]\nsubjectAltName = IP:127.0.0.1, DNS:localhost\n"
    )
    dates = ("-startdate", start, "-enddate", end)
    _openssl("ca", "-batch", "-notext", "-config", config, *dates, "-in", request, "-out", pair.certificate)
    return pair
