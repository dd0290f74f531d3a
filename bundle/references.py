"""References to images, written out as the programs that read them understand them.

Grammar: https://github.com/distribution/reference/blob/v0.6.0/reference.go, and normalize.go beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bundle.command import BuildError

HOST = re.compile(r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9]|\[[0-9a-fA-F:]+\])(?::\d+)?")
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
PATH = re.compile(rf"{PART}(?:/{PART})*")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """An image's registry, its path there, and either its tag or its digest; the other one is empty."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The whole reference."""
        return f"{self.host}/{self.path}{self.suffix}"

    @property
    def suffix(self) -> str:
        """`:tag` or `@digest`."""
        return f"@{self.digest}" if self.digest else f":{self.tag}"

    @property
    def short(self) -> str:
        """The last part of the path: `etcd` of `registry.k8s.io/etcd:3.6.8-0`."""
        return self.path.rpartition("/")[2]


def parse(text: str) -> Reference:
    """A reference with what is left out of it put in: `nginx` is `docker.io/library/nginx:latest`.

    Of a tag and a digest the digest alone counts, as for the kubelet's runtimes. Raises BuildError.
    """
    rest, _, digest = text.partition("@")
    first, slash, path = rest.partition("/")
    if not slash or not (first == "localhost" or any(sign in first for sign in ".:") or first != first.lower()):
        first, path = "docker.io", rest
    path, colon, tag = path.partition(":")
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in path:
        path = f"library/{path}"
    right = HOST.fullmatch(first) and PATH.fullmatch(path) and (not colon or TAG.fullmatch(tag))
    if not right or (("@" in text) and not DIGEST.fullmatch(digest)):
        raise BuildError(
            f"{text!r} is no reference of an image. It must be like registry.k8s.io/pause:3.10, or end in "
            "@sha256: and 64 digits of a digest."
        )
    return Reference(first, path, "" if digest else tag or "latest", digest)
