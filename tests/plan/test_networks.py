"""Pod networks other than flannel: planned, deployed, drifted, grown, and refused where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import GROUPS, Groups, Run, Site, machine, make_bundle, make_site, together

from cluster import bridge

FIRST, *OTHERS = GROUPS["control_plane"]
NODES = {**GROUPS["control_plane"], **GROUPS["worker"]}
CONFLIST = "/etc/cni/net.d/10-bridge.conflist"
STEPS = {
    "Pod network | Configure the bridge of this node's pods",
    "Pod network | Write routes to other nodes' pods",
    "Pod network | Write the service of the routes",
    "Pod network | Have the routes, now and at boot",
}
CONNECT = {"Pod network | Write routes to other nodes' pods", "Pod network | Have the routes, now and at boot"}
OWN = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: network, namespace: kube-system}
spec:
  template:
    spec:
      containers: [{name: network, image: ghcr.io/flannel-io/flannel:1}]
"""


CALICO = """\
---
kind: ConfigMap
apiVersion: v1
metadata: {name: calico-config, namespace: kube-system}
data: {calico_backend: "bird", veth_mtu: "0"}
---
kind: DaemonSet
apiVersion: apps/v1
metadata: {name: calico-node, namespace: kube-system}
spec:
  template:
    spec:
      containers:
        - name: calico-node
          image: quay.io/calico/node:v3.32.1
          env: [{name: IP, value: autodetect}]
          livenessProbe: {exec: {command: [calico-node, -felix-live, -bird-live]}}
          readinessProbe: {exec: {command: [calico-node, -felix-ready, -bird-ready]}}
"""
CRDS = """\
kind: CustomResourceDefinition
metadata:
  name: installations.operator.tigera.io
"""
OPERATOR = """\
kind: Deployment
metadata: {name: tigera-operator}
spec: {template: {spec: {containers: [{name: tigera-operator, image: quay.io/tigera/operator:v1.42.3}]}}}
"""
IMAGES = (
    "quay.io/tigera/operator:v1.42.3",
    *(f"quay.io/calico/{name}:v3.32.1" for name in ("node", "typha", "cni", "kube-controllers")),
)
# As Cilium's chart has it, in parts.
CILIUM = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {ipam: kubernetes, enable-ipv4: "true", enable-ipv6: "false"}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium, namespace: kube-system}
spec: {template: {spec: {containers: [{name: cilium-agent, image: "quay.io/cilium/cilium:v1.20.2"}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cilium-operator
  namespace: kube-system
spec:
  replicas: 2
  template: {spec: {containers: [{name: cilium-operator, image: "quay.io/cilium/operator-generic:v1.20.2"}]}}
"""
FILES = {"calico.yaml": CALICO, "operator-crds.yaml": CRDS, "tigera-operator.yaml": OPERATOR}


@pytest.fixture(scope="session")
def with_calico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("calico-bundle"), more=IMAGES, added=FILES)


@pytest.fixture(scope="session")
def with_cilium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [f"quay.io/cilium/{name}:v1.20.2" for name in ("cilium", "operator-generic")]
    directory = tmp_path_factory.mktemp("cilium-bundle")
    return make_bundle(directory, more=images, networks={"cilium-ipv4": ("v1.20.2", CILIUM)})


@dataclass(frozen=True)
class Deployed:
    """A dry run on bare machines, the run that followed, and the machines after it."""

    site: Site
    plan: Run
    run: Run


def smaller(but: str) -> Groups:
    return {group: {name: each for name, each in members.items() if name != but} for group, members in GROUPS.items()}


@pytest.fixture(scope="module")
def futures(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, with_calico: Path, with_cilium: Path
) -> dict[str, Future[Any]]:
    def whole(what: str, **settings: object) -> Callable[[], Any]:
        chosen = {"calico": with_calico, "cilium": with_cilium}.get(str(settings["cni"]), bundle)
        site = make_site(tmp_path_factory.mktemp(what), chosen, addons=(), **settings)
        return lambda: Deployed(site, site.run("--dry", "--json"), site.run("-y"))

    own = tmp_path_factory.mktemp("manifest") / "network.yaml"
    own.write_text(OWN)
    return together(
        {
            "bridge": whole("bridge", cni="bridge"),
            "none": whole("none", cni="none"),
            "own": whole("own", cni="none", cni_manifest=str(own)),
            "operator": whole("operator", cni="calico", kube_proxy_mode="nftables", calico_encapsulation="bgp"),
            "manifest": whole("manifest", cni="calico", calico_installation="manifest"),
            "cilium": whole("cilium", cni="cilium"),
        }
    )


def result(futures: dict[str, Future[Any]], what: str) -> Deployed:
    found: Deployed = futures[what].result()
    assert found.run.code == 0, found.run.words[-3000:]
    return found


@pytest.fixture
def bridged(futures: dict[str, Future[Any]]) -> Deployed:
    return result(futures, "bridge")


@pytest.fixture
def site(bridged: Deployed, tmp_path: Path) -> Site:
    return bridged.site.copy(tmp_path / "site")


@pytest.mark.parametrize("what", ["bridge", "none", "own", "operator", "manifest", "cilium"])
def test_the_run_changes_what_the_plan_says_and_a_second_nothing(
    futures: dict[str, Future[Any]], what: str, tmp_path: Path
) -> None:
    found = result(futures, what)
    assert found.plan.code == 0, found.plan.words
    assert found.plan.changes == []
    assert found.plan.planned
    assert found.plan.differs(found.run) == []
    site = found.site.copy(tmp_path / "site")
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert (plan.code, run.code) == (0, 0), run.words
    assert plan.planned == run.made == set()
    assert plan.differs(run) == []


def test_bare_hosts_are_told_what_will_be_known_later(tmp_path: Path, bundle: Path) -> None:
    words = make_site(tmp_path / "site", bundle, addons=(), cni="bridge").run("--dry").words
    assert f"] create {CONFLIST} (subnets of pods are known once <host> joined)" in words
    assert f"create {bridge.SCRIPT} (subnets of pods are known once {', '.join(NODES)} joined)" in words


def assert_connected(site: Site) -> None:
    """Every node's own subnet is the API's, and its routes lead to all others'."""
    with site.state() as state:
        nodes = {name: state["nodes"][name] for name in state["cluster"]["nodes"]}
    subnets = {name: state["cluster"]["subnets"][name] for name in nodes}
    assert len(set(subnets.values())) == len(nodes)
    for name, node in nodes.items():
        plugin, portmap = json.loads(node["files"][CONFLIST]["text"])["plugins"]
        assert plugin["ipam"]["ranges"] == [[{"subnet": subnets[name]}]]
        assert plugin["mtu"] == 1500
        assert not plugin.get("ipMasq")
        assert portmap["type"] == "portmap"
        others = {subnets[each]: nodes[each]["address"] for each in nodes if each != name}
        assert node["routes"] == others
        assert "nat -A POD-NETWORK -d 10.244.0.0/16 -j RETURN" in node["rules"]
        assert "nat -A POD-NETWORK -s 10.244.0.0/16 -j MASQUERADE --random-fully" in node["rules"]
        assert node["units"][bridge.UNIT]["enabled"]
    assert set(state["cluster"]["applied"]) == set()


def test_every_node_has_a_route_to_every_other(bridged: Deployed) -> None:
    assert_connected(bridged.site)
    with bridged.site.state() as state:
        assert not any(CONFLIST in state["nodes"][name]["files"] for name in GROUPS["load_balancer"])


def lost_route(nodes: dict[str, Any]) -> None:
    nodes["w1"]["routes"].popitem()


def lost_rules(nodes: dict[str, Any]) -> None:
    nodes["w1"]["rules"] = []


def strange_route(nodes: dict[str, Any]) -> None:
    nodes["w1"]["routes"]["10.244.99.0/24"] = "10.0.0.99"


def stopped(nodes: dict[str, Any]) -> None:
    nodes["w1"]["units"][bridge.UNIT]["active"] = False


def edited(nodes: dict[str, Any]) -> None:
    nodes["w1"]["files"][CONFLIST]["text"] = "{}\n"


@pytest.mark.parametrize(
    ("happen", "step"),
    [
        (lost_route, "Have the routes, now and at boot"),
        (lost_rules, "Have the routes, now and at boot"),
        (strange_route, "Have the routes, now and at boot"),
        (stopped, "Have the routes, now and at boot"),
        (edited, "Configure the bridge of this node's pods"),
    ],
)
def test_drift_is_announced_mended_and_gone(site: Site, happen: Callable[[dict[str, Any]], None], step: str) -> None:
    with site.state() as state:
        happen(state["nodes"])
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words
    assert plan.planned == run.made == {("w1", f"Pod network | {step}")}
    assert plan.differs(run) == []
    assert_connected(site)


def network_changes(run: Run) -> set[tuple[str, str]]:
    return {(host, name) for host, name in run.planned if name.startswith("Pod network")}


def test_a_node_that_is_added_gets_into_the_routes_of_the_others(tmp_path: Path, bundle: Path) -> None:
    before = make_site(tmp_path / "before", bundle, smaller("w2"), addons=(), cni="bridge")
    assert before.run("-y").code == 0
    site = make_site(tmp_path / "after", bundle, addons=(), cni="bridge")
    with before.state() as old, site.state() as state:
        state["cluster"], state["clock"] = old["cluster"], old["clock"]
        state["nodes"].update(old["nodes"])
    plan = site.run("--dry", "--json")
    assert network_changes(plan) == {
        *((name, step) for name in NODES for step in CONNECT),
        *(("w2", step) for step in STEPS),
    }
    run = site.run(answers="\n")
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    assert_connected(site)


def test_a_node_that_is_replaced_gets_a_subnet_of_its_own_and_the_others_new_routes(site: Site) -> None:
    with site.state() as state:
        state["nodes"]["w2"] = machine(NODES["w2"])
        before = state["cluster"]["subnets"]["w2"]
    plan = site.run("--dry", "--json")
    assert {host for host, _ in network_changes(plan)} == set(NODES)
    run = site.run(answers="\n")
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    assert_connected(site)
    with site.state() as state:
        assert state["cluster"]["subnets"]["w2"] != before


def test_a_route_to_a_node_that_has_left_the_cluster_is_taken_away(
    bridged: Deployed, tmp_path: Path, bundle: Path
) -> None:
    site = make_site(tmp_path / "after", bundle, smaller("w3"), addons=(), cni="bridge")
    with bridged.site.state() as old, site.state() as state:
        state["cluster"], state["clock"] = old["cluster"], old["clock"]
        state["nodes"] = {name: each for name, each in old["nodes"].items() if name != "w3"}
        del state["cluster"]["nodes"]["w3"]
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    assert network_changes(plan) == {(name, step) for name in NODES if name != "w3" for step in CONNECT}
    assert_connected(site)


def test_without_a_network_the_run_ends_and_says_what_it_has_not_checked(futures: dict[str, Future[Any]]) -> None:
    run = result(futures, "none").run
    assert "not checked, for these nodes have no pod network yet, and with cni none it is yours to install" in run.words
    assert run.like("get pods -A", "read") == run.like("agnhost connect", "probe") == []
    assert not [each for each in run.changes if each["operation"] and "Pod network" in each["operation"]]


def test_a_network_of_ones_own_is_applied_waited_for_and_verified(futures: dict[str, Future[Any]]) -> None:
    found = result(futures, "own")
    (waited,) = found.run.like("wait --for=condition=Ready node --all --timeout=180s", "read")
    assert waited["host"] == FIRST
    assert found.run.like("agnhost connect", "probe") != []
    with found.site.state() as state:
        assert state["nodes"][FIRST]["files"]["/etc/kubernetes/addons/network.yaml"]["text"] == OWN
        assert set(state["cluster"]["applied"]) == {"/etc/kubernetes/addons/network.yaml"}


def test_calicos_operator_comes_before_what_it_installs_with_the_bundles_images(
    futures: dict[str, Future[Any]],
) -> None:
    found = result(futures, "operator")
    applied = [each["command"].rpartition(" -f ")[2] for each in found.run.like("apply --server-side", "change")]
    addons = "/etc/kubernetes/addons"
    assert applied == [f"{addons}/tigera-operator.yaml", f"{addons}/calico-installation.yaml"]
    (waited,) = found.run.like("wait --for=condition=Available tigerastatus/calico --timeout=300s", "read")
    assert waited["host"] == FIRST
    with found.site.state() as state:
        files = state["nodes"][FIRST]["files"]
    assert files[applied[0]]["text"] == f"{CRDS}---\n{OPERATOR}"
    spec = yaml.safe_load(files[applied[1]]["text"])["spec"]
    assert spec["registry"] == "quay.io/"
    assert spec["calicoNetwork"]["linuxDataplane"] == "Nftables"
    assert spec["calicoNetwork"]["ipPools"][0]["cidr"] == "10.244.0.0/16"


def test_calicos_manifest_is_applied_with_the_settings_in_it(futures: dict[str, Future[Any]]) -> None:
    found = result(futures, "manifest")
    with found.site.state() as state:
        (path,) = state["cluster"]["applied"]
        text = state["nodes"][FIRST]["files"][path]["text"]
    configuration, daemons = yaml.safe_load_all(text)
    assert configuration["data"] == {"calico_backend": "vxlan", "veth_mtu": "0"}
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert {"name": "IP_AUTODETECTION_METHOD", "value": "kubernetes-internal-ip"} in container["env"]
    assert found.run.like("rollout status -n kube-system daemonset/calico-node", "read") != []


def test_cilium_is_applied_as_the_bundle_has_it_and_waited_for(futures: dict[str, Future[Any]]) -> None:
    found = result(futures, "cilium")
    with found.site.state() as state:
        (path,) = state["cluster"]["applied"]
        file = state["nodes"][FIRST]["files"][path]
    assert path == "/etc/kubernetes/addons/cilium.yaml"
    assert (file["text"], file["mode"]) == (CILIUM, "600")
    (waited,) = found.run.like("rollout status -n kube-system daemonset/cilium --timeout=300s", "read")
    assert waited["host"] == FIRST
    assert found.run.like("agnhost connect", "probe") != []


def test_certificates_that_ciliums_chart_has_made_are_not_shown(tmp_path: Path) -> None:
    made = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: hubble-server-certs}\ndata: {tls.key: a2V5IG9m}\n"
    images = [f"quay.io/cilium/{name}:v1.20.2" for name in ("cilium", "operator-generic")]
    own = make_bundle(tmp_path / "bundle", more=images, networks={"cilium-ipv4": ("v1.20.2", CILIUM + made)})
    run = make_site(tmp_path / "site", own, addons=(), cni="cilium").run("--dry", "--diff")
    assert run.code == 0, run.words
    assert "/etc/kubernetes/addons/cilium.yaml" in run.words
    assert "a2V5IG9m" not in run.words


@pytest.mark.parametrize("what", ["operator", "manifest", "cilium"])
def test_what_somebody_changed_of_calico_or_cilium_is_announced_and_put_back(
    futures: dict[str, Future[Any]], what: str, tmp_path: Path
) -> None:
    site = result(futures, what).site.copy(tmp_path / "site")
    with site.state() as state:
        *_, last = state["cluster"]["applied"]
        state["cluster"]["applied"][last] = "another"
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words
    assert [host for host, _ in plan.planned] == [FIRST]
    assert plan.differs(run) == []
    assert site.run("--dry", "--json").planned == set()


def manifest(directory: Path, text: str) -> str:
    path = directory / "network.yaml"
    path.write_text(text)
    return str(path)


# What -> settings, words of the refusal.
INPUTS: dict[str, tuple[Callable[[Path], dict[str, object]], list[str]]] = {
    "a mode that this Kubernetes does not know": (
        lambda _: {"kube_proxy_mode": "nftables", "kubernetes_version": "v1.30.0"},
        ["kube_proxy_mode: kube-proxy of Kubernetes 1.30 has no mode nftables", "or Kubernetes 1.31 or later."],
    ),
    "a mode by kube-proxy's own configuration": (
        lambda _: {"kube_proxy_config": {"mode": "ipvs"}},
        ["kube_proxy_config.mode: is not taken from here: set `kube_proxy_mode` instead."],
    ),
    "IPVS where the kernel has none": (
        lambda _: {"kube_proxy_mode": "ipvs"},
        ["the kernel has no ip_vs, neither loadable nor compiled in", "Set another `kube_proxy_mode`", "check: ipvs"],
    ),
    "Calico that the bundle has not": (
        lambda _: {"cni": "calico"},
        [
            'calico_installation "operator", and the bundle has no file files/tigera-operator.yaml',
            "Name it under `manifests` and `extra_files` in bundle.yaml",
        ],
    ),
    "Cilium that the bundle has not": (
        lambda _: {"cni": "cilium"},
        [
            "cni: is cilium, and the bundle has no networks/cilium-ipv4.yaml.",
            "Set `networks: [cilium]` in bundle.yaml and build the bundle anew",
        ],
    ),
    "a manifest for another network": (
        lambda directory: {"cni_manifest": manifest(directory, OWN)},
        ['`cni_manifest` installs a network of your own: set cni to "none", not "flannel"'],
    ),
    "a manifest that is not there": (
        lambda _: {"cni": "none", "cni_manifest": "/not/there.yaml"},
        ["cni_manifest: there is no file /not/there.yaml"],
    ),
    "a manifest whose images the bundle has not": (
        lambda directory: {"cni": "none", "cni_manifest": manifest(directory, OWN.replace("flannel:1", "weave:2"))},
        ["names ghcr.io/flannel-io/weave:2, which the bundle has not", "Add the file to `manifests` in"],
    ),
    "a network of pods too small for the nodes": (
        lambda _: {"cni": "bridge", "pod_subnet": "10.244.0.0/22"},
        ["pod_subnet 10.244.0.0/22: has room for 4 nodes of a /24 each, the inventory has 6"],
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[dict[str, Future[Run]]]:
    def start(make: Callable[[Path], dict[str, object]]) -> Callable[[], Run]:
        directory = tmp_path_factory.mktemp("input")
        site = make_site(directory / "site", bundle, **make(directory))
        return lambda: site.run("-y")

    yield together({what: start(make) for what, (make, _) in INPUTS.items()})


@pytest.mark.parametrize("what", INPUTS)
def test_input_that_cannot_work_is_refused_before_any_change(refused: dict[str, Future[Run]], what: str) -> None:
    run = refused[what].result()
    assert run.code == 1
    assert run.changes == []
    for words in INPUTS[what][1]:
        assert words in run.words
    assert "Traceback" not in run.words
