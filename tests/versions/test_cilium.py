"""Cilium's own charts, rendered by a real helm for each minor of Kubernetes, have what the deploys reckon with.

Charts and helm are those of Go modules, and so is the description of Kubernetes' API by which every object is checked.
helm alone takes minutes to be built, so all of this is done with `--full`. Nothing of Cilium is run.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubeadms
import pytest
import yaml

from bundle import catalogue, cilium, components, gobuild, manifests
from bundle.cilium import MUST
from cluster.cilium import FAMILIES, kernel, manifest
from cluster.compatibility import parse
from cluster.networks import CNI_FILES
from cluster.ports import load

GO = gobuild.toolchain(kubeadms.CATALOGUE.go)


@dataclass(frozen=True)
class Made:
    """Cilium for a minor of Kubernetes: its version, its manifests by families, its source."""

    version: str
    paths: dict[str, Path]
    source: Path

    @property
    def texts(self) -> dict[str, str]:
        return {family: path.read_text() for family, path in self.paths.items()}


@cache
def made_for(minor: str) -> Made:
    """What a bundle of this minor has, all of it from Go modules."""
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "bundle.yaml")
        site.write_text(f"kubernetes_version: {kubeadms.version(minor)}\nnetworks: [cilium]\nsources: [build]\n")
        wanted = catalogue.load(site)
        found = cilium.manifests(
            wanted, lambda name: components.obtain(wanted, {}, {}, [name])[name].path, None, Path(directory)
        )
    component = wanted.components["cilium"]
    paths = {family: found[f"cilium-{family}"].path for family in FAMILIES.values()}
    return Made(component.version, paths, gobuild.source(GO, component.build[0]))


@pytest.fixture
def made(minor: str) -> Made:
    return made_for(minor)


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def configuration(text: str) -> dict[str, str]:
    (found,) = (each for each in documents(text) if each["metadata"]["name"] == "cilium-config")
    data: dict[str, str] = found["data"]
    return data


@cache
def described(minor: str) -> dict[str, Any]:
    """The schemas of Kubernetes' API, in which a field that is not there is wrong.

    https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v2
    """
    module = kubeadms.CATALOGUE.components["kubernetes"].build[0]
    source = gobuild.source(GO, module.model_copy(update={"version": kubeadms.version(minor)}))
    found: dict[str, Any] = json.loads((source / "api/openapi-spec/swagger.json").read_text())["definitions"]
    for each in found.values():
        if "properties" in each:
            each["additionalProperties"] = False
    found["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"] = ["integer", "string"]
    found["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] = ["number", "string"]
    return found


def validate(minor: str, document: dict[str, Any]) -> None:
    group, _, version = document["apiVersion"].rpartition("/")
    kind = {"group": group, "version": version, "kind": document["kind"]}
    rows = described(minor).items()
    (name,) = (name for name, each in rows if kind in each.get("x-kubernetes-group-version-kind", ()))
    schema = {"$ref": f"#/definitions/{name}", "definitions": described(minor)}
    # `jsonschema.validate` would look at all of Kubernetes' schemas for each object.
    jsonschema.Draft202012Validator(schema).validate(without_nulls(document))


def without_nulls(value: Any) -> Any:
    """What the API makes of a field that is written and empty: nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def test_every_object_is_one_by_this_kubernetes_own_schemas(minor: str, made: Made) -> None:
    for text in made.texts.values():
        found = documents(text)
        assert {each["kind"] for each in found} >= {"ConfigMap", "DaemonSet", "Deployment", "ClusterRole"}
        for each in found:
            validate(minor, each)


def test_the_schemas_would_find_what_is_wrong(minor: str, made: Made) -> None:
    (daemons,) = (each for each in documents(made.texts["ipv4"]) if each["kind"] == "DaemonSet")
    daemons["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(jsonschema.ValidationError, match="'hostNetworks' was unexpected"):
        validate(minor, daemons)


def test_the_chart_makes_of_the_values_what_the_deploys_reckon_with(made: Made) -> None:
    families = {"ipv4": ("true", "false"), "ipv6": ("false", "true"), "dual": ("true", "true")}
    for family, text in made.texts.items():
        data = configuration(text)
        assert data.items() >= {
            "ipam": "kubernetes", "routing-mode": "tunnel", "tunnel-protocol": "vxlan",
            "kube-proxy-replacement": "false", "cni-exclusive": "false",
        }.items()  # fmt: skip
        assert (data["enable-ipv4"], data["enable-ipv6"]) == families[family]
        by_ipv6 = family == "ipv6" and parse(made.version) >= (1, 18, 0)
        assert data.get("underlay-protocol") == ("ipv6" if by_ipv6 else None)
        assert Path(data["write-cni-conf-when-ready"]).name == CNI_FILES["cilium"]


def test_what_they_reckon_with_is_documented_by_the_release(made: Made) -> None:
    agent = (made.source / "Documentation/cmdref/cilium-agent.md").read_text()
    known = set(re.findall(r"^ +--([\w-]+)", agent, re.MULTILINE))
    underlay = {"underlay-protocol"} & set(configuration(made.texts["ipv6"]))
    assert {
        *MUST,
        *underlay,
        "enable-ipv4",
        "enable-ipv6",
        "write-cni-conf-when-ready",
        "cni-exclusive",
    } - known == set()
    requirements = (made.source / "Documentation/operations/system_requirements.rst").read_text()
    least = re.search(r"`Linux kernel`_ >= ([\d.]+)", requirements)
    assert least and kernel(made.version) == least[1]
    assert {"8472/udp", "4240/tcp", "ICMP 8/0"} <= set(re.findall(r"^(\S+(?: 8/0)?) +ingress", requirements, re.M))


def test_no_image_is_wanted_but_those_of_agent_and_operator(made: Made) -> None:
    for path in made.paths.values():
        assert manifests.images([path]) == [
            f"quay.io/cilium/cilium:{made.version}", f"quay.io/cilium/operator-generic:{made.version}",
        ]  # fmt: skip


def host_ports(value: Any) -> Iterator[int]:
    """Ports that pods in the host's network say, of their own or of their probes."""
    if isinstance(value, dict):
        yield from (value[key] for key in ("hostPort", "port") if isinstance(value.get(key), int))
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from host_ports(each)


def test_every_port_of_a_host_is_one_that_is_known(made: Made) -> None:
    known = {rule.port for rule in load() if rule.when.get("cni") == "cilium"}
    for text in made.texts.values():
        found = set(host_ports(documents(text)))
        assert found and found <= known


def test_one_node_gets_one_operator(made: Made) -> None:
    for text in made.texts.values():
        for nodes, replicas in ((1, 1), (2, 2), (3, 2)):
            found = documents(manifest(text, nodes))
            assert [each["spec"]["replicas"] for each in found if each["kind"] == "Deployment"] == [replicas]
