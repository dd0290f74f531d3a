"""What a file holds, who owns it and who may read it."""

from __future__ import annotations

import base64
import hashlib
import shlex
from typing import TypedDict

from pyinfra.api import FactBase


class File(TypedDict):
    sha256: str
    mode: str
    user: str
    group: str
    content: str | None


class FileState(FactBase[File | None]):
    """Content, mode and owner of one small file, in one round trip.

    Returns None when nothing is there, else::

        {"sha256": "9f86d0...", "mode": "644", "user": "root", "group": "root",
         "content": "text"}

    `content` is None for a file that is not UTF-8, and for `secret=True`, where the node sends a
    checksum instead of the text so that no secret crosses the wire or appears in a debug log.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self, path: str, secret: bool = False) -> str:
        quoted = shlex.quote(path)
        body = f"sha256sum < {quoted}" if secret else f"base64 -w0 {quoted}"
        return f"if test -e {quoted}; then stat -Lc '%a %U %G' {quoted} && {body}; fi"

    def process(self, output: list[str]) -> File:
        mode, user, group = output[0].split()
        body = output[1] if len(output) > 1 else ""
        if body.endswith("  -"):
            return File(sha256=body.split()[0], mode=mode, user=user, group=group, content=None)
        data = base64.b64decode(body)
        try:
            content = data.decode()
        except UnicodeDecodeError:
            content = None
        return File(sha256=hashlib.sha256(data).hexdigest(), mode=mode, user=user, group=group, content=content)
