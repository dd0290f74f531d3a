"""Control groups: the version in use, what they limit, and who drives them."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase


class CgroupState(TypedDict):
    version: int
    controllers: list[str]
    systemd: int | None
    kubelet_driver: str | None
    runtime_driver: str | None


class Cgroup(FactBase[CgroupState]):
    """Version of the cgroup hierarchy, its controllers, and the drivers of the kubelet and containerd.

    ::

        {"version": 2, "controllers": ["cpu", "cpuset", "memory", "pids"], "systemd": 252, "kubelet_driver": "systemd",
         "runtime_driver": "systemd"}

    `controllers` are those that the kernel offers. `systemd` is its version, None where there is none. A driver is None
    where there is no configuration yet. The two must agree: the kubelet's own words are in
    https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/configure-cgroup-driver/.
    """

    @staticmethod
    def default() -> CgroupState:
        return CgroupState(version=0, controllers=[], systemd=None, kubelet_driver=None, runtime_driver=None)

    def command(self) -> str:
        return (
            "if test -e /sys/fs/cgroup/cgroup.controllers; then echo version 2; "
            "echo controllers $(cat /sys/fs/cgroup/cgroup.controllers); else echo version 1; "
            "echo controllers $(awk '!/^#/ && $4 == 1 {print $1}' /proc/cgroups 2>/dev/null); fi; "
            "systemctl --version 2>/dev/null | sed -n '1s/^systemd \\([0-9]*\\).*/systemd \\1/p'; "
            "sed -n 's/^cgroupDriver: */kubelet /p' /var/lib/kubelet/config.yaml 2>/dev/null; "
            "sed -n 's/^ *SystemdCgroup *= */runtime /p' /etc/containerd/config.toml 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> CgroupState:
        rows = dict(line.split(maxsplit=1) for line in output if len(line.split()) > 1)
        runtime = rows.get("runtime")
        return CgroupState(
            version=int(rows["version"]),
            controllers=sorted(rows.get("controllers", "").split()),
            systemd=int(rows["systemd"]) if "systemd" in rows else None,
            kubelet_driver=rows.get("kubelet"),
            runtime_driver=None if runtime is None else {"true": "systemd"}.get(runtime, "cgroupfs"),
        )
