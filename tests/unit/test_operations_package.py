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
    assert bare.announced == [
        "install containerd none -> 1.6.20, runc none -> 1.1.5, socat none -> 1.7.4",
        "hold containerd, runc",
    ]
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


UNSTARTED = {"nginx": "nginx.service"}
MIRROR = {"names": ["nginx", "openssl"], "versions": {"nginx": "1.22", "openssl": "3.0"}, "release": "debian-12"}
MIRROR |= {"unstarted": UNSTARTED}


def mirror(hosts: Make, *rows: str) -> Hosts:
    return hosts({"cp1": {Packages().command(("nginx", "openssl")): list(rows)}})


def test_what_an_earlier_operation_of_the_plan_installs_is_not_installed_twice(hosts: Make) -> None:
    names = ("curl", "openssl")
    bare = hosts({"lb1": {Packages().command(names): []}})
    (host,) = bare.inventory
    wanted = {"names": names, "versions": {"curl": "7", "openssl": "3"}, "release": "debian-12"}
    host.current_op_hash = "first"
    assert len(bare.plan(package.packages, **wanted)) == 1
    assert bare.announced == ["install curl none -> 7, openssl none -> 3"]
    assert len(bare.plan(package.packages, **wanted)) == 1, "an operation may be asked twice"
    host.current_op_hash = "second"
    assert bare.plan(package.packages, **wanted) == []
    assert len(bare.execute(package.packages, **wanted)) == 1, "when it is executed, what is there counts"


def test_a_unit_that_must_not_start_is_masked_before_its_package_is_first_installed(hosts: Make) -> None:
    bare = mirror(hosts)
    mask, install = bare.plan(package.packages, **MIRROR)
    assert mask == Command("systemctl mask nginx.service")
    assert install.text.endswith("nginx=1.22 openssl=3.0 >/dev/null")
    assert bare.announced == ["mask nginx.service", "install nginx none -> 1.22, openssl none -> 3.0"]
    assert bare.execute(package.packages, **MIRROR) == [mask, install]


@pytest.mark.parametrize("openssl", [(), ("openssl 3.0 install installed",)], ids=["another-missing", "done"])
def test_a_unit_of_a_package_that_is_there_is_left_as_it_is(hosts: Make, openssl: tuple[str, ...]) -> None:
    there = mirror(hosts, "nginx 1.18 install installed", *openssl)
    commands = there.execute(package.packages, **MIRROR)
    assert [each.text.endswith("held-packages openssl=3.0 >/dev/null") for each in commands] == [True] * (not openssl)
    assert there.noops == (["2 packages are installed, 0 of them held"] if openssl else [])


RPM = {"containerd": "1.6.20-3.el9", "runc": "4:1.1.12-1.el9", package.VERSIONLOCK: "4.3.0-13.el9"}
RPM_WANTED = {"names": ["runc", "containerd"], "versions": RPM, "release": "rocky-9", "format": "rpm"}
RPM_WANTED |= {"hold": ["containerd", "runc"]}
LOCKS = ("# Added lock on Tue Nov 11 10:00:00 2025", "containerd-0:1.6.20-3.el9.*", "runc-4:1.1.12-1.el9.*")


def rpm_packages(hosts: Make, *rows: str) -> Hosts:
    return hosts({"cp1": {Packages().command(tuple(sorted(RPM)), format="rpm"): list(rows)}})


def test_rpm_packages_on_a_bare_host_are_installed_with_the_plugin_that_holds_and_held(hosts: Make) -> None:
    missing = [f"package {name} is not installed" for name in sorted(RPM)]
    bare = rpm_packages(hosts, *missing)
    chosen = ["containerd-1.6.20-3.el9", f"{package.VERSIONLOCK}-4.3.0-13.el9", "runc-4:1.1.12-1.el9"]
    install, hold = bare.plan(package.packages, **RPM_WANTED)
    assert install == Command(package.dnf_install("rocky-9", chosen))
    assert hold == Command(package.dnf_hold("rocky-9", ["containerd", "runc"]))
    assert bare.announced == [
        f"install containerd none -> 1.6.20-3.el9, {package.VERSIONLOCK} none -> 4.3.0-13.el9, "
        "runc none -> 4:1.1.12-1.el9",
        "hold containerd, runc",
    ]
    assert bare.execute(package.packages, **RPM_WANTED) == [install, hold]


def test_rpm_packages_that_are_there_and_held_need_nothing(hosts: Make) -> None:
    rows = [
        "containerd 0:1.6.20-3.el9 rpm installed",
        f"{package.VERSIONLOCK} 0:4.3.0-13.el9 rpm installed",
        "runc 4:1.1.12-1.el9 rpm installed",
    ]
    done_host = rpm_packages(hosts, *rows, *LOCKS)
    assert done_host.execute(package.packages, **RPM_WANTED) == []
    assert done_host.noops == ["3 packages are installed, 2 of them held"]


def test_rpm_packages_that_drifted_are_installed_or_held_and_no_others(hosts: Make) -> None:
    rows = [
        "containerd 0:1.7.0-1.el9 rpm installed",
        f"{package.VERSIONLOCK} 0:4.0.0-1.el9 rpm installed",
        "runc 4:1.1.12-1.el9 rpm installed",
    ]
    install, hold = rpm_packages(hosts, *rows, LOCKS[1], "containerd-0:1.7.0-1.el9.*").execute(
        package.packages, **RPM_WANTED
    )
    assert install == Command(package.dnf_install("rocky-9", ["containerd-1.6.20-3.el9"]))
    assert hold == Command(package.dnf_hold("rocky-9", ["containerd", "runc"]))


def test_rpm_packages_that_nothing_holds_need_no_plugin(hosts: Make) -> None:
    bare = hosts({"cp1": {Packages().command(("runc",), format="rpm"): []}})
    (install,) = bare.execute(package.packages, names=["runc"], versions=RPM, release="rocky-9", format="rpm")
    assert install == Command(package.dnf_install("rocky-9", ["runc-4:1.1.12-1.el9"]))


def test_packages_are_asked_of_the_bundles_repository_only(machine: Machine) -> None:
    machine.file("/var/lib/pyinfra-kubeadm/apt/lists/of the bundle before")
    machine.program("apt-get", f'printf "%s\\n" "$DEBIAN_FRONTEND" "$@" >> {machine.root}/asked')
    ran = machine.sh(package.apt_install("debian-12", ["runc=1.1.5"]))
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
    source = f"deb [signed-by={repository}/repository.asc] file:{repository} ./\n"
    assert (state / "bundle.list").read_text() == source
    assert [path.name for path in (state / "lists").iterdir()] == ["partial"]
    assert (state / "cache/archives/partial").is_dir()


def test_rpm_packages_are_asked_of_the_bundles_repository_only(machine: Machine) -> None:
    machine.file("/var/lib/pyinfra-kubeadm/dnf/cache/of the bundle before")
    repository = machine.path("/var/lib/pyinfra-kubeadm/bundle/packages/rocky-9")
    for name in ("key-base.asc", "repository.asc"):
        machine.file(f"/var/lib/pyinfra-kubeadm/bundle/packages/rocky-9/{name}")
    machine.program("dnf", f'printf "%s\\n" "$*" >> {machine.root}/asked')
    for command in (package.dnf_install("rocky-9", ["runc-4:1.1.12-1.el9"]), package.dnf_hold("rocky-9", ["runc"])):
        ran = machine.sh(command)
        assert (ran.returncode, ran.stderr) == (0, "")
    state = machine.path("/var/lib/pyinfra-kubeadm/dnf")
    words = f"-y -q --setopt=reposdir={state}/repositories --setopt=cachedir={state}/cache "
    words += "--setopt=install_weak_deps=0"
    assert machine.path("asked").read_text().splitlines() == [
        f"{words} --noplugins install runc-4:1.1.12-1.el9",
        f"{words} --disableplugin=* --enableplugin=versionlock versionlock delete runc",
        f"{words} --disableplugin=* --enableplugin=versionlock versionlock add runc",
    ]
    assert (state / "repositories/bundle.repo").read_text().splitlines() == [
        "[bundle]",
        "name=bundle",
        "baseurl=file:///var/lib/pyinfra-kubeadm/bundle/packages/rocky-9",
        "enabled=1",
        "gpgcheck=1",
        "repo_gpgcheck=1",
        "module_hotfixes=1",
        "skip_if_unavailable=0",
        f"gpgkey=file://{repository}/key-base.asc file://{repository}/repository.asc ",
    ]
    assert [path.name for path in state.iterdir()] == ["repositories"]
