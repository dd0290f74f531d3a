"""Certificates of hosts that serve the bundle, and pieces fetched from them. All states of hosts are hand-written.

What the scripts do is tested over real servers, in tests/bundle.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from harness import Command, Hosts, InTurn, Machine
from pyinfra.api import OperationError
from pyinfra.context import ctx_host

from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY
from cluster.topology import Node
from facts.certificate import Certificate
from facts.checksum import Checksums
from facts.file import FileState
from operations import bundle, bundle_server, file

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
LB1, LB2 = Node("lb1", IPv4Address("10.0.0.11")), Node("lb2", IPv4Address("10.0.0.12"))
SERVERS = [LB1, LB2]
STATE = Certificate().command(path=bundle_server.CERTIFICATE, address="10.0.0.11")
PEM = FileState().command(bundle_server.CERTIFICATE)
ONE, TWO = (f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("one", "two"))
NEITHER = (
    "does not serve the bundle: there is no /etc/bundle-server/server.crt. If it has failed above, mend it first; "
    "else run deploys/distribute.py without --limit."
)


def shown(text: str) -> list[str]:
    return ["644 root root", base64.b64encode(text.encode()).decode()]


def pieces(*sizes: int) -> list[File]:
    return [File(path=f"bin/{n}", size=size, sha256=f"{n}" * 64, name="", version="") for n, size in enumerate(sizes)]


def on_node(files: list[File], there: int = 0) -> dict[str, list[str]]:
    """What a host answers that has the first so many of these files."""
    asked = Checksums().command(tuple(f"{NODE_DIRECTORY}/{file.path}" for file in files))
    return {asked: [f"{file.sha256} *{NODE_DIRECTORY}/{file.path}" for file in files[:there]]}


def test_a_server_is_found_by_its_address() -> None:
    assert bundle_server.url(LB1, 5443) == "https://10.0.0.11:5443"


@pytest.mark.parametrize(
    "output",
    [[], ["other"], ["ending", "notAfter=Nov 23 01:02:03 2036 GMT"]],
    ids=["none", "another", "one that ends soon"],
)
def test_a_server_gets_a_certificate_in_place_of(hosts: Make, output: list[str]) -> None:
    lacking = hosts({"lb1": {STATE: output}})
    wanted = [Command(bundle_server.certificate_script(LB1))]
    assert lacking.plan(bundle_server.certificate, node=LB1) == wanted
    assert lacking.announced == ["make a certificate for 10.0.0.11, good for ten years"]
    assert lacking.execute(bundle_server.certificate, node=LB1) == wanted


def test_a_certificate_that_is_good_is_kept(hosts: Make) -> None:
    done = hosts({"lb1": {STATE: ["valid", "notAfter=Nov 23 01:02:03 2036 GMT"]}})
    assert done.plan(bundle_server.certificate, node=LB1) == []
    assert done.execute(bundle_server.certificate, node=LB1) == []
    assert done.noops == ["the certificate for 10.0.0.11 is good until Nov 23 01:02:03 2036 GMT"] * 2


def openssl(machine: Machine, *words: str) -> str:
    crt = machine.path(bundle_server.CERTIFICATE)
    done = subprocess.run(["openssl", "x509", "-in", crt, "-noout", *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_certificate_that_was_made_is_good_and_its_key_is_roots_alone(machine: Machine) -> None:
    machine.program("openssl")
    done = machine.sh(bundle_server.certificate_script(LB1))
    assert (done.returncode, done.stderr) == (0, "")
    assert "PRIVATE" not in done.stdout
    assert machine.ask(Certificate, path=bundle_server.CERTIFICATE, address="10.0.0.11")["state"] == "valid"
    directory = machine.path(bundle_server.DIRECTORY)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in directory.iterdir()}
    assert modes == {"server.crt": 0o644, "server.key": 0o600}
    assert "IP Address:10.0.0.11, DNS:lb1" in openssl(machine, "-ext", "subjectAltName")
    assert openssl(machine, "-subject").strip() == "subject=CN = lb1"
    assert "will expire" in subprocess.run(
        ["openssl", "x509", "-in", directory / "server.crt", "-noout", "-checkend", str(3651 * 86400)],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"server.crt": "no certificate\n", "server.key": "no key\n"}, "other"),
        ({"server.key": "a key without its certificate\n"}, "absent"),
        ({"server.crt": "a certificate without its key\n"}, "absent"),
        ({"server.key.new": "half", "server.crt.new": "half"}, "absent"),
    ],
)
def test_what_is_no_good_pair_is_replaced(machine: Machine, files: dict[str, str], state: str) -> None:
    machine.program("openssl")
    for name, text in files.items():
        machine.file(f"{bundle_server.DIRECTORY}/{name}", text).chmod(0o600)
    assert machine.ask(Certificate, path=bundle_server.CERTIFICATE, address="10.0.0.11")["state"] == state
    assert machine.sh(bundle_server.certificate_script(LB1)).returncode == 0
    assert machine.ask(Certificate, path=bundle_server.CERTIFICATE, address="10.0.0.11")["state"] == "valid"
    assert sorted(path.name for path in machine.path(bundle_server.DIRECTORY).iterdir()) == ["server.crt", "server.key"]
    assert machine.path(bundle_server.KEY).stat().st_mode & 0o7777 == 0o600


def test_a_certificate_that_cannot_be_made_leaves_the_old_one(machine: Machine) -> None:
    machine.program("openssl", "echo 'no random numbers'; exit 1")
    machine.file(bundle_server.CERTIFICATE, "old")
    done = machine.sh(bundle_server.certificate_script(LB1))
    assert (done.returncode, done.stdout) == (1, "no random numbers\n")
    assert machine.path(bundle_server.CERTIFICATE).read_text() == "old"


def server(node: Node, text: str = "", state: str = "valid") -> dict[str, list[str]]:
    """What a server answers whose certificate has this text, or that has none."""
    asked = Certificate().command(path=bundle_server.CERTIFICATE, address=str(node.address))
    return {PEM: shown(text) if text else [], asked: [state, "notAfter=Nov 23 01:02:03 2036 GMT"] if text else []}


def test_certificates_of_all_servers_are_trusted_together(hosts: Make) -> None:
    asked = FileState().command("/etc/dest")
    told = hosts({"cp1": {asked: []}, "lb1": server(LB1, ONE), "lb2": server(LB2, TWO)})
    wanted = [Command(file.write_script("/etc/dest", "644", "root", "root", None), ONE + TWO)]
    assert told.plan(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS) == wanted
    assert told.execute(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS) == wanted


def test_certificates_that_are_trusted_already_are_left(hosts: Make) -> None:
    asked = FileState().command("/etc/dest")
    told = hosts({"cp1": {asked: shown(ONE + TWO)}, "lb1": server(LB1, ONE), "lb2": server(LB2, TWO)})
    assert told.plan(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS) == []
    assert told.execute(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS) == []
    assert told.noops == ["/etc/dest is as wanted"] * 2


@pytest.mark.parametrize(
    "one",
    [server(LB1), server(LB1, ONE), server(LB1, ONE, "ending"), server(LB1, ONE, "other")],
    ids=["no certificate", "one of two", "one that ends", "one that is no good"],
)
def test_certificates_that_will_be_made_are_known_later(hosts: Make, one: dict[str, list[str]]) -> None:
    two = server(LB2, "" if one == server(LB1, ONE) else TWO)
    bare = hosts({"cp1": {FileState().command("/etc/dest", secret=True): []}, "lb1": one, "lb2": two})
    assert bare.plan(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS) == [
        Command("# the servers do not have their certificates yet")
    ]
    assert bare.announced == ["create /etc/dest (its content is known once the servers have their certificates)"]


def test_a_certificate_that_ends_is_trusted_as_long_as_it_is_there(hosts: Make) -> None:
    """As in a run that is limited to other hosts."""
    told = hosts({"cp1": {FileState().command("/etc/dest"): shown(ONE)}, "lb1": server(LB1, ONE, "ending")})
    assert told.execute(bundle_server.trust, "cp1", dest="/etc/dest", servers=[LB1]) == []


@pytest.mark.parametrize(("one", "names"), [([], "lb1, lb2"), (shown(ONE), "lb2")])
def test_servers_that_have_no_certificate_when_it_is_needed_are_named(hosts: Make, one: list[str], names: str) -> None:
    bare = hosts({"cp1": {}, "lb1": {PEM: one}, "lb2": {PEM: []}})
    with pytest.raises(OperationError) as caught:
        bare.execute(bundle_server.trust, "cp1", dest="/etc/dest", servers=SERVERS)
    assert str(caught.value) == f"cp1: {names} {NEITHER}"


def test_pieces_that_are_there_are_not_fetched(hosts: Make) -> None:
    files = pieces(1, 2)
    done = hosts({"cp1": on_node(files, there=2)})
    for run in (done.plan, done.execute):
        assert run(bundle_server.fetch, "cp1", files=files, servers=SERVERS, port=5443) == []
    assert done.noops == ["2 pieces of the bundle are there"] * 2


def test_pieces_are_announced_while_planning_before_any_server_has_a_certificate(hosts: Make) -> None:
    files = pieces(1_000_000, 2_000_000)
    bare = hosts({"cp1": on_node(files, there=1), "lb1": {PEM: []}, "lb2": {PEM: []}})
    assert bare.plan(bundle_server.fetch, "cp1", files=files, servers=SERVERS, port=5443) == [Command("# 1 pieces")]
    assert bare.announced == ["carry 1 of 2 pieces, 2 MB"]


def test_a_request_says_of_each_piece_what_it_must_be_and_how_a_url_writes_its_name() -> None:
    one, two = pieces(5, 60)
    two = two.model_copy(update={"path": "packages/debian-12/a b_1:2~rc1+b1%3a.deb"})
    odd = "packages/debian-12/a%20b_1%3A2~rc1%2Bb1%253a.deb"
    assert bundle_server.request([one, two]) == f"{'0' * 64}  5  bin/0  bin/0\n{'1' * 64}  60  {odd}  {two.path}\n"


def script(*urls: str) -> str:
    return bundle_server.fetch_script(list(urls), NODE_DIRECTORY, "/var/lib/pyinfra-kubeadm/incoming")


def test_pieces_that_are_lacking_are_asked_for_from_every_server_in_turn(hosts: Make) -> None:
    files = pieces(1, 2, 3)
    told = hosts({"cp1": on_node(files, there=1), "lb1": {PEM: shown(ONE)}, "lb2": {PEM: shown(TWO)}})
    assert told.execute(bundle_server.fetch, "cp1", files=files, servers=[LB2, LB1], port=5444) == [
        Command(bundle.room_script(NODE_DIRECTORY, 5)),
        Command(
            script("https://10.0.0.12:5444", "https://10.0.0.11:5444"),
            TWO + ONE + bundle_server.request(files[1:]),
        ),
    ]
    assert told.said == ["0 of 0 MB are here, and checked"]


def test_many_pieces_are_fetched_by_batches(hosts: Make) -> None:
    half = bundle_server.BATCH // 2
    files = pieces(half, half, half)
    told = hosts({"cp1": on_node(files), "lb1": {PEM: shown(ONE)}})
    room, *commands = told.execute(bundle_server.fetch, "cp1", files=files, servers=[LB1], port=5443)
    assert room == Command(bundle.room_script(NODE_DIRECTORY, 3 * half))
    one = script("https://10.0.0.11:5443")
    batches = [bundle_server.request(batch) for batch in (files[:2], files[2:])]
    assert commands == [Command(one, ONE + batch) for batch in batches]
    assert told.said == ["201 of 201 MB are here, and checked"]


def test_room_is_looked_for_for_what_will_follow_too(hosts: Make) -> None:
    files = pieces(1, 20, 300)
    told = hosts({"cp1": on_node(files[:1]) | on_node(files[1:], there=1), "lb1": {PEM: shown(ONE)}})
    room, _ = told.execute(bundle_server.fetch, "cp1", files=files[:1], servers=[LB1], port=5443, later=files[1:])
    assert room == Command(bundle.room_script(NODE_DIRECTORY, 301))


def test_a_server_without_a_certificate_is_not_asked(hosts: Make) -> None:
    files = pieces(1)
    told = hosts({"cp1": on_node(files), "lb1": {PEM: []}, "lb2": {PEM: shown(TWO)}})
    (_, command) = told.execute(bundle_server.fetch, "cp1", files=files, servers=SERVERS, port=5443)
    assert command == Command(script("https://10.0.0.12:5443"), TWO + bundle_server.request(files))


def test_pieces_cannot_be_fetched_when_no_server_has_a_certificate(hosts: Make) -> None:
    files = pieces(1)
    bare = hosts({"cp1": on_node(files), "lb1": {PEM: []}, "lb2": {PEM: []}})
    with pytest.raises(OperationError) as caught:
        bare.execute(bundle_server.fetch, "cp1", files=files, servers=SERVERS, port=5443)
    assert str(caught.value) == f"cp1: lb1, lb2 {NEITHER}"


def test_certificates_are_read_anew_when_they_have_been_made(hosts: Make) -> None:
    """The plan is made before; what it has found is not what is there when the pieces are fetched."""
    files = pieces(1)
    told = hosts({"cp1": on_node(files), "lb1": {PEM: InTurn([], shown(ONE))}})
    with ctx_host.use(told.inventory.get_host("cp1")):
        assert bundle_server.certificates([LB1]) == {}
    (_, command) = told.execute(bundle_server.fetch, "cp1", files=files, servers=[LB1], port=5443)
    assert command.stdin.startswith(ONE)


def test_a_runtime_finds_a_server_by_its_address_or_of_ipv6_by_its_name() -> None:
    assert bundle_server.registry(Node("lb1", IPv4Address("10.0.0.11")), 5443) == "10.0.0.11:5443"
    assert bundle_server.registry(Node("lb1", IPv6Address("fd00::11")), 5443) == "lb1:5443"
    assert bundle_server.url(Node("lb1", IPv6Address("fd00::11")), 5443) == "https://[fd00::11]:5443"
