"""What SELinux on the machines of fake_nodes.py is asked and told, and what it forbids."""

from __future__ import annotations

import re
import shlex
from typing import Any

from pyinfra.api.facts import _MISSING_COMMAND_MARKER
from pyinfra.facts.selinux import FileContextMapping, SEBoolean, SEPorts

from cluster.pieces import NODE_DIRECTORY
from facts.selinux import Mislabelled, SELinux
from tests.plan.fake_nodes import SERVER, Node, Refused, command, fact, like

SEMANAGE = "policycoreutils-python-utils"


@fact(SELinux)
def _(node: Node) -> str:
    return "1" if node.state["selinux"] else "none"


def with_program(kind: type[Any], program: str, **arguments: Any) -> re.Pattern[str]:
    """The command of a fact of pyinfra's that is asked only where there is a program."""
    asked = kind().command(**arguments)
    return like(f"if command -v {program} >/dev/null 2>&1; then ( {asked} ); else echo '{_MISSING_COMMAND_MARKER}'; fi")


@command(with_program(SEBoolean, "getsebool", boolean="haproxy_connect_any"), "fact")
def _(node: Node) -> str:
    return f"haproxy_connect_any --> {'on' if 'haproxy_connect_any' in node.state['selinux'] else 'off'}"


@command(with_program(SEPorts, "semanage"), "fact")
def _(node: Node) -> str:
    if not node.has(SEMANAGE):
        return _MISSING_COMMAND_MARKER
    own = [each.partition(" ")[2] for each in node.state["selinux"] if each.startswith("port ")]
    return f"http_port_t                    tcp      {', '.join([*own, '80', '443', '8008-8009'])}"


@command(with_program(FileContextMapping, "semanage", target=f"{NODE_DIRECTORY}(/.*)?"), "fact")
def _(node: Node) -> str:
    if not node.has(SEMANAGE):
        return _MISSING_COMMAND_MARKER
    row = f"{NODE_DIRECTORY}(/.*)?   all files   system_u:object_r:httpd_sys_content_t:s0"
    return row if "mapping" in node.state["selinux"] else ""


@fact(Mislabelled, paths=("ANY_paths",))
def _(node: Node, paths: str) -> str:
    return "\n".join(f"Would relabel {path} from bin_t to another_t" for path in mislabelled(node, paths))


def mislabelled(node: Node, paths: str) -> list[str]:
    """Files beneath these paths that are newer than their labels."""
    beneath = [path for path in node.files if any(f"{path}/".startswith(f"{each}/") for each in shlex.split(paths))]
    return [path for path in beneath if node.files[path]["changed"] > node.files[path].get("labelled", 0)]


@command(r"restorecon -R (?P<paths>.+)")
def _(node: Node, paths: str) -> None:
    for path in mislabelled(node, paths):
        node.files[path]["labelled"] = node.world.clock


@command(r"setsebool -P (?P<name>\S+) on")
def _(node: Node, name: str) -> None:
    node.state["selinux"].append(name)


@command(r"semanage port -a -t http_port_t -p tcp (?P<port>\d+)")
def _(node: Node, port: str) -> None:
    if not node.has(SEMANAGE) or f"port {port}" in node.state["selinux"]:
        raise Refused(f"ValueError: Port tcp/{port} already defined")
    node.state["selinux"].append(f"port {port}")


@command(rf"semanage fcontext -a -t httpd_sys_content_t '{re.escape(NODE_DIRECTORY)}\(/\.\*\)\?'")
def _(node: Node) -> None:
    if not node.has(SEMANAGE):
        raise Refused("sh: 1: semanage: not found")
    node.state["selinux"].append("mapping")


def refuse_by_selinux(node: Node, unit: str) -> None:
    """What an enforcing SELinux would not let a unit do."""
    checks = {
        "haproxy.service": "haproxy_connect_any" in node.state["selinux"],
        SERVER: not mislabelled(node, NODE_DIRECTORY) and {"port 5443", "mapping"} <= set(node.state["selinux"]),
        "keepalived.service": not mislabelled(node, "/usr/libexec/keepalived/check-api"),
        "containerd.service": not mislabelled(node, "/usr/bin/containerd"),
    }
    if node.state["selinux"] and not checks.get(unit, True):
        raise Refused(f"Job for {unit} failed: Permission denied")
