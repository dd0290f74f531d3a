"""A certificate on disk, in every state it can be in; all of them are made by openssl here."""

from __future__ import annotations

import re
import subprocess

import pytest
from harness import Machine, answer

from facts.certificate import Certificate

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
