"""Calico: upstream's manifests with the settings in them, checked by the schemas of its releases."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from harness import DATA, answer

from cluster import calico
from cluster.lock import Image, Lock
from cluster.settings import Settings, load
from facts.kubernetes import Objects
from operations.kubernetes import has

# Of operator.tigera.io/v1 Installation as three releases of Calico have it in their CRDs: all fields of its network and
# of where images are, by name and type; of other fields the names.
SCHEMAS = {
    version: json.loads((DATA / f"Installation.calico-{version}.json").read_text())
    for version in ("3.24.6", "3.29.7", "3.32.1")
}
DIGEST = f"sha256:{'a' * 64}"
CRD = "kind: CustomResourceDefinition\nmetadata:\n  name: installations.operator.tigera.io\n"
MANIFEST = """\
# Upstream's words stay.
---
kind: ConfigMap
apiVersion: v1
metadata:
  name: calico-config
  namespace: kube-system
data:
  typha_service_name: "none"
  calico_backend: "bird"
---
kind: ConfigMap
apiVersion: v1
metadata: {name: another}
data: {calico: "bird"}
---
# Source: an expression that YAML 1.1 has a type for
kind: CustomResourceDefinition
spec: {operator: =}
--- # the daemons
kind: DaemonSet
apiVersion: apps/v1
metadata:
  name: calico-node
  namespace: kube-system
spec:
  template:
    spec:
      initContainers:
        - {name: install-cni, image: "docker.io/calico/cni:VERSION"}
      containers:
        - name: calico-node
          image: docker.io/calico/node:VERSION
          env:
            - {name: DATASTORE_TYPE, value: kubernetes}
            - name: CALICO_NETWORKING_BACKEND
              valueFrom: {configMapKeyRef: {name: calico-config, key: calico_backend}}
            - {name: CALICO_IPV4POOL_IPIP, value: Always}
            - {name: IP, value: autodetect}
          livenessProbe:
            exec: {command: [/bin/calico-node, -felix-live, LIVE]}
          readinessProbe:
            exec: {command: [/bin/calico-node, -felix-ready, READY]}
"""


def settings(**own: Any) -> Settings:
    return load({"vip": "10.0.0.100", "cni": "calico", **own})


def by_manifest(**own: Any) -> Settings:
    return settings(calico_installation="manifest", **own)


def upstream(version: str = "v3.32.1", live: str = "-bird-live", ready: str = "-bird-ready") -> str:
    return MANIFEST.replace("VERSION", version).replace("LIVE", live).replace("READY", ready)


def lock(*names: str) -> Lock:
    images = tuple(Image(name=name, digest=DIGEST, size=1, blobs=(DIGEST,)) for name in names)
    return Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=images, packages=(),
        package_sets={}, files=(),
    )  # fmt: skip


def operators(version: str = "v3.32.1", base: str = "quay.io/calico/") -> Lock:
    return lock(*(f"{base}{name}:{version}" for name in ("cni", "kube-controllers", "node", "typha")), "k/kube-node:1")


def documents(text: str) -> dict[str, Any]:
    found = [yaml.load(part, yaml.BaseLoader) for part in calico.SEPARATOR.split(text)]
    return {f"{each['kind']}/{each.get('metadata', {}).get('name')}": each for each in found if each}


def container(text: str) -> dict[str, Any]:
    spec = documents(text)["DaemonSet/calico-node"]["spec"]["template"]["spec"]
    (found,) = spec["containers"]
    result: dict[str, Any] = found
    return result


def environment(text: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(text)["env"] if "value" in each}


@pytest.mark.parametrize(
    ("encapsulation", "backend", "ipip", "vxlan"),
    [("vxlan", "vxlan", "Never", "Always"), ("ipip", "bird", "Always", "Never"), ("bgp", "bird", "Never", "Never")],
)
def test_the_manifest_has_our_pool_its_encapsulation_and_nodes_by_their_own_addresses(
    encapsulation: str, backend: str, ipip: str, vxlan: str
) -> None:
    wanted = by_manifest(calico_encapsulation=encapsulation, pod_subnet="10.32.0.0/12")
    made = calico.manifest(upstream(), wanted, "v3.32.1")
    assert documents(made)["ConfigMap/calico-config"]["data"] == {
        "typha_service_name": "none",
        "calico_backend": backend,
    }
    assert environment(made) == {
        "DATASTORE_TYPE": "kubernetes",
        "CALICO_IPV4POOL_CIDR": "10.32.0.0/12",
        "CALICO_IPV4POOL_IPIP": ipip,
        "CALICO_IPV4POOL_VXLAN": vxlan,
        "IP": "autodetect",
        "IP_AUTODETECTION_METHOD": "kubernetes-internal-ip",
        "FELIX_BPFENABLED": "false",
        "FELIX_NFTABLESMODE": "Disabled",
    }
    backends = [each for each in container(made)["env"] if each["name"] == "CALICO_NETWORKING_BACKEND"]
    assert backends == [
        {
            "name": "CALICO_NETWORKING_BACKEND",
            "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "calico_backend"}},
        }
    ]


def test_what_the_settings_do_not_concern_stays_as_upstream_wrote_it() -> None:
    made = calico.manifest(upstream(), by_manifest(), "v3.32.1")
    before, after = (calico.SEPARATOR.split(text) for text in (upstream(), made))
    assert [at for at in range(len(before)) if before[at] != after[at]] == [1, 4]
    assert container(made)["image"] == "docker.io/calico/node:v3.32.1"
    assert calico.manifest(made, by_manifest(), "v3.32.1") == made


@pytest.mark.parametrize(("live", "ready"), [("-bird-live", "-bird-ready"), ("--bird-live", "--bird-ready")])
def test_bird_is_asked_for_its_health_only_where_it_runs(live: str, ready: str) -> None:
    def commands(encapsulation: str) -> list[list[str]]:
        wanted = by_manifest(calico_encapsulation=encapsulation)
        found = container(calico.manifest(upstream(live=live, ready=ready), wanted, "v3.32.1"))
        return [found[probe]["exec"]["command"][1:] for probe in ("livenessProbe", "readinessProbe")]

    assert commands("vxlan") == [["-felix-live"], ["-felix-ready"]]
    assert commands("bgp") == commands("ipip") == [["-felix-live", live], ["-felix-ready", ready]]


@pytest.mark.parametrize(
    ("version", "mode", "found"),
    [
        ("v3.32.1", "nftables", "Enabled"),
        ("v3.29.0", "nftables", "Enabled"),
        ("v3.29.0", "iptables", "Disabled"),
        ("v3.32.1", "ipvs", "Disabled"),
        ("v3.28.5", "iptables", None),
    ],
)
def test_the_dataplane_is_in_step_with_kube_proxy(version: str, mode: str, found: str | None) -> None:
    made = calico.manifest(upstream(version), by_manifest(kube_proxy_mode=mode), version)
    assert environment(made).get("FELIX_NFTABLESMODE") == found


def installed(version: str = "v3.32.1", base: str = "quay.io/calico/", **own: Any) -> Any:
    at = calico.placement(operators(version, base))
    assert at is not None
    return yaml.safe_load(calico.installation(settings(**own), at))


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("encapsulation", calico.ENCAPSULATIONS)
@pytest.mark.parametrize("base", ["quay.io/calico/", "registry.test:5000/mine/my-"])
def test_the_installation_is_one_by_the_schemas_of_upstreams_releases(
    version: str, encapsulation: str, base: str
) -> None:
    made = installed(base=base, calico_encapsulation=encapsulation)
    jsonschema.validate(made, SCHEMAS[version], jsonschema.Draft202012Validator)


def test_the_schemas_would_find_what_is_wrong() -> None:
    made = installed(kube_proxy_mode="nftables")
    jsonschema.validate(made, SCHEMAS["3.29.7"])
    with pytest.raises(jsonschema.ValidationError, match="'Nftables' is not one of"):
        jsonschema.validate(made, SCHEMAS["3.24.6"])
    made["spec"]["calicoNetwork"]["ipPool"] = []
    with pytest.raises(jsonschema.ValidationError, match="'ipPool' was unexpected"):
        jsonschema.validate(made, SCHEMAS["3.29.7"])


@pytest.mark.parametrize(
    ("encapsulation", "mode", "bgp", "pool", "dataplane"),
    [
        ("vxlan", "iptables", "Disabled", "VXLAN", "Iptables"),
        ("ipip", "ipvs", "Enabled", "IPIP", "Iptables"),
        ("bgp", "nftables", "Enabled", "None", "Nftables"),
    ],
)
def test_the_operator_installs_what_the_settings_say(
    encapsulation: str, mode: str, bgp: str, pool: str, dataplane: str
) -> None:
    spec = installed(calico_encapsulation=encapsulation, kube_proxy_mode=mode, pod_subnet="10.32.0.0/12")["spec"]
    network = spec["calicoNetwork"]
    assert (network["bgp"], network["linuxDataplane"]) == (bgp, dataplane)
    (made,) = network["ipPools"]
    assert (made["cidr"], made["encapsulation"]) == ("10.32.0.0/12", pool)
    assert network["nodeAddressAutodetectionV4"] == {"kubernetes": "NodeInternalIP"}


def test_images_are_where_the_bundle_has_them() -> None:
    spec = installed()["spec"]
    assert {name: spec.get(name) for name in ("registry", "imagePath", "imagePrefix")} == {
        "registry": "quay.io/", "imagePath": None, "imagePrefix": None,
    }  # fmt: skip
    spec = installed(base="registry.test:5000/mine/my-")["spec"]
    assert (spec["registry"], spec["imagePath"], spec["imagePrefix"]) == ("registry.test:5000/", "mine", "my-")
    assert calico.placement(lock("quay.io/calico/typha:v3.32.1", "quay.io/calico/node:v3.31.0")) is None


CRDS = {"operator-crds.yaml": CRD, "tigera-operator.yaml": "kind: Deployment\n"}


@pytest.mark.parametrize(
    ("wanted", "known", "texts"),
    [
        (settings(), operators(), CRDS),
        (settings(kubernetes_version="v1.31.0"), operators("v3.29.7"), {"tigera-operator.yaml": CRD}),
        (by_manifest(), lock(), {"calico.yaml": upstream()}),
        (by_manifest(kubernetes_version="v1.24.0"), lock(), {"calico.yaml": upstream("v3.22.4")}),
    ],
)
def test_a_bundle_with_all_of_it_is_no_problem(wanted: Settings, known: Lock, texts: dict[str, str]) -> None:
    assert calico.problems(wanted, known, texts) == []


MISSING = (
    "Name it under `manifests` and `extra_files` in bundle.yaml and build the bundle anew; docs/networks.md shows how."
)
BY = "cni: is calico, with calico_installation"


@pytest.mark.parametrize(
    ("wanted", "known", "texts", "found"),
    [
        (
            settings(),
            operators(),
            {},
            f'{BY} "operator", and the bundle has no file files/tigera-operator.yaml. {MISSING}',
        ),
        (
            settings(),
            operators(),
            {"tigera-operator.yaml": "kind: Deployment\n"},
            f'{BY} "operator", and the bundle has no file files/operator-crds.yaml. {MISSING}',
        ),
        (by_manifest(), lock(), {}, f'{BY} "manifest", and the bundle has no file files/calico.yaml. {MISSING}'),
        (
            by_manifest(),
            lock(),
            {"calico.yaml": "kind: Namespace\n"},
            "cni: is calico, and there is no DaemonSet calico-node in files/calico.yaml of the bundle. Add upstream's "
            "calico.yaml, unchanged.",
        ),
        (
            by_manifest(),
            lock(),
            {"calico.yaml": upstream().replace("calico_backend:", "backend:")},
            "cni: is calico, and there is no ConfigMap calico-config in files/calico.yaml of the bundle. Add "
            "upstream's calico.yaml, unchanged.",
        ),
        (
            settings(),
            lock("quay.io/tigera/operator:v1.42.3"),
            CRDS,
            "cni: is calico, and the bundle has no image of calico-node with a version (found none). Name "
            "operator-crds.yaml, tigera-operator.yaml under `manifests` in bundle.yaml and build the bundle anew; "
            "docs/networks.md shows how.",
        ),
        (
            by_manifest(),
            lock(),
            {"calico.yaml": upstream("v3.22.4")},
            "cni: Calico v3.22.4 is below 3.23, the least for Kubernetes 1.36: up to 3.22 its manifests hold a "
            "PodDisruptionBudget of policy/v1beta1, an API that Kubernetes 1.25 removed; take 3.23 or later, or "
            "Kubernetes 1.24.",
        ),
        (
            by_manifest(kubernetes_version="v1.21.14"),
            lock(),
            {"calico.yaml": upstream("v3.21.6")},
            "cni: Calico v3.21.6 does not take a node's address from Kubernetes, so it might take the virtual IP; take "
            "3.22 or later.",
        ),
        (
            settings(kube_proxy_mode="nftables"),
            operators("v3.28.5"),
            CRDS,
            "kube_proxy_mode: is nftables, for which Calico v3.28.5 has no dataplane; take iptables, or Calico 3.29 or "
            "later.",
        ),
    ],
)
def test_what_cannot_work_is_said(wanted: Settings, known: Lock, texts: dict[str, str], found: str) -> None:
    assert calico.problems(wanted, known, texts) == [found]


@pytest.mark.parametrize(
    ("live", "whole"),
    [
        ({"spec": {"a": 1, "b": [{"c": 1, "d": 2}]}, "status": {}}, True),
        ({"spec": {"a": 1, "b": [{"d": 2}]}}, False),
        ({"spec": {"a": 1, "b": [{"c": 1}, {"c": 2}]}}, False),
        ({"spec": {"b": [{"c": 1}]}}, False),
        ({"spec": []}, False),
    ],
)
def test_a_live_object_may_have_more_than_is_wanted_but_not_less(live: Any, whole: bool) -> None:
    assert has(live, {"spec": {"a": 1, "b": [{"c": 1}]}}) is whole


def test_live_objects_are_one_or_a_list_of_them() -> None:
    assert answer(Objects, ['{"kind": "Installation",', '"spec": {}}']) == [{"kind": "Installation", "spec": {}}]
    assert answer(Objects, ['{"kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]}']) == [
        {"kind": "A"},
        {"kind": "B"},
    ]
    assert answer(Objects, []) == []
