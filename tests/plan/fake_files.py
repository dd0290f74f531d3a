"""What the machines of fake_nodes.py know of files: reads, writes that a program may check first, and modes."""

from __future__ import annotations

import base64
import re
import shlex

from pyinfra.facts.files import FindFiles

from facts.certificate import Certificate
from facts.checksum import Checksums
from facts.file import FileState
from facts.kubeadm import Readable
from operations import containerd, crio
from operations.file import ASIDE as KEPT
from operations.file import write_script
from tests.plan.fake_nodes import Node, Refused, command, fact, like


@fact(Checksums, paths=("ANY_paths",))
@fact(Checksums, paths=("ANY_paths",), programs=True)
def _(node: Node, paths: str) -> str:
    return "\n".join(f"{node.sha256(path)} *{path}" for path in shlex.split(paths) if path in node.files)


@fact(FileState, path="ANY_path", secret=True)
def _(node: Node, path: str) -> str:
    if path not in node.files:
        return ""
    return f"{node.files[path]['mode']} {node.files[path]['owner'].replace(':', ' ')}\n{node.sha256(path)}  -"


@fact(FileState, path="ANY_path")
def _(node: Node, path: str) -> str:
    if path not in node.files:
        return ""
    file = node.files[path]
    return f"{file['mode']} {file['owner'].replace(':', ' ')}\n{base64.b64encode(file['text'].encode()).decode()}"


@fact(Certificate, path="ANY_path.crt", address="ANY_address")
def _(node: Node, path: str, address: str) -> str:
    if not {f"{path}.crt", f"{path}.key"} <= set(node.files):
        return ""
    file = node.files[f"{path}.crt"]
    if not node.has("openssl") or f"for {address} " not in file["text"]:
        return "other"
    return f"{'ending' if file.get('ending') else 'valid'}\nnotAfter=Nov 23 01:02:03 2036 GMT"


@command(like(write_script(containerd.CONFIG, "644", "root", "root", containerd.check_script("ANY_pause", "systemd"))))
def _(node: Node, pause: str, stdin: str) -> None:
    if not node.has("containerd"):
        raise Refused("sh: 1: containerd: not found")
    if "SystemdCgroup = true" not in stdin or f'"{pause}"' not in stdin:
        raise Refused("containerd would not have this of its configuration")
    node.write(containerd.CONFIG, stdin)


@command(like(write_script(crio.CONFIG, "644", "root", "root", crio.CHECK)))
def _(node: Node, stdin: str) -> None:
    if not node.has("crio"):
        raise Refused("sh: 1: crio: not found")
    node.write(crio.CONFIG, stdin)


@command(like(write_script("/ANY_directory/ANY_name", "ANY_mode", "ANY_user", "ANY_group", "ANY_check {}")))
def _(node: Node, directory: str, name: str, mode: str, user: str, group: str, check: str, stdin: str) -> None:
    program = check.split()[0]
    if not node.has(program):
        raise Refused(f"sh: 1: {program}: not found")
    for path in re.findall(r"(?:ca-file|ssl_certificate|ssl_certificate_key) ([^\s;]+)", stdin):
        if path not in node.files:
            raise Refused(f"[ALERT] cannot load '{path}'")
    node.write(f"/{directory}/{name}", stdin, mode, f"{user}:{group}")


@command(like(write_script("/ANY_directory/ANY_name", "ANY_mode", "ANY_user", "ANY_group", None)))
def _(node: Node, directory: str, name: str, mode: str, user: str, group: str, stdin: str) -> None:
    node.write(f"/{directory}/{name}", stdin, mode, f"{user}:{group}")


@command(like(str(FindFiles().command(path="ANY_path", maxdepth=1))), "fact")
def _(node: Node, path: str) -> str:
    return "\n".join(each for each in node.files if each.rpartition("/")[0] == path)


@command(
    like(f"install -d -m 700 {KEPT} && mkdir -p ANY_to && cd ANY_at && mv --backup=numbered -t ANY_to -- ANY_names")
)
def _(node: Node, to: str, at: str, names: str) -> None:
    for name in shlex.split(names):
        node.files[f"{to}/{name}"] = node.files.pop(f"{at}/{name}")


@fact(Readable)
def _(node: Node) -> str:
    kept = ("/etc/kubernetes/pki/", "/etc/kubernetes/manifests/", "/etc/kubernetes/")
    inside = [
        path for path in node.files
        if path.startswith(kept) and path.endswith((".key", ".conf", ".yaml")) and path.count("/") <= 5
    ]  # fmt: skip
    return "\n".join(f"{node.files[path]['mode']} {path}" for path in inside if node.files[path].get("opened"))


@command(r"chmod go-rwx -- (?P<paths>.+)")
def _(node: Node, paths: str) -> None:
    for path in shlex.split(paths):
        node.files[path].update(mode="600", opened=False)
