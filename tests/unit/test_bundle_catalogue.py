"""What a site's bundle.yaml changes of the catalogue, and what it may not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle import catalogue
from bundle.catalogue import Catalogue, merged
from bundle.command import BuildError
from bundle.components import files_of

TEXT: dict[str, Any] = yaml.safe_load(catalogue.PATH.read_text())


def loaded(directory: Path, text: str) -> Catalogue:
    """The catalogue with a bundle.yaml."""
    site = directory / "bundle.yaml"
    site.write_text(text)
    return catalogue.load(site)


def refused(directory: Path, text: str) -> str:
    """The error for a bundle.yaml, without the file's path."""
    with pytest.raises(BuildError) as caught:
        loaded(directory, text)
    return str(caught.value).removeprefix(f"{directory}/")


def test_without_a_file_of_the_site_the_catalogue_holds(tmp_path: Path) -> None:
    plain = catalogue.load()
    assert catalogue.load(tmp_path / "bundle.yaml") == plain
    assert loaded(tmp_path, "") == plain
    assert loaded(tmp_path, "# nothing\n") == plain


def test_modules_without_a_version_are_of_their_components() -> None:
    components = catalogue.load().components
    assert {module.version for module in components["etcd"].build} == {components["etcd"].version}
    assert components["cni-flannel"].build[0].version != components["cni-flannel"].version


def test_a_mirror_of_the_sites_is_one_line_and_goes_first(tmp_path: Path) -> None:
    mirrors = loaded(tmp_path, "mirrors: {registry.k8s.io: mirror.example.org/k8s, files.example.org: [a, b]}").mirrors
    assert mirrors["registry.k8s.io"] == ("mirror.example.org/k8s", *TEXT["mirrors"]["registry.k8s.io"])
    assert mirrors["files.example.org"] == ("a", "b")
    assert mirrors["docker.io"] == tuple(TEXT["mirrors"]["docker.io"])


def test_images_of_the_sites_come_to_those_of_the_catalogue(tmp_path: Path) -> None:
    images = loaded(tmp_path, "extra_images: [example.org/app:1]").extra_images
    assert images == (*TEXT["extra_images"], "example.org/app:1")


def test_the_release_of_kubernetes_is_that_of_its_component(tmp_path: Path) -> None:
    made = loaded(tmp_path, "kubernetes_version: v1.36.1\n")
    assert (made.kubernetes_version, made.components["kubernetes"].version) == ("v1.36.1", "v1.36.1")
    assert {module.version for module in made.components["kubernetes"].build} == {"v1.36.1"}
    assert made.components["kubernetes"].download == catalogue.load().components["kubernetes"].download
    assert made.components["etcd"] == catalogue.load().components["etcd"]


def test_names_are_merged_however_deep_and_lists_take_the_place(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        """
        sources: [mirror]
        components: {etcd: {version: v3.6.9}}
        packages: {debian-12: {sets: {base: [curl], tools: [strace]}}}
        """,
    )
    plain = catalogue.load()
    assert made.sources == ("mirror",)
    assert made.components["etcd"].version == "v3.6.9"
    assert made.components["etcd"].download == plain.components["etcd"].download
    sets = made.packages["debian-12"].sets
    assert (sets["base"], sets["tools"]) == (("curl",), ("strace",))
    assert sets["runtime"] == plain.packages["debian-12"].sets["runtime"]


def test_names_of_a_sites_own_are_nothing_but_names(tmp_path: Path) -> None:
    text = {"components": {"mirrors": {"version": "v1", "licence": "MIT"}}, "recipes": {"extra_images": {"files": {}}}}
    made = loaded(tmp_path, yaml.safe_dump(text))
    assert made.components["mirrors"].version == "v1"
    assert made.recipes["extra_images"].files == {}


def test_the_catalogue_is_not_changed_by_what_is_merged_into_it() -> None:
    before = yaml.safe_dump(TEXT)
    merged(TEXT, {"mirrors": {"docker.io": "a"}, "extra_images": ["b"], "kubernetes_version": "v1.35.6", "go": "1.27"})
    assert yaml.safe_dump(TEXT) == before


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("kubernetes_versoin: v1.36.2", ["kubernetes_versoin: Extra inputs are not permitted"]),
        (
            "components: {etcd: {verison: v3.6.9}, own: {}}",
            [
                "components.etcd.verison: Extra inputs are not permitted",
                "components.own.version: Field required",
                "components.own.licence: Field required",
            ],
        ),
        ("kubernetes_version: 1.36", ["kubernetes_version: Input should be a valid string"]),
        ("mirrors: {docker.io: 5}", ["mirrors.docker.io.0: Input should be a valid string"]),
        ("mirrors: {docker.io: }", ["mirrors.docker.io.0: Input should be a valid string"]),
        ("mirrors: [docker.io]", ["mirrors: Input should be a valid dictionary"]),
        ("extra_images: example.org/app:1", ["extra_images: Input should be a valid tuple"]),
        ("components: [etcd]\nkubernetes_version: v1.35.6", ["components: Input should be a valid dictionary"]),
        ("sources: [internet]", ["sources.0: Input should be 'directory', 'upstream', 'mirror' or 'build'"]),
        ("packages: {rocky-9: {format: apk, sets: {}}}", ["packages.rocky-9.format: Input should be 'deb' or 'rpm'"]),
        (
            "components: {kubernetes: {version: v1.35.6}}",
            ["components.kubernetes.version is another than kubernetes_version: set that alone"],
        ),
    ],
)
def test_what_cannot_be_used_is_named_line_by_line(tmp_path: Path, text: str, lines: list[str]) -> None:
    said = refused(tmp_path, text).splitlines()
    assert (said[0], said[-1]) == ("bundle.yaml: cannot be used:", "docs/bundle.md describes each name.")
    found = [line.removeprefix("  - ") for line in said[1:-1]]
    assert [line for line in lines if line not in found] == []
    assert len(found) == len(lines) or "1.36" in text  # which is wrong in two places


def test_a_file_that_is_no_yaml_is_refused_with_the_place(tmp_path: Path) -> None:
    said = refused(tmp_path, "mirrors: {a: b\nsources: [mirror]\n")
    assert said.startswith("bundle.yaml: is not YAML: ")
    assert "line 2" in said
    assert said.endswith("docs/bundle.md shows what it may hold.")
    (tmp_path / "bundle.yaml").write_bytes(b"directory: /srv/\xff\n")
    with pytest.raises(BuildError, match=r"bundle\.yaml: is not YAML: .*0xff.* docs/bundle\.md shows what it may hold"):
        catalogue.load(tmp_path / "bundle.yaml")


@pytest.mark.parametrize("text", ["- mirrors\n", "mirrors", "5"])
def test_a_file_without_names_is_refused(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text) == "bundle.yaml: must hold names and values, as docs/bundle.md shows."


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot be read: Is a directory\.$"):
        catalogue.load(tmp_path)


def test_the_runtime_is_the_distributions_unless_the_site_chooses_another() -> None:
    plain = catalogue.load()
    assert plain.runtime == "package"
    assert "runtime" not in plain.programs
    assert plain.packages["debian-12"].sets["runtime"] == ("containerd", "runc")
    assert {"containerd", "runc", "cri-o"}.isdisjoint(plain.components)


@pytest.mark.parametrize(
    ("runtime", "components", "programs", "packages"),
    [
        ("upstream", {"containerd", "runc"}, ("containerd", "containerd-shim-runc-v2", "ctr", "runc"), ()),
        ("cri-o", {"cri-o"}, ("crio", "pinns", "conmon", "crun"), ("skopeo",)),
    ],
)
def test_a_runtime_brings_its_programs_and_packages_and_no_others(
    tmp_path: Path, runtime: str, components: set[str], programs: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    plain, made = catalogue.load(), loaded(tmp_path, f"runtime: {runtime}")
    assert set(made.components) - set(plain.components) == components
    assert {program for name in components for program in made.components[name].programs} == set(programs)
    assert made.programs == {**plain.programs, "runtime": programs}
    before, after = plain.packages["debian-12"].sets, made.packages["debian-12"].sets
    assert after == {**before, "runtime": packages}


def test_runtimes_are_published_by_their_number_or_their_tag(tmp_path: Path) -> None:
    files = {}
    for runtime in ("upstream", "cri-o"):
        made = loaded(tmp_path, f"runtime: {runtime}")
        for name in ("containerd", "runc", "cri-o"):
            if name in made.components:
                files[name] = files_of(made.components[name], made, made.programs["runtime"])
    urls = {name: [(each.url, each.checksum) for each in found] for name, found in files.items()}
    github, archive = "https://github.com", "containerd-static-2.3.7-linux-amd64.tar.gz"
    bundle = "https://storage.googleapis.com/cri-o/artifacts/cri-o.amd64.v1.36.3.tar.gz"
    released = f"{github}/containerd/containerd/releases/download/v2.3.7/{archive}"
    runc = f"{github}/opencontainers/runc/releases/download/v1.4.3"
    assert urls == {
        "containerd": [(released, f"{released}.sha256sum")],
        "runc": [(f"{runc}/runc.amd64", f"{runc}/runc.sha256sum")],
        "cri-o": [(bundle, f"{bundle}.sha256sum")],
    }


def test_a_site_may_take_parts_of_a_runtime_from_the_distribution(tmp_path: Path) -> None:
    own = "{programs: [crio, pinns, runc], packages: [skopeo, conmon]}"
    made = loaded(tmp_path, f"runtime: cri-o\nruntimes: {{cri-o: {own}}}")
    assert made.programs["runtime"] == ("crio", "pinns", "runc")
    assert made.packages["debian-12"].sets["runtime"] == ("skopeo", "conmon")
    assert {"cri-o", "runc"} <= set(made.components) and "containerd" not in made.components


def test_a_runtime_that_the_catalogue_has_not_is_refused(tmp_path: Path) -> None:
    assert "  - runtime: must be one of package, upstream, cri-o, not docker\n" in refused(tmp_path, "runtime: docker")
