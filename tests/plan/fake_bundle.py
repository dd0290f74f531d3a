"""What the machines of fake_nodes.py know of the bundle: pieces that come by the run, or from a server of them."""

from __future__ import annotations

import hashlib
import json
import shlex
import tarfile

from cluster.pieces import NODE_DIRECTORY
from cluster.topology import Node as Address
from operations import bundle_server
from tests.plan.fake_nodes import Node, Refused, command, like


@command(r"umask 022; mkdir -p \S+ && free=\$\(df .*", "probe")
def _(node: Node) -> None:
    pass


@command(r"upload (?P<path>/tmp/\S+)")
def _(node: Node, path: str, stdin: str) -> None:
    with tarfile.open(stdin) as tar:
        pieces = {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}
    node.write(path, json.dumps(pieces))


@command(r"umask 022; mkdir -p .* tar -x --no-same-owner -f (?P<uploaded>\S+) .*")
def _(node: Node, uploaded: str, stdin: str) -> None:
    pieces = json.loads(node.files.pop(uploaded)["text"])
    for line in stdin.splitlines():
        digest, path = line.split("  ")
        if hashlib.sha256(pieces[path].encode()).hexdigest() != digest:
            raise Refused(f"{line}\nThese pieces are not as bundle.lock says. Run again to carry them anew.")
    for path, text in pieces.items():
        node.write(f"{NODE_DIRECTORY}/{path}", text)


FETCH = bundle_server.fetch_script(["ANY_url"], NODE_DIRECTORY, bundle_server.INCOMING)


@command(like(FETCH.replace("ANY_url ANY_url", "ANY_urls")))
def _(node: Node, urls: str, stdin: str) -> None:
    certificates, end, lines = stdin.rpartition("-----END CERTIFICATE-----\n")
    wanted = {path: digest for digest, _, _, path in (line.split("  ") for line in lines.splitlines())}
    pieces: dict[str, str] = {}
    for server in (node.reach(url, certificates + end) for url in shlex.split(urls)):
        for path in wanted.keys() - pieces.keys():
            source = f"{NODE_DIRECTORY}/{path}"
            if server and source in server.files and server.sha256(source) == wanted[path]:
                pieces[path] = server.files[source]["text"]
    if lacking := wanted.keys() - pieces.keys():
        raise Refused(f"pieces that did not come: {len(lacking)}, such as {min(lacking)}.")
    for path, text in pieces.items():
        node.write(f"{NODE_DIRECTORY}/{path}", text)


@command(like(bundle_server.certificate_script(Address("ANY_name", "ANY_address"))))  # type: ignore[arg-type]
def _(node: Node, name: str, address: str) -> None:
    if not node.has("openssl"):
        raise Refused("sh: 1: openssl: not found")
    lines = (
        f"-----BEGIN CERTIFICATE-----\nof {name} for {address} made at {node.world.clock}\n-----END CERTIFICATE-----\n"
    )
    node.write(bundle_server.CERTIFICATE, lines)
    node.write(bundle_server.KEY, f"the key of {name}\n", "600")


@command(r"mkdir -p \S+ && install -m 755 (?P<source>\S+) (?P<path>\S+)\.new && mv -fT (?P=path)\.new (?P=path)")
def _(node: Node, source: str, path: str) -> None:
    if source not in node.files:
        raise Refused(f"install: cannot stat '{source}': No such file or directory")
    node.write(path, node.files[source]["text"], "755")
