"""Processors, memory, disks, and what runs on them (guide 2.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cluster import eviction, families, pieces
from cluster.findings import Finding
from cluster.preflight.seen import Seen
from cluster.topology import Node, bundle_servers


class Need(NamedTuple):
    """What a role needs: in CPUs, MiB and GB."""

    cpus: int
    memory: int
    memory_recommended: int
    disk_recommended: int


# kubeadm's own least (kubeadm 1.36, constants.ControlPlaneNumCPU and ControlPlaneMem), then the guide's table; of the
# memory of a machine the kernel keeps up to a tenth for itself before it counts.
NEEDS = {
    "control_plane": Need(2, 1700, 1850, 40),
    "worker": Need(1, 0, 1850, 40),
    "load_balancer": Need(1, 0, 925, 10),
}
# Where images lie once loaded, and how large: their packed layers once more, and unpacked to about three times that.
CONTAINERD, UNPACKED = "/var/lib/containerd", 4
# Packages and programs once installed, in MiB, by the larger of a node and a load balancer.
INSTALLED = 700
FEW_INODES = 0.05
SLOW = 10.0  # ms, of 99 in 100 writes (https://etcd.io/docs/latest/faq/)


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of machines."""
    roles: dict[Node, list[str]] = defaultdict(list)
    for role, node in seen.roles:
        roles[node].append(role)
        if state := seen.hardware.get(node.name):
            yield from _size(role, node.name, state)
            yield from _disk_size(role, node.name, seen.file_systems.get(node.name, []))
    for node in seen.asked:
        if state := seen.hardware.get(node.name):
            yield from _kind(node.name, state, seen.lock.platform.rpartition("/")[2])
        kept = eviction.kept(seen.settings[node.name].kubelet_config) if node in seen.nodes else None
        yield from _room(node.name, seen.file_systems.get(node.name, []), needs(seen, node, roles[node]), kept)
    for name, found in seen.writes.items():
        if found and found["p99_ms"] > SLOW:
            what = f"writes of {found['path']} to its disk take {found['median_ms']:.1f} ms, the slowest of 100 (p99)"
            yield Finding("etcd-disk", (name,), f"{what} {found['p99_ms']:.1f} ms, in {found['writes']} tried")


def _size(role: str, name: str, state: Mapping[str, Any]) -> Iterator[Finding]:
    need, what = NEEDS[role], role.replace("_", " ")
    if state["cpus"] < need.cpus:
        yield Finding("cpus", (name,), f"{state['cpus']} CPU, a {what} needs {need.cpus}")
    memory = f"{state['memory_mib']} MiB of memory, a {what}"
    if state["memory_mib"] < need.memory:
        yield Finding("memory", (name,), f"{memory} needs {need.memory}")
    elif state["memory_mib"] < need.memory_recommended:
        yield Finding("memory-recommended", (name,), f"{memory} should have {need.memory_recommended}")


def _kind(name: str, state: Mapping[str, Any], architecture: str) -> Iterator[Finding]:
    if not state["systemd"]:
        yield Finding("systemd", (name,), "PID 1 is not systemd")
    if state["architecture"] != architecture:
        what = f"architecture {state['architecture']}, the bundle is for {architecture}"
        yield Finding("architecture", (name,), what)


def needs(seen: Seen, node: Node, roles: Sequence[str]) -> dict[str, int]:
    """Room that a deploy will take on a host of these roles, in MiB by path: what it carries, installs and unpacks.

    Of a node that is in the cluster nothing more is asked.
    """
    if seen.kubeadm.get(node.name, {}).get("state") in ("control-plane", "worker"):
        return {}
    server = node in bundle_servers(seen.topology, seen.cluster)
    groups = ("control_plane", "worker", "load_balancer") if server else tuple(roles)
    load = server or seen.cluster.image_delivery == "load"
    carried = sum(
        file.size for file in pieces.pieces(seen.lock, groups, None if server else release(seen, node), load=load)
    )
    images = {blob for image in pieces.images(seen.lock, roles) for blob in image.blobs}
    sizes = {f"sha256:{file.sha256}": file.size for file in seen.lock.files}
    unpacked = UNPACKED * sum(sizes.get(blob, 0) for blob in images)
    found = {pieces.NODE_DIRECTORY: carried // 2**20, CONTAINERD: unpacked // 2**20}
    # Once pieces have come, so have packages.
    rows = seen.file_systems.get(node.name, [])
    begun = any(row["used_mib"] for row in rows if row["path"] == pieces.NODE_DIRECTORY)
    return found if begun else found | {"/": INSTALLED}


def release(seen: Seen, node: Node) -> str:
    """The release of a host whose packages it takes from the bundle; empty when there is none."""
    state = seen.hardware.get(node.name)
    return (families.release(families.system(state), seen.lock.package_sets) if state else None) or ""


def _room(
    name: str, rows: list[Mapping[str, Any]], needed: Mapping[str, int], kept: eviction.Amount | None
) -> Iterator[Finding]:
    wanted: dict[str, dict[str, int]] = defaultdict(dict)
    by_mount: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        by_mount[row["mount"]] = row
        if row["path"] in needed:
            # What an earlier run has brought needs no more room; of images their packed layers are known.
            brought = row["used_mib"] * (UNPACKED if row["path"] == CONTAINERD else 1)
            wanted[row["mount"]][row["path"]] = max(needed[row["path"]] - brought, 0)
    for mount, row in by_mount.items():
        need = sum(wanted[mount].values())
        if row["free_mib"] < need:
            parts = ", ".join(f"{path} {size}" for path, size in wanted[mount].items() if size)
            what = f"{row['free_mib']} MiB free on the file system of {mount}, {need} needed ({parts})"
            yield Finding("disk-free", (name,), what)
        elif kept and row["free_mib"] - need < kept.of(row["size_mib"]):
            what = f"{row['free_mib']} of {row['size_mib']} MiB free on the file system of {mount}"
            yield Finding("disk-pressure", (name,), f"{what}, and {need} needed" if need else what)
        # Some file systems, such as btrfs, have no such number.
        if row["inodes"] and row["inodes_free"] < FEW_INODES * row["inodes"]:
            what = f"{row['inodes_free']} of {row['inodes']} inodes free on the file system of {mount}"
            yield Finding("inodes", (name,), what)


def _disk_size(role: str, name: str, rows: list[Mapping[str, Any]]) -> Iterator[Finding]:
    # By each file system once; makers' GB, and some of them for the file system itself.
    size = sum({row["mount"]: row["size_mib"] for row in rows}.values())
    wanted = NEEDS[role].disk_recommended
    if rows and size < 0.9 * wanted * 1e9 / 2**20:
        what = f"{size} MiB of disk, a {role.replace('_', ' ')} should have {wanted} GB"
        yield Finding("disk-size", (name,), what)
