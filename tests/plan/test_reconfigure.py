"""Settings that change under a cluster that is there: shown, carried one control plane at a time, put back."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import GROUPS, Deployed, Run, Site, machine

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


def test_nothing_is_kept_by_the_cluster_while_a_control_plane_of_the_run_does_not_answer(site: Site) -> None:
    flags = data(kubelet_config={"maxPods": 50})
    with site.state() as state:
        pods, state["nodes"]["cp3"]["pods"] = state["nodes"]["cp3"]["pods"], {}
    words = "its API server does not answer, so neither its configuration nor what the cluster keeps is changed"
    assert f"[cp3] {words} unless it does by then" in site.run("--dry", *flags, layer="reconfigure").words
    run = site.run("-y", *flags, layer="reconfigure")
    assert run.code == 1
    assert f"cp3: {words}. Look there with" in run.words
    assert [host for host, _ in changed(run)] == ["cp1"]
    # Without anything to change there it is no matter of this deploy.
    assert site.run("-y", "--limit", "cp3", layer="reconfigure").code == 0
    with site.state() as state:
        assert "maxPods" not in state["cluster"]["kubelet"]
        state["nodes"]["cp3"]["pods"] = pods
    again = site.run("-y", *flags, layer="reconfigure")
    assert again.code == 0, again.words
    assert [host for host, _ in changed(again)][:2] == ["cp3", "cp2"]
    assert changed(again)[-1] == ("cp1", "Have the cluster keep the configuration of kubelets")


def test_a_control_plane_whose_join_was_interrupted_is_no_hindrance_and_joins_with_what_the_cluster_keeps(
    site: Site,
) -> None:
    flags = data(kubelet_config={"maxPods": 50})
    with site.state() as state:
        del state["cluster"]["nodes"]["cp2"]
        state["nodes"]["cp2"]["pods"] = {}
    run = site.run("-y", *flags, layer="control_plane")
    assert run.code == 0, run.words
    assert changed(run)[-1] == ("cp2", "Join control plane cp2")
    assert ("cp2", "Have the kubelet of cp2 follow the settings") not in changed(run)
    assert "maxPods: 50" in text(site, "cp2", KUBELET)


def test_a_run_whose_first_control_plane_cannot_write_what_the_cluster_keeps_fails(site: Site) -> None:
    flags = data(kubelet_config={"maxPods": 50})
    site.break_command("cp1", "init phase upload-config kubelet", "cut off")
    assert site.run("-y", *flags, layer="reconfigure").code == 1
    site.mend("cp1")
    with site.state() as state:
        state["nodes"]["cp1"]["pods"] = {}
    run = site.run("-y", *flags, layer="reconfigure")
    assert (run.code, run.changes) == (1, [])
    assert "cp1: its API server does not answer, so it is not known whether ConfigMap" in run.words


def test_a_field_of_kube_proxy_is_written_once_and_restarts_it(site: Site) -> None:
    flags = data(kube_proxy_config={"conntrack": {"maxPerCore": 0}})
    dry = site.run("--dry", *flags)
    assert "[cp1] write ConfigMap kube-proxy: restarts kube-proxy, node by node" in dry.words
    run = site.run("-y", *flags)
    assert changed(run) == [("cp1", "Have kube-proxy follow the settings")]
    assert site.run("-y", *flags).changes == []


def test_an_audit_policy_is_on_every_control_plane_before_its_api_server_reads_it(site: Site) -> None:
    flags = data(audit_policy={"rules": [{"level": "Metadata"}]})
    dry = site.run("--dry", "--json", *flags)
    run = site.run("-y", *flags)
    assert run.code == 0, run.words
    assert dry.planned == run.made
    written = [host for host, operation in changed(run) if operation == "Write the audit policy"]
    assert sorted(written) == sorted(CONTROL_PLANES)
    assert changed(run)[len(written) :] == [*pods(CONTROL_PLANES), KEPT]
    path = re.search(r"--audit-policy-file=(\S+)", text(site, "cp2", MANIFEST))
    assert path and "level: Metadata" in text(site, "cp2", path[1])
    assert site.run("-y", *flags).changes == []
    other = site.run("-y", *data(audit_policy={"rules": [{"level": "Request"}]}), layer="reconfigure")
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
            {"api_port": 7443, "vip": "10.0.0.101"},
            "api_port, control_plane_endpoint or load_balancing: the cluster has controlPlaneEndpoint 10.0.0.100:6443, "
            "and the settings ask for 10.0.0.101:7443. It cannot be changed once there is a cluster",
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


OTHER = "10.0.0.101"
MOVED = ("--data", f"vip={OTHER}")
KEEPALIVED = "/etc/keepalived/keepalived.conf"
LEAD = [(name, f"Lead {name} to {OTHER}:6443") for name in (*CONTROL_PLANES, *WORKERS)]


def carried(site: Site) -> set[tuple[str, ...]]:
    """Virtual IPs in Keepalived's configuration, one for all balancing hosts that have the same."""
    return {tuple(re.findall(r"(\S+)/32 dev", text(site, name, KEEPALIVED))) for name in GROUPS["load_balancer"]}


def test_another_virtual_ip_is_carried_beside_the_old_until_everything_leads_there(site: Site) -> None:
    dry = site.run("--dry", "--json", *MOVED)
    planned = {(host, name.rpartition(" | ")[2]) for host, name in dry.planned}
    assert site.run("--dry", *MOVED).changes == [] and carried(site) == {("10.0.0.100",)}
    run = site.run("-y", *MOVED)
    assert run.code == 0, run.words
    assert planned == {(host, name.rpartition(" | ")[2]) for host, name in run.made}
    order = changed(run)
    restarts = [f"Restart the API server of {name} for its certificate" for name in CONTROL_PLANES]
    certified = [operation for _, operation in order if operation in restarts]
    assert list(dict.fromkeys(certified)) == restarts
    assert [each for each in order if each in LEAD] == LEAD
    steps = [
        "Write Keepalived's configuration", restarts[-1], LEAD[0][1], LEAD[-1][1],
        f"Lead nodes that join to {OTHER}:6443", "Have kube-proxy follow the settings",
        "Apply flannel and wait for it on every node", KEPT[1], "Run Keepalived",
    ]  # fmt: skip
    operations = [operation for _, operation in order]
    last = [len(operations) - operations[::-1].index(each) for each in steps[1:]]
    assert last == sorted(last) and operations.index(steps[0]) < operations.index(restarts[0])
    assert carried(site) == {(OTHER,)}
    with site.state() as state:
        cluster = state["cluster"]
        assert {at for node in state["nodes"].values() for at in node.get("servers", {}).values()} == {f"{OTHER}:6443"}
        assert cluster["info"] == cluster["proxy_server"] == f"{OTHER}:6443"
        configuration = yaml.safe_load(cluster["configuration"])
    assert configuration["controlPlaneEndpoint"] == f"{OTHER}:6443"
    assert OTHER in configuration["apiServer"]["certSANs"]
    admin = (site.directory / "secrets/test/admin.conf").read_text()
    assert admin == text(site, "cp1", "/etc/kubernetes/admin.conf") and OTHER in admin
    assert site.run("-y", *MOVED).changes == []
    assert site.run("-y", "--data", f"vip={OTHER}", layer="reconfigure").changes == []


@pytest.mark.parametrize(
    ("host", "broken"),
    [("cp2", "by https://10.0.0.101:6443; its last words"), ("w2", "by https://10.0.0.101:6443; its last words"),
     ("cp1", "patch configmap cluster-info"), ("cp1", "init phase upload-config kubeadm")],
)  # fmt: skip
def test_on_the_way_to_another_virtual_ip_both_are_carried_and_the_next_run_goes_on(
    site: Site, host: str, broken: str
) -> None:
    site.break_command(host, broken, "cut off")
    run = site.run("-y", *MOVED, layer="reconfigure")
    assert run.code == 1, run.words
    assert carried(site) == {("10.0.0.100", OTHER)}
    site.mend(host)
    dry = site.run("--dry", "--json", *MOVED, layer="reconfigure")
    again = site.run("-y", *MOVED, layer="reconfigure")
    assert again.code == 0, again.words
    assert {(host, name) for host, name in dry.planned} == again.made
    done = {each for each in changed(run) if each in LEAD} - {(host, f"Lead {host} to {OTHER}:6443")}
    assert not done & set(changed(again))
    assert carried(site) == {(OTHER,)}
    assert site.run("-y", *MOVED).changes == []


def test_another_virtual_ip_waits_for_all_hosts_and_for_those_that_are_yet_to_join(site: Site) -> None:
    run = site.run("-y", "--limit", "control_plane", *MOVED, layer="reconfigure")
    assert (run.code, run.changes) == (1, [])
    assert "w1: is not in this run, and would be left where vip was. Widen --limit to all hosts." in run.words
    path = site.directory / "inventory.py"
    path.write_text(
        path.read_text().replace('("@fake/w1"', '("@fake/w9", {"address": "10.0.0.39", **_settings}), ("@fake/w1"')
    )
    with site.state() as state:
        state["nodes"]["w9"] = machine("10.0.0.39")
    run = site.run("-y", *MOVED)
    assert (run.code, run.changes) == (1, [])
    assert "w9: is no node of the cluster yet. Add it in a run of its own" in run.words


@pytest.mark.parametrize("layer", ["network", "renew_certificates", "rotate_ca", "upgrade"])
def test_what_would_be_in_the_way_of_another_virtual_ip_is_refused_until_it_is_there(site: Site, layer: str) -> None:
    run = site.run("-y", *MOVED, layer=layer)
    assert (run.code, run.changes) == (1, [])
    assert f"vip: the cluster finds the API at 10.0.0.100:6443, and the settings have {OTHER}:6443. Run" in run.words
