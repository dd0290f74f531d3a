"""Which add-ons there can be, what is refused beforehand, and what CoreDNS is told. All locks are hand-written."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle import catalogue
from bundle.references import parse
from cluster.addons import OFFERED, cluster_dns, corefile, images, problems, removal, serving, spread
from cluster.kubeadm import init_documents
from cluster.lock import Image, Lock
from cluster.settings import Settings, load
from cluster.topology import Node, Topology
from deploys.plan import TEMPLATES

DIGEST = f"sha256:{'0' * 64}"


def settings(**others: object) -> Settings:
    return load({"vip": "10.0.0.100", **others})


def lock(*names: str, **addons: str) -> Lock:
    """A lock with these images, and add-ons of the site's own."""
    rows = tuple(Image(name=name, digest=DIGEST, size=1, blobs=(DIGEST,)) for name in names)
    return Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=rows, packages=(),
        package_sets={}, files=(), addons=addons,
    )  # fmt: skip


EVERYTHING = lock(*(f"{repository}:v1" for each in OFFERED.values() for repository in each.images.values()))


def rendered(name: str, **others: object) -> list[dict[str, Any]]:
    """The objects of an offered add-on's manifest."""
    mine = settings(**others)
    values = {
        **images(name, EVERYTHING), "corefile": corefile(mine), "sha256": "0" * 64, "spread": spread(mine),
        "link_local": "169.254.20.10", "cluster_dns": cluster_dns(mine),
    }  # fmt: skip
    text = TEMPLATES.get_template(f"addons/{name}.yaml.j2").render(settings=mine, **values)
    return [each for each in yaml.safe_load_all(text) if each]


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    return found


@pytest.mark.parametrize(
    ("own", "bundle", "words"),
    [
        ({}, lock(), []),
        ({"addons": ()}, lock(), []),
        ({"addons": ("shop",)}, lock(shop="shop"), []),
        ({"addons": list(OFFERED)}, EVERYTHING, []),
        ({"addons": ("coredns", "coredns")}, lock(), ["addons: coredns is named twice."]),
        (
            {"addons": ("metrics-server",)}, lock(),
            [
                "addons: metrics-server needs registry.k8s.io/metrics-server/metrics-server, which the bundle has not. "
                "Add `addons: [metrics-server]` to bundle.yaml and build, or take metrics-server out of the setting."
            ],
        ),
        (
            {"addons": ("metric-server",)}, EVERYTHING,
            [
                f"addons: there is no metric-server: neither is it one of {', '.join(OFFERED)}, nor has the bundle one "
                "of this name, from `own_addons` in bundle.yaml. Did you mean metrics-server?"
            ],
        ),
        (
            {"addons": (), "dns_replicas": 3}, lock(),
            ["dns_replicas: is set, and `addons` has not coredns, which it is for. Add coredns there."],
        ),
        ({"dns_zones": {"corp.example": ()}}, lock(), ["dns_zones: corp.example has no server. Name one or more."]),
        (
            {"addons": ("metrics-server",), "kubelet_config": {"serverTLSBootstrap": False}}, EVERYTHING,
            [
                "addons: metrics-server checks the certificates of kubelets, and kubelet_config.serverTLSBootstrap is "
                "false. Take that out of kubelet_config."
            ],
        ),
        (
            {"addons": ("node-local-dns",), "kube_proxy_mode": "ipvs"}, EVERYTHING,
            [
                "addons: node-local-dns takes the address of the cluster's DNS on each node, which needs kube-proxy's "
                "mode iptables, and kube_proxy_mode is ipvs. Take one of the two out."
            ],
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words(own: dict[str, Any], bundle: Lock, words: list[str]) -> None:
    assert problems(settings(**own), bundle) == words


def test_images_are_those_of_the_bundle_by_their_repositories() -> None:
    known = lock("registry.k8s.io/other/controller:v9", "registry.k8s.io/ingress-nginx/controller:v1.15.1")
    assert images("ingress-nginx", known) == {"image": "registry.k8s.io/ingress-nginx/controller:v1.15.1"}


def test_a_bundle_with_every_offered_add_on_has_every_image_that_is_asked_for(tmp_path: Path) -> None:
    site = tmp_path / "bundle.yaml"
    site.write_text(f"addons: [{', '.join(name for name in OFFERED if name != 'coredns')}]")
    names = [parse(each).name for each in catalogue.load(site).extra_images]
    assert {name for name in OFFERED if images(name, lock(*names))} == set(OFFERED) - {"coredns"}


@pytest.mark.parametrize("name", OFFERED)
def test_an_offered_manifest_has_its_own_objects_once_and_takes_no_image_but_the_bundles(name: str) -> None:
    objects = rendered(name)
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(set(keys)) == len(keys) > 1
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    assert {namespace for _, namespace, _ in keys if namespace} <= {"kube-system", *made}
    known = {image.name for image in EVERYTHING.images}
    accounts = {(namespace, own) for kind, namespace, own in keys if kind == "ServiceAccount"}
    for each in objects:
        if each["kind"] in ("Deployment", "DaemonSet") and name != "coredns":
            spec = each["spec"]["template"]["spec"]
            assert (
                each["spec"]["selector"]["matchLabels"].items()
                <= each["spec"]["template"]["metadata"]["labels"].items()
            )
            assert {container["image"] for container in spec["containers"]} <= known
            assert {container["imagePullPolicy"] for container in spec["containers"]} == {"IfNotPresent"}
            assert spec["serviceAccountName"] in {account for _, account in accounts}
    for each in (each for each in objects if each["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        accounts = {
            (row["metadata"]["namespace"], row["metadata"]["name"])
            for row in objects
            if row["kind"] == "ServiceAccount"
        }
        assert {(row["namespace"], row["name"]) for row in each["subjects"]} <= accounts


def test_nobody_leaves_out_the_check_of_a_certificate() -> None:
    text = yaml.safe_dump_all(rendered("metrics-server"))
    assert "insecure" not in text.lower()
    arguments = one(rendered("metrics-server"), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--kubelet-preferred-address-types=InternalIP" in arguments


def test_local_path_makes_volumes_where_the_setting_says_by_the_bundles_busybox() -> None:
    data = one(rendered("local-path", volume_directory="/srv/volumes"), "ConfigMap")["data"]
    assert yaml.safe_load(data["config.json"])["nodePathMap"][0]["paths"] == ["/srv/volumes"]
    pod = yaml.safe_load(data["helperPod.yaml"])
    assert pod["spec"]["containers"][0]["image"] == "docker.io/library/busybox:v1"


def test_node_local_dns_answers_at_the_address_of_the_clusters_dns() -> None:
    objects = rendered("node-local-dns", service_subnet="172.30.0.0/16", dns_domain="cluster.test")
    text = one(objects, "ConfigMap")["data"]["Corefile"]
    assert text.startswith("cluster.test:53 {")
    assert text.count("bind 169.254.20.10 172.30.0.10") == text.count("forward . __PILLAR__CLUSTER__DNS__") == 4
    container = one(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][1] == "169.254.20.10,172.30.0.10"


KUBEADMS = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""


def test_without_settings_the_corefile_is_kubeadms_own() -> None:
    """As kubeadm 1.36.2 writes it, and before 1.32 without what its cache does not keep."""
    assert corefile(settings()) == KUBEADMS
    older = KUBEADMS.replace(" {\n       disable success cluster.local\n       disable denial cluster.local\n    }", "")
    assert corefile(settings(kubernetes_version="v1.31.14")) == older


def test_settings_change_the_corefile_and_nothing_else_of_it() -> None:
    found = corefile(
        settings(
            dns_forwarders=("10.0.0.2", "10.0.0.3:5353"),
            dns_hosts={"db.example.org": "10.1.1.1"},
            dns_zones={"corp.example": ("10.2.2.2",)},
        )
    )
    wanted = KUBEADMS.replace("forward . /etc/resolv.conf", "forward . 10.0.0.2 10.0.0.3:5353").replace(
        "    forward", "    hosts {\n       10.1.1.1 db.example.org\n       fallthrough\n    }\n    forward", 1
    )
    zone = "corp.example:53 {\n    errors\n    cache 30\n    forward . 10.2.2.2\n    loop\n    reload\n}\n"
    assert found == wanted + zone


def test_names_of_pods_alone_may_have_an_address_of_each_family() -> None:
    found = corefile(settings(dns_hosts={"db.example.org": "10.1.1.1,fd00::1", "six.example.org": "fd00::6"}))
    rows = "       10.1.1.1 db.example.org\n       fd00::1 db.example.org\n       fd00::6 six.example.org\n"
    assert f"    hosts {{\n{rows}       fallthrough\n    }}\n" in found


FAMILIES = {
    "IPv4": {},
    "IPv6": {"vip": "fd00::100", "pod_subnet": "fd00:10:244::/56", "service_subnet": "fd00:10:96::/112"},
    "IPv4 and IPv6": {
        "pod_subnet": "10.244.0.0/16,fd00:10:244::/56", "service_subnet": "10.96.0.0/12,fd00:10:96::/112",
    },
    "IPv6 and IPv4": {
        "pod_subnet": "fd00:10:244::/56,10.244.0.0/16", "service_subnet": "fd00:10:96::/112,10.96.0.0/12",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("families", "refused"),
    [("IPv4", ["2001:db8::53", "[2001:db8::53]:5353"]), ("IPv6", ["10.0.0.2", "10.0.0.2:53"]),
     ("IPv4 and IPv6", []), ("IPv6 and IPv4", [])],
)  # fmt: skip
def test_dns_servers_that_pods_cannot_reach_are_refused(families: str, refused: list[str]) -> None:
    servers = ("10.0.0.2", "10.0.0.2:53", "2001:db8::53", "[2001:db8::53]:5353")
    own = settings(dns_forwarders=servers, dns_zones={"corp.example": servers}, **FAMILIES[families])
    why = f"cannot be asked by CoreDNS, whose pods have {families} alone, by pod_subnet. Name servers that have an "
    wanted = [
        f"{key}: {', '.join(refused)} {why}address of it." for key in ("dns_forwarders", "dns_zones corp.example")
    ]
    assert problems(own, EVERYTHING) == (wanted if refused else [])


@pytest.mark.parametrize(
    ("families", "address"),
    [("IPv4", "10.96.0.10"), ("IPv4 and IPv6", "10.96.0.10"), ("IPv6", "fd00:10:96::a"),
     ("IPv6 and IPv4", "fd00:10:96::a")],
)  # fmt: skip
def test_the_clusters_dns_is_in_its_first_family_and_node_local_dns_in_ipv4_alone(families: str, address: str) -> None:
    own = settings(addons=("coredns", "node-local-dns"), **FAMILIES[families])
    assert cluster_dns(own) == address
    wanted = (
        f"addons: node-local-dns takes 169.254.20.10 on each node, an address of IPv4, and the cluster's DNS is at "
        f"{address}. Take it out, or let IPv4 be the first family of pod_subnet and service_subnet."
    )
    assert problems(own, EVERYTHING) == ([wanted] if ":" in address else [])


@pytest.mark.parametrize(
    ("version", "fields"),
    [("v1.25.16", set()), ("v1.26.15", {"nodeTaintsPolicy"}), ("v1.36.2", {"nodeTaintsPolicy", "matchLabelKeys"})],
)
def test_pods_of_coredns_are_on_different_nodes_by_what_the_version_knows(version: str, fields: set[str]) -> None:
    found = spread(settings(kubernetes_version=version))
    basic = {"maxSkew", "topologyKey", "whenUnsatisfiable", "labelSelector"}
    assert (set(found) - basic, found["whenUnsatisfiable"]) == (fields, "DoNotSchedule")
    deployment = one(rendered("coredns", kubernetes_version=version, dns_replicas=3), "Deployment")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"] == {"topologySpreadConstraints": [found]}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, False),
        ({"addons": ("metrics-server",)}, True),
        ({"kubelet_config": {"serverTLSBootstrap": True}}, True),
    ],
)
def test_kubelets_serve_by_the_clusters_ca_where_somebody_checks_them(own: dict[str, Any], expected: bool) -> None:
    node = Node("cp1", IPv4Address("10.0.0.21"))
    mine = settings(**own)
    text = init_documents(mine, Topology((node,), (), ()), node, "abcdef.0123456789abcdef", "0" * 64)
    documents = {each["kind"]: each for each in yaml.safe_load_all(text)}
    assert documents["KubeletConfiguration"].get("serverTLSBootstrap", False) is expected
    assert serving(mine) is expected


def test_how_to_remove_an_add_on_is_said_and_coredns_is_never_just_deleted() -> None:
    assert (
        removal("shop")
        == "kubectl delete -f /etc/kubernetes/addons.d/shop.yaml && rm /etc/kubernetes/addons.d/shop.yaml"
    )
    assert removal("metrics-server").startswith("kubectl delete -f /etc/kubernetes/addons.d/metrics-server.yaml && ")
    assert "delete -f" not in removal("coredns")
    assert "kubeadm init phase addon coredns" in removal("coredns")
