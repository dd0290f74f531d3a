"""What is wrong with certificates and what would put it right; all certificates are made here."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster import certificates, expiry
from cluster.certificates import (
    ADMIN,
    API_SERVER,
    CA,
    CONFIGS,
    KINDS,
    KUBELET,
    LOOPBACK,
    PKI,
    PROGRAMS,
    UNFILED,
    Program,
    State,
    Work,
    work,
)
from cluster.expiry import judge
from cluster.topology import Node

NOW = 1_800_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = frozenset({"cp1", "kubernetes", "10.0.0.21"})
SUPER = f"{CONFIGS}/super-admin.conf"
PEER, SERVER = f"{PKI}/etcd/peer.crt", f"{PKI}/etcd/server.crt"
SCHEDULER = f"{CONFIGS}/scheduler.conf"


def pem(days: float = 365, names: frozenset[str] = frozenset(), signer: str = "kubernetes", own: str = "cp1") -> str:
    """A certificate that ends in so many days."""
    end = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days, hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer)]))
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=4000))
        .not_valid_after(end)
    )
    if names:
        found = [
            x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdigit() or ":" in each else x509.DNSName(each)
            for each in sorted(names)
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def healthy() -> State:
    """A control plane on which all is well."""
    files: dict[str, Any] = {kind.path: {"changed": NOW - 100, "pem": pem(), "paired": True} for kind in KINDS}
    files[API_SERVER]["pem"] = pem(names=NAMES)
    files[CA] = {"changed": NOW - 100, "pem": pem(3650, own="kubernetes"), "paired": True}
    files[KUBELET] = {"changed": NOW - 100, "pem": pem(signer="cp1-ca@1795615593"), "paired": True}
    ports = {kind.port: files[kind.path]["pem"] for kind in KINDS if kind.port}
    ports |= {"10250": files[KUBELET]["pem"], **{port: pem() for port in UNFILED}}
    return State(now=NOW, files=files, ports=ports, started=dict.fromkeys(PROGRAMS, NOW - 50))


def errors(state: State) -> tuple[str, ...]:
    return judge("cp1", state, 30, 7, NAMES).errors


def warnings(state: State) -> tuple[str, ...]:
    return judge("cp1", state, 30, 7, NAMES).warnings


def end(state: State, path: str, days: float) -> None:
    """Have a certificate end, on disk and where it is served."""
    old, new = state["files"][path]["pem"], pem(days, certificates.names(state["files"][path]["pem"]))
    state["files"][path]["pem"] = new
    state["ports"].update({port: new for port, each in state["ports"].items() if each == old})


def test_nothing_is_wrong_and_nothing_to_do_where_all_is_well() -> None:
    state = healthy()
    assert (errors(state), warnings(state)) == ((), ())
    assert work(state, 30, NAMES) == Work()
    assert not certificates.kubelet_ends(state, 30)


def test_a_table_has_every_certificate_and_its_signer() -> None:
    state = healthy()
    lines = expiry.table(expiry.rows("cp1", state))
    assert lines[0].split() == ["HOST", "CERTIFICATE", "SIGNER", "DAYS", "LEFT", "IN", "USE"]
    assert [line.split() for line in lines if API_SERVER in line] == [["cp1", API_SERVER, "kubernetes", "365", "yes"]]
    assert [line.split() for line in lines if line.split()[1] == CA] == [["cp1", CA, "itself", "3650", "-"]]
    assert [line.split() for line in lines if KUBELET in line] == [["cp1", KUBELET, "itself", "365", "yes"]]
    assert [line.split()[1:3] for line in lines[-3:]] == [["port", "6443"], ["port", "10257"], ["port", "10259"]]
    assert len(lines) == 1 + len(state["files"]) + len(UNFILED)


@pytest.mark.parametrize(
    ("days", "level", "when"),
    [
        (30, None, ""),
        (29, "warning", "ends in 29 days"),
        (7, "warning", "ends in 7 days"),
        (6, "error", "ends in 6 days"),
        (1, "error", "ends in 1 day"),
        (0, "error", "ends in less than a day"),
        (-1, "error", "has ended, less than a day ago"),
        (-2, "error", "has ended, 1 day ago"),
        (-3, "error", "has ended, 2 days ago"),
    ],
)
def test_an_end_is_a_warning_then_an_error(days: int, level: str | None, when: str) -> None:
    state = healthy()
    end(state, ADMIN, days)
    line = f"cp1: {ADMIN}: {when}. deploys/renew_certificates.py renews it."
    assert (errors(state), warnings(state)) == (
        (line,) if level == "error" else (),
        (line,) if level == "warning" else (),
    )
    assert [kind.path for kind in work(state, 30, NAMES).renewed] == ([] if level is None else [ADMIN])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (CA, "It is a CA: deploys/rotate_ca.py replaces it (docs/certificates.md)."),
        (
            certificates.KUBELET_CLIENT,
            "The kubelet renews it by itself; `journalctl -u kubelet` there says why it does not.",
        ),
        (certificates.BUNDLE_SERVER, "deploys/distribute.py makes it anew."),
        (f"{PKI}/own.crt", "It is not kubeadm's: renew it as it was made."),
    ],
)
def test_each_has_a_remedy_of_its_own(path: str, words: str) -> None:
    state = healthy()
    state["files"][path] = {"changed": NOW, "pem": pem(3), "paired": True}
    assert errors(state) == (f"cp1: {path}: ends in 3 days. {words}",)
    assert work(state, 30, NAMES) == Work()


def test_a_port_that_serves_another_is_an_error_and_its_program_is_restarted() -> None:
    state = healthy()
    state["ports"]["2380"] = pem(12)
    words = (
        "port 2380 serves another, which ends in 12 days. deploys/renew_certificates.py restarts what has the old one."
    )
    assert errors(state) == (f"cp1: {PEER}: {words}",)
    assert work(state, 30, NAMES) == Work(stale=("etcd",))
    assert work(state, 30, NAMES).restarts == ("etcd",)


@pytest.mark.parametrize(("after", "stale"), [(0, ()), (1, ("kube-scheduler",))])
def test_a_program_older_than_its_file_has_the_one_before(after: int, stale: tuple[Program, ...]) -> None:
    state = healthy()
    state["files"][SCHEDULER]["changed"] = state["started"]["kube-scheduler"] + after
    assert work(state, 30, NAMES) == Work(stale=stale)
    assert bool(errors(state)) is bool(stale)


def test_a_program_that_has_read_a_renewed_file_by_itself_is_well_and_restarted_all_the_same() -> None:
    state = healthy()
    state["files"][API_SERVER]["changed"] = state["started"]["kube-apiserver"] + 1
    assert errors(state) == ()
    assert work(state, 30, NAMES) == Work(stale=("kube-apiserver",))


def test_what_does_not_answer_is_an_error_that_says_where_to_look() -> None:
    state = healthy()
    state["ports"]["6443"] = None
    del state["started"]["kube-scheduler"]
    assert errors(state) == (
        f"cp1: {API_SERVER}: port 6443 shows no certificate. `crictl ps -a` and `journalctl -u kubelet` there say why.",
        f"cp1: {SCHEDULER}: kube-scheduler, which has it, does not run. `crictl ps -a` and `journalctl -u kubelet` "
        "there say why.",
    )
    assert work(state, 30, NAMES).stale == ("kube-apiserver", "kube-scheduler")


def test_the_certificate_by_which_an_api_server_asks_itself_ends_too() -> None:
    state = healthy()
    state["ports"][LOOPBACK] = pem(3)
    words = "ends in 3 days. deploys/renew_certificates.py restarts its program, which then makes another."
    assert errors(state) == (f"cp1: port 6443 loopback: {words}",)
    assert work(state, 30, NAMES) == Work(stale=("kube-apiserver",))


def test_names_that_differ_are_a_warning_and_the_certificate_is_made_anew() -> None:
    state, wanted = healthy(), (NAMES - {"10.0.0.21"}) | {"2001:db8::1"}
    found = judge("cp1", state, 30, 7, wanted)
    assert found.errors == ()
    assert found.warnings == (
        f"cp1: {API_SERVER} lacks 2001:db8::1 and has 10.0.0.21, which the settings do not ask for. "
        "deploys/renew_certificates.py makes it anew.",
    )
    todo = work(state, 30, wanted)
    assert ([kind.path for kind in todo.anew], todo.renewed, todo.restarts) == ([API_SERVER], (), ("kube-apiserver",))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (NAMES | {"api.example.org"}, "lacks api.example.org."),
        (NAMES - {"10.0.0.21"}, "has 10.0.0.21, which the settings do not ask for."),
    ],
)
def test_a_name_too_few_and_a_name_too_many_are_told_apart(wanted: frozenset[str], words: str) -> None:
    remedy = "deploys/renew_certificates.py makes it anew."
    assert judge("cp1", healthy(), 30, 7, wanted).warnings == (f"cp1: {API_SERVER} {words} {remedy}",)


def test_what_a_killed_kubeadm_leaves_is_found_and_repaired() -> None:
    state = healthy()
    state["files"][PEER]["paired"] = False
    state["files"][SCHEDULER]["pem"] = None
    del state["files"][SERVER]
    assert set(errors(state)) >= {
        f"cp1: {SERVER} is missing. deploys/renew_certificates.py renews it.",
        f"cp1: {PEER}: its key is that of another. deploys/renew_certificates.py renews it.",
        f"cp1: {SCHEDULER}: no certificate can be read there. deploys/renew_certificates.py renews it.",
    }
    todo = work(state, 30, NAMES)
    assert [kind.path for kind in todo.anew] == [SERVER, SCHEDULER]
    assert [kind.path for kind in todo.renewed] == [PEER]
    assert todo.restarts == ("etcd", "kube-scheduler")


def test_super_admin_is_on_one_node_only() -> None:
    state = healthy()
    del state["files"][SUPER]
    assert (errors(state), work(state, 30, NAMES)) == ((), Work())


def test_programs_are_restarted_in_the_order_in_which_they_need_each_other() -> None:
    state = healthy()
    for kind in KINDS:
        end(state, kind.path, 3)
    assert work(state, 30, NAMES).restarts == PROGRAMS
    assert len(work(state, 30, NAMES).renewed) == len(KINDS)


@pytest.mark.parametrize(("ended", "down"), [(0, False), (1, False), (2, True), (3, True)])
def test_etcd_is_down_when_most_control_planes_have_ended(ended: int, down: bool) -> None:
    states = [healthy() for _ in range(3)]
    for state in states[:ended]:
        end(state, PEER, -1)
    assert certificates.down(states, 3) is down


def test_a_member_whose_control_plane_is_not_reached_may_have_the_quorum_with_others() -> None:
    states = [healthy(), healthy()]
    end(states[0], PEER, -1)
    assert not certificates.down(states, 3)
    end(states[1], PEER, -1)
    assert certificates.down(states, 3)


def test_one_control_plane_alone_is_down_when_its_own_have_ended() -> None:
    state = healthy()
    assert not certificates.down([state], 1)
    end(state, SERVER, -1)
    assert certificates.down([state], 1)


@pytest.mark.parametrize(("days", "ends"), [(29, True), (30, False)])
def test_a_kubelets_own_certificate_is_renewed_when_it_ends(days: int, ends: bool) -> None:
    state = healthy()
    end(state, KUBELET, days)
    assert certificates.kubelet_ends(state, 30) is ends


def test_hosts_are_asked_where_they_serve() -> None:
    node = Node("cp1", ipaddress.ip_address("2001:db8::21"))
    found = {name: (at, server) for name, at, server in certificates.ports(node, True, True, 5443)}
    assert found["2379"] == ("[2001:db8::21]:2379", "")
    assert found[LOOPBACK] == ("[2001:db8::21]:6443", "apiserver-loopback-client")
    assert found["10257"] == ("127.0.0.1:10257", "")
    assert found["5443"] == ("[2001:db8::21]:5443", "")
    assert [name for name, _, _ in certificates.ports(node, False, True, None)] == ["10250"]
    assert certificates.ports(node, False, False, None) == ()
