"""The lab as a whole: raise it, take it down, and do to its nodes what can happen to machines."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import cgroup, layout, machine, network, root
from lab.layout import DEFAULT, NODES, SSH, STATE, LabError, Node
from lab.shell import run, say

APT_PACKAGES = (
    "systemd-container", "mmdebstrap", "debian-archive-keyring", "iproute2", "nftables", "openssh-client", "procps",
)  # fmt: skip
# Six nodes share one kernel: what is enough for one is too little, and what kubelet wants must hold before it asks.
SYSCTLS = {
    "fs.inotify.max_user_instances": "8192",
    "fs.inotify.max_user_watches": "524288",
    "vm.overcommit_memory": "1",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
}
CAP_SYS_RESOURCE = 24


@contextmanager
def locked() -> Iterator[None]:
    """One change of the lab at a time."""
    path = Path("/run/pyinfra-kubeadm-lab.lock")
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("Another command is changing the lab. Wait for it, then try again.") from None
        yield


def up(names: Sequence[str] = DEFAULT, bundle: str = "dist/bundle") -> None:
    """Raise the lab, or what is missing of it, and wait until every node can be logged in to.

    Its inventory is for a cluster of this bundle. Raises LabError when it has other nodes already.
    """
    if os.geteuid() != 0:
        raise LabError("Only root can make machines, bridges and mounts. Run this as root.")
    nodes = [layout.node(name) for name in names]
    with locked():
        if others := sorted({each.name for each in NODES.glob("*")} - {node.name for node in nodes}):
            raise LabError(
                f"The lab is up with another topology: {', '.join(others)} would be left over. Take it down first, by "
                "`python3 tasks.py lab down`."
            )
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        roots = {node.release: root.ensure(node.release) for node in nodes}
        _keys(nodes)
        _sysctls(SYSCTLS)
        network.ensure_bridge()
        for node in nodes:
            if not machine.running(node):
                say(f"starting {node.name} ({node.address})")
            machine.start(node, roots[node.release])
        restricted = not _may_lower_oom_scores()
        layout.write(nodes, {"cgroup": cgroup.version(), "restricted": restricted, "bundle": bundle})
        for node in nodes:
            machine.wait(node)
    say(f"{len(nodes)} nodes are up; `ssh -F {STATE}/ssh_config {nodes[0].name}` logs in to one")


def down() -> None:
    """Take everything of the lab away, whatever state it is in."""
    with locked():
        cgroup.kill()
        network.remove()
        if NODES.exists():
            for directory in NODES.iterdir():
                machine.remove(directory)
        cgroup.remove()
        before = STATE / "sysctl.before"
        if before.exists():
            run("sysctl", "-q", "-p", before)
        if STATE.exists():
            shutil.rmtree(STATE)
    Path("/run/pyinfra-kubeadm-lab.lock").unlink(missing_ok=True)


def status() -> list[dict[str, str]]:
    """A row for each node: name, group, address, whether it runs and is plugged in."""
    rows = []
    for row in layout.read()["nodes"]:
        node = Node(**row)
        power = "running" if machine.running(node) else "stopped"
        rows.append({**row, "power": power, "cable": "plugged" if network.plugged(node) else "cut"})
    return rows


def member(name: str) -> Node:
    """A node of the running lab. Raises LabError for any other name."""
    nodes = {row["name"]: Node(**row) for row in layout.read()["nodes"]}
    if name not in nodes:
        raise LabError(f"{name}: the lab has no such node; it has {', '.join(nodes)}.")
    return nodes[name]


def shell(name: str) -> int:
    """Log in to a node; returns the shell's exit status."""
    return subprocess.call(["ssh", "-F", str(STATE / "ssh_config"), member(name).name])


def stop(name: str) -> None:
    """Cut a node's power."""
    with locked():
        machine.stop(member(name))


def start(name: str) -> None:
    """Start a stopped node again, with the disk it had, and wait for it."""
    with locked():
        node = member(name)
        machine.start(node, root.ensure(node.release))
        machine.wait(node)


def replace(name: str) -> None:
    """Put a machine with an empty disk in a node's place: its name and address, nothing else."""
    node = member(name)
    with locked():
        machine.stop(node)
        machine.remove(node.directory)
        shutil.rmtree(node.directory)
    start(name)


def cut(name: str) -> None:
    """Pull a node's network cable."""
    network.plug(member(name), plugged=False)


def mend(name: str) -> None:
    """Plug it in again."""
    network.plug(member(name), plugged=True)


def _keys(nodes: Sequence[Node]) -> None:
    """A key for logging in, and what tells ssh which host keys to expect."""
    SSH.mkdir(mode=0o700, exist_ok=True)
    if not (SSH / "id_ed25519").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", SSH / "id_ed25519")
    known = [f"{node.address},{node.name} {' '.join(machine.host_key(node).split()[:2])}" for node in nodes]
    (SSH / "known_hosts").write_text("\n".join(known) + "\n")
    hosts = "".join(f"Host {node.name}\n    HostName {node.address}\n" for node in nodes)
    common = (
        f"Host *\n    User {layout.USER}\n    IdentityFile {SSH}/id_ed25519\n    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {SSH}/known_hosts\n    StrictHostKeyChecking yes\n    HashKnownHosts no\n"
    )
    (STATE / "ssh_config").write_text(hosts + common)


def _sysctls(wanted: dict[str, str]) -> None:
    """Raise this machine's own limits while the lab is up; `down` puts the old values back."""
    before = STATE / "sysctl.before"
    if not before.exists():
        before.write_text(run("sysctl", *wanted))
    run("sysctl", "-q", "-w", *(f"{key}={value}" for key, value in wanted.items()))


def _may_lower_oom_scores() -> bool:
    """Whether this process has CAP_SYS_RESOURCE, without which no node can have it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
