"""Add-ons of a site's own in a bundle: manifests as they are, charts rendered once and pinned.

helm is a script here, which prints what helm 4.3.1 has printed of such a chart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import Server

from bundle import addons, cache, catalogue, manifests
from bundle.addons import Manifest
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.download import sha256_of
from cluster.lock import File, Lock

MOTD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: motd}\ndata: {text: hello}\n"
HELM = """\
#!/bin/sh
echo "$*" >> {calls}
case "$1" in
    show) printf 'apiVersion: v2\\nname: shop\\nversion: 0.3.1\\n';;
    pull) for last; do :; done; printf 'an archive\\n' > "$last/shop-1.0.0.tgz";;
    *) test -z "$HELM_DEBUG$HELM_KUBECONTEXT" && sed "s/O89gZYxlFBvE/$$/" {rendered};;
esac
"""
RENDERED = Path(__file__).parents[1] / "data" / "helm-4.3.1.shop.yaml"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a chart, values and a manifest; the cache is the test's own."""
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    directory = tmp_path / "site"
    (directory / "shop" / "templates").mkdir(parents=True)
    (directory / "shop" / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 0.3.1\n")
    (directory / "values.yaml").write_text("replicas: 2\n")
    (directory / "motd.yaml").write_text(MOTD)
    return directory


def wanted(site: Path, **own: Any) -> Catalogue:
    path = site / "bundle.yaml"
    path.write_text(yaml.safe_dump({"own_addons": own}, sort_keys=False))
    return catalogue.load(path)


def helm(site: Path) -> Path:
    program = site / "helm"
    program.write_text(HELM.format(calls=site / "calls", rendered=RENDERED))
    program.chmod(0o755)
    return program


def calls(site: Path) -> list[str]:
    path = site / "calls"
    return path.read_text().splitlines() if path.exists() else []


def made(site: Path, pinned: Lock | None = None, **own: Any) -> dict[str, Manifest]:
    return addons.manifests(wanted(site, **own), lambda: helm(site), pinned, site / "bundle")


def refused(site: Path, **own: Any) -> str:
    with pytest.raises(BuildError) as caught:
        made(site, **own)
    return str(caught.value)


def laid_out(site: Path, found: dict[str, Manifest]) -> Lock:
    """A bundle that has these, and its lock."""
    output = site / "bundle"
    output.mkdir(exist_ok=True)
    addons.lay_out(output, found)
    rows = tuple(
        File(
            path=f"addons/{name}.yaml", size=1, sha256=sha256_of(output / "addons" / f"{name}.yaml"), name=name,
            version=each.version, source=each.source,
        )
        for name, each in found.items()
    )  # fmt: skip
    return Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=(), packages=(),
        package_sets={}, files=rows,
    )  # fmt: skip


def chart(site: Path, **others: Any) -> dict[str, Any]:
    return {"chart": {"path": str(site / "shop"), "values": [str(site / "values.yaml")], **others}, "namespace": "shop"}


def documents(manifest: Manifest) -> list[tuple[str, str]]:
    return [(each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(manifest.path.read_text())]


def test_manifests_are_put_together_and_their_namespace_is_made(site: Path) -> None:
    motd = str(site / "motd.yaml")
    found = made(
        site,
        one={"manifests": [motd]},
        two={"manifests": [motd, motd], "namespace": "hall"},
        three={"manifests": [motd], "namespace": "kube-system"},
    )
    assert yaml.safe_load(found["one"].path.read_text()) == yaml.safe_load(MOTD)
    assert documents(found["two"]) == [("Namespace", "hall"), ("ConfigMap", "motd"), ("ConfigMap", "motd")]
    assert documents(found["three"]) == [("ConfigMap", "motd")]
    assert [each.namespace for each in found.values()] == ["default", "hall", "kube-system"]


def test_a_namespace_that_a_manifest_makes_is_not_made_twice(site: Path) -> None:
    (site / "motd.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: hall}\n---\n" + MOTD)
    found = made(site, motd={"manifests": [str(site / "motd.yaml")], "namespace": "hall"})
    assert documents(found["motd"]) == [("Namespace", "hall"), ("ConfigMap", "motd")]


def test_a_chart_is_rendered_for_the_bundles_kubernetes_without_what_helm_alone_runs(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HELM_DEBUG", "true")  # the builder's own settings are none of the chart's
    found = made(site, shop=chart(site))["shop"]
    assert calls(site)[-1] == (
        f"template shop {site}/shop --namespace shop --include-crds --skip-tests --kube-version v1.36.2 "
        f"--values {site}/values.yaml"
    )
    assert documents(found) == [
        ("Namespace", "shop"), ("Secret", "random"), ("ConfigMap", "shop-elsewhere"), ("Deployment", "shop-web"),
    ]  # fmt: skip
    assert found.version == "0.3.1"
    assert manifests.images([found.path]) == ["registry.k8s.io/e2e-test-images/agnhost:2.63.0"]
    assert "add-on shop: hooks of its chart are left out, for helm alone runs them: Job before" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_was_rendered_is_taken_again_as_long_as_its_source_is_the_same(site: Path) -> None:
    first = made(site, shop=chart(site))
    lock, rendered = laid_out(site, first), len(calls(site))
    again = made(site, pinned=lock, shop=chart(site))
    assert again["shop"].path.read_text() == first["shop"].path.read_text()
    assert (again["shop"].version, len(calls(site))) == ("0.3.1", rendered)
    (site / "values.yaml").write_text("replicas: 3\n")
    assert made(site, pinned=lock, shop=chart(site))["shop"].source != first["shop"].source
    assert len(calls(site)) > rendered


def test_a_pinned_manifest_that_was_changed_is_not_taken(site: Path) -> None:
    lock = laid_out(site, made(site, shop=chart(site)))
    rendered = len(calls(site))
    (site / "bundle" / "addons" / "shop.yaml").write_text(MOTD)
    assert documents(made(site, pinned=lock, shop=chart(site))["shop"])[0] == ("Namespace", "shop")
    assert len(calls(site)) > rendered


def test_a_file_of_the_chart_or_its_name_is_part_of_the_source(site: Path) -> None:
    before = made(site, shop=chart(site))["shop"].source
    (site / "shop" / "templates" / "x.yaml").write_text("a")
    after = made(site, shop=chart(site))["shop"].source
    (site / "shop" / "templates" / "x.yaml").rename(site / "shop" / "templates" / "y.yaml")
    assert len({before, after, made(site, shop=chart(site))["shop"].source}) == 3


def remote(repository: str = "https://charts.test", **others: str) -> dict[str, Any]:
    return {"chart": {"repository": repository, "name": "shop", "version": "1.0.0", **others}}


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("https://charts.test", "pull shop --repo https://charts.test --version 1.0.0 --destination "),
        ("oci://charts.test/all", "pull oci://charts.test/all/shop --version 1.0.0 --destination "),
    ],
)
def test_a_chart_of_a_repository_is_pulled_by_its_version(site: Path, repository: str, words: str) -> None:
    found = made(site, shop=remote(repository))["shop"]
    assert calls(site)[0].startswith(words)
    assert found.source.startswith(f"chart:{repository}/shop@1.0.0 namespace default helm v")


def test_a_chart_that_is_another_than_bundle_yaml_says_ends_the_build(site: Path) -> None:
    words = refused(site, shop=remote(sha256="0" * 64))
    assert words.startswith("https://charts.test/shop 1.0.0: has sha256 ")
    assert words.endswith(f"and bundle.yaml says {'0' * 64}. Find out who changed it before anything else.")


def test_a_manifest_is_fetched_by_its_address_and_checked(server: Server, site: Path) -> None:
    (server.root / "motd.yaml").write_text(MOTD)
    right = {"url": f"{server.url}/motd.yaml", "sha256": sha256_of(server.root / "motd.yaml")}
    assert documents(made(site, motd={"manifests": [right]})["motd"]) == [("ConfigMap", "motd")]
    words = refused(site, motd={"manifests": [{**right, "sha256": "0" * 64}]})
    assert f"and must have {'0' * 64}" in words


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"shop": {}}, "own_addons.shop: must have either `manifests` or `chart`"),
        (
            {"shop": {"chart": {"path": "a", "version": "1"}}},
            "own_addons.shop.chart: must have `path`, or else all of `repository`, `name` and `version`",
        ),
        (
            {"shop": {"chart": {"repository": "https://charts.test", "name": "shop"}}},
            "own_addons.shop.chart: must have `path`, or else all of `repository`, `name` and `version`",
        ),
        ({"coredns": {"manifests": ["a"]}}, "own_addons: coredns is one of the catalogue's. Give yours another name"),
        ({"a/b": {"manifests": ["a"]}}, "own_addons.a/b.[key]: String should match pattern"),
        ({"shop": {"manifests": ["nowhere.yaml"]}}, "own_addons.shop: nowhere.yaml is not there. Correct it"),
        ({"shop": {"chart": {"path": "nowhere"}}}, "own_addons.shop: nowhere is not there. Correct it"),
    ],
)
def test_what_cannot_be_an_add_on_is_refused_in_words(site: Path, own: dict[str, Any], words: str) -> None:
    assert words in refused(site, **own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "own_addons.motd: is no YAML: "),
        ("- 1\n", "own_addons.motd: is no manifest: each document must have apiVersion and kind."),
        ("kind: ConfigMap\n", "own_addons.motd: is no manifest: "),
        ("# nothing\n", "own_addons.motd: is no manifest: "),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(site: Path, text: str, words: str) -> None:
    (site / "motd.yaml").write_text(text)
    assert words in refused(site, motd={"manifests": [str(site / "motd.yaml")]})


def test_an_unknown_add_on_is_refused_and_components_of_unwanted_ones_are_left_out(site: Path) -> None:
    path = site / "bundle.yaml"
    path.write_text("addons: [metric-server]")
    with pytest.raises(
        BuildError, match=r"addons: there is no metric-server; there are node-local-dns, metrics-server"
    ):
        catalogue.load(path)
    known = catalogue.load()
    assert not {"metrics-server", "local-path-provisioner", "busybox", "helm", "headlamp"} & set(known.components)
    path.write_text("addons: [local-path]\ncomponents: {local-path-provisioner: {version: v0.0.36}}")
    found = catalogue.load(path)
    assert set(found.components) - set(known.components) == {"local-path-provisioner", "busybox"}
    assert set(found.extra_images) - set(known.extra_images) == {
        "docker.io/rancher/local-path-provisioner:v0.0.36", "docker.io/library/busybox:1.37.0",
    }  # fmt: skip
    assert "helm" in wanted(site, shop=chart(site)).components
