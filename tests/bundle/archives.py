"""Archives of packages on loopback, as distributions have them: tiny packages, an index, and the key that signs it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def run(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Key:
    """A GPG key of an archive: GnuPG's directory, and the public key as a file."""

    home: Path
    public: Path

    def clear_sign(self, source: Path, target: Path) -> None:
        run("gpg", "--homedir", self.home, "--batch", "--yes", "--output", target, "--clear-sign", source)

    def detach_sign(self, source: Path, target: Path) -> None:
        run("gpg", "--homedir", self.home, "--batch", "--yes", "--armor", "--output", target, "--detach-sign", source)


@contextmanager
def make_key(home: Path) -> Iterator[Key]:
    """A new key, and no agent of it afterwards."""
    home.chmod(0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback")
    try:
        run(*gpg, "--passphrase", "", "--quick-generate-key", "an archive", "rsa2048", "sign", "never")
        run(*gpg, "--armor", "--output", home / "public.asc", "--export")
        yield Key(home, home / "public.asc")
    finally:
        run("gpgconf", "--homedir", home, "--kill", "gpg-agent")


@dataclass
class Served:
    """A running server of a directory's files, and the paths that it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    """It is a proxy too: whatever the host, the files are the directory's."""

    def __init__(self, *arguments: Any, served: Served, **more: Any) -> None:
        self.served = served
        super().__init__(*arguments, **more)

    def translate_path(self, path: str) -> str:
        return super().translate_path(urlsplit(path).path)

    def log_message(self, *_: object) -> None:
        self.served.asked.append(self.path)


@contextmanager
def serve(root: Path) -> Iterator[Served]:
    """Serve a directory over HTTP on 127.0.0.1."""
    served = Served("")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(root), served=served)) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def tree(directory: Path) -> dict[str, bytes]:
    """Every file of a directory, with its bytes."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def flip(path: Path, within: bytes = b"") -> None:
    """Change one bit of a file: of the last byte of this part of it, or of the whole."""
    data = bytearray(path.read_bytes())
    data[data.index(within) + len(within) - 1 if within else -1] ^= 1
    path.write_bytes(data)
