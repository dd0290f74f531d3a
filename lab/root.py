"""The root file system that all nodes of a release share, underneath what each writes itself."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from lab.layout import CACHE, GATEWAY, USER, LabError
from lab.shell import run, say

DEBIAN = (
    "http://deb.debian.org/debian {} main",
    "http://deb.debian.org/debian {}-updates main",
    "http://security.debian.org/debian-security {}-security main",
)
UBUNTU = tuple(
    f"http://archive.ubuntu.com/ubuntu {{}}{pocket} main universe" for pocket in ("", "-updates", "-security")
)
# What nodes can be: the suite and the archive of each release, in which the suite's name is left open.
RELEASES = {
    "debian-12": ("bookworm", DEBIAN),
    "debian-13": ("trixie", DEBIAN),
    "ubuntu-22.04": ("jammy", UBUNTU),
    "ubuntu-24.04": ("noble", UBUNTU),
}
# Nothing of Kubernetes: what a node needs beyond a bare system must come from the bundle.
PACKAGES = (
    "apt", "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "procps", "kmod", "iputils-ping",
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


def sources(release: str) -> list[str]:
    """Where apt has a release from: address, suite and components, one line each."""
    suite, archive = RELEASES[release]
    return [line.format(suite) for line in archive]


def keyring(release: str) -> Path:
    """The keys by which a release's packages are checked. Raises LabError when Debian's are missing."""
    if not KEYRING.exists():
        raise LabError(f"{KEYRING} is missing: install debian-archive-keyring, by which Debian's packages are checked.")
    return KEYRING if RELEASES[release][1] is DEBIAN else ubuntu_keyring()


def ubuntu_keyring() -> Path:
    """Ubuntu's keys, of a package that Debian has since 13: so Debian's own keys vouch for them."""
    path = CACHE / "lab-ubuntu-archive-keyring.gpg"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lab-keys.", dir=CACHE) as directory:
            debootstrap("debian-13", "extract", ("ubuntu-keyring",), Path(directory))
            shutil.copyfile(Path(directory) / "usr/share/keyrings" / path.name.removeprefix("lab-"), path)
    return path


def debootstrap(release: str, variant: str, packages: tuple[str, ...], target: Path) -> None:
    """Have mmdebstrap unpack or install packages of a release, and what they need, in a directory."""
    lines = [f"deb [signed-by={keyring(release)}] {line}" for line in sources(release)]
    run(
        "mmdebstrap", "--mode=root", f"--variant={variant}", f"--include={','.join(packages)}", "--skip=output/dev",
        "", target, *lines,
    )  # fmt: skip


def ensure(release: str) -> Path:
    """The directory of a release's root, made by mmdebstrap when it is not in the cache yet.

    Raises LabError for a release that no node can be.
    """
    if release not in RELEASES:
        raise LabError(f"{release}: no node of the lab can be that; there are {', '.join(RELEASES)}.")
    recipe = "\n".join([*sources(release), *PACKAGES, INIT, USER])
    root = CACHE / f"lab-root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if root.is_dir():
        return root
    say(f"making the nodes' {release} with mmdebstrap; about a minute")
    beside = root.with_suffix(".new")
    shutil.rmtree(beside, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    debootstrap(release, "minbase", PACKAGES, beside)
    customise(beside)
    beside.rename(root)
    return root


def customise(root: Path) -> None:
    """Make a bare system one that is logged in to over SSH and has no identity yet."""
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
    (root / "etc/resolv.conf").write_text(f"nameserver {GATEWAY}\noptions timeout:1 attempts:1\n")
    # Of some releases systemd-resolved is a part of systemd, and kubelet reads its list in that file's place.
    resolved = root / "etc/systemd/resolved.conf.d/lab.conf"
    resolved.parent.mkdir(exist_ok=True)
    resolved.write_text(f"[Resolve]\nDNS={GATEWAY}\n")
    (root / "etc/apt/sources.list").write_text("")
    init = root / "usr/local/sbin/lab-init"
    init.write_text(INIT)
    init.chmod(0o755)
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer"):
        (root / "etc/systemd/system" / timer).symlink_to("/dev/null")
