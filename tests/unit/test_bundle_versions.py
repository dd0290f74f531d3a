"""What a bundle of each minor of Kubernetes is made of, and that all of it follows from one line of bundle.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle import catalogue, gobuild, recipes, references, versions
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from cluster import compatibility
from cluster.compatibility import parse

ROWS = versions.load().minors
TEXT: dict[str, Any] = yaml.safe_load(catalogue.PATH.read_text())
BEFORE = [(name, first, older) for name, each in versions.load().before.items() for first, older in each.items()]
NODES = {program for programs in TEXT["programs"].values() for program in programs}


def loaded(directory: Path, kubernetes: str, more: str = "", listed: dict[str, str] | None = None) -> Catalogue:
    """The catalogue of a site that names its Kubernetes, and what kubeadm has been asked for."""
    site = directory / "bundle.yaml"
    site.write_text(f"kubernetes_version: {kubernetes}\n{more}")
    return catalogue.load(site, listed)


def made_of(wanted: Catalogue, *names: str) -> list[str]:
    return [wanted.components[name].version for name in names]


def agnhost(wanted: Catalogue) -> str:
    (image,) = [each for each in map(references.parse, wanted.extra_images) if each.short == "agnhost"]
    return image.tag


def test_there_is_a_row_of_each_minor_from_1_21_to_1_36() -> None:
    assert list(ROWS) == [f"1.{minor}" for minor in range(21, 37)]
    assert set(ROWS) <= set(compatibility.load().minors)


@pytest.mark.parametrize("minor", ROWS)
def test_a_row_is_of_its_minor_and_all_in_it_goes_together(minor: str) -> None:
    row = ROWS[minor]
    assert {".".join(map(str, parse(each)[:2])) for each in (row.kubernetes, row.crictl)} == {minor}
    known = {"etcd": row.etcd, "coredns": row.coredns, "cri-tools": row.crictl, "cilium": row.cilium}
    assert compatibility.refusals(row.kubernetes, known) == []
    assert compatibility.warnings(row.kubernetes, known) == []


@pytest.mark.parametrize("minor", ROWS)
def test_the_containerd_of_debian_12_is_refused_by_no_row(minor: str) -> None:
    assert compatibility.refusals(ROWS[minor].kubernetes, {"containerd": "1.6.20~ds1-1+deb12u1"}) == []


def test_the_catalogue_is_of_its_own_row() -> None:
    row = ROWS["1.36"]
    components = TEXT["components"]
    assert [components[name]["version"] for name in ("kubernetes", "etcd", "coredns", "crictl", "cilium")] == [
        row.kubernetes, row.etcd, row.coredns, row.crictl, row.cilium,
    ]  # fmt: skip
    plain = catalogue.load()
    assert plain.extra_images == tuple(TEXT["extra_images"])
    assert (row.go, {module.go for each in plain.components.values() for module in each.build}) == (None, {None})


@pytest.mark.parametrize("minor", ROWS)
def test_one_line_names_a_bundle_whose_programs_and_images_can_all_be_built(minor: str, tmp_path: Path) -> None:
    row = ROWS[minor]
    wanted = loaded(tmp_path, row.kubernetes)
    found = made_of(wanted, "kubernetes", "etcd", "coredns", "crictl")
    assert found == [row.kubernetes, row.etcd, row.coredns, row.crictl]
    assert agnhost(wanted) == row.agnhost
    listed = {name: {module.go for module in wanted.components[name].build} for name in wanted.components}
    assert {name for name, go in listed.items() if go == {row.go}} >= {"kubernetes", "etcd", "coredns"}
    assert {go for name in ("crictl", "flannel", "cni-plugins") for go in listed[name]} == {None}
    built = {program for each in wanted.components.values() for module in each.build for program in module.packages}
    needed = {program for programs in wanted.programs.values() for program in programs}
    needed |= {program for recipe in wanted.recipes.values() for program in recipe.files.values()}
    assert needed - built == {"pause"}
    kubeadm = [f"registry.k8s.io/kube-{name}:{row.kubernetes}" for name in ("apiserver", "proxy", "scheduler")]
    kubeadm += [f"registry.k8s.io/etcd:{row.etcd[1:]}-0", f"registry.k8s.io/coredns/coredns:{row.coredns}"]
    assert recipes.disagreements(wanted, [*kubeadm, *wanted.extra_images]) == []


def test_what_has_nothing_to_do_with_kubernetes_is_the_same_for_all(tmp_path: Path) -> None:
    plain, old = catalogue.load(), loaded(tmp_path, "v1.21.14")
    assert [plain.components[name] for name in ("flannel", "cni-plugins", "cni-flannel")] == [
        old.components[name] for name in ("flannel", "cni-plugins", "cni-flannel")
    ]
    assert (plain.packages, plain.sources) == (old.packages, old.sources)


def test_etcd_3_4_has_no_etcdutl_and_one_module_whose_releases_go_knows_by_commits(tmp_path: Path) -> None:
    wanted = loaded(tmp_path, "v1.21.14")
    etcd = wanted.components["etcd"]
    assert etcd.download is not None
    assert set(etcd.download.programs) == {"etcdctl"}
    (module,) = etcd.build
    assert (module.module, module.version, set(module.packages)) == ("go.etcd.io/etcd", "v3.4.13", {"etcd", "etcdctl"})
    assert module.known_as == "v0.5.0-alpha.5.0.20200824191128-ae9734ed278b"
    assert NODES - {program for programs in wanted.programs.values() for program in programs} == {"etcdutl"}
    assert set(wanted.recipes["etcd"].files.values()) == {"etcd", "etcdctl"}


def test_a_release_of_etcd_is_built_as_that_whatever_kubernetes_it_is(tmp_path: Path) -> None:
    old = loaded(tmp_path, "v1.22.17", "components: {etcd: {version: v3.4.13}}")
    assert [module.module for module in old.components["etcd"].build] == ["go.etcd.io/etcd"]
    assert "etcdutl" not in old.programs["bin"]
    new = loaded(tmp_path, "v1.21.14", "components: {etcd: {version: v3.5.6}}")
    assert {module.version for module in new.components["etcd"].build} == {"v3.5.6"}
    assert "etcdutl" in new.programs["bin"]


@pytest.mark.parametrize(("kubernetes", "without"), [("v1.23.17", {"kube-apiserver"}), ("v1.24.17", set())])
def test_openapi_definitions_are_generated_for_the_api_server_of_releases_that_have_none(
    kubernetes: str, without: set[str], tmp_path: Path
) -> None:
    build = loaded(tmp_path, kubernetes).components["kubernetes"].build
    assert {program for module in build if module.openapi for program in module.packages} == without
    plain = catalogue.load().components["kubernetes"].build
    assert sorted(each for module in build for each in module.packages.items()) == sorted(plain[0].packages.items())
    assert [module.stamp for module in build] == [plain[0].stamp] * len(build)


def test_releases_of_one_patch_take_what_their_own_kubeadm_lists(tmp_path: Path) -> None:
    listed = versions.of_images([
        "registry.k8s.io/kube-apiserver:v1.27.4", "registry.k8s.io/etcd:3.5.7-0", "registry.k8s.io/pause:3.9",
        "k8s.gcr.io/coredns/coredns:v1.10.0", "ghcr.io/flannel-io/flannel:v0.28.4",
    ])  # fmt: skip
    assert listed == {"etcd": "v3.5.7", "coredns": "v1.10.0"}
    wanted = loaded(tmp_path, "v1.27.4", listed=listed)
    assert made_of(wanted, "kubernetes", "etcd", "coredns") == ["v1.27.4", "v3.5.7", "v1.10.0"]
    assert {module.version for module in wanted.components["etcd"].build} == {"v3.5.7"}


@pytest.mark.parametrize(
    ("kubernetes", "go"),
    [("v1.36.3", None), ("v1.33.5", versions.OWN_GO), ("v1.33.13", "1.25.11"), ("v1.27.4", "1.22.5")],
)
def test_another_patch_than_the_rows_is_built_by_its_own_go(kubernetes: str, go: str | None, tmp_path: Path) -> None:
    components = loaded(tmp_path, kubernetes).components
    assert {module.go for module in components["kubernetes"].build} == {go}
    assert {module.go for module in components["etcd"].build} == {versions.row(kubernetes).go}


def test_its_own_go_is_read_in_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"-json": json.dumps({"Dir": str(tmp_path)}), "GOVERSION": "go1.24.6"}
    asked = []

    def go(*words: object, env: Mapping[str, str] | None = None, **_: object) -> str:
        asked.append((env or {}).get("GOTOOLCHAIN"))
        return next(answer for word, answer in tree.items() if word in words)

    monkeypatch.setattr(gobuild, "run", go)
    (tmp_path / versions.OWN_GO).write_text("1.24.6\n")
    module = loaded(tmp_path, "v1.33.5").components["kubernetes"].build[0]
    assert gobuild.release(Path("go"), module) == "go1.24.6"
    assert asked == [None, "go1.24.6"]


def test_a_site_goes_before_the_row_and_before_kubeadm(tmp_path: Path) -> None:
    versions = "kubernetes: {go: '1.21'}, etcd: {version: v3.5.9}, crictl: {version: v1.28.0, go: 1.22.8}"
    own = f"components: {{{versions}}}\nextra_images: [example.org/app:1]"
    wanted = loaded(tmp_path, "v1.27.16", own, {"etcd": "v3.5.12", "coredns": "v1.10.0"})
    assert made_of(wanted, "etcd", "coredns", "crictl") == ["v3.5.9", "v1.10.0", "v1.28.0"]
    assert {wanted.components[name].build[0].go for name in ("kubernetes", "crictl")} == {"1.21", "1.22.8"}
    assert wanted.components["etcd"].build[0].go == ROWS["1.27"].go
    assert wanted.extra_images[-1] == "example.org/app:1"
    assert agnhost(wanted) == ROWS["1.27"].agnhost


@pytest.mark.parametrize(
    ("kubernetes", "nearest"), [("v1.20.15", "v1.21.14"), ("v1.9.0", "v1.21.14"), ("v1.37.0", "v1.36.2")]
)
def test_a_minor_without_a_row_is_refused_with_the_nearest(kubernetes: str, nearest: str, tmp_path: Path) -> None:
    minor = kubernetes[1:].rpartition(".")[0]
    words = f"Kubernetes {minor} cannot be bundled: bundle/versions.yaml has 1.21 to 1.36. Take {nearest}."
    with pytest.raises(versions.NoSuchMinor, match=rf"^{re.escape(words)}$"):
        loaded(tmp_path, kubernetes)
    assert loaded(tmp_path, nearest).kubernetes_version == nearest


def test_what_is_no_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^'latest' is no version: .* Correct it in bundle\.yaml\.$"):
        loaded(tmp_path, "latest")


@pytest.mark.parametrize("go", ["1.26.x", "go1.22.5", "2.0", "1"])
def test_a_go_that_is_no_release_is_refused(go: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"components\.crictl\.go: String should match pattern"):
        loaded(tmp_path, "v1.27.16", f'components: {{crictl: {{go: "{go}"}}}}')


@pytest.mark.parametrize(("name", "first", "older"), BEFORE, ids=[f"{name} {first}" for name, first, _ in BEFORE])
def test_older_releases_have_the_same_programs_but_those_that_they_lack(
    name: str, first: str, older: versions.Older
) -> None:
    def of(build: Any) -> set[str]:
        return {program for module in build for program in module["packages"]}

    assert of(older.build) | set(older.without) == of(TEXT["components"][name]["build"])
    assert parse(first) <= parse(TEXT["components"][name]["version"])


def test_older_releases_are_in_order() -> None:
    for each in versions.load().before.values():
        assert all(parse(first) < parse(second) for first, second in pairwise(each))
