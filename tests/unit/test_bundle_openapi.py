"""OpenAPI definitions that are generated before a module is built, with programs of the tests' own for Go's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bundle import openapi
from bundle.catalogue import Module, OpenApi
from bundle.command import BuildError

MODULE = Module(module="k8s.io/kubernetes", version="v1.21.14", packages={"api": "k8s.io/kubernetes/cmd/api"})
WANTED = OpenApi(
    generator="k8s.io/kube-openapi/cmd/openapi-gen", package="pkg/generated/openapi", header="header.txt",
    violations="violations.list", without=("k8s.io/sample-apiserver",),
)  # fmt: skip
REPLACED = [
    ("k8s.io/api", "k8s.io/api v0.21.14"),
    ("k8s.io/sample-apiserver", "k8s.io/sample-apiserver v0.21.14"),
    ("github.com/old/fork", "github.com/new/fork v2.0.0"),
    ("k8s.io/kube-openapi", "k8s.io/kube-openapi v0.0.0-20211110012726-3cc51fd1e909"),
]
STAGED = ["k8s.io/api", "k8s.io/sample-apiserver"]
# Stands for the go command; what it builds is the generator, which keeps what it is called with.
GO = """\
#!/bin/sh
case "$*" in
    "mod download -json "*)
        shift 3
        for at; do name=${{at%@*}}; printf '{{\\n\\t"Path": "%s", "Dir": "{root}/%s"\\n}}\\n' $name $name; done ;;
    "mod tidy -e") cp go.mod tools.go "{root}" ;;
    "build -o "*) cp "{root}/generator" "$3" ;;
    "env GOROOT") echo "{root}/goroot" ;;
    *) exit 1 ;;
esac
"""
GENERATOR = """\
#!/bin/sh
echo "$GOTOOLCHAIN $*" > "{root}/said"
echo "$PATH" > "{root}/path"
while [ $# -gt 0 ]; do
    case "$1" in -p) package=$2 ;; -O) name=$2 ;; -o) made=$2 ;; -r) report=$2 ;; esac
    shift
done
mkdir -p "$made/$package"
echo definitions > "$made/$package/$name.go"
echo "{violations}" > "$report"
"""


def source(root: Path, path: str, text: str = "// +k8s:openapi-gen=true\npackage x\n") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def prepared(root: Path, violations: str = "known") -> Path:
    """A pretended go command, and the modules that it has."""
    source(root, "k8s.io/kubernetes/go.mod", "module k8s.io/kubernetes\n\ngo 1.16\n")
    source(root, "k8s.io/kubernetes/violations.list", "known\n")
    source(root, "k8s.io/kubernetes/pkg/generated/openapi/doc.go", "package openapi\n")
    source(root, "k8s.io/kubernetes/pkg/apis/abac/types.go")
    source(root, "k8s.io/kubernetes/pkg/_output/types.go")
    source(root, "k8s.io/kubernetes/pkg/plain/types.go", "// speaks of +k8s:openapi-gen=true\npackage x\n")
    source(root, "k8s.io/api/core/v1/types.go", "type A struct {\n\t// +k8s:openapi-gen=false\n}\n")
    source(root, "k8s.io/api/core/v1/more.go")
    source(root, "k8s.io/sample-apiserver/v1/types.go")
    source(root, "github.com/new/fork/types.go")
    source(root, "k8s.io/kube-openapi/test/types.go")
    for name, text in (("go", GO), ("generator", GENERATOR)):
        (root / name).write_text(text.format(root=root, violations=violations))
        (root / name).chmod(0o755)
    for path in (root / "k8s.io/kubernetes").rglob("*"):  # as Go leaves modules in its cache
        path.chmod(0o555 if path.is_dir() else 0o444)
    return root / "go"


def test_packages_that_ask_for_definitions_are_given_to_the_generator_and_the_copy_has_what_it_makes(
    tmp_path: Path,
) -> None:
    go, workspace = prepared(tmp_path / "root"), tmp_path / "workspace"
    workspace.mkdir()
    environment = {"PATH": os.environ["PATH"], "GOTOOLCHAIN": "go1.16.15"}
    copy = openapi.tree(go, MODULE, WANTED, REPLACED, STAGED, workspace, environment)
    toolchain, *words = (tmp_path / "root/said").read_text().split()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert toolchain == "local"
    assert (tmp_path / "root/path").read_text().startswith(f"{tmp_path}/root/goroot/bin:")
    assert options["-i"] == "k8s.io/api/core/v1,k8s.io/kubernetes/pkg/apis/abac"
    assert options["-h"] == f"{tmp_path}/root/k8s.io/kubernetes/header.txt"
    assert (tmp_path / "root/go.mod").read_text().splitlines()[:5] == [
        "module openapi", "", "go 1.16", "", "require k8s.io/kubernetes v1.21.14",
    ]  # fmt: skip
    assert (copy / "pkg/generated/openapi/zz_generated.openapi.go").read_text() == "definitions\n"
    assert (copy / "pkg/apis/abac/types.go").exists()
    assert all(path.stat().st_mode & stat.S_IWUSR for path in copy.rglob("*"))


def test_definitions_that_break_other_rules_than_upstreams_end_the_build(tmp_path: Path) -> None:
    go = prepared(tmp_path / "root", violations="another")
    words = (
        r"^OpenAPI definitions of k8s\.io/kubernetes v1\.21\.14: other API rules are broken than violations\.list of "
        r"its tree has, so they are not upstream's\. Take another patch release\.$"
    )
    (tmp_path / "workspace").mkdir()
    with pytest.raises(BuildError, match=words):
        openapi.tree(go, MODULE, WANTED, REPLACED, STAGED, tmp_path / "workspace", dict(os.environ))
