"""The running lab (`python3 tasks.py lab up`), as an inventory."""

from pathlib import Path

from pyinfra.api.exceptions import InventoryError

from bundle.verify import BundleError
from bundle.verify import read_lock as _read_lock
from cluster.compatibility import parse as _parse
from lab.layout import LabError
from lab.layout import read as _read

try:
    _lab = _read()
    _version = _read_lock(Path(_lab["bundle"])).kubernetes_version
except (LabError, BundleError) as error:
    raise InventoryError(str(error)) from None
_cgroup_v1 = _lab["cgroup"] == 1
_kubelet: dict[str, object] = {
    # How full this machine's disk is is not the lab's to judge.
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
    "imageGCHighThresholdPercent": 100,
}
if _cgroup_v1 and _parse(_version) >= (1, 31):
    # The kubelet of 1.35 and later wants cgroup v2 unless told otherwise; before 1.31 it has no such field.
    _kubelet["failCgroupV1"] = False
_members = {group: [each for each in _lab["nodes"] if each["group"] == group] for group in
            ("load_balancer", "control_plane", "worker")}  # fmt: skip
_alone = "control-planes" if len(_members["control_plane"]) > 1 else "none"

_ssh = {
    "ssh_user": _lab["user"],
    "ssh_key": _lab["key"],
    "ssh_known_hosts_file": _lab["known_hosts"],
    "ssh_strict_host_key_checking": "yes",
    "_sudo": True,
}
_site = {
    "cluster_name": "lab",
    "bundle_dir": _lab["bundle"],
    "kubernetes_version": _version,
    # Nodes share this machine's clock.
    "time_sync": "none",
    "vip": _lab["vip"],
    "load_balancing": "dedicated" if _members["load_balancer"] else _alone,
    "allow_scheduling_on_control_planes": not _members["worker"],
    # Nodes share one kernel, and connection tracking's limits are the kernel's.
    "kube_proxy_config": {"conntrack": {"maxPerCore": 0, "min": 0}},
    # Of a node's own network namespace; others would be this machine's.
    "sysctl": {"net.ipv4.tcp_keepalive_time": 600},
    "containerd_restrict_oom_score_adj": _lab["restricted"],
    "kubelet_config": _kubelet,
    "ignore_preflight_errors": ("SystemVerification",) if _cgroup_v1 else (),
}


def _group(name: str) -> list[tuple[str, dict[str, object]]]:
    return [
        (node["name"], {"ssh_hostname": node["address"], "address": node["address"], **_ssh, **_site})
        for node in _members[name]
    ]


load_balancer = _group("load_balancer")
control_plane = _group("control_plane")
worker = _group("worker")
