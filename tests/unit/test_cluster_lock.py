"""bundle.lock, and which of its pieces a host gets. Locks here are hand-written."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from cluster import pieces
from cluster.lock import Lock, parse


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def file(path: str) -> dict[str, Any]:
    return {"path": path, "size": 1, "sha256": sha(path), "name": path.rpartition("/")[2], "version": "v1"}


def image(name: str, *layers: str) -> dict[str, Any]:
    blobs = [f"sha256:{sha(each)}" for each in (name, *layers)]
    return {"name": name, "digest": blobs[0], "size": 1, "blobs": blobs}


IMAGES = [
    image("registry.k8s.io/etcd:3.6.8-0", "etcd layer"),
    image("registry.k8s.io/kube-apiserver:v1.36.2", "api layer"),
    image("registry.k8s.io/kube-controller-manager:v1.36.2", "manager layer"),
    image("registry.k8s.io/kube-proxy:v1.36.2", "base", "proxy layer"),
    image("registry.k8s.io/kube-scheduler:v1.36.2", "scheduler layer"),
    image("localhost:5000/flannel-io/flannel:v0.28.4", "base", "flannel layer"),
]
BLOBS = {f"images/blobs/{blob.replace(':', '/')}": row["name"] for row in IMAGES for blob in row["blobs"]}
PATHS = (
    "bin/etcdctl",
    "bin/etcdutl",
    "bin/kubeadm",
    "bin/kubelet",
    "cni/bridge",
    "images/index.json",
    "images/oci-layout",
    *BLOBS,
    "packages/debian-12/Packages",
    "packages/debian-12/runc_1.1.5_amd64.deb",
    "packages/debian-13/Packages",
)
LOCK: dict[str, Any] = {
    "format": 2,
    "platform": "linux/amd64",
    "kubernetes_version": "v1.36.2",
    "components": {"kubernetes": "v1.36.2"},
    "images": IMAGES,
    "packages": [
        {"name": "runc", "version": "1.1.5", "architecture": "amd64", "release": "debian-12", "file": PATHS[-2]}
    ],
    "package_sets": {"debian-12": {"runtime": ["runc"]}},
    "files": [file(path) for path in PATHS],
}


def read(**changes: Any) -> Lock:
    return parse(json.dumps(LOCK | changes))


def test_a_lock_is_read_whole() -> None:
    lock = read()
    assert [each.path for each in lock.files] == list(PATHS)
    assert lock.package_sets == {"debian-12": {"runtime": ("runc",)}}
    assert lock == parse(lock.model_dump_json())


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "bin/../../x", "bin/..", "./bin/x", "bin//x", "bin/", "", ".."]
)
def test_a_path_that_leaves_the_bundle_is_refused(path: str) -> None:
    words = r"files\.0\.path\n.*must be a relative path without `\.`, `\.\.` or empty steps"
    with pytest.raises(ValidationError, match=words):
        read(files=[{**file("x"), "path": path}])
    with pytest.raises(ValidationError, match=words.replace("files", "packages").replace("path", "file", 1)):
        read(packages=[{**LOCK["packages"][0], "file": path}])


CONTROL = "must have no control characters, no invisible ones and no backslash"
OPTION = "must have no step that begins with `-`, which programs take for an option"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a\0b", CONTROL),
        ("bin/a\nb", CONTROL),
        ("bin/\x1b[2J", CONTROL),
        ("bin/\u202egpj.x", CONTROL),  # shown from right to left
        ("bin/a\u200bb", CONTROL),  # no width
        ("bin\\kubeadm", CONTROL),
        ("-rf", OPTION),
        ("bin/--help", OPTION),
        ("é" * 2049, "must have at most 4096 bytes"),
    ],
    ids=["nul", "newline", "escape", "right-to-left", "no-width", "backslash", "option", "option-below", "long"],
)
def test_a_path_that_is_taken_for_something_else_is_refused(path: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(files=[{**file("x"), "path": path}])
    assert "files.0.path" in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="bin/kubeadm is listed twice"):
        read(files=[file("bin/kubeadm"), file("bin/kubelet"), file("bin/kubeadm")])


def test_files_whose_names_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ValidationError, match="bin/kubeadm and bin/KubeAdm differ in case alone"):
        read(files=[file("bin/kubeadm"), file("bin/KubeAdm")])


@pytest.mark.parametrize(
    "path", ["bin/..x", "bin/x..y", "...", "packages/debian-12/a_1%3a2.deb", "bin/a b", "bin/a-b", "bin/é", "é" * 2048]
)
def test_a_path_with_harmless_signs_is_taken(path: str) -> None:
    assert read(files=[{**file("x"), "path": path}]).files[0].path == path


@pytest.mark.parametrize("number", [0, 1, 3, "2"])
def test_another_format_is_refused(number: Any) -> None:
    with pytest.raises(ValidationError, match=r"format\n.*Input should be 2"):
        read(format=number)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": "x"}, r"signature\n.*Extra inputs are not permitted"),
        ({"files": [{**file("x"), "size": -1}]}, r"files\.0\.size\n.*greater than or equal to 0"),
        ({"files": [{**file("x"), "sha256": "A" * 64}]}, r"files\.0\.sha256\n.*should match pattern"),
        ({"files": [{**file("x"), "mode": "755"}]}, r"files\.0\.mode\n.*Extra inputs are not permitted"),
        ({"images": [{**IMAGES[0], "digest": "sha512:0"}]}, r"images\.0\.digest\n.*should match pattern"),
        ({"images": [{**IMAGES[0], "blobs": ["sha256:../../x"]}]}, r"images\.0\.blobs\.0\n.*should match pattern"),
        ({"files": None}, r"files\n.*should be a valid array"),
    ],
)
def test_a_lock_that_is_not_as_it_should_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read(**changes)


def test_a_lock_that_is_not_whole_is_refused() -> None:
    with pytest.raises(ValidationError, match="Invalid JSON"):
        parse(json.dumps(LOCK)[:-20])


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("registry.k8s.io/coredns/coredns:v1.14.2", "coredns"),
        ("localhost:5000/pause:3.10.2", "pause"),
        ("localhost:5000/pause", "pause"),
        ("pause", "pause"),
    ],
)
def test_short_name_of_an_image(reference: str, name: str) -> None:
    assert pieces.short_name(reference) == name


def test_image_by_its_short_name() -> None:
    assert pieces.image(read(), "flannel").name == "localhost:5000/flannel-io/flannel:v0.28.4"
    with pytest.raises(LookupError, match=r"^the bundle has no image calico$"):
        pieces.image(read(), "calico")


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (["control_plane"], [row["name"] for row in IMAGES]),
        (["worker"], [IMAGES[3]["name"], IMAGES[5]["name"]]),
        (["load_balancer"], []),
        ([], []),
        (["worker", "control_plane"], [row["name"] for row in IMAGES]),
    ],
)
def test_images_by_role(groups: list[str], names: list[str]) -> None:
    assert [each.name for each in pieces.images(read(), groups)] == names


def test_programs_by_role() -> None:
    worker = {"/usr/bin/kubeadm": "bin/kubeadm", "/usr/bin/kubelet": "bin/kubelet", "/opt/cni/bin/bridge": "cni/bridge"}
    etcd = {"/usr/bin/etcdctl": "bin/etcdctl", "/usr/bin/etcdutl": "bin/etcdutl"}
    for groups, wanted in (["worker"], worker), (["control_plane"], {**etcd, **worker}), (["load_balancer"], {}):
        assert {dest: each.path for dest, each in pieces.programs(read(), groups).items()} == wanted


PACKAGES = ["packages/debian-12/Packages", "packages/debian-12/runc_1.1.5_amd64.deb"]


def test_a_control_plane_gets_every_blob_and_program_and_its_releases_packages() -> None:
    found = [each.path for each in pieces.pieces(read(), ["control_plane"], "debian-12")]
    assert found == [*PATHS[:5], *BLOBS, *PACKAGES]


def test_a_worker_gets_no_static_pods_and_no_etcd_tools() -> None:
    found = [each.path for each in pieces.pieces(read(), ["worker"], "debian-12")]
    shared = [path for path, name in BLOBS.items() if "flannel" in name or "kube-proxy" in name]
    assert found == ["bin/kubeadm", "bin/kubelet", "cni/bridge", *shared, *PACKAGES]


def test_a_load_balancer_gets_packages_only() -> None:
    assert [each.path for each in pieces.pieces(read(), ["load_balancer"], "debian-12")] == PACKAGES
    assert [each.path for each in pieces.pieces(read(), ["load_balancer"], "debian-13")] == [PATHS[-1]]


def test_images_that_will_be_pulled_are_not_carried() -> None:
    for group in ("control_plane", "worker"):
        loaded = pieces.pieces(read(), [group], "debian-12")
        pulled = pieces.pieces(read(), [group], "debian-12", load=False)
        assert pulled == [each for each in loaded if not each.path.startswith("images/")] != loaded


def test_images_as_registries_name_them() -> None:
    assert pieces.by_registry(read())[0] == ("registry.k8s.io", "etcd", "3.6.8-0", sha("registry.k8s.io/etcd:3.6.8-0"))
    own = image("registry.example.org:5000/a/b/c:v1")
    (found,) = pieces.by_registry(read(images=[own]))
    assert found == ("registry.example.org:5000", "a/b/c", "v1", sha("registry.example.org:5000/a/b/c:v1"))
    assert len(pieces.by_registry(read())) == len(IMAGES)
