"""Facts of files, packages and units. Output of odd machines is hand-written."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil

import pytest
from harness import Machine, answer, recorded

from facts.checksum import Checksums
from facts.file import FileState
from facts.package import Packages
from facts.service import Unit

CRICTL = (
    "runtime-endpoint: unix:///run/containerd/containerd.sock\n"
    "image-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 30\n"
)
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_file_of_a_recorded_node() -> None:
    assert answer(FileState, recorded("FileState.cluster")) == {
        "sha256": sha256(CRICTL.encode()),
        "mode": "644",
        "user": "root",
        "group": "root",
        "content": CRICTL,
    }


def test_file_that_is_not_there_is_none(machine: Machine) -> None:
    assert machine.ask(FileState, path="/etc/crictl.yaml") is None


@pytest.mark.parametrize("data", [CRICTL.encode(), "grüße\n".encode(), b"", b"no newline", b"\n\n"])
def test_file_is_read_byte_for_byte(machine: Machine, data: bytes) -> None:
    machine.file("/etc/a file's name", data).chmod(0o640)
    assert machine.ask(FileState, path="/etc/a file's name") == {
        "sha256": sha256(data),
        "mode": "640",
        "user": USER,
        "group": GROUP,
        "content": data.decode(),
    }


def test_file_that_is_not_utf8_has_a_checksum_and_no_content(machine: Machine) -> None:
    machine.file("/etc/hosts", b"127.0.0.1 localhost # caf\xe9\n")
    found = machine.ask(FileState, path="/etc/hosts")
    assert found["content"] is None
    assert found["sha256"] == sha256(b"127.0.0.1 localhost # caf\xe9\n")


def test_file_behind_a_link_is_read_through_it(machine: Machine) -> None:
    target = machine.file("/etc/real", "text\n")
    target.chmod(0o600)
    machine.path("/etc/link").symlink_to(target)
    found = machine.ask(FileState, path="/etc/link")
    assert (found["content"], found["mode"]) == ("text\n", "600")


def test_secret_file_leaves_the_node_as_a_checksum_only(machine: Machine) -> None:
    machine.file("/etc/kubernetes/admin.conf", "client-key-data: c2VjcmV0\n").chmod(0o600)
    command = FileState().command(path="/etc/kubernetes/admin.conf", secret=True)
    output = machine.sh(command).stdout
    assert "client-key-data" not in output
    assert "c2VjcmV0" not in output
    assert answer(FileState, output.splitlines()) == {
        "sha256": sha256(b"client-key-data: c2VjcmV0\n"),
        "mode": "600",
        "user": USER,
        "group": GROUP,
        "content": None,
    }


def test_secret_file_that_is_not_there_is_none(machine: Machine) -> None:
    assert machine.ask(FileState, path="/etc/kubernetes/admin.conf", secret=True) is None


def test_checksum_of_a_recorded_node() -> None:
    assert answer(Checksums, recorded("Checksums.cluster")) == {
        "/usr/bin/kubeadm": "e96353aecd26f66c7508adddbef679c8db577079ade45589b20d2495f497de4b"
    }


def test_checksums_are_of_those_files_only_that_are_there(machine: Machine) -> None:
    one = str(machine.file("one", "1"))
    odd = str(machine.file("odd *name", "2"))
    found = machine.ask(Checksums, paths=(one, odd, str(machine.path("none")), str(machine.programs)))
    assert found == {one: sha256(b"1"), odd: sha256(b"2")}


def test_programs_that_are_not_roots_or_not_755_are_as_if_they_were_not_there(machine: Machine) -> None:
    good, closed = machine.file("usr/bin/good", "1"), machine.file("usr/bin/closed", "1")
    good.chmod(0o755)
    closed.chmod(0o644)
    names = (str(good), str(closed), "/usr/bin/none")
    assert machine.ask(Checksums, paths=names, programs=True) == {str(good): sha256(b"1")}
    assert machine.ask(Checksums, paths=(str(closed),), programs=True) == {}


def test_checksums_are_none_on_a_bare_machine(machine: Machine) -> None:
    assert machine.ask(Checksums, paths=("/usr/bin/kubeadm", "/usr/bin/kubelet")) == {}


def test_checksums_of_nothing_are_nothing(machine: Machine) -> None:
    assert machine.ask(Checksums, paths=()) == {}


def test_packages_of_a_recorded_node() -> None:
    assert answer(Packages, recorded("Packages.cluster")) == {
        "haproxy": {"version": "2.6.12-1+deb12u4", "held": True},
        "keepalived": {"version": "1:2.2.7-1+b2", "held": True},
    }


def test_packages_removed_or_half_installed_are_not_installed() -> None:
    output = [
        "haproxy 2.6.12-1+deb12u4 deinstall config-files",
        "keepalived 1:2.2.7-1+b2 install half-configured",
        "runc 1.1.5+ds1-1+deb12u1 hold unpacked",
        "chrony  unknown not-installed",
        "socat 1.7.4.4-2 install installed",
    ]
    assert answer(Packages, output) == {"socat": {"version": "1.7.4.4-2", "held": False}}


def test_packages_are_none_without_dpkg(machine: Machine) -> None:
    assert machine.ask(Packages, names=("haproxy",)) == {}


def test_packages_that_dpkg_does_not_know_are_left_out(machine: Machine) -> None:
    machine.program("dpkg-query", "echo 'runc 1.1.5 install installed'; echo 'no packages found' >&2; exit 1")
    assert machine.ask(Packages, names=("runc", "no-such")) == {"runc": {"version": "1.1.5", "held": False}}


@pytest.fixture
def dpkg(machine: Machine) -> Machine:
    """A machine with the real dpkg-query, and a database of three packages."""
    status = (
        "Package: runc\nStatus: hold ok installed\nVersion: 1.1.5\nArchitecture: amd64\n\n"
        "Package: socat\nStatus: install ok installed\nVersion: 1.7.4\nArchitecture: amd64\n\n"
        "Package: chrony\nStatus: deinstall ok config-files\nVersion: 4.3\nArchitecture: amd64\n"
    )
    database = machine.file("/var/lib/dpkg/status", status).parent
    (database / "info").mkdir()
    machine.program("dpkg-query", f'exec {shutil.which("dpkg-query")} --admindir={database} "$@"')
    return machine


def test_packages_asked_of_the_real_dpkg(dpkg: Machine) -> None:
    assert dpkg.ask(Packages, names=("runc", "socat", "chrony", "no-such")) == {
        "runc": {"version": "1.1.5", "held": True},
        "socat": {"version": "1.7.4", "held": False},
    }


def test_packages_of_those_asked_for_only(dpkg: Machine) -> None:
    assert dpkg.ask(Packages, names=("socat",)) == {"socat": {"version": "1.7.4", "held": False}}
    assert dpkg.ask(Packages, names=()) == {}


LOCKS = """
# Added lock on Tue Nov 11 10:00:00 2025
runc-4:1.1.12-1.el9.*
!socat-0:1.7.4-1.el9.*
containerd-0:1.6.20-3.el9.*
"""


def test_rpm_packages_are_held_by_a_lock_on_the_version_that_is_installed(machine: Machine) -> None:
    machine.program(
        "rpm",
        "echo 'runc 4:1.1.12-1.el9 rpm installed'; echo 'containerd 0:1.6.33-1.el9 rpm installed'\n"
        "echo 'socat 0:1.7.4-1.el9 rpm installed'; echo 'package chrony is not installed'; exit 1",
    )
    list_ = machine.file("/etc/locks.list", LOCKS)
    machine.file("/etc/dnf/plugins/versionlock.conf", f"[main]\nenabled = 1\nlocklist = {list_}\n")
    assert machine.ask(Packages, names=("runc", "containerd", "socat", "chrony"), format="rpm") == {
        "runc": {"version": "4:1.1.12-1.el9", "held": True},
        "containerd": {"version": "1.6.33-1.el9", "held": False},
        "socat": {"version": "1.7.4-1.el9", "held": False},
    }


def test_rpm_packages_are_not_held_without_dnfs_versionlock(machine: Machine) -> None:
    machine.program("rpm", "echo 'runc 4:1.1.12-1.el9 rpm installed'")
    assert machine.ask(Packages, names=("runc",), format="rpm") == {
        "runc": {"version": "4:1.1.12-1.el9", "held": False}
    }


def test_rpm_packages_are_none_without_rpm(machine: Machine) -> None:
    assert machine.ask(Packages, names=("runc",), format="rpm") == {}
    assert machine.ask(Packages, names=(), format="rpm") == {}


def test_unit_of_a_recorded_node_runs_with_its_present_file() -> None:
    assert answer(Unit, recorded("Unit.cluster")) == {
        "load": "loaded",
        "active": "active",
        "enabled": "enabled",
        "stale": False,
    }


def test_unit_is_stale_when_one_of_its_files_is_newer() -> None:
    output = [*recorded("Unit.cluster"), "changed=1795518568"]
    assert answer(Unit, output)["stale"] is True


@pytest.mark.parametrize(("result", "stale"), [("success", False), ("exit-code", True)])
def test_unit_that_was_reloaded_runs_with_what_it_read_then(result: str, stale: bool) -> None:
    """HAProxy on Debian 12, after `systemctl reload haproxy`."""
    shown = ["LoadState=loaded", "ActiveState=active", "UnitFileState=enabled", f"ReloadResult={result}"]
    shown += ["ActiveEnterTimestamp=@1796022573", "StateChangeTimestamp=@1796022600", "changed=1796022590.5"]
    assert answer(Unit, shown)["stale"] is stale


def test_unit_that_does_not_exist() -> None:
    output = ["LoadState=not-found", "ActiveState=inactive", "UnitFileState=", "ActiveEnterTimestamp=", "changed=9"]
    assert answer(Unit, output) == {"load": "not-found", "active": "inactive", "enabled": "", "stale": False}


def test_unit_is_not_found_without_systemd(machine: Machine) -> None:
    assert machine.ask(Unit, unit="haproxy.service") == Unit.default()
    assert machine.ask(Unit, unit="haproxy.service", files=("/etc/none",)) == Unit.default()


@pytest.mark.parametrize(("started", "stale"), [(1000000, True), (4000000000, False)])
def test_unit_compares_its_start_with_its_files(machine: Machine, started: int, stale: bool) -> None:
    machine.file("/etc/haproxy/haproxy.cfg")
    shown = f"LoadState=loaded ActiveState=active UnitFileState=disabled ActiveEnterTimestamp=@{started}"
    machine.program("systemctl", f"printf '%s\\n' {shown}")
    files = ("/etc/haproxy/none", "/etc/haproxy/haproxy.cfg")
    assert machine.ask(Unit, unit="haproxy.service", files=files) == {
        "load": "loaded",
        "active": "active",
        "enabled": "disabled",
        "stale": stale,
    }


def test_unit_compares_its_start_with_what_is_in_a_directory_and_not_below(machine: Machine) -> None:
    machine.file("/etc/containerd/conf.d/old.toml")
    machine.file("/etc/containerd/conf.d/below/new.toml")
    asked = Unit().command(unit="containerd.service", files=("/etc/containerd/conf.d",))
    paths = asked.replace("changed=%C@", "%P").partition("find ")[2].removesuffix("true")
    done = machine.sh(f"find {paths}")
    assert sorted(done.stdout.split()) == ["below", "old.toml"]
