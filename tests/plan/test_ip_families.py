"""Sites of IPv6 alone and of both families: planned, deployed, and found as described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, ROOT, Deployed, Run, Site, make_bundle, make_site, together

from cluster.addons import OFFERED
from facts.kubelet import CERTIFICATE

PODS, SERVICES, VIP = ("10.244.0.0/16", "10.96.0.0/12", "10.0.0.100")
PODS6, SERVICES6, VIP6 = ("fd00:10:244::/56", "fd00:10:96::/112", "fd00::100")


def six(address: str) -> str:
    return f"fd00::{address.rpartition('.')[2]}"


@dataclass(frozen=True)
class Case:
    """A site's settings, how its hosts' addresses are made of those of IPv4, and what is to come of it."""

    settings: Mapping[str, Any]
    form: str
    endpoint: str
    binds: list[str]
    address: str
    excluded: str | None
    net_conf: str

    def address_of(self, address: str) -> str:
        return self.form.format(four=address, six=six(address))

    def make(self, directory: Path, bundle: Path) -> Site:
        groups = {
            group: {name: self.address_of(address) for name, address in members.items()}
            for group, members in GROUPS.items()
            if group != "load_balancer" or self.settings.get("load_balancing") != "control-planes"
        }
        site = make_site(directory, bundle, {"load_balancer": {}, **groups}, **self.settings)
        with site.state() as state:
            for node in state["nodes"].values():
                # That the kernel listens to router advertisements is its default.
                node["sysctl"]["net.ipv6.conf.eth0.accept_ra"] = "1"
        return site


CASES = {
    "IPv6": Case(
        {"vip": VIP6, "pod_subnet": PODS6, "service_subnet": SERVICES6, "image_delivery": "registry"},
        "{six}", f"[{VIP6}]:6443", ["bind [::]:6443 v6only"], f"{VIP6}/128 dev eth0", None,
        '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "vxlan"}}',
    ),
    "IPv4 and IPv6": Case(
        {"vip": f"{VIP},{VIP6}", "pod_subnet": f"{PODS},{PODS6}", "service_subnet": f"{SERVICES},{SERVICES6}",
         "addons": ("coredns", "metrics-server", "node-local-dns"), "dns_hosts": {"db.example.org": f"{VIP},{VIP6}"}},
        "{four},{six}", f"{VIP}:6443", ["bind *:6443", "bind [::]:6443 v6only"], f"{VIP}/32 dev eth0",
        f"{VIP6}/128 dev eth0",
        '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", '
        '"Backend": {"Type": "vxlan"}}',
    ),
    "IPv6 and IPv4, of control planes that balance": Case(
        {"vip": f"{VIP6},{VIP}", "pod_subnet": f"{PODS6},{PODS}", "service_subnet": f"{SERVICES6},{SERVICES}",
         "load_balancing": "control-planes", "control_plane_endpoint": "k8s.example.org:8443"},
        "{six},{four}", "k8s.example.org:8443", ["bind [::]:8443 v6only", "bind *:8443"], f"{VIP6}/128 dev eth0",
        f"{VIP}/32 dev eth0",
        '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", '
        '"Backend": {"Type": "vxlan"}}',
    ),
    "two families and a virtual IP of the first": Case(
        {"vip": VIP, "pod_subnet": f"{PODS},{PODS6}", "service_subnet": f"{SERVICES},{SERVICES6}"},
        "{four},{six}", f"{VIP}:6443", ["bind *:6443"], f"{VIP}/32 dev eth0", None,
        '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", '
        '"Backend": {"Type": "vxlan"}}',
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """A dry run on bare machines, the run that followed, a dry run and a run after that, and the machines."""

    site: Site
    plan: Run
    run: Run
    again: tuple[Run, Run]


def whole(site: Site) -> Any:
    plan, run = site.run("--dry", "--json"), site.run("-y")
    return Runs(site, plan, run, (site.run("--dry", "--json"), site.run("-y")))


@pytest.fixture(scope="module")
def with_addons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = (f"{repository}:1" for each in OFFERED.values() for repository in each.images.values())
    return make_bundle(tmp_path_factory.mktemp("bundle"), more=tuple(images))


@pytest.fixture(scope="module")
def futures(tmp_path_factory: pytest.TempPathFactory, with_addons: Path) -> dict[str, Future[Any]]:
    sites = {what: case.make(tmp_path_factory.mktemp("families"), with_addons) for what, case in CASES.items()}
    return together({what: lambda site=site: whole(site) for what, site in sites.items()})


@pytest.fixture(params=CASES)
def what(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def case(what: str) -> Case:
    return CASES[what]


@pytest.fixture
def runs(futures: dict[str, Future[Any]], what: str) -> Runs:
    found: Runs = futures[what].result()
    assert found.run.code == 0, found.run.words[-3000:]
    return found


@pytest.fixture
def nodes(runs: Runs) -> dict[str, Any]:
    with runs.site.state() as state:
        found: dict[str, Any] = state["nodes"]
    return found


def text(node: Any, path: str) -> str:
    found: str = node["files"][path]["text"]
    return found


def balancers(nodes: dict[str, Any]) -> dict[str, Any]:
    return {name: node for name, node in nodes.items() if "haproxy" in node["packages"]}


def test_the_run_changes_what_the_plan_says(runs: Runs) -> None:
    assert runs.plan.code == 0, runs.plan.words[-3000:]
    assert runs.plan.changes == []
    assert runs.plan.planned
    assert runs.plan.differs(runs.run) == []


def test_a_second_run_changes_nothing(runs: Runs) -> None:
    plan, run = runs.again
    assert (plan.code, run.code) == (0, 0), run.words[-3000:]
    assert plan.planned == run.made == set()
    assert plan.differs(run) == []


def test_every_node_is_in_the_cluster_at_the_one_endpoint(case: Case, runs: Runs) -> None:
    with runs.site.state() as state:
        assert set(state["cluster"]["nodes"]) == {*GROUPS["control_plane"], *GROUPS["worker"]}
        assert state["cluster"]["endpoint"] == case.endpoint


def test_haproxy_listens_in_the_families_of_the_virtual_ips_and_asks_api_servers_in_the_first(
    case: Case, nodes: dict[str, Any]
) -> None:
    for node in balancers(nodes).values():
        lines = [line.strip() for line in text(node, "/etc/haproxy/haproxy.cfg").splitlines()]
        assert [line for line in lines if line.startswith("bind ")] == case.binds
        first = [case.address_of(address).split(",")[0] for address in GROUPS["control_plane"].values()]
        wanted = [f"[{each}]:6443" if ":" in each else f"{each}:6443" for each in first]
        assert [line.split()[2] for line in lines if line.startswith("server ")] == wanted


def test_keepalived_has_one_instance_whose_peers_are_of_the_first_family(case: Case, nodes: dict[str, Any]) -> None:
    found = balancers(nodes)
    for name, node in found.items():
        config = text(node, "/etc/keepalived/keepalived.conf")
        own = node["address"].split(",")[0]
        others = [each["address"].split(",")[0] for other, each in found.items() if other != name]
        assert config.count("vrrp_instance") == 1
        assert f"unicast_src_ip {own}\n" in config
        assert re.findall(r"unicast_peer \{\n([^}]*)\}", config)[0].split() == others
        assert re.findall(r"virtual_ipaddress \{\n *([^}]*?)\n *\}", config) == [case.address]
        assert re.findall(r"virtual_ipaddress_excluded \{\n *([^}]*?)\n *\}", config) == (
            [case.excluded] if case.excluded else []
        )


def test_keepalived_asks_haproxy_in_every_family_in_which_it_listens(case: Case, nodes: dict[str, Any]) -> None:
    for node in balancers(nodes).values():
        check = text(node, "/etc/keepalived/check-api")
        assert {"127.0.0.1", "[::1]"} & set(re.findall(r"127\.0\.0\.1|\[::1\]", check)) == {
            "127.0.0.1" if bind.startswith("bind *") else "[::1]" for bind in case.binds
        }
        assert f"https://{case.endpoint}/readyz" in check


def test_nodes_forward_ipv6_and_go_on_listening_to_routers(case: Case, nodes: dict[str, Any]) -> None:
    for name in (*GROUPS["control_plane"], *GROUPS["worker"]):
        lines = text(nodes[name], "/etc/sysctl.d/90-kubernetes.conf").splitlines()
        routers = lines.index("net.ipv6.conf.eth0.accept_ra = 2")
        assert routers < lines.index("net.ipv6.conf.all.forwarding = 1"), "else the default route is forgotten"
        assert nodes[name]["sysctl"]["net.ipv6.conf.eth0.accept_ra"] == "2"


def test_every_host_is_named_with_all_its_addresses(case: Case, nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        lines = text(node, "/etc/hosts").splitlines()
        for name, other in nodes.items():
            for address in other["address"].split(","):
                assert f"{address} {name}" in lines


def test_flannel_has_the_cluster_s_networks(case: Case, nodes: dict[str, Any]) -> None:
    manifest = text(nodes["cp1"], "/etc/kubernetes/addons/flannel.yaml")
    assert f"    {case.net_conf}\n" in manifest
    if "," not in case.form:
        assert "--iface=$(NODE_IP)" in manifest
    else:
        (regex,) = re.findall(r"'--iface-regex=(.*)'", manifest)
        kubernetes = {*GROUPS["control_plane"], *GROUPS["worker"]}
        addresses = {address for name in kubernetes for address in nodes[name]["address"].split(",")}
        assert all(re.search(regex, address) for address in addresses)
        assert not re.search(regex, VIP) and not re.search(regex, VIP6)


def test_the_bundle_is_served_in_the_first_family(case: Case, nodes: dict[str, Any]) -> None:
    served = {name: node for name, node in nodes.items() if "nginx" in node["packages"]}
    assert len(served) == 2
    for name, node in served.items():
        first = node["address"].split(",")[0]
        where = f"[{first}]:5443" if ":" in first else f"{first}:5443"
        assert f"listen {where} ssl;" in text(node, "/etc/bundle-server/nginx.conf")
        hosts = text(nodes["w1"], "/etc/containerd/certs.d/_default/hosts.toml")
        # containerd 1 cannot read `[` there.
        assert f'[host."https://{f"{name}:5443" if ":" in first else where}"]' in hosts


def test_add_ons_have_what_the_families_make_of_them(what: str, nodes: dict[str, Any]) -> None:
    corefile = text(nodes["cp1"], "/etc/kubernetes/addons.d/coredns.yaml")
    assert (f"{VIP} db.example.org" in corefile) == (f"{VIP6} db.example.org" in corefile) == (what == "IPv4 and IPv6")
    if what == "IPv4 and IPv6":
        assert "bind 169.254.20.10 10.96.0.10\n" in text(nodes["cp1"], "/etc/kubernetes/addons.d/node-local-dns.yaml")
        for name in (*GROUPS["control_plane"], *GROUPS["worker"]):
            assert CERTIFICATE in nodes[name]["files"], "its request for both addresses is approved"


# What a site of IPv4 alone had before there was IPv6: host, path, and the file of tests/data/ipv4.
BEFORE = [
    ("lb1", "/etc/haproxy/haproxy.cfg", "haproxy.cfg"),
    ("lb1", "/etc/keepalived/keepalived.conf", "keepalived.conf"),
    ("lb1", "/etc/keepalived/check-api", "check-api"),
    ("lb1", "/etc/bundle-server/nginx.conf", "nginx.conf"),
    ("cp1", "/etc/sysctl.d/90-kubernetes.conf", "90-kubernetes.conf"),
    ("cp1", "/etc/hosts", "hosts"),
    ("cp1", "/etc/containerd/certs.d/_default/hosts.toml", "hosts.toml"),
]


@pytest.mark.parametrize(("host", "path", "name"), BEFORE, ids=[name for *_, name in BEFORE])
def test_a_site_of_ipv4_has_what_it_had_before_there_was_ipv6(
    deployed: Deployed, host: str, path: str, name: str
) -> None:
    """Byte for byte: a cluster that runs sees no change."""
    with deployed.site.state() as state:
        assert text(state["nodes"][host], path) == (ROOT / "tests/data/ipv4" / name).read_text()


def test_flannel_of_ipv4_has_what_it_had_before_there_was_ipv6(deployed: Deployed) -> None:
    with deployed.site.state() as state:
        manifest = text(state["nodes"]["cp1"], "/etc/kubernetes/addons/flannel.yaml")
    assert '    {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}\n' in manifest
    assert "          args: [--ip-masq, --kube-subnet-mgr, --iface=$(NODE_IP)]\n" in manifest
