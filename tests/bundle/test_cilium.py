"""Cilium's manifests in a bundle: its chart rendered once for each choice of families, pinned, and what is refused.

helm is a script here, which prints the parts of the chart that are looked at, made of the values that it is given. The
real chart is rendered by the real helm in tests/versions/test_cilium.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle import addons, cache, catalogue, cilium, manifests
from bundle.addons import Manifest
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.download import sha256_of
from cluster.lock import File, Lock

# What the chart makes of `ipam.mode` and of what a site's values say beside it, under `config`.
HELM = """\
#!{python}
import sys
import yaml

with open({calls!r}, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
values = yaml.safe_load(open(sys.argv[-1]))
data = {{"ipam": values["ipam"]["mode"], "routing-mode": "tunnel", "tunnel-protocol": "vxlan"}}
data |= {{"enable-ipv4": str(values["ipv4"]["enabled"]).lower(), "enable-ipv6": str(values["ipv6"]["enabled"]).lower()}}
data |= {{"kube-proxy-replacement": values["kubeProxyReplacement"]}} | values.get("config", {{}})
data |= {{"underlay-protocol": values["underlayProtocol"]}} if "underlayProtocol" in values else {{}}
hook = {{"annotations": {{"helm.sh/hook": "post-install"}}, "name": "certificates"}}
spec = {{"containers": [{{"name": "cilium-agent", "image": "quay.io/cilium/cilium:v1.20.2"}}]}}
documents = [
    {{"kind": "ConfigMap", "metadata": {{"name": values.get("name", "cilium-config")}}, "data": data}},
    {{"kind": "Job", "metadata": hook}},
    {{"kind": "DaemonSet", "metadata": {{"name": "cilium"}}, "spec": spec}},
]
print("---\\n" + yaml.safe_dump_all(documents))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    (tmp_path / "bundle").mkdir()
    return tmp_path


def wanted(site: Path, **own: Any) -> Catalogue:
    path = site / "bundle.yaml"
    path.write_text(yaml.safe_dump({"networks": ["cilium"], **own}, sort_keys=False))
    return catalogue.load(path)


def calls(site: Path) -> list[str]:
    path = site / "calls"
    return path.read_text().splitlines() if path.exists() else []


def made(site: Path, pinned: Lock | None = None, **own: Any) -> dict[str, Manifest]:
    program = site / "helm"
    program.write_text(HELM.format(python=sys.executable, calls=str(site / "calls")))
    program.chmod(0o755)
    tools = {"helm": program, "cilium-chart": site / "chart"}
    return cilium.manifests(wanted(site, **own), tools.__getitem__, pinned, site / "bundle")


def of_values(**values: Any) -> dict[str, Any]:
    return {"offered_networks": {"cilium": {"values": values}}}


def configuration(manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = next(yaml.safe_load_all(manifest.path.read_text()))["data"]
    return found


def test_the_chart_is_rendered_for_each_choice_of_families_and_the_bundles_kubernetes(site: Path) -> None:
    found = made(site)
    assert {
        name: {key: value for key, value in configuration(each).items() if key[:6] in ("enable", "underl")}
        for name, each in found.items()
    } == {
        "cilium-ipv4": {"enable-ipv4": "true", "enable-ipv6": "false"},
        "cilium-ipv6": {"enable-ipv4": "false", "enable-ipv6": "true", "underlay-protocol": "ipv6"},
        "cilium-dual": {"enable-ipv4": "true", "enable-ipv6": "true"},
    }
    version = catalogue.load().kubernetes_version
    assert len(calls(site)) == 3
    for call in calls(site):
        assert call.startswith(f"template cilium {site}/chart --namespace kube-system --include-crds --skip-tests ")
        assert f" --kube-version {version} --values " in call
    assert {(each.version, each.licence) for each in found.values()} == {("v1.20.2", "Apache-2.0")}
    assert len({each.source for each in found.values()}) == 3
    assert manifests.images(each.path for each in found.values()) == ["quay.io/cilium/cilium:v1.20.2"]


def test_what_helm_alone_runs_is_left_out_and_said(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for each in made(site).values():
        assert [row["kind"] for row in yaml.safe_load_all(each.path.read_text())] == ["ConfigMap", "DaemonSet"]
    said = "Cilium: hooks of its chart are left out, for helm alone runs them: Job certificates"
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_network_that_nobody_wants_is_not_rendered_and_its_chart_is_no_component(site: Path) -> None:
    assert made(site, networks=[]) == {}
    assert calls(site) == []
    assert not {"cilium", "helm"} & set(wanted(site, networks=[]).components)
    assert {"cilium", "helm"} <= set(wanted(site).components)


def test_the_bundle_has_them_with_what_the_lock_says_of_them(site: Path) -> None:
    found = made(site)
    addons.lay_out(site / "bundle", found, "networks")
    assert {path.name for path in (site / "bundle" / "networks").iterdir()} == {
        "cilium-ipv4.yaml", "cilium-ipv6.yaml", "cilium-dual.yaml",
    }  # fmt: skip
    label = addons.labels(found, "networks")["networks/cilium-ipv4.yaml"]
    assert (label.name, label.version, label.licence) == ("cilium-ipv4", "v1.20.2", "Apache-2.0")
    assert label.source.startswith("chart:cilium@v1.20.2 values:sha256:")


def test_what_was_rendered_is_taken_again_as_long_as_its_source_is_the_same(site: Path) -> None:
    first = made(site)
    addons.lay_out(site / "bundle", first, "networks")
    rows = tuple(
        File(
            path=f"networks/{name}.yaml", size=1, name=name, version=each.version, source=each.source,
            sha256=sha256_of(site / "bundle" / "networks" / f"{name}.yaml"),
        )
        for name, each in first.items()
    )  # fmt: skip
    lock = Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=(), packages=(),
        package_sets={}, files=rows,
    )  # fmt: skip
    again = made(site, pinned=lock)
    assert len(calls(site)) == 3
    assert [each.path.read_text() for each in again.values()] == [each.path.read_text() for each in first.values()]
    assert made(site, pinned=lock, **of_values(MTU=1400))["cilium-ipv4"].source != first["cilium-ipv4"].source
    assert len(calls(site)) == 6
    (site / "bundle" / "networks" / "cilium-ipv4.yaml").write_text("changed")
    made(site, pinned=lock)
    assert len(calls(site)) == 7


def test_values_of_the_site_are_merged_with_the_catalogues(site: Path) -> None:
    values = wanted(site, **of_values(hubble={"enabled": True}, MTU=1400)).offered_networks["cilium"].values
    assert (values["hubble"], values["MTU"], values["ipam"]) == ({"enabled": True}, 1400, {"mode": "kubernetes"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ipam": {"mode": "cluster-pool"}}, "make ipam cluster-pool (must be kubernetes). "),
        ({"kubeProxyReplacement": "true"}, "make kube-proxy-replacement true (must be false). "),
        (
            {"config": {"routing-mode": "native", "tunnel-protocol": "geneve"}},
            "make routing-mode native (must be tunnel), tunnel-protocol geneve (must be vxlan). ",
        ),
        ({"config": {"tunnel-port": "8473"}}, "make tunnel-port 8473 (must be 8472). "),
        ({"config": {"cluster-health-port": "4241"}}, "make cluster-health-port 4241 (must be 4240). "),
    ],
)
def test_values_that_the_deploys_do_not_reckon_with_end_the_build(
    site: Path, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(BuildError) as caught:
        made(site, **of_values(**values))
    assert f"offered_networks.cilium.values: {words}The deploys reckon with kube-proxy" in str(caught.value)
    assert "Take these values out of bundle.yaml, or install Cilium as a network of your own" in str(caught.value)


def test_a_chart_that_gives_no_configuration_ends_the_build(site: Path) -> None:
    with pytest.raises(BuildError, match=r"the chart gives no ConfigMap cilium-config\. Correct its values\."):
        made(site, **of_values(name="other"))


def test_a_network_that_is_not_offered_is_refused(site: Path) -> None:
    with pytest.raises(BuildError, match=r"networks: there is no weave; there is cilium"):
        wanted(site, networks=["weave"])
