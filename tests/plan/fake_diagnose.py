"""What these machines answer to a diagnosis: facts as ever, and to what else it asks what they are."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shlex

from facts.disk import FileSystems
from operations.questions import Question
from tests.plan import fake_kubernetes
from tests.plan.fake_nodes import COMMANDS, Node, Refused, command, like

WRAPPED = like(Question("", "ANY_script").command.replace("-k 2 10", "-k 2 ANY_seconds").replace("262144", "ANY_limit"))
# What is asked and not judged: those scripts begin so. What a test has `planted` on a host is in all of their answers.
READ = (
    "uname -a; ", "ps -eo ", "systemctl list-units --failed ", "systemctl cat ", "ip -br addr; ", "journalctl ",
    "crictl ", "for f in ", "c() { timeout ", "echo 'show info'", "kubectl ",
)  # fmt: skip


@command(like(FileSystems().command(paths=("ANY_paths",))), "fact")
def _(node: Node, paths: str) -> str:
    free = 1000 if node.state.get("full") else 90000
    return "\n".join(f"room {path} 100000 {free} /\ninodes {path} 6000000 5000000" for path in shlex.split(paths))


def said(node: Node, script: str) -> str:
    """The words of one script. Refused where it fails."""
    for kind, pattern, function in COMMANDS:
        if kind == "fact" and (found := pattern.fullmatch(script)):
            return function(node, **found.groupdict()) or ""
    if script.startswith("systemctl show -p Id,"):
        return "\n\n".join(shown(node, unit) for unit in re.findall(r"\S+\.service", script))
    if script.startswith("kubectl ") and "get --raw=/readyz" in script and "verbose" not in script:
        endpoint = re.search(r"--server=https://(\S+)", script)
        if not endpoint or not node.world.leads_to(endpoint[1], node):
            raise Refused("The connection to the server was refused - did you specify the right host or port?")
        return "ok"
    if script.startswith("kubectl "):
        node.api()
    if script.endswith(" get nodes -o json"):
        return fake_kubernetes.get_nodes(node)
    if script.endswith(" get pods -A -o json"):
        return json.dumps({"items": []})
    if script.endswith("-w json 2>/dev/null") or "list-units --failed" in script:
        return ""
    if not script.startswith(READ):
        raise AssertionError(f"a diagnosis is not known to ask this: {script}")
    return str(node.state.get("planted", ""))


def shown(node: Node, unit: str) -> str:
    known = unit in node.units
    active = "active" if node.active(unit) else "inactive"
    state = f"ActiveState={active}\nSubState={'running' if node.active(unit) else 'dead'}"
    return f"Id={unit}\nLoadState={'loaded' if known else 'not-found'}\n{state}\nResult=success\nNRestarts=0"


@command(WRAPPED, "read")
def _(node: Node, script: str, seconds: str, limit: str) -> str:
    (script,) = shlex.split(script)
    try:
        text = f"{said(node, script)}\n# exit 0\n"
    except Refused as error:
        text = f"{error}\n# exit 1\n"
    return base64.b64encode(gzip.compress(text.encode()[-int(limit) :])).decode()
