"""What the machines of fake_nodes.py know of timers, and of backups."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
import shlex

from cluster.backup import NODE_DIRECTORY as BACKUPS
from facts.backup import NAME, Backups
from facts.timer import Timer
from operations import backup, timer
from operations.file import write_script
from tests.plan.fake_nodes import CA, Node, Refused, command, fact, like


def timed(node: Node, name: str) -> list[str]:
    """What systemd says of a timer; `failed` in a node's state has last words by its name."""
    unit = node.units.get(f"{name}.timer")
    lines = [f"timer LoadState={'loaded' if unit else 'not-found'}"]
    lines += [
        f"timer ActiveState={'active' if unit and unit['active'] else 'inactive'}",
        "service ActiveState=inactive",
    ]
    if words := node.state.get("failed", {}).get(name):
        lines += ["service ExecMainExitTimestamp=@1795572000", "service Result=exit-code", f"said {words}"]
    return lines


@fact(Timer, timer="ANY_name")
def _(node: Node, name: str) -> str:
    return "\n".join(timed(node, name))


@fact(Backups)
def _(node: Node) -> str:
    there = sorted(path for path in node.files if re.fullmatch(rf"{BACKUPS}/[^/]+/manifest.json", path))
    newest = [f"newest {node.files[path]['text']}" for path in there[-1:]]
    return "\n".join([*timed(node, NAME), f"kept {len(there)}", *newest])


@command(
    like(
        write_script(
            f"{timer.UNITS}/ANY_name.timer", "644", "root", "root", "systemd-analyze calendar ANY_schedule >/dev/null"
        )
    )
)
def _(node: Node, name: str, schedule: str, stdin: str) -> None:
    if f"OnCalendar={shlex.split(schedule)[0]}\n" not in stdin or "Nonsense" in schedule:
        raise Refused(f"Failed to parse calendar specification {schedule}: Invalid argument")
    node.write(f"{timer.UNITS}/{name}.timer", stdin)


@command(r"systemctl disable --now (?P<name>\S+)\.timer && rm -f (?P<paths>.+) && systemctl daemon-reload")
def _(node: Node, name: str, paths: str) -> None:
    for path in shlex.split(paths):
        node.files.pop(path, None)
    node.units.pop(f"{name}.timer")


@command(like(backup.asked()))
def _(node: Node, stdin: str) -> str:
    """What the program of backups does, as far as anyone looks at it."""
    node.api()
    minutes, seconds = divmod(node.world.clock, 60)
    directory = f"{BACKUPS}/20261125T{minutes // 60 % 24:02}{minutes % 60:02}{seconds:02}Z-{node.name}-asked"
    parts = {"snapshot.db": "a snapshot\n", "pki.tar": "the PKI\n", "kubeadm-config.yaml": "a configuration\n"}
    suffix = ".0000.cms" if "BEGIN CERTIFICATE" in stdin else ""
    for name, text in parts.items():
        node.write(f"{directory}/{name}{suffix}", text, "600")
    manifest = {
        "cluster_name": re.search(r'"cluster_name": "(\S+)"', stdin)[1], "kubernetes_version": "v1.36.2",
        "etcd_version": "3.6.8", "member": node.name, "time": "2026-11-25T02:12:00Z", "revision": 4711, "keys": 900,
        "live_keys": 800, "hash": 1, "ca_cert_hash": f"sha256:{node.sha256(CA)}", "encrypted": bool(suffix),
        "files": {f"{name}{suffix}": hashlib.sha256(text.encode()).hexdigest() for name, text in parts.items()},
    }  # fmt: skip
    node.write(f"{directory}/manifest.json", json.dumps(manifest), "600")
    return directory


@command(r"cd (?P<directory>\S+) && stat -c '%s %n' -- \*", "read")
def _(node: Node, directory: str) -> str:
    there = {path: file for path, file in node.files.items() if posixpath.dirname(path) == directory}
    return "\n".join(f"{len(file['text'])} {posixpath.basename(path)}" for path, file in there.items())


@command("mktemp -d", "read")
def _(node: Node) -> str:
    return "/tmp/tmp.private"


@command(r"rm -rf /tmp/tmp\.private", "read")
def _(node: Node) -> None:
    pass


@command(r"download (?P<path>\S+)", "read")
def _(node: Node, path: str) -> str:
    return base64.b64encode(node.files[path]["text"].encode()).decode()
