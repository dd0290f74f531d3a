"""Images that manifests name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import manifests
from bundle.command import BuildError

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, image: not/an-image:1}
spec:
  template:
    spec:
      initContainers: [{name: first, image: "quay.io/site/first:1"}]
      containers:
        - {name: web, image: nginx}
        - {name: side, image: "quay.io/site/side@sha256:%s"}
      ephemeralContainers: [{name: debug, image: busybox:1.36}]
      volumes:
        - {name: model, image: {reference: quay.io/site/model:1, pullPolicy: IfNotPresent}}
        - {name: block, rbd: {image: block-device, monitors: []}}
        - {name: empty, emptyDir: {}}
"""
LIST = """\
apiVersion: v1
kind: List
items:
  - apiVersion: batch/v1
    kind: CronJob
    spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: x, image: "quay.io/site/job:1"}]}}}}}
  - apiVersion: example.org/v1
    kind: Workflow
    spec: {steps: [{podTemplate: {spec: {containers: [{name: x, image: "quay.io/site/step:1"}]}}}]}
"""
# The schema of a CRD has the names of the fields as its own names, and here a bare `=` too.
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: alertmanagerconfigs.example.org}
spec:
  versions:
    - schema:
        openAPIV3Schema:
          properties:
            containers: {type: array, items: {properties: {image: {type: string}}}}
            matchType: {enum: ["!=", =, =~]}
"""


def write(directory: Path, *texts: str) -> list[Path]:
    """A file for each text."""
    paths = [directory / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_images_of_containers_and_volumes_are_found_at_any_depth(tmp_path: Path) -> None:
    digest = "0a" * 32
    assert manifests.images(write(tmp_path, f"---\n{CRD}---\n{DEPLOYMENT % digest}---\n", LIST)) == [
        "docker.io/library/busybox:1.36",
        "docker.io/library/nginx:latest",
        "quay.io/site/first:1",
        "quay.io/site/job:1",
        "quay.io/site/model:1",
        f"quay.io/site/side@sha256:{digest}",
        "quay.io/site/step:1",
    ]


def test_an_image_that_several_name_is_one(tmp_path: Path) -> None:
    assert len(manifests.images(write(tmp_path, LIST, LIST))) == 2


@pytest.mark.parametrize("text", ["", "---\n", "just text", "- 1\n- [2]\n", "kind: Pod\nspec:\n", "containers: none"])
def test_a_manifest_without_images_names_none(tmp_path: Path, text: str) -> None:
    assert manifests.images(write(tmp_path, text)) == []
    assert manifests.calico_placement(write(tmp_path, text)) == {}


def test_a_container_without_an_image_names_none(tmp_path: Path) -> None:
    text = "spec: {containers: [{name: a}, {name: b, image: }, {name: c, image: {x: 1}}, text]}"
    assert manifests.images(write(tmp_path, text)) == []


def test_a_wrong_reference_is_told_with_its_file(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 'spec: {containers: [{image: "https://quay.io/a"}]}')
    with pytest.raises(BuildError, match=rf"^{path}: 'https://quay\.io/a' is no reference of an image\."):
        manifests.images([path])


def test_a_template_is_no_yaml(tmp_path: Path) -> None:
    (path,) = write(tmp_path, "spec:\n  {{- if .Values.x }}\n")
    with pytest.raises(BuildError, match=rf"(?s)^{path}: is no YAML: .*line 2.*\. A template must be rendered"):
        manifests.images([path])


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        manifests.images([tmp_path / "none.yaml"])
    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory. Correct `manifests` in bundle.yaml."
    )


INSTALLATION = "apiVersion: operator.tigera.io/v1\nkind: Installation\nspec: {%s}\n"


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        (INSTALLATION % "registry: a.org/, imagePath: b, imagePrefix: c-",
         {"registry": "a.org/", "imagePath": "b", "imagePrefix": "c-"}),
        (INSTALLATION % "registry: UseDefault, variant: Calico", {}),
        (INSTALLATION % "registry: ''", {}),
        ("apiVersion: example.org/v1\nkind: Installation\nspec: {registry: a.org}\n", {}),
        ("kind: List\nitems: [{apiVersion: operator.tigera.io/v1, kind: Installation, spec: {registry: a.org}}]",
         {"registry": "a.org"}),
    ],
    ids=["all", "default", "empty", "another", "listed"],
)  # fmt: skip
def test_an_installation_says_where_calicos_images_are(tmp_path: Path, text: str, placement: dict[str, str]) -> None:
    assert manifests.calico_placement(write(tmp_path, text)) == placement
