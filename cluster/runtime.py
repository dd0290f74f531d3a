"""The container runtime of a cluster's nodes: where it listens, how it is configured, what must not be beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.compatibility import parse
from cluster.lock import Lock
from cluster.pieces import RUNTIME, image
from cluster.settings import Settings

SOCKETS = {"containerd": "/run/containerd/containerd.sock", "cri-o": "/var/run/crio/crio.sock"}
UNITS = {"containerd": "containerd.service", "cri-o": "crio.service"}
# Packages that bring a runtime's programs: distributions', Docker's and CRI-O's own.
PACKAGES = {"containerd": ("containerd", "containerd.io"), "cri-o": ("cri-o",)}
# Where containerd is told of registries, a directory for each or for all.
REGISTRIES = "/etc/containerd/certs.d"


@dataclass(frozen=True)
class Wanted:
    """What a node's runtime is to run with, whichever it is: who drives control groups, and the image beneath pods."""

    name: str
    driver: str
    pause: str

    @property
    def socket(self) -> str:
        """Path of the socket on which it serves the CRI."""
        return SOCKETS[self.name]

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return UNITS[self.name]


def wanted(settings: Settings, lock: Lock) -> Wanted:
    """The runtime of this cluster's nodes. The kubelet and the runtime must have one driver of control groups.

    https://kubernetes.io/docs/setup/production-environment/container-runtimes/#cgroup-drivers
    """
    return Wanted(settings.container_runtime, "systemd", image(lock, "pause").name)


def is_carried(lock: Lock) -> bool:
    """Whether the runtime's programs are pieces of the bundle, and not in a package of the distribution."""
    return any(file.path.startswith(f"{RUNTIME}/") for file in lock.files)


def oci_runtime(lock: Lock) -> str:
    """By which program CRI-O runs containers: the bundle's runc where it has that, else crun."""
    return "runc" if any(file.path == f"{RUNTIME}/runc" for file in lock.files) else "crun"


def config_version(containerd: str) -> int:
    """The newest version of config.toml that a release of containerd reads; 1.6 reads a newer one as an empty one.

    https://github.com/containerd/containerd/blob/v2.3.4/RELEASES.md#daemon-configuration
    """
    return 4 if parse(containerd) >= (2, 3, 0) else 3 if parse(containerd) >= (2, 0, 0) else 2


def has_cni_directories(containerd: str) -> bool:
    """Whether CNI plugins are where `bin_dirs` says, and no longer `bin_dir`.

    https://github.com/containerd/containerd/blob/v2.3.4/RELEASES.md#deprecated-config-properties
    """
    return parse(containerd) >= (2, 1, 0)


def problems(settings: Settings, lock: Lock, release: str) -> list[str]:
    """Why the bundle cannot give the runtime that the settings ask for."""
    versions, name = lock.versions(release), settings.container_runtime
    if name in versions and (name == "containerd" or is_carried(lock)):
        return []
    there = ", ".join(f"{each} {versions[each]}" for each in SOCKETS if each in versions)
    return [
        f"container_runtime: is {name}, and the bundle has {there or 'no runtime'}. Choose `runtime` in bundle.yaml "
        "and build it anew, or change container_runtime; docs/runtimes.md shows how."
    ]


def differences(wanted: Wanted, state: Mapping[str, Any]) -> list[str]:
    """What a runtime is or does and should not, in words, from the fact `Runtime`; an empty list when all is well."""
    if state["state"] == "absent":
        return [f"{wanted.name} is not installed"]
    if state["state"] == "unreachable":
        return [f"{wanted.name} does not serve the CRI at {wanted.socket}: {state['error']}"]
    cgroup, kubelet = state["cgroup_driver"], state["kubelet_driver"]
    found = []
    if cgroup != wanted.driver:
        found.append(f"{wanted.name} runs with the cgroup driver {cgroup}, not {wanted.driver}")
    if state["sandbox_image"] != wanted.pause:
        found.append(f"{wanted.name} runs with the pause image {state['sandbox_image']}, not {wanted.pause}")
    if wanted.name == "containerd" and state["registries"] != REGISTRIES:
        found.append(f"{wanted.name} looks for registries in {state['registries'] or 'no place'}, not in {REGISTRIES}")
    if kubelet is not None and kubelet != cgroup:
        found.append(f"the kubelet is configured with the cgroup driver {kubelet}, {wanted.name} with {cgroup}")
    return found
