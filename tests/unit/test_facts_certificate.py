"""Certificates on disk, in every state they can be in, and as they are served; all are made by openssl here."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest
from harness import Machine, answer

from facts.certificate import Certificate, Certificates

PATH = "/etc/bundle-server/server.crt"
ADDRESS = "10.0.0.11"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A machine that has openssl, and a directory for the certificate."""
    machine.program("openssl")
    machine.path("/etc/bundle-server").mkdir()
    return machine


def make(machine: Machine, days: int = 3650, address: str = ADDRESS, name: str = "server") -> None:
    """Make a certificate and its key, as `name`.crt and `name`.key."""
    made = machine.path("/etc/bundle-server") / name
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         str(days), "-subj", "/CN=lb1", "-addext", f"subjectAltName=IP:{address},DNS:lb1", "-keyout", f"{made}.key",
         "-out", f"{made}.crt"], check=True, capture_output=True,
    )  # fmt: skip


def ask(machine: Machine) -> object:
    return machine.ask(Certificate, path=PATH, address=ADDRESS)


def test_a_good_certificate_is_valid_until_its_date(host: Machine) -> None:
    make(host)
    found = host.ask(Certificate, path=PATH, address=ADDRESS)
    assert found["state"] == "valid"
    assert re.fullmatch(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d 20\d\d GMT", found["not_after"])


@pytest.mark.parametrize(("days", "state"), [(29, "ending"), (31, "valid")])
def test_a_certificate_that_ends_within_a_month_is_ending(host: Machine, days: int, state: str) -> None:
    make(host, days)
    found = host.ask(Certificate, path=PATH, address=ADDRESS)
    assert found["state"] == state
    assert found["not_after"].endswith(" GMT")


@pytest.mark.parametrize("address", ["10.0.0.12", "10.0.0.1", "10.0.0.111"])
def test_a_certificate_of_another_address_is_another(host: Machine, address: str) -> None:
    make(host, address=address)
    assert ask(host) == {"state": "other", "not_after": None}


@pytest.mark.parametrize("text", ["", "no certificate\n"])
def test_a_file_that_is_no_certificate_is_another(host: Machine, text: str) -> None:
    make(host)
    host.file(PATH, text)
    assert ask(host) == {"state": "other", "not_after": None}


def test_a_certificate_whose_key_is_of_another_is_another(host: Machine) -> None:
    make(host)
    make(host, name="strange")
    host.path("/etc/bundle-server/strange.key").rename(host.path("/etc/bundle-server/server.key"))
    assert ask(host) == {"state": "other", "not_after": None}


def test_a_certificate_whose_key_cannot_be_read_is_another(host: Machine) -> None:
    make(host)
    host.file("/etc/bundle-server/server.key", "")
    assert ask(host) == {"state": "other", "not_after": None}


@pytest.mark.parametrize("missing", ["server.crt", "server.key"])
def test_half_of_a_pair_is_as_good_as_none(host: Machine, missing: str) -> None:
    make(host)
    host.path(f"/etc/bundle-server/{missing}").unlink()
    assert ask(host) == {"state": "absent", "not_after": None}


def test_a_bare_machine_has_none(machine: Machine) -> None:
    assert ask(machine) == {"state": "absent", "not_after": None}


def test_a_pair_on_a_machine_without_openssl_is_another(machine: Machine) -> None:
    machine.path("/etc/bundle-server").mkdir()
    make(machine)
    assert ask(machine) == {"state": "other", "not_after": None}


def test_no_key_leaves_the_machine(host: Machine) -> None:
    make(host)
    shown = host.sh(Certificate().command(path=PATH, address=ADDRESS))
    assert shown.stdout.splitlines()[0] == "valid"
    assert "PRIVATE" not in shown.stdout + shown.stderr


def test_an_answer_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="not an answer of this fact: 'sudo: a password is required'"):
        answer(Certificate, ["sudo: a password is required"])


# All certificates of a host

PKI = "/etc/kubernetes/pki"
CONTAINERS = {"containers": [{"metadata": {"name": "etcd"}, "createdAt": "1764078000123456789"}]}


@pytest.fixture
def node(host: Machine) -> Machine:
    """A control plane with a few certificates; a CA without a key, as workers have it."""
    for name in ("etcd/server", "apiserver", "ca"):
        make(host, name="made")
        for end in ("crt", "key"):
            host.file(f"{PKI}/{name}.{end}", host.path(f"/etc/bundle-server/made.{end}").read_bytes())
    host.path(f"{PKI}/ca.key").unlink()
    packed = base64.b64encode(host.path(f"{PKI}/apiserver.crt").read_bytes()).decode()
    host.file("/etc/kubernetes/admin.conf", f"users:\n- user:\n    client-certificate-data: {packed}\n")
    host.program("crictl", f"echo '{json.dumps(CONTAINERS)}'")
    return host


@pytest.fixture
def served(node: Machine) -> Iterator[str]:
    """Where a server has the certificate of etcd."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [f"-{what}={node.path(f'{PKI}/etcd/server.{end}')}" for what, end in (("cert", "crt"), ("key", "key"))]
    command = [
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        *(word for each in pair for word in each.split("=")),
    ]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout
    assert next(line for line in server.stdout if line.startswith("ACCEPT"))
    yield f"127.0.0.1:{port}"
    server.kill()
    server.wait()


def states(node: Machine, *ports: tuple[str, str, str], files: tuple[str, ...] = ()) -> dict:
    found = node.ask(Certificates, ports=ports, files=files)
    return {**found, "files": {path.removeprefix(str(node.root)): each for path, each in found["files"].items()}}


def test_every_certificate_is_read_wherever_it_is(node: Machine) -> None:
    found = states(node)
    assert set(found["files"]) == {
        f"{PKI}/ca.crt", f"{PKI}/apiserver.crt", f"{PKI}/etcd/server.crt", "/etc/kubernetes/admin.conf",
    }  # fmt: skip
    text = node.path(f"{PKI}/apiserver.crt").read_text()
    changed = int(node.path(f"{PKI}/apiserver.crt").stat().st_mtime)
    assert found["files"][f"{PKI}/apiserver.crt"] == {"changed": changed, "pem": text, "paired": True}
    assert found["files"]["/etc/kubernetes/admin.conf"]["pem"] == text
    assert found["started"] == {"etcd": 1764078000}
    assert found["now"] >= changed


def test_of_what_is_served_the_certificate_is_known(node: Machine, served: str) -> None:
    found = states(node, ("2379", served, ""), ("6443 loopback", "127.0.0.1:1", "apiserver-loopback-client"))
    assert found["ports"] == {"2379": found["files"][f"{PKI}/etcd/server.crt"]["pem"], "6443 loopback": None}


def test_a_kubelets_certificate_of_the_cluster_takes_the_place_of_its_own(node: Machine) -> None:
    pem = node.path(f"{PKI}/apiserver.crt").read_text()
    key = node.path(f"{PKI}/apiserver.key").read_text()
    directory = "/var/lib/kubelet/pki"
    node.file(f"{directory}/kubelet.crt", pem)
    node.file(f"{directory}/kubelet-client-current.pem", pem + key)
    assert {path for path in states(node)["files"] if "kubelet" in path} == {
        f"{directory}/kubelet.crt", f"{directory}/kubelet-client-current.pem",
    }  # fmt: skip
    node.file(f"{directory}/kubelet-server-current.pem", pem + key)
    found = states(node)["files"]
    assert f"{directory}/kubelet.crt" not in found
    assert found[f"{directory}/kubelet-server-current.pem"] == {
        **found[f"{directory}/kubelet-server-current.pem"],
        "pem": pem,
    }


def test_what_a_killed_kubeadm_leaves_is_seen(node: Machine) -> None:
    node.file(f"{PKI}/etcd/server.key", node.path(f"{PKI}/apiserver.key").read_bytes())
    node.file(f"{PKI}/apiserver.crt", "-----BEGIN CERTIFICATE-----\nMIIB")
    node.file("/etc/kubernetes/scheduler.conf", "users:\n- user:\n    client-certificate-data: TUlJ")
    found = states(node)["files"]
    assert [path for path, each in found.items() if each["pem"] is None] == [
        f"{PKI}/apiserver.crt", "/etc/kubernetes/scheduler.conf",
    ]  # fmt: skip
    assert [path for path, each in found.items() if not each["paired"]] == [
        f"{PKI}/apiserver.crt", f"{PKI}/etcd/server.crt",
    ]  # fmt: skip


def test_a_bare_machine_has_no_certificates(machine: Machine) -> None:
    found = states(machine, ("10250", "127.0.0.1:1", ""), files=("/etc/haproxy/kubernetes-ca.crt",))
    assert (found["files"], found["ports"], found["started"]) == ({}, {"10250": None}, {})


def test_no_key_of_all_leaves_the_machine(node: Machine) -> None:
    pem, key = (node.path(f"{PKI}/apiserver.{end}").read_text() for end in ("crt", "key"))
    node.file("/var/lib/kubelet/pki/kubelet-client-current.pem", pem + key)
    shown = node.sh(Certificates().command(ports=(), files=()))
    assert "BEGIN CERTIFICATE" in shown.stdout
    assert "PRIVATE" not in shown.stdout + shown.stderr
