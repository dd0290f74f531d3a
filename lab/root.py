"""The root file system that all nodes share, underneath what each writes itself."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from lab.layout import CACHE, USER, LabError
from lab.shell import run, say

SUITE = "bookworm"
# Nothing of Kubernetes: what a node needs beyond a bare Debian must come from the bundle.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "procps", "kmod", "iputils-ping",
    "ca-certificates",
)  # fmt: skip
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

INIT = """\
#!/bin/sh
# nspawn mounts cgroup v1 hierarchies read-only even for a payload with every capability.
if [ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ]; then
    for d in /sys/fs/cgroup/*; do
        [ -L "$d" ] || mount -o remount,bind,rw "$d"
    done
fi
# kubelet checks a handful of kernel settings, and sysctl.d sets those of the node's own network namespace.
mount -o remount,bind,rw /proc/sys
exec /sbin/init
"""


def ensure() -> Path:
    """The directory of the shared root, made by mmdebstrap when it is not in the cache yet."""
    recipe = "\n".join([SUITE, *PACKAGES, INIT, USER])
    root = CACHE / f"lab-root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if root.is_dir():
        return root
    if not KEYRING.exists():
        raise LabError(f"{KEYRING} is missing: install debian-archive-keyring, by which Debian's packages are checked.")
    say(f"making the nodes' Debian ({SUITE}) with mmdebstrap; about a minute")
    beside = root.with_suffix(".new")
    shutil.rmtree(beside, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    run(
        "mmdebstrap", "--mode=root", "--variant=minbase", f"--keyring={KEYRING}", f"--include={','.join(PACKAGES)}",
        "--skip=output/dev", SUITE, beside,
    )  # fmt: skip
    customise(beside)
    beside.rename(root)
    return root


def customise(root: Path) -> None:
    """Make a bare Debian one that is logged in to over SSH and has no identity yet."""
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", USER)
    sudoers = root / "etc/sudoers.d/lab"
    sudoers.write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text("PasswordAuthentication no\nUseDNS no\nMaxStartups 100\n")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "etc/fstab").write_text("")
    # Sites without internet still name a server; nobody answers at this one.
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 10.88.0.1\noptions timeout:1 attempts:1\n")
    (root / "etc/apt/sources.list").write_text("")
    init = root / "usr/local/sbin/lab-init"
    init.write_text(INIT)
    init.chmod(0o755)
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer"):
        (root / "etc/systemd/system" / timer).symlink_to("/dev/null")
