"""Kubelets that serve by certificates of the cluster's CA, and who may have one. Requests are made by the test."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import Command, Hosts, InTurn, Machine

from cluster.topology import Node
from facts.kubelet import SIGNER, KubeletServing, ServingRequest, ServingRequests, SharedKubeletConfig
from operations import kubelet

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
NODES = (Node("cp1", IPv4Address("10.0.0.21")), Node("w1", IPv4Address("10.0.0.31")))
CONFIG = "/var/lib/kubelet/config.yaml"
APPROVE = "kubectl --kubeconfig /etc/kubernetes/admin.conf certificate approve"
OWN = ("w1", "10.0.0.31")


def pem(common: str, organisation: str = "system:nodes", names: tuple[str, ...] = OWN) -> str:
    """A request of this subject for these names and addresses."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        found = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() or "::" in name else
            x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)
            for name in names
        ]  # fmt: skip
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def request(user: str = "system:node:w1", **others: Any) -> ServingRequest:
    own: ServingRequest = {
        "name": "csr-1", "user": user, "groups": ["system:nodes", "system:authenticated"],
        "usages": ["digital signature", "server auth"], "request": pem("system:node:w1"),
    }  # fmt: skip
    return {**own, **others}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request(), []),
        (request(request=pem("system:node:w1", names=("10.0.0.31",))), []),
        (request("system:node:w9"), ["it is of system:node:w9, which is no node of the inventory"]),
        (request("w1"), ["it is of w1, which is no node of the inventory"]),
        (request(groups=["system:authenticated"]), ["it is of system:node:w1, which is no node of the inventory"]),
        (request(usages=["client auth"]), ["it asks for client auth"]),
        (request(usages=["digital signature"]), ["it asks for digital signature"]),
        (
            request(request=pem("system:node:cp1")),
            ["its subject is CN=system:node:cp1,O=system:nodes"],
        ),
        (
            request(request=pem("system:node:w1", "system:masters")),
            ["its subject is CN=system:node:w1,O=system:masters"],
        ),
        (
            request(request=pem("system:node:w1", names=(*OWN, "10.0.0.100"))),
            ["it is for 10.0.0.100, and w1 has 10.0.0.31"],
        ),
        (
            request(request=pem("system:node:w1", names=(*OWN, "kubernetes.default"))),
            ["it is for kubernetes.default, and w1 has 10.0.0.31"],
        ),
        (
            request(request=pem("system:node:w1", names=(*OWN, "spiffe://x/y"))),
            ["it is for spiffe://x/y, and w1 has 10.0.0.31"],
        ),
        (request(request=pem("system:node:w1", names=())), ["it is for no name, and w1 has 10.0.0.31"]),
    ],
)
def test_a_request_is_one_of_our_own_nodes_for_its_own_name_and_address(
    asked: ServingRequest, words: list[str]
) -> None:
    assert kubelet.faults(asked, NODES) == words


def test_a_node_of_both_families_may_ask_for_each_of_its_addresses_and_no_other() -> None:
    nodes = (Node("w1", IPv4Address("10.0.0.31"), IPv6Address("fd00::31")),)
    own = (*OWN, "fd00::31")
    assert kubelet.faults(request(request=pem("system:node:w1", names=own)), nodes) == []
    assert kubelet.faults(request(request=pem("system:node:w1", names=(*own, "fd00::32"))), nodes) == [
        "it is for fd00::32, and w1 has 10.0.0.31 and fd00::31"
    ]


def test_what_is_no_request_is_said_to_be_none() -> None:
    (words,) = kubelet.faults(request(request=base64.b64encode(b"nothing").decode()), NODES)
    assert words.startswith("it cannot be read: ")


def listing(*requests: ServingRequest, signer: str = SIGNER, **status: Any) -> list[str]:
    """What the API answers when it is asked for requests."""
    items = [
        {
            "metadata": {"name": each["name"]},
            "spec": {"signerName": signer, "username": each["user"], "groups": each["groups"],
                     "usages": each["usages"], "request": each["request"]},
            "status": status,
        }
        for each in requests
    ]  # fmt: skip
    return json.dumps({"items": items}, indent=1).splitlines()


def test_requests_that_were_answered_or_are_of_others_are_passed_over() -> None:
    one, fact = request(), ServingRequests()
    assert fact.process(listing(one)) == [one]
    assert fact.process(listing(one, signer="kubernetes.io/kube-apiserver-client-kubelet")) == []
    assert fact.process(listing(one, conditions=[{"type": "Denied"}])) == []
    assert fact.process([""]) == []


def test_a_kubelet_says_by_what_certificate_it_serves(machine: Machine) -> None:
    machine.program("openssl")
    assert machine.ask(KubeletServing) == "none"
    machine.file(CONFIG, "cgroupDriver: systemd\n")
    assert machine.ask(KubeletServing) == "own"
    machine.file(CONFIG, "cgroupDriver: systemd\nserverTLSBootstrap: true\n")
    assert machine.ask(KubeletServing) == "waiting"
    certificate = machine.file("/var/lib/kubelet/pki/kubelet-server-current.pem")
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=w1 -keyout key"
    assert machine.sh(f"{make} -out {certificate} -days 9").returncode == 0
    assert machine.ask(KubeletServing) == "authority"


def test_a_kubelet_that_serves_by_its_own_certificate_is_told_to_ask(hosts: Make, machine: Machine) -> None:
    for state, yields in (("own", True), ("none", False), ("waiting", False), ("authority", False)):
        ran = hosts({"w1": {KubeletServing().command(): [state]}})
        assert ran.plan(kubelet.serve_by_authority) == ([Command(kubelet.SWITCH)] if yields else [])
    machine.file(CONFIG, "serverTLSBootstrap: false\ncgroupDriver: systemd\n")
    machine.program("systemctl", 'echo "$*" > restarted')
    assert machine.sh(kubelet.SWITCH).returncode == 0
    assert machine.path(CONFIG).read_text() == "cgroupDriver: systemd\nserverTLSBootstrap: true\n"
    assert machine.path("restarted").read_text() == "restart kubelet.service\n"
    assert [path.name for path in machine.path(CONFIG).parent.iterdir()] == ["config.yaml"]


def shared(text: str, name: str = "kubelet-config") -> list[str]:
    rows = [{"metadata": {"name": "kube-proxy"}, "data": {}}, {"metadata": {"name": name}, "data": {"kubelet": text}}]
    return json.dumps({"items": rows}).splitlines()


@pytest.mark.parametrize(
    ("name", "text", "becomes"),
    [
        ("kubelet-config", "maxPods: 9\n", "maxPods: 9\nserverTLSBootstrap: true\n"),
        ("kubelet-config-1.23", "serverTLSBootstrap: false\nmaxPods: 9\n", "maxPods: 9\nserverTLSBootstrap: true\n"),
        ("kubelet-config", "maxPods: 9\nserverTLSBootstrap: true\n", None),
    ],
)
def test_the_clusters_configuration_of_kubelets_is_changed_for_nodes_to_come(
    hosts: Make, name: str, text: str, becomes: str | None
) -> None:
    ran = hosts({"cp1": {SharedKubeletConfig().command(): shared(text, name)}})
    yielded = ran.plan(kubelet.share_serving)
    if becomes is None:
        assert (yielded, ran.noops) == ([], ["the cluster's configuration of kubelets has it"])
        return
    ((command,)) = yielded
    assert f"patch configmap {name} -n kube-system --type=merge" in command.text
    assert json.loads(command.stdin) == {"data": {"kubelet": becomes}}


def states(cp1: list[str], w1: list[str], *requests: list[str]) -> dict[str, dict[str, Any]]:
    asked = InTurn(*requests)
    return {
        "cp1": {ServingRequests().command(): asked, KubeletServing().command(): cp1},
        "w1": {KubeletServing().command(): InTurn(*([word] for word in w1))},
    }


@pytest.mark.parametrize(
    ("w1", "requests", "wanted", "planned"),
    [
        ("authority", [""], True, False),
        ("own", [""], False, False),
        ("own", [""], True, True),
        ("none", [""], True, True),
        ("none", [""], False, False),
        ("waiting", [""], False, True),
        ("authority", listing(request()), False, True),
        ("authority", listing(request("system:node:w9")), False, False),
    ],
)
def test_approvals_are_planned_where_a_kubelet_waits_or_will(
    hosts: Make, w1: str, requests: list[str], wanted: bool, planned: bool
) -> None:
    ran = hosts(states(["authority"], [w1], requests))
    assert ran.plan(kubelet.approve, on="cp1", nodes=NODES, wanted=wanted) == ([Command(APPROVE)] if planned else [])


def test_requests_of_our_nodes_are_approved_until_each_has_its_certificate(
    hosts: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet.gevent, "sleep", lambda _: None)
    strange = request("system:node:w9", name="csr-9")
    told = states(["authority"], ["waiting", "waiting", "authority"], [""], listing(strange, request()), [""])
    ran = hosts(told)
    assert ran.execute(kubelet.approve, on="cp1", nodes=NODES, wanted=True) == [Command(f"{APPROVE} csr-1")]
    assert ran.noops == []


def test_a_kubelet_that_gets_no_certificate_fails_the_run_with_why(
    hosts: Make, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet.gevent, "sleep", lambda _: None)
    wrong = request(name="csr-2", request=pem("system:node:w1", names=("10.0.0.32",)))
    ran = hosts(states(["authority"], ["waiting"], listing(wrong)))
    (failure,) = ran.execute(kubelet.approve, on="cp1", nodes=NODES, wanted=True, seconds=4)
    done = machine.sh(failure.text)
    assert done.returncode == 1
    assert done.stderr == (
        "No serving certificate came for the kubelets of w1.\n"
        "  - request csr-2 is left unanswered: it is for 10.0.0.32, and w1 has 10.0.0.31\n"
    )
