"""Which runtime a cluster's nodes have, and what is said of another one. All states are hand-written."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.lock import File, Image, Lock, Package
from cluster.runtime import (
    REGISTRIES,
    Wanted,
    config_version,
    differences,
    has_cni_directories,
    is_carried,
    oci_runtime,
    problems,
    wanted,
)
from cluster.settings import load

RELEASE, PAUSE = "debian-12", "registry.k8s.io/pause:3.10.2"
SUM = "0" * 64
CONTAINERD = Wanted("containerd", "systemd", PAUSE)
NOTHING: dict[str, Any] = {"packages": {}, "unit": False, "kubelet_socket": None}
WELL = {
    "state": "running", "error": "", "cgroup_driver": "systemd", "sandbox_image": PAUSE, "registries": REGISTRIES,
    "kubelet_driver": "systemd",
}  # fmt: skip


def lock(package: str = "", **components: str) -> Lock:
    """A lock with a runtime's package, or with the programs of these components."""
    file = f"packages/{RELEASE}/{package}.deb"
    rows = [Package(name=package, version="1.6.20~ds1-1", architecture="amd64", release=RELEASE, file=file)]
    programs = [
        File(path=f"runtime/{name}", size=1, sha256=SUM, name=name, version=version)
        for name, version in components.items()
    ]
    image = Image(name=PAUSE, digest=f"sha256:{SUM}", size=1, blobs=(f"sha256:{SUM}",))
    return Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2",
        components={name.replace("_", "-"): version for name, version in components.items()}, images=(image,),
        packages=tuple(rows if package else ()), package_sets={RELEASE: {}}, files=tuple(programs),
    )  # fmt: skip


def settings(**given: object) -> Any:
    return load({"vip": "10.0.0.100", **given})


def test_cri_o_runs_containers_by_the_runc_of_the_bundle_where_that_has_one() -> None:
    assert oci_runtime(lock(crio="v1.36.3", crun="v1.36.3")) == "crun"
    assert oci_runtime(lock(crio="v1.36.3")) == "crun"  # the distribution's
    assert oci_runtime(lock(crio="v1.36.3", runc="v1.4.3")) == "runc"


@pytest.mark.parametrize(
    ("release", "version", "directories"),
    [
        ("1.6.20~ds1-1+deb12u3", 2, False),
        ("v1.7.35", 2, False),
        ("v2.0.14", 3, False),
        ("v2.1.9", 3, True),
        ("v2.2.9", 3, True),
        ("v2.3.0", 4, True),
        ("v2.4.2", 4, True),
    ],
)
def test_each_containerd_has_the_newest_configuration_that_it_reads(
    release: str, version: int, directories: bool
) -> None:
    assert (config_version(release), has_cni_directories(release)) == (version, directories)


def test_the_runtime_is_as_settings_and_bundle_say() -> None:
    assert wanted(settings(), lock("containerd")) == CONTAINERD
    other = wanted(settings(container_runtime="cri-o"), lock(cri_o="v1.36.3"))
    assert (other.name, other.socket, other.unit) == ("cri-o", "/var/run/crio/crio.sock", "crio.service")
    assert (CONTAINERD.socket, CONTAINERD.unit) == ("/run/containerd/containerd.sock", "containerd.service")


def test_a_bundle_says_whether_its_runtime_is_a_package() -> None:
    assert not is_carried(lock("containerd"))
    assert is_carried(lock(containerd="v2.3.7"))


@pytest.mark.parametrize("bundle", [lock("containerd"), lock(containerd="v2.3.7")])
def test_a_bundle_with_the_runtime_that_the_settings_ask_for_has_no_problem(bundle: Lock) -> None:
    assert problems(settings(), bundle, RELEASE) == []


def test_cri_o_of_a_bundle_has_no_problem() -> None:
    assert problems(settings(container_runtime="cri-o"), lock(cri_o="v1.36.3"), RELEASE) == []


@pytest.mark.parametrize(
    ("name", "bundle", "there"),
    [
        ("cri-o", lock("containerd"), "containerd 1.6.20~ds1-1"),
        ("cri-o", lock("cri-o"), "cri-o 1.6.20~ds1-1"),  # whose programs are elsewhere than its configuration says
        ("containerd", lock(cri_o="v1.36.3"), "cri-o v1.36.3"),
        ("containerd", lock(), "no runtime"),
    ],
)
def test_a_bundle_without_that_runtime_is_refused(name: str, bundle: Lock, there: str) -> None:
    assert problems(settings(container_runtime=name), bundle, RELEASE) == [
        f"container_runtime: is {name}, and the bundle has {there}. Choose `runtime` in bundle.yaml and build it anew, "
        "or change container_runtime; docs/runtimes.md shows how."
    ]


def test_a_runtime_that_runs_as_wanted_is_well_with_a_kubelet_and_before_there_is_one() -> None:
    assert differences(CONTAINERD, WELL) == []
    assert differences(CONTAINERD, WELL | {"kubelet_driver": None}) == []
    assert differences(Wanted("cri-o", "systemd", PAUSE), WELL | {"registries": None}) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"state": "absent"}, "containerd is not installed"),
        (
            {"state": "unreachable", "error": "unknown service runtime.v1.RuntimeService"},
            "containerd does not serve the CRI at /run/containerd/containerd.sock: unknown service runtime.v1.Run",
        ),
        ({"cgroup_driver": "cgroupfs"}, "containerd runs with the cgroup driver cgroupfs, not systemd"),
        ({"sandbox_image": "pause:3.6"}, f"containerd runs with the pause image pause:3.6, not {PAUSE}"),
        ({"registries": ""}, f"containerd looks for registries in no place, not in {REGISTRIES}"),
        (
            {"kubelet_driver": "cgroupfs"},
            "the kubelet is configured with the cgroup driver cgroupfs, containerd with systemd",
        ),
    ],
)
def test_what_a_runtime_does_otherwise_is_said(state: dict[str, Any], said: str) -> None:
    assert differences(CONTAINERD, WELL | state)[0].startswith(said)


def test_all_that_a_runtime_does_otherwise_is_said_at_once() -> None:
    assert (
        len(differences(CONTAINERD, WELL | {"cgroup_driver": "cgroupfs", "sandbox_image": "", "registries": ""})) == 4
    )
