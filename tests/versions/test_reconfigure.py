"""Real kubeadms write a node's files and the cluster's ConfigMaps aside, and what they would change is told."""

from __future__ import annotations

import os
import subprocess
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import kubeadms
import yaml

from cluster import kubeadm, reconfiguration
from cluster.reconfiguration import KUBELET, kubelet_map
from cluster.settings import Settings, load
from cluster.topology import Node, Topology
from facts.reconfigure import NOTHING, NodeFiles, SharedConfiguration

CP1, CP2 = (Node(f"cp{last}", IPv4Address(f"10.0.0.{last}")) for last in (1, 2))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(), load_balancers=())
BEFORE: dict[str, Any] = {"vip": "10.0.0.100"}
AFTER: dict[str, Any] = BEFORE | {
    "api_cert_extra_sans": ("api.example.org",),
    "audit_policy": {"rules": [{"level": "Metadata"}]},
    "cluster_configuration": {
        "controllerManager": {"extraArgs": {"v": "2"}},
        "etcd": {"local": {"extraArgs": {"heartbeat-interval": "200"}}},
    },
    "kubelet_config": {"maxPods": 50},
    "kube_proxy_config": {"conntrack": {"maxPerCore": 0}},
}


def settings(minor: str, data: dict[str, Any]) -> Settings:
    return load({**data, "kubernetes_version": kubeadms.version(minor)})


def asked(minor: str, command: str, node: Node, mine: Settings, directory: Path) -> list[str]:
    """What a fact's command prints after it has found that this is a node, or a cluster."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "kubeadm").unlink(missing_ok=True)
    (programs / "kubeadm").symlink_to(kubeadms.build(minor))
    done = subprocess.run(
        ["sh", "-c", command], input=kubeadm.live_documents(mine, mine, TOPOLOGY, node), text=True, check=False,
        capture_output=True, env={"PATH": f"{programs}:{os.environ['PATH']}"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def written(minor: str, data: dict[str, Any], directory: Path, node: Node = CP2) -> dict[str, str]:
    command = NodeFiles().command(control_plane=True).rpartition(f"{NOTHING}; ")[2]
    return NodeFiles().process(asked(minor, command, node, settings(minor, data), directory))["wanted"]


def kept(minor: str, data: dict[str, Any], directory: Path) -> dict[str, dict[str, str]]:
    mine = settings(minor, data)
    command = SharedConfiguration().command(kubelet_map(mine.kubernetes_version))
    said = asked(minor, command.rpartition(f"{NOTHING}; ")[2], CP1, mine, directory)
    names = ("kubeadm-config", "kube-proxy", kubelet_map(mine.kubernetes_version))
    items = ", ".join(f'{{"metadata": {{"name": "{name}"}}, "data": {{}}}}' for name in names)
    return SharedConfiguration().process([said[0], f'{{"items": [{items}]}}'])["wanted"]


def test_a_changed_setting_is_in_the_manifests_that_it_concerns_and_in_no_other(minor: str, tmp_path: Path) -> None:
    old, again = written(minor, BEFORE, tmp_path), written(minor, BEFORE, tmp_path)
    assert reconfiguration.manifests(old, again) == {}
    new = written(minor, AFTER, tmp_path)
    changes = reconfiguration.manifests(old, new)
    assert set(changes) == {"etcd", "kube-apiserver", "kube-controller-manager"}
    lines = [line for change in changes.values() for line in change.lines() if line.startswith(("+ ", "- "))]
    assert "+    - --heartbeat-interval=200" in lines
    assert any(line.startswith("+    - --audit-policy-file=/etc/kubernetes/audit/policy-") for line in lines)
    change = reconfiguration.kubelet(old[KUBELET], new[KUBELET], settings(minor, AFTER))
    assert change and "+maxPods: 50" in list(change.lines())


def test_the_configmaps_of_a_changed_cluster_are_told_from_those_of_before(minor: str, tmp_path: Path) -> None:
    old, new = kept(minor, BEFORE, tmp_path), kept(minor, AFTER, tmp_path)
    kubelets = kubelet_map(kubeadms.version(minor))
    assert reconfiguration.shared(old, kept(minor, BEFORE, tmp_path), settings(minor, BEFORE)) == {}
    changes = reconfiguration.shared(old, new, settings(minor, AFTER))
    assert set(changes) == {"kubeadm-config", kubelets, "kube-proxy"}
    assert "+    - api.example.org" in list(changes["kubeadm-config"].lines())
    assert "+    maxPerCore: 0" in list(changes["kube-proxy"].lines())


def test_addresses_that_cannot_change_are_told_with_their_settings(minor: str, tmp_path: Path) -> None:
    other = kept(minor, {"vip": "10.0.0.200", "pod_subnet": "10.9.0.0/16"}, tmp_path)
    stored, wanted = (
        yaml.safe_load(each["kubeadm-config"]["ClusterConfiguration"])
        for each in (kept(minor, BEFORE, tmp_path), other)
    )
    lines = reconfiguration.refused(stored, wanted)
    endpoint = "api_port, control_plane_endpoint or load_balancing"
    assert [line.partition(":")[0] for line in lines] == ["pod_subnet", endpoint]
    assert reconfiguration.refused(stored, wanted, moves=True) == lines[:1]
