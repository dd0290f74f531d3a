"""What is a difference, what is none, and what of it is shown."""

from __future__ import annotations

import yaml

from cluster import audit, reconfiguration
from cluster.reconfiguration import MANIFESTS, Change
from cluster.settings import load

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


def test_another_policy_is_in_another_file() -> None:
    policies = [{"rules": [{"level": level}]} for level in audit.LEVELS]
    assert len({audit.path(policy) for policy in policies}) == len(policies)
    assert yaml.safe_load(audit.text(policies[1])) == {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **policies[1]}
    assert audit.api_server({}) == {}
