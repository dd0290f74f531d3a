"""Which pieces of a bundle a host needs for its role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.lock import File, Image, Lock

# Where a node keeps its pieces, under the same relative paths as in the bundle.
NODE_DIRECTORY = "/var/lib/pyinfra-kubeadm/bundle"
# Images of static pods, which only control planes run.
STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
CONTROL_PLANE_PROGRAMS = ("etcdctl", "etcdutl")
CRICTL = "/usr/bin/crictl"
# The directory of a bundle with a container runtime that is not the distribution's.
RUNTIME = "runtime"


def short_name(reference: str) -> str:
    """`etcd` of `registry.k8s.io/etcd:3.6.8-0`."""
    return reference.rpartition("/")[2].partition(":")[0]


def image(lock: Lock, name: str) -> Image:
    """The image with this short name. Raises LookupError when the bundle has none."""
    for each in lock.images:
        if short_name(each.name) == name:
            return each
    raise LookupError(f"the bundle has no image {name}")


def images(lock: Lock, groups: Sequence[str]) -> list[Image]:
    """Images that a host of these groups runs."""
    if "control_plane" in groups:
        return list(lock.images)
    if "worker" in groups:
        return [each for each in lock.images if short_name(each.name) not in STATIC_PODS]
    return []


class Served(NamedTuple):
    """An image as a registry names it; `sum` is its manifest's sha256 without the algorithm."""

    registry: str
    repository: str
    tag: str
    sum: str


def by_registry(lock: Lock) -> list[Served]:
    """All images, as a registry is asked for them. Names in a bundle are full ones."""
    found = []
    for each in lock.images:
        name, _, tag = each.name.rpartition(":")
        registry, _, repository = name.partition("/")
        found.append(Served(registry, repository, tag, each.digest.partition(":")[2]))
    return found


def programs(lock: Lock, groups: Sequence[str]) -> dict[str, File]:
    """Programs that a host of these groups runs: destination -> piece."""
    if not {"control_plane", "worker"} & set(groups):
        return {}
    found = {}
    for file in lock.files:
        directory, _, name = file.path.rpartition("/")
        if directory in ("bin", RUNTIME) and ("control_plane" in groups or name not in CONTROL_PLANE_PROGRAMS):
            found[f"/usr/bin/{name}"] = file
        elif directory == "cni":
            found[f"/opt/cni/bin/{name}"] = file
    return found


def runtime_programs(lock: Lock, groups: Sequence[str]) -> dict[str, File]:
    """Those of them that a container runtime of the bundle's own consists of."""
    return {dest: file for dest, file in programs(lock, groups).items() if file.path.startswith(f"{RUNTIME}/")}


def pieces(lock: Lock, groups: Sequence[str], release: str | None, load: bool = True) -> list[File]:
    """Files of the bundle that a host of these groups and this release needs, in the bundle's order; without a release,
    packages of all.

    With `load` it also gets the images that it runs; without, it will pull them.
    """
    carried = images(lock, groups) if load else []
    blobs = {f"images/blobs/{blob.replace(':', '/')}" for each in carried for blob in each.blobs}
    wanted = blobs | {file.path for file in programs(lock, groups).values()}
    packages = "packages/" if release is None else f"packages/{release}/"
    return [file for file in lock.files if file.path in wanted or file.path.startswith(packages)]
