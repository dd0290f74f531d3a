"""What is a difference, what is none, and what of it is shown."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from cluster import audit, reconfiguration
from cluster.endpoint import Endpoint
from cluster.reconfiguration import MANIFESTS, Change
from cluster.settings import load
from cluster.topology import Node, Topology

SETTINGS = load({"vip": "10.0.0.100"})


def pod(*arguments: str) -> str:
    containers = [{"name": "x", "command": ["x", *arguments], "resources": {}}]
    return yaml.safe_dump({"kind": "Pod", "spec": {"containers": containers}, "status": {}})


def pods(**own: str) -> dict[str, str]:
    return {f"{MANIFESTS}/{name}.yaml": own.get(name, pod()) for name in reconfiguration.PHASES}


def test_what_etcd_was_told_when_its_data_was_made_is_no_difference() -> None:
    joined = pod("--name=cp2", "--initial-cluster=cp1=https://a,cp2=https://b", "--initial-cluster-state=existing")
    again = pod("--name=cp2", "--initial-cluster=cp2=https://b")
    assert reconfiguration.manifests(pods(etcd=joined), pods(etcd=again)) == {}
    assert set(reconfiguration.manifests(pods(etcd=joined), pods(etcd=pod("--name=cp3")))) == {"etcd"}


def test_a_container_that_a_sites_patch_puts_beside_a_program_needs_no_command() -> None:
    pods_of = {image: yaml.safe_load(pod()) for image in ("kms:1", "kms:2")}
    for image, each in pods_of.items():
        each["spec"]["containers"].append({"name": "kms", "image": image})
    old, new = ({"kube-apiserver": yaml.safe_dump(each)} for each in pods_of.values())
    live, wanted = (pods() | {f"{MANIFESTS}/{name}.yaml": text for name, text in own.items()} for own in (old, new))
    assert reconfiguration.manifests(live, live) == {}
    assert set(reconfiguration.manifests(live, wanted)) == {"kube-apiserver"}


def test_variables_are_shown_as_digests() -> None:
    old, new = ({"spec": {"env": [{"name": "TOKEN", "value": value}]}} for value in ("secret-1", "secret-2"))
    lines = "\n".join(Change("x", old, new).lines())
    assert "secret" not in lines
    assert lines.count("(not shown, sha256 ") == 2


def test_the_resolvers_file_that_a_host_has_stays_unless_it_is_set() -> None:
    live, wanted = "resolvConf: /run/systemd/resolve/resolv.conf\nmaxPods: 5\n", "maxPods: 5\n"
    assert reconfiguration.kubelet(live, wanted, SETTINGS) is None
    own = load({"vip": "10.0.0.100", "kubelet_config": {"resolvConf": "/etc/own.conf"}})
    change = reconfiguration.kubelet(live, "resolvConf: /etc/own.conf\nmaxPods: 5\n", own)
    assert change and change.new["resolvConf"] == "/etc/own.conf"


def test_a_field_that_is_set_no_longer_is_a_difference() -> None:
    change = reconfiguration.kubelet("maxPods: 5\n", "serializeImagePulls: null\n", SETTINGS)
    assert change and change.new == {}


def test_hosts_that_come_are_no_difference_and_a_name_of_the_settings_is() -> None:
    live = {"kubeadm-config": {"ClusterConfiguration": "apiServer: {certSANs: [10.0.0.100, cp1]}\n"}}
    more = {"kubeadm-config": {"ClusterConfiguration": "apiServer: {certSANs: [10.0.0.100, cp1, cp4, api]}\n"}}
    assert reconfiguration.shared(live, more, SETTINGS) == {}
    named = load({"vip": "10.0.0.100", "api_cert_extra_sans": ("api",)})
    assert set(reconfiguration.shared(live, more, named)) == {"kubeadm-config"}


@pytest.mark.parametrize(
    "arguments",
    ["extraArgs: {authorization-mode: 'Node,RBAC'}", "extraArgs: [{name: authorization-mode, value: 'Node,RBAC'}]"],
)
def test_what_kubeadm_keeps_of_its_own_among_arguments_is_no_difference(arguments: str) -> None:
    live = {"kubeadm-config": {"ClusterConfiguration": f"apiServer: {{certSANs: [cp1], {arguments}}}\n"}}
    wanted = {"kubeadm-config": {"ClusterConfiguration": "apiServer: {certSANs: [cp1]}\n"}}
    assert reconfiguration.shared(live, wanted, SETTINGS) == {}
    other = {"kubeadm-config": {"ClusterConfiguration": "apiServer: {certSANs: [cp1], extraArgs: {v: '2'}}\n"}}
    assert set(reconfiguration.shared(live, other, SETTINGS)) == {"kubeadm-config"}
    more = {
        "kubeadm-config": {
            "ClusterConfiguration": live["kubeadm-config"]["ClusterConfiguration"].replace("RBAC", "RBAC,Webhook")
        }
    }
    assert set(reconfiguration.shared(more, wanted, SETTINGS)) == {"kubeadm-config"}


@pytest.mark.parametrize("word", ["W0130 endpoint.go:57] overrides", "I1130 version.go:1] x", "[dryrun] Would"])
def test_kubeadms_next_word_ends_an_object(word: str) -> None:
    said = f"[dryrun] Attached object:\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{b: c}}\n{word}\n"
    assert reconfiguration.configmaps(said) == {"a": {"b": "c"}}


def test_another_policy_is_in_another_file() -> None:
    policies = [{"rules": [{"level": level}]} for level in audit.LEVELS]
    assert len({audit.path(policy) for policy in policies}) == len(policies)
    assert yaml.safe_load(audit.text(policies[1])) == {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **policies[1]}
    assert audit.api_server({}) == {}


TOPOLOGY = Topology((Node("cp1", ip_address("10.0.0.21")),), (), (Node("lb1", ip_address("10.0.0.11")),))


@pytest.mark.parametrize(
    ("stored", "settings", "left"),
    [
        ("10.0.0.100:6443", {"vip": "10.0.0.101"}, "10.0.0.100:6443"),
        ("10.0.0.100:6443", {"vip": "10.0.0.100"}, None),
        ("[2001:db8::100]:6443", {"vip": "2001:db8::101"}, "[2001:db8::100]:6443"),
        # kubeadm takes an endpoint without a port for the API server's own.
        ("10.0.0.100", {"vip": "10.0.0.101"}, "10.0.0.100:6443"),
        # What other than the address is changed is refused.
        ("10.0.0.100:6443", {"vip": "10.0.0.101", "api_port": 7443}, None),
        ("api.example.org:6443", {"vip": "10.0.0.101"}, None),
        ("10.0.0.100:6443", {"vip": "10.0.0.101", "control_plane_endpoint": "api.example.org:6443"}, None),
        (
            "10.0.0.100:6443",
            {"load_balancing": "external", "control_plane_endpoint": "10.0.0.101:6443", "vip": None},
            None,
        ),
        (None, {"vip": "10.0.0.101"}, None),
    ],
)
def test_a_cluster_follows_to_another_virtual_ip_and_to_nothing_else(
    stored: str | None, settings: dict[str, Any], left: str | None
) -> None:
    found = reconfiguration.left({"controlPlaneEndpoint": stored}, load(settings), TOPOLOGY)
    assert found == (Endpoint.parse(left) if left else None)


def test_names_are_those_of_the_settings_once_the_endpoint_is_another() -> None:
    text = "apiServer: {{certSANs: [{0}, {1}]}}\ncontrolPlaneEndpoint: {0}:6443\n"
    live = {"kubeadm-config": {"ClusterConfiguration": text.format("10.0.0.100", "cp9")}}
    wanted = {"kubeadm-config": {"ClusterConfiguration": text.format("10.0.0.101", "cp1")}}
    change = reconfiguration.shared(live, wanted, load({"vip": "10.0.0.101"}))["kubeadm-config"]
    assert change.new["ClusterConfiguration"]["apiServer"]["certSANs"] == ["10.0.0.101", "cp1"]
