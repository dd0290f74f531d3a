"""Settings: every name and every value, right and wrong."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.settings import NAMES, PER_HOST, SettingsError, disagreements, load, markdown

VIP = {"vip": "10.0.0.100"}
# At least one wrong value of every setting.
BAD: list[tuple[str, Any]] = [
    ("load_balancing", "haproxy"),
    ("audit_policy", {"rules": []}),
    ("audit_policy", {"rules": [{"level": "Metadata"}, {"level": "All"}]}),
    ("vip", "10.0.0.300"),
    ("vip", "fe80::1"),
    ("vip", "10.0.0.100,10.0.0.101"),
    ("vip", "api.example.org"),
    ("control_plane_endpoint", "10.0.0.300:6443"),
    ("control_plane_endpoint", "https://api.example.org:6443"),
    ("cluster_name", "My_Cluster"),
    ("cluster_name", ""),
    ("cluster_name", "a" * 64),
    ("kubernetes_version", "1.36.2"),
    ("kubernetes_version", "v1.36"),
    ("kubernetes_version", "v1.36.2\n"),
    ("bundle_dir", 5),
    ("bundle_public_key", 5),
    ("bundle_servers", "lb1"),
    ("bundle_port", 0),
    ("bundle_port", 65536),
    ("image_delivery", "pull"),
    ("container_runtime", "docker"),
    ("secrets_dir", None),
    ("api_port", 0),
    ("api_port", 65536),
    ("api_port", "https"),
    ("vip_interface", 5),
    ("vrrp_router_id", 256),
    ("vrrp_router_id", 0),
    ("vrrp_advert_interval", 0),
    ("pod_subnet", "10.244.0.1/16"),
    ("pod_subnet", "10.244.0.0/33"),
    ("pod_subnet", "10.244.0.0/16,"),
    ("pod_subnet", "10.244.0.0/16,10.245.0.0/16"),
    ("pod_subnet", ["10.244.0.0/16", "fd00::/56"]),
    ("service_subnet", "fd00::1/108"),
    ("dns_domain", "Cluster.Local"),
    ("dns_domain", "cluster..local"),
    ("dns_domain", "cluster.local."),
    ("api_cert_extra_sans", "one.example.org"),
    ("allow_scheduling_on_control_planes", "maybe"),
    ("cni", "weave"),
    ("cni_manifest", 5),
    ("calico_installation", "helm"),
    ("calico_encapsulation", "wireguard"),
    ("kube_proxy_mode", "userspace"),
    ("flannel_backend", "udp"),
    ("addons", "coredns"),
    ("dns_replicas", 0),
    ("dns_forwarders", "10.0.0.2"),
    ("dns_zones", ["corp.example"]),
    ("dns_hosts", ["db.example.org"]),
    ("volume_directory", "srv/volumes"),
    ("volume_directory", "/srv/$(id)"),
    ("init_configuration", "taints: []"),
    ("join_configuration", ["taints"]),
    ("cluster_configuration", "etcd"),
    ("kubelet_config", "maxPods: 20"),
    ("kube_proxy_config", ["mode"]),
    ("sysctl", ["vm.max_map_count"]),
    ("sysctl", {"net.ipv4.ip_forward": "0"}),
    ("ignore_preflight_errors", "SystemVerification"),
    ("containerd_restrict_oom_score_adj", "maybe"),
    ("time_sync", "ntpd"),
    ("ntp_servers", "10.0.0.1"),
    ("host_firewall", "off"),
    ("selinux", "permissive"),
    ("network_manager", True),
    ("host_firewall_node_ports", "perhaps"),
    ("backup_schedule", "daily\nExecStart=/bin/true"),
    ("backup_keep", 0),
    ("certificate_renewal_schedule", "daily\nExecStart=/bin/true"),
    ("certificate_renewal_days", 0),
    ("backup_certificate", 5),
    ("verify_timeout", -1),
    ("drain_timeout", 0),
    ("certificate_warning_days", 0),
    ("certificate_critical_days", -1),
    ("waived_checks", "memory"),
    ("kubelet_drop_ins", 5),
    ("cni_files", 5),
    ("preflight_json", 5),
]


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(data)
    return str(caught.value)


def test_one_setting_is_enough_here_and_the_rest_have_defaults() -> None:
    settings = load(VIP)
    assert str(settings.vip) == "10.0.0.100"
    assert settings.kubernetes_version == "v1.36.2"
    assert str(settings.pod_subnet) == "10.244.0.0/16"
    assert (settings.api_port, settings.kubelet_config, settings.waived_checks) == (6443, {}, ())
    assert (settings.load_balancing, settings.control_plane_endpoint) == ("dedicated", None)
    assert (settings.bundle_public_key, settings.bundle_servers, settings.bundle_port) == (None, (), 5443)
    assert settings.image_delivery == "load"


def test_values_are_taken_as_pyinfra_gives_them() -> None:
    settings = load({**VIP, "api_port": "8443", "ntp_servers": ["10.0.0.1"], "time_sync": "chrony"})
    assert settings.api_port == 8443
    assert settings.ntp_servers == ("10.0.0.1",)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(VIP).api_port = 1  # type: ignore[misc]


def test_what_pyinfra_and_its_connectors_keep_with_a_host_is_passed_over() -> None:
    foreign = {"_sudo": True, "ssh_user": "admin", "address": "10.0.0.1", "fake_responses": {}, "docker_x": 1}
    assert load({**VIP, **foreign}) == load(VIP)


@pytest.mark.parametrize(
    ("mode", "port", "virtual_ip"),
    [("dedicated", 6443, VIP["vip"]), ("control-planes", 8443, VIP["vip"]), ("external", 6443, None),
     ("none", 6443, None)],
)  # fmt: skip
def test_the_port_and_the_virtual_ip_follow_from_who_balances(mode: str, port: int, virtual_ip: str | None) -> None:
    settings = load({**VIP, "load_balancing": mode})
    assert settings.api_port == port
    assert settings.virtual_ip == (IPv4Address(virtual_ip) if virtual_ip else None)
    assert load({**VIP, "load_balancing": mode, "api_port": 9443}).api_port == 9443


def test_a_refusal_says_what_was_left_alone_and_where_to_look() -> None:
    assert refusal({"vip": "x"}) == (
        "These settings cannot work; nothing was changed on any host:\n"
        "  - vip: must be an address, or one of IPv4 and one of IPv6 with a comma between ('x' does not appear to be "
        "an IPv4 or IPv6 address), not 'x'\n"
        "Correct them in the inventory or in group_data/; docs/settings.md describes each."
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pod_subnets", "pod_subnets: there is no such setting; did you mean pod_subnet?"),
        ("kubernetes_versoin", "kubernetes_versoin: there is no such setting; did you mean kubernetes_version?"),
        ("API_PORT", "API_PORT: there is no such setting"),
        ("zzz", "zzz: there is no such setting"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, line: str) -> None:
    assert f"  - {line}\n" in refusal({**VIP, name: "x"})


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}={value!r}" for name, value in BAD])
def test_a_bad_value_names_its_setting_and_itself(name: str, value: Any) -> None:
    (line,) = [each for each in refusal({**VIP, name: value}).splitlines() if each.startswith("  - ")]
    assert line.startswith(f"  - {name}: ")
    assert line.endswith(f", not {value!r}")


@pytest.mark.parametrize(
    "value",
    [
        {"vm.max_map_count": True},
        {"vm.max_map_count": "1\nkernel.panic = 0"},
        {"vm.max_map_count = 1\nkernel.panic": "0"},
    ],
)
def test_a_kernel_setting_is_one_name_and_one_value(value: dict[str, Any]) -> None:
    assert "  - sysctl.vm.max_map_count" in refusal({**VIP, "sysctl": value})


def test_kernel_settings_are_as_the_kernel_shows_them() -> None:
    wanted = {"net.ipv4.tcp_rmem": "4096 \t87380  6291456", "fs.file-max": 100000}
    assert load({**VIP, "sysctl": wanted}).sysctl == {
        "net.ipv4.tcp_rmem": "4096 87380 6291456",
        "fs.file-max": "100000",
    }


def test_every_setting_has_a_bad_value_here() -> None:
    assert {name for name, _ in BAD} == set(NAMES)


def test_a_bad_value_inside_a_list_is_named_by_its_place() -> None:
    assert "  - ntp_servers.1: Input should be a valid string, not 5\n" in refusal({**VIP, "ntp_servers": ["a", 5]})


@pytest.mark.parametrize(
    "server",
    [
        "dns.example.org",
        "10.0.0.256",
        "10.0.0.2:0",
        "10.0.0.2:65536",
        "10.0.0.2:",
        "[2001:db8::53]",
        "[2001:db8::53]:0",
        "[2001:db8::53]:",
        "2001:db8::53,10.0.0.2",
        "fe80::53",
        "fe80::53%eth0",
    ],
)
def test_a_dns_server_is_an_address_with_or_without_a_port(server: str) -> None:
    wanted = "must be an address, with or without a port, such as 192.0.2.53:53 or [2001:db8::53]:53"
    line = f"{wanted}, not {server!r}"
    assert f"  - dns_forwarders.0: {line}\n" in refusal({**VIP, "dns_forwarders": [server]})
    assert f"  - dns_zones.corp.example.0: {line}\n" in refusal({**VIP, "dns_zones": {"corp.example": [server]}})
    right = ("10.0.0.2", "10.0.0.3:5353", "2001:db8::53", "[2001:db8::53]:5353")
    assert load({**VIP, "dns_forwarders": right}).dns_forwarders == right


def test_all_problems_are_in_one_message() -> None:
    said = refusal({"vip": "x", "api_port": 0, "zzz": 1})
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("  - ")] == [
        "  - vip",
        "  - api_port",
        "  - zzz",
    ]


def test_chrony_needs_a_time_server() -> None:
    assert '`ntp_servers` must name a time server when time_sync is "chrony"' in refusal({**VIP, "time_sync": "chrony"})


def test_hosts_that_agree_have_nothing_to_be_said() -> None:
    assert disagreements({"cp1": load(VIP), "w1": load(VIP)}) == []
    assert disagreements({}) == []


def test_hosts_that_disagree_on_a_setting_of_the_cluster_are_named() -> None:
    by_host = {
        "cp1": load(VIP),
        "w1": load({**VIP, "api_port": 8443}),
        "w2": load(VIP),
        "w3": load({"vip": "10.0.0.9"}),
    }
    assert disagreements(by_host) == [
        "vip: is 10.0.0.100 on cp1, but 10.0.0.9 on w3. It is one for the whole cluster: set it in group_data/all.py.",
        "api_port: is 6443 on cp1, but 8443 on w1. It is one for the whole cluster: set it in group_data/all.py.",
    ]


def test_hosts_may_differ_in_what_is_their_own() -> None:
    own = {"vip_interface": "eth1", "kubelet_config": {"maxPods": 20}, "ignore_preflight_errors": ["Swap"]}
    own |= {"containerd_restrict_oom_score_adj": True, "sysctl": {"vm.max_map_count": 262144}}
    own |= {"init_configuration": {"patches": {}}, "join_configuration": {"patches": {}}}
    assert set(own) == PER_HOST
    assert disagreements({"cp1": load(VIP), "w1": load({**VIP, **own})}) == []


def test_markdown_has_a_row_of_every_setting_with_its_default_and_meaning() -> None:
    text = markdown()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(NAMES)
    assert all(row.count("|") == 4 and not row.endswith("None |") for row in rows)
    assert "| `image_delivery` | `'load'` | `load`: images are" in text
    assert "| `pod_subnet` | `'10.244.0.0/16'` | Addresses of pods: a /24 per node, of IPv6 a /64. One" in text
    assert "| `kubelet_config` | `{}` | Merged into KubeletConfiguration (kubelet.config.k8s.io/v1beta1). |" in rows
    assert "| `ntp_servers` | `[]` | Time servers inside the closed network, for chrony. |" in rows
    assert text.startswith("# Settings\n")
    assert text.endswith("\n")
