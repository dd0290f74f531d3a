"""What a build decides without a network: the catalogue, Go's replacements, the cache, lists of packages, the lock."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bundle import assemble, build, cache, catalogue, command, debs, gobuild, images, oci, recipes
from bundle.assemble import Contents, Label
from bundle.catalogue import Module, Release, Repository
from bundle.command import BuildError
from bundle.packing import Image
from cluster.lock import parse

CATALOGUE = catalogue.load()
PAUSE, ORIGIN = "registry.k8s.io/pause:3.10.2", f"sha256:{'1' * 64}"
ETCD = ("etcd", "etcdctl", "etcdutl")
REFERENCES = [
    "registry.k8s.io/kube-apiserver:v1.36.2",
    "registry.k8s.io/kube-proxy:v1.36.2",
    "registry.k8s.io/etcd:3.6.8-0",
    "registry.k8s.io/coredns/coredns:v1.14.2",
    "registry.k8s.io/pause:3.10.2",
    "ghcr.io/flannel-io/flannel:v0.28.4",
    "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
]


def test_every_program_of_the_catalogue_comes_from_a_module() -> None:
    modules = [module for component in CATALOGUE.components.values() for module in component.build]
    built = {program for module in modules for program in module.packages}
    wanted = {program for names in CATALOGUE.programs.values() for program in names}
    wanted |= {program for recipe in CATALOGUE.recipes.values() for program in recipe.files.values()}
    assert wanted - built == {"pause"}


def test_versions_of_the_catalogue_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(build.versions(CATALOGUE)) == {"etcd", "coredns", "cri-tools"}
    build.refuse(CATALOGUE.kubernetes_version, build.versions(CATALOGUE))
    assert capsys.readouterr().out == ""


def test_versions_that_cannot_go_together_are_all_refused_at_once() -> None:
    with pytest.raises(BuildError) as caught:
        build.refuse("v1.36.2", {"etcd": "v3.5.9", "containerd": "1.5.0"})
    first, *others = str(caught.value).splitlines()
    assert first == "These versions do not go together; docs/compatibility.md has all that do:"
    assert [line[:20] for line in others] == ["  - etcd v3.5.9 is b", "  - containerd 1.5.0"]


def test_versions_that_are_not_recommended_are_said_and_taken(capsys: pytest.CaptureFixture[str]) -> None:
    build.refuse("v1.36.2", {"cri-tools": "v1.35.0"})
    words = "bundle: note: cri-tools v1.35.0 may work with Kubernetes 1.36, but its maintainers recommend 1.36.\n"
    assert capsys.readouterr().out.endswith(words)


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(BuildError, match=r"^'newest' is no version: .* Correct it in bundle\.yaml\.$"):
        build.refuse("v1.36.2", {"etcd": "newest"})


OWN = Repository(url="https://rpm.example.org/rocky/9/BaseOS/x86_64/os/", key="keys/rocky-9.asc")


@pytest.mark.parametrize(
    ("release", "mirrors", "expected"),
    [
        (Release(format="rpm", sets={}, repositories={"base": OWN}), {"deb.debian.org": ("a", "b")}, []),
        (
            Release(format="rpm", sets={}, repositories={"base": OWN}),
            {"rpm.example.org": ("a", "b", "c"), "deb.debian.org": ("d",)},
            [{"rpm.example.org": "a"}, {"rpm.example.org": "b"}, {"rpm.example.org": "c"}],
        ),
        (
            Release(format="deb", suite="bookworm", sets={}),
            {"deb.debian.org": ("a", "b"), "deb.debian.org/debian": ("c",), "security.debian.org": (), "x": ("d",)},
            [
                {"deb.debian.org": "a", "deb.debian.org/debian": "c"},
                {"deb.debian.org": "b", "deb.debian.org/debian": "c"},
            ],
        ),
        (
            Release(format="deb", suite="bookworm", sets={}, repositories={"own": OWN}),
            {"deb.debian.org": ("a", "b"), "rpm.example.org": ("c",)},
            [{"deb.debian.org": "a", "rpm.example.org": "c"}, {"deb.debian.org": "b", "rpm.example.org": "c"}],
        ),
    ],
    ids=["none", "rpm", "deb", "deb and own"],
)  # fmt: skip
def test_each_mirror_of_what_a_release_is_from_has_its_turn(
    release: Release, mirrors: dict[str, tuple[str, ...]], expected: list[dict[str, str]]
) -> None:
    assert build.mirrors(CATALOGUE.model_copy(update={"mirrors": mirrors}), release) == expected


def test_catalogue_and_kubeadm_agree() -> None:
    assert recipes.disagreements(CATALOGUE, REFERENCES) == []


@pytest.mark.parametrize(
    ("reference", "findings"),
    [
        ("registry.k8s.io/etcd:3.6.9-0", [f"the catalogue builds {name} v3.6.8" for name in ETCD]),
        ("registry.k8s.io/coredns/coredns:v1.15.0", ["the catalogue builds coredns v1.14.2"]),
        ("ghcr.io/flannel-io/flannel:v0.28.5", ["the catalogue builds flanneld v0.28.4"]),
        ("registry.k8s.io/konnectivity:v1", ["the catalogue has no recipe for konnectivity"]),
        ("registry.k8s.io/kube-apiserver:v1.36.3", ["the catalogue builds kube-apiserver v1.36.2"]),
    ],
    ids=["etcd", "coredns", "flannel", "unknown", "kube-apiserver"],
)
def test_an_image_that_the_catalogue_does_not_build_is_found(reference: str, findings: list[str]) -> None:
    found = recipes.disagreements(CATALOGUE, [*REFERENCES, reference])
    assert found == [f"{reference}: {each}" for each in findings]


def test_images_are_those_that_kubeadm_lists_manifests_name_and_the_catalogues_own(tmp_path: Path) -> None:
    kubeadm = tmp_path / "kubeadm"
    kubeadm.write_text(
        '#!/bin/sh\ntest "$*" = "config images list --kubernetes-version v1.36.2" && echo b:1 && echo a:1\n'
    )
    kubeadm.chmod(0o755)
    manifest = tmp_path / "app.yaml"
    manifest.write_text("spec: {containers: [{image: nginx}, {image: quay.io/site/app:1}, {image: b:1}]}")
    named = ["docker.io/library/a:1", "docker.io/library/b:1", "docker.io/library/nginx:latest", "quay.io/site/app:1"]
    wanted = images.wanted(CATALOGUE.model_copy(update={"manifests": (str(manifest),)}), kubeadm)
    assert wanted == sorted([*named, *CATALOGUE.extra_images])
    assert images.hosts(wanted) == {"docker.io", "quay.io", "ghcr.io", "registry.k8s.io"}


def test_pause_is_compiled_from_the_kubernetes_tree(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program of our own in place of Kubernetes' pause.c, which prints its version as that does."""
    code = tmp_path / recipes.PAUSE
    code.parent.mkdir(parents=True)
    code.write_text(
        "#include <stdio.h>\n#define S_(x) #x\n#define S(x) S_(x)\nint main(void) { puts(S(VERSION)); return 0; }\n"
    )
    monkeypatch.setattr(gobuild, "toolchain", lambda least: Path("go"))
    monkeypatch.setattr(gobuild, "source", lambda go, module: tmp_path)
    program = recipes.pause(CATALOGUE, "3.10.2")
    assert command.run(program.path) == "3.10.2\n"
    compiler = command.run("gcc", "-dumpfullversion").strip()
    assert (program.source, program.licence) == (
        f"gcc:k8s.io/kubernetes/build/pause/linux/pause.c@v1.36.2 gcc-{compiler} linux/amd64", "Apache-2.0",
    )  # fmt: skip


def test_every_image_made_here_has_a_licence() -> None:
    licences = {name: recipes.licence(CATALOGUE, recipe.files.values()) for name, recipe in CATALOGUE.recipes.items()}
    assert set(licences.values()) == {"Apache-2.0"}


# As `go mod edit -json` prints the go.mod of k8s.io/kubernetes, cut to one line of each kind.
UPSTREAM: dict[str, Any] = {
    "Module": {"Path": "k8s.io/kubernetes"},
    "Go": "1.26.0",
    "Require": [
        {"Path": "github.com/spf13/cobra", "Version": "v1.10.0"},
        {"Path": "k8s.io/api", "Version": "v0.0.0"},
        {"Path": "go.etcd.io/etcd/api/v3", "Version": "v3.6.8"},
    ],
    "Replace": [
        {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
        {"Old": {"Path": "k8s.io/kms"}, "New": {"Path": "./staging/src/k8s.io/kms"}},
        {
            "Old": {"Path": "github.com/old/fork", "Version": "v1.0.0"},
            "New": {"Path": "github.com/new/fork", "Version": "v2.0.0"},
        },
        {"Old": {"Path": "go.etcd.io/etcd/api/v3"}, "New": {"Path": "../api"}},
        {"Old": {"Path": "go.etcd.io/etcd/tests/v3"}, "New": {"Path": "../tests"}},
    ],
}


def test_replacements_by_directories_become_published_versions() -> None:
    module = Module(module="k8s.io/kubernetes", version="v1.36.2", packages={}, require={"k8s.io/kms": "v0.36.1"})
    assert gobuild._replacements(UPSTREAM, module) == [
        ("k8s.io/api", "k8s.io/api v0.36.2"),
        ("k8s.io/kms", "k8s.io/kms v0.36.1"),
        ("github.com/old/fork", "github.com/new/fork v2.0.0"),
        ("go.etcd.io/etcd/api/v3", "go.etcd.io/etcd/api/v3 v3.6.8"),
    ]


def test_a_build_is_by_the_go_at_hand_or_by_the_release_that_is_asked_for(tmp_path: Path) -> None:
    modules = [Module(module="x", version="v1.0.0", packages={}, go=go) for go in (None, "1.16.15")]
    environments = [gobuild._environment(Path("go"), "linux/arm64", tmp_path, module) for module in modules]
    assert [each["GOTOOLCHAIN"] for each in environments] == ["local", "go1.16.15"]
    assert {(each["GOOS"], each["GOARCH"], each["CGO_ENABLED"]) for each in environments} == {("linux", "arm64", "0")}


def test_a_go_mod_without_requirements_or_replacements_has_none() -> None:
    module = Module(module="x", version="v1.0.0", packages={})
    assert gobuild._replacements({"Module": {"Path": "x"}, "Require": None, "Replace": None}, module) == []
    assert gobuild._replacements({"Module": {"Path": "x"}}, module) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("go1.26.6", [1, 26]), ("1.26", [1, 26]), ("v1.36.2", [1, 36]), ("devel", []), ("1.9", [1, 9])],
)
def test_versions_are_compared_by_their_first_two_numbers(text: str, numbers: list[int]) -> None:
    assert gobuild._numbers(text) == numbers


# Stands for the go command: says what it is called with, and by which release of Go that would be done.
GO = """\
#!/bin/sh
echo "$GOTOOLCHAIN $*" >> "{said}"
case "$*" in
    "env GOVERSION") test "$GOTOOLCHAIN" = local && echo go1.26.6 || echo "$GOTOOLCHAIN" ;;
    "mod download -json example.org/tool@v1.0.0") echo '{{"Dir": "/tool"}}' ;;
    "mod edit -json /tool/go.mod") echo '{{"Go": "1.16"}}' ;;
    "mod tidy -e" | "list -deps "*) ;;
    "build "*) for word; do test "$last" = -o && echo tool > "$word"; last=$word; done ;;
    *) exit 1 ;;
esac
"""
TOOL = Module(module="example.org/tool", version="v1.0.0", packages={"tool": "example.org/tool"})


@pytest.fixture
def go(tmp_path: Path) -> Path:
    (tmp_path / "go").write_text(GO.format(said=tmp_path / "said"))
    (tmp_path / "go").chmod(0o755)
    return tmp_path / "go"


@pytest.mark.parametrize(("named", "release"), [(None, "go1.26.6"), ("1.16.15", "go1.16.15")])
def test_a_toolchain_says_which_release_it_is(go: Path, named: str | None, release: str) -> None:
    assert gobuild.release(go, TOOL.model_copy(update={"go": named})) == release


@pytest.mark.parametrize(
    ("named", "toolchain", "flag"),
    [(None, "local", True), ("1.18.10", "go1.18.10", True), ("1.16.15", "go1.16.15", False)],
)
def test_a_module_is_built_by_the_release_that_it_names(
    kept: Path, go: Path, named: str | None, toolchain: str, flag: bool
) -> None:
    made = gobuild.build(go, "tool", TOOL.model_copy(update={"go": named}), "linux/amd64")
    assert [path.name for path in made.iterdir()] == ["tool"]
    said = go.with_name("said").read_text().splitlines()
    for step in ("mod tidy", "list -deps", "build -v -trimpath"):
        assert [line.partition(" ")[0] for line in said if f" {step}" in line] == [toolchain], step
    assert ["-buildvcs=false" in line for line in said if " build -v" in line] == [flag]


def test_what_the_cache_knows_a_program_by_is_what_builds_it(
    kept: Path, go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields that are not set are no part of it: programs that were built before such a field came are found."""
    recipes: list[object] = []
    monkeypatch.setattr(cache, "directory", lambda kind, recipe, make: recipes.append(recipe))
    for change in ({}, {"go": "1.16.15"}):
        gobuild.build(go, "tool", TOOL.model_copy(update=change), "linux/amd64")
    plain = {
        "module": "example.org/tool", "version": "v1.0.0", "packages": {"tool": "example.org/tool"},
        "stamp": {}, "cgo": False, "require": {},
    }  # fmt: skip
    assert recipes == [
        [plain, "linux/amd64", "go1.26.6"],
        [{**plain, "go": "1.16.15"}, "linux/amd64", "go1.16.15"],
    ]


def test_a_command_that_fails_says_what_and_in_whose_words(tmp_path: Path) -> None:
    assert command.run("sh", "-c", "pwd", cwd=tmp_path) == f"{tmp_path}\n"
    with pytest.raises(BuildError, match=r"^`sh -c echo no such module >&2; exit 3` exited with 3:\nno such module$"):
        command.run("sh", "-c", "echo no such module >&2; exit 3")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_cached_directory_is_made_once(kept: Path) -> None:
    made: list[Path] = []

    def make(directory: Path) -> None:
        made.append(directory)
        (directory / "file").write_text("x")

    first = cache.directory("go", {"version": 1}, make)
    assert cache.directory("go", {"version": 1}, make) == first
    assert len(made) == 1
    assert (first / "file").read_text() == "x"
    assert list(kept.iterdir()) == [first]


def test_another_recipe_or_kind_is_another_directory(kept: Path) -> None:
    paths = {
        cache.directory(kind, recipe, lambda directory: None)
        for kind, recipe in (("go", [1]), ("go", [2]), ("images", [1]))
    }
    assert len(paths) == 3
    assert cache.directory("go", {"a": 1, "b": 2}, lambda _: None) == cache.directory(
        "go", {"b": 2, "a": 1}, lambda _: None
    )


def test_a_make_that_fails_leaves_nothing_and_is_tried_again(kept: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise BuildError("no network")

    with pytest.raises(BuildError, match=r"^no network$"):
        cache.directory("go", [1], fail)
    assert list(kept.iterdir()) == []
    assert (cache.directory("go", [1], lambda directory: (directory / "file").touch()) / "file").exists()


def test_what_another_build_has_made_meanwhile_is_taken(kept: Path) -> None:
    def make(directory: Path) -> None:
        (directory / "file").write_text("ours")
        final = directory.with_name(directory.name.rpartition(".")[0])
        final.mkdir()
        (final / "file").write_text("theirs")

    path = cache.directory("go", [1], make)
    assert (path / "file").read_text() in ("ours", "theirs")
    assert list(kept.iterdir()) == [path]


# As `apt-ftparchive packages .` prints it; the file's name is the one that stands in the repository.
PACKAGES = """\
Package: keepalived
Architecture: amd64
Version: 1:2.2.7-1+b2
Description: Failover and monitoring daemon for LVS clusters
 keepalived is used for monitoring real servers.
 .
 Package: is not a field here
Filename: ./keepalived_1.2.2.7-1+b2_amd64.deb
Size: 3

Package: ca-certificates
Architecture: all
Version: 20230311
Filename: ./ca-certificates_20230311_all.deb
Size: 3

"""


def test_packages_of_a_repository_are_listed(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text(PACKAGES)
    rows = [
        (row.name, row.version, row.architecture, row.release, row.file) for row in debs.listed(tmp_path, "debian-12")
    ]
    repository = "packages/debian-12"
    assert rows == [
        ("keepalived", "1:2.2.7-1+b2", "amd64", "debian-12", f"{repository}/keepalived_1.2.2.7-1+b2_amd64.deb"),
        ("ca-certificates", "20230311", "all", "debian-12", f"{repository}/ca-certificates_20230311_all.deb"),
    ]


def test_a_lock_describes_every_file_with_its_name_and_version(tmp_path: Path) -> None:
    for path in ("bin/kubeadm", "packages/debian-12/keepalived_1.2.2.7-1+b2_amd64.deb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "packages/debian-12/Packages").write_text(PACKAGES.partition("\n\n")[0])
    layout = oci.Layout(tmp_path / "images")
    pause = [layout.layer({"/pause": tmp_path / "bin/kubeadm"})]
    layout.image(PAUSE, "linux/amd64", pause, [], "")
    layout.finish()
    contents = Contents(
        platform="linux/amd64",
        kubernetes_version="v1.36.2",
        components={"kubernetes": "v1.36.2"},
        package_sets={"debian-12": CATALOGUE.packages["debian-12"].sets},
        labels={
            "bin/kubeadm": Label("kubeadm", "v1.36.2", "https://example.org/kubeadm", "Apache-2.0"),
            "packages/debian-12/keepalived_1.2.2.7-1+b2_amd64.deb": Label("keepalived", "1:2.2.7-1+b2"),
            **assemble.image_labels(tmp_path / "images", [Image(PAUSE, tmp_path, ORIGIN, f"docker://{PAUSE}", "MIT")]),
        },
        origins={PAUSE: ORIGIN},
    )
    lock = assemble.described(tmp_path, contents)
    rows = {file.path: (file.name, file.version) for file in lock.files}
    assert rows.pop("bin/kubeadm") == ("kubeadm", "v1.36.2")
    assert rows.pop("packages/debian-12/keepalived_1.2.2.7-1+b2_amd64.deb") == ("keepalived", "1:2.2.7-1+b2")
    assert rows.pop("packages/debian-12/Packages") == ("package index", "-")
    assert rows.pop("images/index.json") == ("image index", "-")
    assert rows.pop("images/oci-layout") == ("oci-layout", "-")
    assert rows.pop("bundle.cdx.json") == ("SBOM", "-")
    assert set(rows.values()) == {("registry.k8s.io/pause", "3.10.2")}
    assert all(
        file.sha256 == hashlib.sha256((tmp_path / file.path).read_bytes()).hexdigest()
        and file.size == (tmp_path / file.path).stat().st_size
        for file in lock.files
    )
    assert lock.package_sets["debian-12"] == CATALOGUE.packages["debian-12"].sets
    assert [(image.name, image.origin) for image in lock.images] == [(PAUSE, ORIGIN)]
    assert {(file.source, file.licence) for file in lock.files if file.path.startswith("images/blobs/")} == {
        (f"docker://{PAUSE}", "MIT")
    }
    assert parse(lock.model_dump_json()) == lock
    assert Contents.of(lock).labels.items() >= contents.labels.items()
    assert assemble.described(tmp_path, Contents.of(lock)) == lock
