"""What each phase of a rotation wants, how far a node is, and what nobody should begin; certificates are real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cluster import rotation
from cluster.certificates import BY_PATH, KINDS, KUBELET_CLIENT, PKI, File
from cluster.certificates import State as Served
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBELET_CONF, PHASES, ROTATION, SIGNING, Pair, State

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
CA = f"{PKI}/ca.crt"
OLD_KEY, NEW_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def certificate(name: str, signer: ec.EllipticCurvePrivateKey, made: datetime = NOW, days: int = 3650) -> str:
    """One that the CA "kubernetes" of this key has signed; the CA itself, where that is its name."""
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = signer if name == "kubernetes" else ec.generate_private_key(ec.SECP256R1())
    built = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")]), common, key.public_key(),
        x509.random_serial_number(), made, made + timedelta(days=days),
    )  # fmt: skip
    return built.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


OLD, NEW = certificate("kubernetes", OLD_KEY), certificate("kubernetes", NEW_KEY)
PAIRS = {name: Pair(OLD, NEW) for name in AUTHORITIES}


def state(phase: int = 0) -> State:
    """A control plane that is wholly in a phase."""
    bundle = PAIRS["ca"].bundle(phase)
    key = rotation.public_key(OLD if phase < 2 else NEW)
    signing = f"{SIGNING.get(phase, SIGNING[3])}.crt"
    return State(
        certificates={f"{PKI}/{name}.crt": bundle for name in AUTHORITIES} | {KUBELET_CONF: bundle, KUBELET_CLIENT: []},
        keys={f"{PKI}/{name}.key": key for name in AUTHORITIES},
        changed={CA: 100, CONTROLLER_MANAGER: 100}, signing=signing, running=signing,
    )  # fmt: skip


def served(signer: ec.EllipticCurvePrivateKey, started: int = 200) -> Served:
    pem = certificate("leaf", signer)
    programs = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    return Served(
        now=int(NOW.timestamp()), files={kind.path: File(changed=1, pem=pem, paired=True) for kind in KINDS},
        ports={kind.port: pem for kind in KINDS if kind.port}, started=dict.fromkeys(programs, started),
    )  # fmt: skip


@pytest.mark.parametrize("phase", [0, *PHASES])
def test_the_phase_of_a_node_is_read_from_its_files(phase: int) -> None:
    assert rotation.phase(state(phase), PAIRS) == phase
    assert [rotation.differs(state(phase), each, PAIRS, True) == [] for each in PHASES] == [
        each == phase for each in PHASES
    ]


def test_a_node_of_which_some_files_are_laid_has_begun_the_later_phase() -> None:
    found = state(1)
    found["certificates"][CA] = PAIRS["ca"].bundle(2)
    assert rotation.phase(found, PAIRS) == 2
    assert rotation.differs(found, 2, PAIRS, True)[:2] == [f"{PKI}/front-proxy-ca.crt", f"{PKI}/etcd/ca.crt"]


@pytest.mark.parametrize("bundle", [[], [OLD, OLD], [certificate("kubernetes", OLD_KEY)], [NEW, OLD, OLD]])
def test_files_that_are_of_no_phase_are_of_none(bundle: list[str]) -> None:
    found = state(1)
    found["certificates"][CA] = bundle
    assert rotation.phase(found, PAIRS) is None


def test_files_that_are_two_phases_apart_on_one_node_are_of_none() -> None:
    found = state(1)
    found["certificates"][CA] = [NEW]
    assert rotation.phase(found, PAIRS) is None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda found: found["certificates"].update({KUBELET_CONF: [OLD]}), KUBELET_CONF),
        (lambda found: found["keys"].update({f"{PKI}/etcd/ca.key": rotation.public_key(OLD)}), f"{PKI}/etcd/ca.key"),
        (lambda found: found.update(signing=CA), CONTROLLER_MANAGER),
    ],
)
def test_each_file_of_a_phase_is_looked_at(change: object, path: str) -> None:
    found = state(2)
    assert callable(change)
    change(found)
    assert rotation.differs(found, 2, PAIRS, True) == [path]


def test_a_worker_has_one_ca_and_no_key() -> None:
    found = State(
        certificates={CA: [OLD, NEW], KUBELET_CONF: [OLD, NEW]}, keys={}, changed={}, signing=None, running=None
    )
    assert rotation.phase(found, PAIRS) == 1
    assert rotation.differs(found, 1, PAIRS, False) == []
    assert rotation.differs(found, 3, PAIRS, False) == [CA, KUBELET_CONF]


def test_both_cas_are_those_of_the_rotations_directory() -> None:
    found = state(1)
    assert rotation.pairs(found) is None
    for which, pem in {"old": OLD, "new": NEW}.items():
        found["certificates"] |= {f"{ROTATION}/{which}/{name}.crt": [pem] for name in AUTHORITIES}
    assert rotation.pairs(found) == PAIRS


def test_two_cas_of_one_name_differ_by_what_they_have_signed() -> None:
    leaf = certificate("leaf", NEW_KEY)
    assert rotation.signed(leaf, NEW)
    assert not rotation.signed(leaf, OLD)
    assert not rotation.signed(None, NEW)
    assert rotation.unsigned(served(NEW_KEY), PAIRS) == ()
    assert rotation.unsigned(served(OLD_KEY), PAIRS) == KINDS


@pytest.mark.parametrize(
    ("name", "signer"),
    [
        ("apiserver", "ca"), ("apiserver-etcd-client", "etcd/ca"), ("etcd/peer", "etcd/ca"),
        ("front-proxy-client", "front-proxy-ca"), ("apiserver-kubelet-client", "ca"),
    ],
)  # fmt: skip
def test_each_certificate_has_the_signer_that_kubeadm_gives_it(name: str, signer: str) -> None:
    assert rotation.signer(BY_PATH[f"{PKI}/{name}.crt"]) == signer


def test_a_program_that_started_before_its_cas_were_written_is_restarted() -> None:
    found = state(1)
    assert rotation.stale(found, served(OLD_KEY, 200), 1) == ()
    found["changed"][CA] = 300
    assert rotation.stale(found, served(OLD_KEY, 200), 1) == ("kube-apiserver", "kube-controller-manager")
    found["changed"] = {f"{PKI}/etcd/ca.crt": 300}
    assert rotation.stale(found, served(OLD_KEY, 200), 1) == ("etcd", "kube-apiserver")


def test_a_controller_that_signs_by_another_file_than_its_manifest_says_is_restarted() -> None:
    found = state(2)
    found["running"] = f"{SIGNING[1]}.crt"
    assert rotation.stale(found, served(NEW_KEY), 2) == ("kube-controller-manager",)


@pytest.mark.parametrize(
    ("made", "days", "before", "due"),
    [
        (NOW - timedelta(days=1), 3650, None, False),
        (NOW - timedelta(days=3640), 3650, None, True),
        (NOW - timedelta(days=1), 3650, NOW, True),
        (NOW, 3650, NOW - timedelta(days=1), False),
        # kubeadm lets it begin five minutes before it is made.
        (NOW - timedelta(minutes=4), 3650, NOW, False),
    ],
)
def test_a_ca_is_due_that_ends_or_is_called_old(made: datetime, days: int, before: datetime | None, due: bool) -> None:
    assert rotation.due([OLD, certificate("kubernetes", OLD_KEY, made, days)], before, 30, NOW) is due


@pytest.mark.parametrize(
    ("text", "hour"), [("2026-11-25", 0), ("2026-11-25T12:00:00Z", 12), ("2026-11-25T13:00:00+01:00", 12)]
)
def test_a_moment_is_in_utc_unless_it_says_otherwise(text: str, hour: int) -> None:
    assert rotation.moment(text) == datetime(2026, 11, 25, hour, tzinfo=UTC)


def test_a_moment_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid isoformat string: 'soon'"):
        rotation.moment("soon")


def test_a_node_as_kubeadm_makes_it_has_no_problems() -> None:
    assert rotation.problems("cp1", state(), True) == []


def test_a_kubelet_whose_certificate_the_cluster_does_not_renew_is_a_problem() -> None:
    found = state()
    del found["certificates"][KUBELET_CLIENT]
    (line,) = rotation.problems("w1", found, False)
    assert line.startswith(
        f"w1: there is no {KUBELET_CLIENT}, so the kubelet's certificate is one that the cluster does"
    )


def test_a_key_of_another_ca_is_a_problem() -> None:
    found = state()
    found["keys"][f"{PKI}/ca.key"] = rotation.public_key(NEW)
    assert rotation.problems("cp1", found, True) == [
        f"cp1: {PKI}/ca.key is not the key of {CA}. Put the right one back."
    ]


def test_a_node_two_phases_behind_the_others_is_a_problem_and_one_is_none() -> None:
    assert rotation.mixed({"cp1": 2, "cp2": 1, "w1": 1}) == []
    (line,) = rotation.mixed({"cp1": 2, "cp2": 1, "w1": 0})
    assert line.startswith("w1: still as before phase 1, while others are in phase 2")
