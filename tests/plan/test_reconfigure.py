"""Settings that change under a cluster that is there: shown, carried one control plane at a time, put back."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, Deployed, Run, Site

CONTROL_PLANES = list(GROUPS["control_plane"])
WORKERS = list(GROUPS["worker"])
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
KUBELET = "/var/lib/kubelet/config.yaml"
FOLLOW = "Cluster | Control planes | Reconfiguration | "


def data(**settings: Any) -> list[str]:
    """Flags that change settings of the inventory."""
    return [word for name, value in settings.items() for word in ("--data", f"{name}={json.dumps(value)}")]


AUDITED = data(cluster_configuration={"apiServer": {"extraArgs": {"audit-log-maxage": "7"}}})


@pytest.fixture
def site(deployed: Deployed, tmp_path: Path) -> Site:
    """A finished cluster of a test's own."""
    return deployed.site.copy(tmp_path / "site")


def changed(run: Run) -> list[tuple[str, str]]:
    """What a run changes, in order, as host and operation."""
    return [(each["host"], each["operation"].rpartition(" | ")[2]) for each in run.changes]


def pods(names: list[str]) -> list[tuple[str, str]]:
    return [(name, f"Have static pods of {name} follow the settings") for name in names]


def text(site: Site, host: str, path: str) -> str:
    with site.state() as state:
        found: str = state["nodes"][host]["files"][path]["text"]
    return found


KEPT = ("cp1", "Have the cluster keep kubeadm's configuration")


def test_an_argument_reaches_one_control_plane_after_the_other_and_then_what_the_cluster_keeps(site: Site) -> None:
    dry = site.run("--dry", "--diff", *AUDITED)
    assert "[cp3] write /etc/kubernetes/manifests/kube-apiserver.yaml: restarts kube-apiserver of cp3" in dry.words
    assert "+    - --audit-log-maxage=7" in dry.words
    assert dry.changes == []
    planned = {(host, name.rpartition(" | ")[2]) for host, name in site.run("--dry", "--json", *AUDITED).planned}
    run = site.run("-y", *AUDITED)
    assert run.code == 0, run.words
    assert changed(run) == [*pods(CONTROL_PLANES), KEPT]
    assert planned == set(changed(run))
    times = [each for each in run.changes if "static pods" in each["operation"]]
    assert all(one["ended"] < other["began"] for one, other in itertools.pairwise(times))
    assert "--audit-log-maxage=7" in text(site, "cp2", MANIFEST)
    assert site.run("-y", *AUDITED).changes == []
    back = site.run("-y")
    assert changed(back) == [*pods(CONTROL_PLANES), KEPT]
    assert site.run("-y").changes == []


def test_a_control_plane_that_fails_ends_the_run_before_the_next_and_the_next_run_goes_on_there(site: Site) -> None:
    site.break_command("cp3", "init phase control-plane apiserver", "kube-apiserver of cp3 did not become ready")
    run = site.run("-y", *AUDITED)
    assert run.code == 1
    assert "kube-apiserver of cp3 did not become ready" in run.words
    assert [host for host, _ in changed(run)] == ["cp1", "cp3"]
    with site.state() as state:
        assert "audit-log-maxage" not in state["cluster"]["configuration"]
    site.mend("cp3")
    again = site.run("-y", *AUDITED)
    assert again.code == 0, again.words
    assert changed(again) == [*pods(["cp3", "cp2"]), KEPT]


def test_no_control_plane_is_restarted_while_another_does_not_answer(site: Site) -> None:
    site.break_command("cp1", "so no other is restarted", "the API server of cp2 is not ready")
    run = site.run("-y", *AUDITED)
    assert run.code == 1
    assert "the API server of cp2 is not ready" in run.words
    assert [each for each in run.changes if each["ok"]] == []


def test_a_field_of_kubelets_reaches_control_planes_one_by_one_then_workers_then_what_the_cluster_keeps(
    site: Site,
) -> None:
    flags = data(kubelet_config={"maxPods": 50})
    dry = site.run("--dry", "--diff", *flags)
    assert "[w1, w2, w3] write /var/lib/kubelet/config.yaml: restarts kubelet of <host>" in dry.words
    assert "+maxPods: 50" in dry.words
    run = site.run("-y", *flags)
    assert run.code == 0, run.words
    hosts = [host for host, _ in changed(run)]
    assert hosts[: len(CONTROL_PLANES)] == CONTROL_PLANES
    assert sorted(hosts[len(CONTROL_PLANES) : -1]) == WORKERS
    assert changed(run)[-1] == ("cp1", "Have the cluster keep the configuration of kubelets")
    assert "maxPods: 50" in text(site, "w3", KUBELET)
    assert site.run("-y", *flags).changes == []


def test_a_field_of_kube_proxy_is_written_once_and_restarts_it(site: Site) -> None:
    flags = data(kube_proxy_config={"conntrack": {"maxPerCore": 0}})
    dry = site.run("--dry", *flags)
    assert "[cp1] write ConfigMap kube-proxy: restarts kube-proxy, node by node" in dry.words
    run = site.run("-y", *flags)
    assert changed(run) == [("cp1", "Have kube-proxy follow the settings")]
    assert site.run("-y", *flags).changes == []


def test_an_audit_policy_is_on_every_control_plane_before_its_api_server_reads_it(site: Site) -> None:
    flags = data(audit_policy={"rules": [{"level": "Metadata"}]})
    run = site.run("-y", *flags)
    assert run.code == 0, run.words
    written = [host for host, operation in changed(run) if operation == "Write the audit policy"]
    assert sorted(written) == sorted(CONTROL_PLANES)
    assert changed(run)[len(written) :] == [*pods(CONTROL_PLANES), KEPT]
    path = re.search(r"--audit-policy-file=(\S+)", text(site, "cp2", MANIFEST))
    assert path and "level: Metadata" in text(site, "cp2", path[1])
    assert site.run("-y", *flags).changes == []
    other = site.run("-y", *data(audit_policy={"rules": [{"level": "Request"}]}))
    assert changed(other)[len(written) :] == [*pods(CONTROL_PLANES), KEPT]


def test_another_name_is_in_the_certificate_of_each_api_server_in_turn(site: Site) -> None:
    flags = data(api_cert_extra_sans=["api.example.org"])
    run = site.run("-y", *flags)
    assert run.code == 0, run.words
    made = [host for host, operation in changed(run) if operation.startswith("Make the API server's certificate")]
    assert made == CONTROL_PLANES
    assert changed(run)[-1] == KEPT
    assert site.run("-y", *flags).changes == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"vip": "10.0.0.101"},
            "vip, api_port or control_plane_endpoint: the cluster has controlPlaneEndpoint 10.0.0.100:6443, and the "
            "settings ask for 10.0.0.101:6443. It cannot be changed once there is a cluster",
        ),
        ({"pod_subnet": "10.9.0.0/16"}, "pod_subnet: the cluster has networking.podSubnet 10.244.0.0/16"),
        ({"service_subnet": "10.97.0.0/16"}, "service_subnet: the cluster has networking.serviceSubnet 10.96.0.0/12"),
        ({"dns_domain": "example.org"}, "dns_domain: the cluster has networking.dnsDomain cluster.local"),
        ({"cluster_name": "other"}, "cluster_name: the cluster has clusterName test"),
    ],
)
def test_what_a_cluster_cannot_follow_is_refused_before_the_first_change(
    site: Site, settings: dict[str, str], words: str
) -> None:
    run = site.run("-y", *data(**settings, cluster_configuration={"scheduler": {"extraArgs": {"v": "2"}}}))
    assert run.code == 1
    assert words in run.words
    assert "Nothing was changed on any host" in run.words
    assert run.changes == []


def test_hosts_of_the_run_are_changed_and_the_others_are_named(site: Site) -> None:
    run = site.run("-y", "--limit", "cp1", *AUDITED, layer="reconfigure")
    assert run.code == 0, run.words
    assert "Warning: cp3, cp2: not in this run, so settings that have changed do not reach them" in run.words
    assert [host for host, _ in changed(run)] == ["cp1", "cp1"]


def test_an_argument_of_the_kubelet_that_a_node_has_not_is_named(site: Site) -> None:
    with site.state() as state:
        flags = {"text": 'A="--node-ip=10.0.0.31"', "mode": "644", "owner": "root:root", "changed": 0}
        state["nodes"]["w1"]["files"]["/var/lib/kubelet/kubeadm-flags.env"] = flags
    own = {"nodeRegistration": {"kubeletExtraArgs": {"v": "3"}}}
    run = site.run("--dry", *data(join_configuration=own))
    assert "[w1]  kubelet has not --v=3, which kubeadm gives it when a node is made" in run.words


def test_nothing_follows_in_the_middle_of_a_rotation_of_cas(site: Site) -> None:
    """kubeadm would take back what that has written into manifests."""
    with site.state() as state:
        file = {"text": "a CA\n", "mode": "600", "owner": "root:root", "changed": 0}
        state["nodes"]["cp2"]["files"]["/etc/kubernetes/pki/rotation/new/ca.crt"] = file
    run = site.run("-y", *AUDITED)
    assert (run.code, run.changes) == (1, [])
    assert "cp2: a rotation of CAs is under way. End it first: deploys/rotate_ca.py goes on with it." in run.words
