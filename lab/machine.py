"""One node: its disk, and the systemd-nspawn that runs it."""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path

from lab import cgroup, network
from lab.layout import SSH, USER, LabError, Node
from lab.shell import run

NSPAWN = (
    "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-users=no", "--capability=all",
    "--bind=/dev/kmsg", "--system-call-filter=@keyring bpf @mount add_key keyctl", "--resolv-conf=off",
    "--timezone=off", "--link-journal=no",
)  # fmt: skip
# Directories that must not lie on an overlay: containerd and CRI-O make overlays of their own there.
PLAIN = ("var/lib/containerd", "var/lib/containers", "var/lib/kubelet", "var/lib/etcd")


def mounted(path: Path) -> bool:
    """Whether something is mounted at a path."""
    return any(line.split()[1] == str(path) for line in Path("/proc/mounts").read_text().splitlines())


def host_key(node: Node) -> str:
    """The node's public host key, made once for it."""
    key = SSH / f"host_{node.name}"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", node.name, "-f", key)
    return key.with_suffix(".pub").read_text().strip()


def ensure_disk(node: Node, root: Path) -> Path:
    """Mount the node's copy-on-write disk over the shared root and give it its identity, once."""
    disk, upper, work = (node.directory / name for name in ("disk", "upper", "work"))
    fresh = not upper.exists()
    for path in (disk, upper, work, *(node.directory / Path(name).name for name in PLAIN)):
        path.mkdir(parents=True, exist_ok=True)
    if not mounted(disk):
        options = f"lowerdir={root},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", f"{node.namespace}", "-o", options, disk)
    if fresh:
        host_key(node)
        (disk / "etc/hostname").write_text(f"{node.name}\n")
        (disk / "etc/hostname").chmod(0o644)  # debootstrap gives it that of the machine that the lab is on
        (disk / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {node.name}\n")
        (disk / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        for suffix, mode in (("", 0o600), (".pub", 0o644)):
            target = disk / f"etc/ssh/ssh_host_ed25519_key{suffix}"
            target.write_bytes((SSH / f"host_{node.name}{suffix}").read_bytes())
            target.chmod(mode)
        authorized = disk / "home" / USER / ".ssh/authorized_keys"
        authorized.parent.mkdir(mode=0o700, exist_ok=True)
        authorized.write_text((SSH / "id_ed25519.pub").read_text())
        run("chroot", disk, "chown", "-R", f"{USER}:{USER}", f"/home/{USER}/.ssh")
    return disk


def running(node: Node) -> bool:
    """Whether any process of the node is alive."""
    return bool(cgroup.processes(node.name))


def start(node: Node, root: Path) -> None:
    """Boot a node that is not running; returns at once."""
    if running(node):
        return
    network.renew_node(node)
    disk = ensure_disk(node, root)
    joined = [f"echo $$ > '{group}/cgroup.procs'" for group in cgroup.ensure(node)]
    binds = [f"--bind={node.directory / Path(name).name}:/{name}" for name in PLAIN]
    words = [
        *NSPAWN, *binds, f"--machine={node.name}", f"--network-namespace-path=/run/netns/{node.namespace}",
        f"--directory={disk}", "/usr/local/sbin/lab-init",
    ]  # fmt: skip
    script = " && ".join([*joined, 'exec "$@"'])
    with node.console.open("ab") as console:
        subprocess.Popen(
            ["sh", "-c", script, "lab", *words], stdin=subprocess.DEVNULL, stdout=console,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def stop(node: Node) -> None:
    """Cut the node's power: every process dies at once, nothing is flushed or said good-bye to."""
    cgroup.kill(node.name)
    cgroup.remove(node.name)
    network.silence(node)


def wait(node: Node, seconds: int = 90) -> None:
    """Wait until one can log in. Raises LabError with the end of its console's log."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done = subprocess.run(
            ["ssh", "-F", str(SSH.parent / "ssh_config"), "-o", "ConnectTimeout=2", node.name, "true"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
        time.sleep(0.3)
    tail = node.console.read_text(errors="replace")[-3000:] if node.console.exists() else "(none)"
    raise LabError(
        f"{node.name}: nobody could log in within {seconds} s ({done.stderr.strip()}). "
        f"The end of its console, {node.console}:\n{tail}"
    )


def remove(node_directory: Path) -> None:
    """Unmount a node's disk."""
    disk = node_directory / "disk"
    while mounted(disk):
        run("umount", disk)
