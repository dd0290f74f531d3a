"""Control groups: the version in use, and who drives them."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase


class CgroupState(TypedDict):
    version: int
    kubelet_driver: str | None
    runtime_driver: str | None


class Cgroup(FactBase[CgroupState]):
    """Version of the cgroup hierarchy, and the drivers that the kubelet and containerd are configured with.

    ::

        {"version": 2, "kubelet_driver": "systemd", "runtime_driver": "systemd"}

    A driver is None where there is no configuration yet. The two must agree: the kubelet's own words are in
    https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/configure-cgroup-driver/.
    """

    @staticmethod
    def default() -> CgroupState:
        return CgroupState(version=0, kubelet_driver=None, runtime_driver=None)

    def command(self) -> str:
        return (
            "test -e /sys/fs/cgroup/cgroup.controllers && echo version 2 || echo version 1; "
            "sed -n 's/^cgroupDriver: */kubelet /p' /var/lib/kubelet/config.yaml 2>/dev/null; "
            "sed -n 's/^ *SystemdCgroup *= */runtime /p' /etc/containerd/config.toml 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> CgroupState:
        rows = dict(line.split()[:2] for line in output if len(line.split()) > 1)
        runtime = rows.get("runtime")
        return CgroupState(
            version=int(rows["version"]),
            kubelet_driver=rows.get("kubelet"),
            runtime_driver=None if runtime is None else {"true": "systemd"}.get(runtime, "cgroupfs"),
        )
