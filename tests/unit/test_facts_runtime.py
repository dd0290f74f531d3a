"""Facts of container runtimes. Recorded are answers of real daemons in a directory; the rest is hand-written."""

from __future__ import annotations

import json

import pytest
from harness import Machine, answer, recorded

from facts import crio
from facts.runtime import SECOND, Installed, Runtime

SOCKETS = {"containerd": "/run/containerd/containerd.sock", "cri-o": "/var/run/crio/crio.sock"}
PAUSE = "registry.k8s.io/pause:3.10.2"


def runtime(machine: Machine, name: str) -> object:
    return machine.ask(Runtime, runtime=name, socket=SOCKETS[name])


@pytest.mark.parametrize("release", ["1.6.20", "1.7.35", "2.2.9", "2.3.7"])
def test_every_containerd_says_how_it_runs(release: str) -> None:
    assert answer(Runtime, recorded(f"Runtime.containerd-{release}")) == {
        "state": "running", "error": "", "cgroup_driver": "systemd", "sandbox_image": PAUSE,
        "registries": "/etc/containerd/certs.d", "kubelet_driver": None,
    }  # fmt: skip


@pytest.mark.parametrize("release", ["1.27.8", "1.36.3"])
def test_every_cri_o_says_how_it_runs(release: str) -> None:
    assert answer(Runtime, recorded(f"Runtime.crio-{release}")) == {
        "state": "running", "error": "", "cgroup_driver": "systemd", "sandbox_image": PAUSE,
        "registries": None, "kubelet_driver": None,
    }  # fmt: skip


@pytest.mark.parametrize("release", ["1.6.20", "2.3.7"])
def test_the_daemons_own_word_counts_and_not_its_files(release: str) -> None:
    """As when a file was changed and the daemon not restarted."""
    lines = recorded(f"Runtime.containerd-{release}")
    at = lines.index(SECOND)
    told = [line.replace('"SystemdCgroup": true', '"SystemdCgroup": false') for line in lines[:at]]
    assert told != lines[:at]
    assert answer(Runtime, [*told, *lines[at:]])["cgroup_driver"] == "cgroupfs"


def test_the_driver_is_that_of_the_default_runtime() -> None:
    runtimes = {"runc": {"options": {"SystemdCgroup": True}}, "own": {"options": None}}
    config = {"containerd": {"defaultRuntimeName": "own", "runtimes": runtimes}}
    assert answer(Runtime, ["running", json.dumps({"config": config}), SECOND])["cgroup_driver"] == "cgroupfs"


@pytest.mark.parametrize("name", SOCKETS)
def test_a_runtime_is_absent_without_its_program(machine: Machine, name: str) -> None:
    machine.program("crictl", "exit 1")
    assert runtime(machine, name) == Runtime.default()


@pytest.mark.parametrize(("name", "program"), [("containerd", "containerd"), ("cri-o", "crio")])
def test_a_runtime_that_does_not_serve_the_cri_is_unreachable_in_crictls_words(
    machine: Machine, name: str, program: str
) -> None:
    machine.program(program, "exit 0")
    machine.program("crictl", "echo 'level=fatal' >&2; echo 'unknown service  runtime.v1.RuntimeService' >&2; exit 1")
    machine.file("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\n")
    found = machine.ask(Runtime, runtime=name, socket=SOCKETS[name])
    assert (found["state"], found["kubelet_driver"]) == ("unreachable", "systemd")
    assert found["error"] == "level=fatal unknown service runtime.v1.RuntimeService"


def test_containerd_is_asked_at_its_socket_and_its_files_read_by_itself(machine: Machine) -> None:
    info, dump = "\n".join(recorded("Runtime.containerd-2.3.7")[1:]).split(f"{SECOND}\n")
    machine.file("/info", info)
    machine.file("/dump", dump)
    asked = "--runtime-endpoint unix:///run/containerd/containerd.sock info"
    machine.program("crictl", f'test "$*" = "{asked}" && cat {machine.root}/info')
    machine.program("containerd", f'test "$*" = "config dump" && cat {machine.root}/dump')
    found = machine.ask(Runtime, runtime="containerd", socket=SOCKETS["containerd"])
    assert (found["state"], found["sandbox_image"]) == ("running", PAUSE)


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="not an answer of this fact: 'Last login: Tue'"):
        answer(Runtime, ["Last login: Tue", "running"])
    with pytest.raises(ValueError, match="not an answer of this fact: 'Last login: Tue'"):
        answer(crio.Images, ["Last login: Tue", "running"])


def test_a_bare_host_has_no_runtime(machine: Machine) -> None:
    assert machine.ask(Installed, runtime="containerd") == {"packages": {}, "unit": False, "kubelet_socket": None}


def test_packages_of_a_runtime_are_those_that_are_installed(machine: Machine) -> None:
    machine.program(
        "dpkg-query",
        "echo 'package containerd 1.6.20~ds1-1+deb12u3 installed'; echo 'package containerd.io 1 config-files'; exit 1",
    )
    machine.program("rpm", "echo 'package containerd is not installed'; exit 1")
    found = machine.ask(Installed, runtime="containerd")
    assert found["packages"] == {"containerd": "1.6.20~ds1-1+deb12u3"}


def test_packages_of_an_rpm_host_are_seen(machine: Machine) -> None:
    machine.program("rpm", "echo 'package cri-o 1.36.3-1 installed'")
    assert machine.ask(Installed, runtime="cri-o")["packages"] == {"cri-o": "1.36.3-1"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("instance-config.yaml", "containerRuntimeEndpoint: unix:///run/x.sock\n"),
        ("config.yaml", 'cgroupDriver: systemd\ncontainerRuntimeEndpoint: "unix:///run/x.sock"\n'),
        ("kubeadm-flags.env", 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/x.sock --node-ip=1"\n'),
    ],
)
def test_the_kubelets_socket_is_found_where_each_kubeadm_writes_it(machine: Machine, path: str, text: str) -> None:
    machine.file("/var/lib/kubelet/config.yaml", 'containerRuntimeEndpoint: ""\n')
    machine.file(f"/var/lib/kubelet/{path}", text)
    assert machine.ask(Installed, runtime="containerd")["kubelet_socket"] == "/run/x.sock"


def test_a_unit_in_etc_is_seen_and_a_masked_one_is_none(machine: Machine) -> None:
    unit = machine.file("/etc/systemd/system/crio.service", "[Unit]\n")
    assert machine.ask(Installed, runtime="cri-o")["unit"] is True
    assert machine.ask(Installed, runtime="containerd")["unit"] is False
    unit.unlink()
    unit.symlink_to("/dev/null")
    assert machine.ask(Installed, runtime="cri-o")["unit"] is False


# What `crictl images -o json` printed of CRI-O 1.36.3, with one image, and a second name of it.
LISTED = {
    "images": [
        {
            "id": "49474d8744294c11a87fd1b3bd08959f1eeaee805ad8dc8369342693953081b2",
            "repoTags": ["registry.k8s.io/pause:3.10.2", "localhost:5000/pause:1"],
            "repoDigests": ["registry.k8s.io/pause@sha256:d1f3", "localhost:5000/pause@sha256:d1f3"],
            "size": "779348", "uid": {"value": "65535"}, "username": "", "pinned": True,
        }
    ]
}  # fmt: skip


def test_images_of_cri_o_have_a_digest_by_each_of_their_names(machine: Machine) -> None:
    machine.program("crio", "exit 0")
    machine.program("crictl", f"cat <<'E'\n{json.dumps(LISTED, indent=2)}\nE")
    assert machine.ask(crio.Images) == {
        "state": "running",
        "images": {PAUSE: "sha256:d1f3", "localhost:5000/pause:1": "sha256:d1f3"},
    }


def test_images_of_cri_o_are_absent_without_it_and_unreachable_when_it_does_not_answer(machine: Machine) -> None:
    assert machine.ask(crio.Images) == {"state": "absent", "images": {}}
    machine.program("crio", "exit 0")
    machine.program("crictl", "exit 1")
    assert machine.ask(crio.Images) == {"state": "unreachable", "images": {}}
