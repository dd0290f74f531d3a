"""Operations on container runtimes: their configuration checked, their answer asserted, CRI-O's images copied."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api import OperationError

from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from cluster.runtime import REGISTRIES, Wanted
from facts import crio as crio_facts
from facts.runtime import SECOND, Runtime
from facts.service import Unit
from operations import containerd, crio, runtime, service

Make = Callable[[dict[str, dict[str, Any]]], Hosts]

PAUSE = "registry.k8s.io/pause:3.10.2"
WANTED = Wanted("containerd", "systemd", PAUSE)
ASKED = Runtime().command(runtime="containerd", socket=WANTED.socket)
DIGEST = f"sha256:{'1' * 64}"
IMAGES = [Image(name=PAUSE, digest=DIGEST, size=10, blobs=(DIGEST,))]
SIZES = {DIGEST: 101}
LISTED = crio_facts.Images().command()


def says(systemd: bool = True, pause: str = PAUSE, kubelet: str = "systemd") -> list[str]:
    """The answer of containerd 1.x."""
    config = {
        "containerd": {"defaultRuntimeName": "runc", "runtimes": {"runc": {"options": {"SystemdCgroup": systemd}}}},
        "sandboxImage": pause,
        "registry": {"configPath": REGISTRIES},
    }
    return [f"kubelet {kubelet}", "running", json.dumps({"config": config}), SECOND]


def test_a_runtime_is_asked_when_the_plan_is_carried_out(hosts: Make) -> None:
    bare = hosts({"w1": {ASKED: ["absent"]}})
    assert bare.plan(runtime.agrees, wanted=WANTED) == []
    assert bare.noops == ["containerd is asked when this runs"]
    assert bare.ran == []


def test_a_runtime_that_runs_as_wanted_is_no_change(hosts: Make) -> None:
    well = hosts({"w1": {ASKED: says()}})
    assert well.execute(runtime.agrees, wanted=WANTED) == []
    assert well.noops == [f"containerd runs with the cgroup driver systemd and {PAUSE}"]


def test_a_runtime_that_does_not_run_as_wanted_fails_the_host_with_all_that_is_wrong(hosts: Make) -> None:
    other = hosts({"w1": {ASKED: says(systemd=False, pause="registry.k8s.io/pause:3.6")}})
    (command,) = other.execute(runtime.agrees, wanted=WANTED, seconds=0)
    said = shlex.split(command.text)[2]
    assert command.text.endswith(">&2; exit 1")
    assert said == (
        "w1: the container runtime does not run as it is configured to:\n"
        "  - containerd runs with the cgroup driver cgroupfs, not systemd\n"
        f"  - containerd runs with the pause image registry.k8s.io/pause:3.6, not {PAUSE}\n"
        "  - the kubelet is configured with the cgroup driver systemd, containerd with cgroupfs\n"
        "Look at `crictl info`, `journalctl -u containerd.service` and files beside its configuration; "
        "docs/runtimes.md says which of them win."
    )


def test_drift_is_what_a_restart_may_mend(hosts: Make) -> None:
    def drift(answer: list[str]) -> list[str]:
        found: list[str] = []

        def ask() -> Any:
            found.extend(runtime.drift(WANTED))
            yield from ()

        class Asking:
            _inner = staticmethod(ask)

        hosts({"w1": {ASKED: answer}}).plan(Asking)
        return found

    assert drift(["absent"]) == []
    assert drift(["unreachable", "no such file"]) == []
    assert drift(says()) == []
    assert drift(says(kubelet="cgroupfs")) == []
    assert drift(says(systemd=False)) == ["containerd runs with the cgroup driver cgroupfs, not systemd"]


def test_a_unit_that_was_found_to_drift_is_restarted_and_the_plan_says_why(hosts: Make) -> None:
    shown = ["LoadState=loaded", "ActiveState=active", "UnitFileState=enabled", "ActiveEnterTimestamp=@9"]
    asked = Unit().command(unit="containerd.service")
    running = hosts({"w1": {asked: shown}})
    assert running.plan(service.unit, unit="containerd.service") == []
    drifted = hosts({"w1": {asked: shown}})
    commands = drifted.plan(service.unit, unit="containerd.service", drift=["it runs with cgroupfs"])
    assert [command.text.split(" || ")[0] for command in commands] == [
        "systemctl daemon-reload", "timeout 90 systemctl restart containerd.service",
    ]  # fmt: skip
    assert drifted.announced == ["restart containerd.service, for it runs with cgroupfs"]


def dumps(machine: Machine, text: str) -> Machine:
    """A machine whose containerd makes this of the new file."""
    machine.file("/dump", text)
    machine.program("containerd", f'test "$*" = "--config new.toml config dump" && cat {machine.root}/dump')
    return machine


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_configuration_is_checked_by_what_containerd_makes_of_it(machine: Machine, quote: str) -> None:
    lines = ["SystemdCgroup = true", "sandbox = @@", f"config_path = @{machine.path(REGISTRIES)}@"]
    text = "\n".join(lines).replace("@@", f"@{PAUSE}@").replace("@", quote)
    check = containerd.check_script(PAUSE, "systemd").replace("{}", "new.toml")
    assert dumps(machine, text).sh(check).returncode == 0
    for line in text.splitlines():
        done = dumps(machine, text.replace(line, "")).sh(check)
        assert done.returncode == 1
        assert done.stderr.startswith(
            "containerd would not have this of its configuration, as it is with the files in "
        )
    assert dumps(machine, text).sh(check.replace("= true", "= false")).returncode == 1


def test_a_configuration_that_containerd_refuses_is_refused_in_its_words(machine: Machine) -> None:
    machine.program("containerd", "echo 'containerd: toml: incomplete number' >&2; exit 1")
    done = machine.sh(containerd.check_script(PAUSE, "systemd").replace("{}", "new.toml"))
    assert done.returncode == 1
    assert "toml: incomplete number" in done.stderr


def test_images_are_copied_into_a_cri_o_that_is_not_there_yet(hosts: Make) -> None:
    bare = hosts({"cp1": {LISTED: ["absent"]}})
    assert bare.plan(crio.images, wanted=IMAGES, sizes=SIZES) == [
        Command(crio.copy_script(600), crio.requests(IMAGES, SIZES))
    ]
    assert bare.announced == [f"import {PAUSE} (sha256:111111111111, 0 MB)"]


def test_images_cannot_be_copied_without_a_cri_o(hosts: Make) -> None:
    with pytest.raises(OperationError, match=r"^cp1: CRI-O is unreachable, so no image can be imported\. Look at"):
        hosts({"cp1": {LISTED: ["unreachable"]}}).execute(crio.images, wanted=IMAGES, sizes=SIZES)


def test_images_that_cri_o_has_are_not_copied(hosts: Make) -> None:
    row = {"repoTags": [PAUSE], "repoDigests": [f"registry.k8s.io/pause@{DIGEST}"]}
    done = hosts({"cp1": {LISTED: ["running", json.dumps({"images": [row]})]}})
    assert done.execute(crio.images, wanted=IMAGES, sizes=SIZES) == []
    assert done.noops == ["1 images are loaded"]


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine whose skopeo keeps what it is asked, and the layout that it is asked to read."""
    machine.file(f"{NODE_DIRECTORY}/images/blobs/sha256/{'1' * 64}", "a manifest")
    machine.program(
        "skopeo", f'echo "$*" >> {machine.root}/asked; d=${{5#oci:}}; cat "$d/index.json" "$d"/blobs/sha256/* >&2'
    )
    return machine


def copy(machine: Machine, requests: str) -> Any:
    return machine.sh(f"TMPDIR={machine.root}/run; export TMPDIR; {crio.copy_script(60)}", stdin=requests)


def test_each_image_is_a_layout_that_skopeo_copies_by_its_name_into_the_storage_that_is_configured(
    node: Machine,
) -> None:
    done = copy(node, crio.requests(IMAGES, SIZES))
    assert done.returncode == 0
    assert done.stderr == f"{containerd.index(IMAGES[0], 101)}\na manifest"
    words = node.path("/asked").read_text().split()
    assert words[:4] == ["--policy", str(node.path(crio.POLICY)), "copy", "-q"]
    assert words[5].endswith(f"]{PAUSE}")
    assert words[5].startswith("containers-storage:[overlay@")
    assert list(node.path("/run").iterdir()) == []


def test_an_image_that_cannot_be_copied_fails_and_leaves_nothing(node: Machine) -> None:
    node.program("skopeo", "echo 'no space left on device' >&2; exit 1")
    done = copy(node, crio.requests(IMAGES, SIZES))
    assert done.returncode != 0
    assert "no space left on device" in done.stderr
    assert list(node.path("/run").iterdir()) == []
