"""Packages from the bundle's repository. All states of hosts are hand-written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine

from facts.package import Packages
from operations import package

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
VERSIONS = {"containerd": "1.6.20", "runc": "1.1.5", "socat": "1.7.4"}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ({}, ["containerd", "runc", "socat"]),
        ({"containerd": "1.6.20", "runc": "1.1.5", "socat": "1.7.4"}, []),
        ({"containerd": "1.7.0", "runc": "1.1.5", "socat": "1.7.4"}, ["containerd"]),
        ({"containerd": "1.6.20", "runc": "1.1.5", "socat": "9"}, []),
    ],
    ids=["bare", "done", "held-differs", "other-differs"],
)
def test_packages_lacking_are_those_absent_and_held_ones_of_another_version(
    there: dict[str, str], missing: list[str]
) -> None:
    installed: Any = {name: {"version": version, "held": True} for name, version in there.items()}
    assert package.lacking(installed, list(VERSIONS), VERSIONS, ["containerd", "runc"]) == missing


def packages(hosts: Make, *rows: str) -> Hosts:
    return hosts({"cp1": {Packages().command(tuple(VERSIONS)): list(rows)}})


WANTED = {"names": ["socat", "runc", "containerd", "runc"], "versions": VERSIONS, "release": "debian-12"}
WANTED |= {"hold": ["containerd", "runc"]}


def test_packages_on_a_bare_host_are_installed_and_held(hosts: Make) -> None:
    bare = packages(hosts)
    install, hold = bare.plan(package.packages, **WANTED)
    assert install.text.startswith(package.apt("debian-12"))
    assert "containerd=1.6.20 runc=1.1.5 socat=1.7.4" in install.text
    assert hold == Command("apt-mark hold containerd runc >/dev/null")
    assert bare.said == ["Will install containerd=1.6.20, runc=1.1.5, socat=1.7.4", "Will hold containerd, runc"]
    assert bare.execute(package.packages, **WANTED) == [install, hold]


def test_packages_that_are_there_and_held_need_nothing(hosts: Make) -> None:
    rows = ("containerd 1.6.20 hold installed", "runc 1.1.5 hold installed", "socat 1.7.3 install installed")
    done_host = packages(hosts, *rows)
    assert done_host.execute(package.packages, **WANTED) == []
    assert done_host.noops == ["3 packages are installed, 2 of them held"]


def test_packages_that_drifted_are_installed_or_held_and_no_others(hosts: Make) -> None:
    rows = ("containerd 1.7.0 hold installed", "runc 1.1.5 install installed", "socat 1.7.4 install installed")
    install, hold = packages(hosts, *rows).execute(package.packages, **WANTED)
    assert install.text.endswith("--allow-change-held-packages containerd=1.6.20 >/dev/null")
    assert hold == Command("apt-mark hold containerd runc >/dev/null")


def test_packages_are_asked_of_the_bundles_repository_only(machine: Machine) -> None:
    machine.file("/var/lib/x")
    machine.program("apt-get", f'printf "%s\\n" "$DEBIAN_FRONTEND" "$@" >> {machine.root}/asked')
    ran = machine.sh(f'{package.apt("debian-12")} && "$@" update && "$@" install -y runc=1.1.5')
    assert (ran.returncode, ran.stderr) == (0, "")
    state = machine.path("/var/lib/pyinfra-kubeadm/apt")
    asked = machine.path("asked").read_text().splitlines()
    assert f"Dir::Etc::sourcelist={state}/bundle.list" in asked
    assert "Dir::Etc::sourceparts=/dev/null" in asked
    assert f"Dir::State::lists={state}/lists" in asked
    assert [word for word in asked if word in ("update", "install", "noninteractive", "runc=1.1.5")] == [
        "noninteractive",
        "update",
        "noninteractive",
        "install",
        "runc=1.1.5",
    ]
    repository = machine.path("/var/lib/pyinfra-kubeadm/bundle/packages/debian-12")
    assert (state / "bundle.list").read_text() == f"deb [trusted=yes] file:{repository} ./\n"
    assert (state / "lists/partial").is_dir()
    assert (state / "cache/archives/partial").is_dir()
