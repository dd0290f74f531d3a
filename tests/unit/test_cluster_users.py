"""Who may be a user, what is asked of the cluster, and when a kubeconfig is to be made anew."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from cluster import users
from cluster.users import User, UserError

JANE = User("jane@example.org", ("dev", "ops"), 30)
NOW = datetime(2026, 11, 25, tzinfo=UTC)
SERVER, AUTHORITY = "https://192.0.2.100:6443", "-----BEGIN CERTIFICATE-----\nCA\n"
KEY = users.key()


def user(name: object = "jane", groups: object = None, days: object = None, version: str = "v1.36.2") -> User:
    return users.user(name, groups, days, version)


def test_groups_are_a_list_with_commas_and_days_have_a_default() -> None:
    assert user("jane@example.org", "dev, ops,dev,") == JANE
    assert user(groups=["dev"], days=7) == User("jane", ("dev",), 7)
    assert user() == User("jane", (), users.DAYS)


def test_before_a_request_could_say_for_how_long_days_are_the_clusters() -> None:
    assert user(version="v1.21.14").days is None
    with pytest.raises(UserError, match=r"days: a request says for how long from Kubernetes 1\.22 on\. Leave it out\."):
        user(days=7, version="v1.21.14")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"name": "system:admin"},
            "user: must be letters, digits, '-', '.', '_' and '@', 64 at most, not 'system:admin'.",
        ),
        ({"name": "../jane"}, "not '../jane'"),
        ({"name": 7}, "not 7"),
        ({"groups": "system:masters"}, "groups: whoever is in system:masters may do everything for as long as"),
        ({"groups": "system:nodes"}, "groups: 'system:nodes' is no name of a group"),
        ({"days": 0}, "days: must be from 1 to 365, not 0"),
        ({"days": True}, "not True"),
        ({"days": "7d"}, "not '7d'"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        user(**wrong)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError) as caught:
        user("a b", "system:masters,c d", 999)
    assert [line.split(":")[0].strip(" -") for line in str(caught.value).splitlines()[1:]] == [
        "user", "groups", "groups", "days",
    ]  # fmt: skip


def test_a_request_has_the_name_the_groups_and_the_time_and_no_key() -> None:
    document = users.request(JANE, KEY, "user-1")
    assert document["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client"
    assert document["spec"]["usages"] == ["client auth"]
    assert document["spec"]["expirationSeconds"] == 30 * 86400
    asked = x509.load_pem_x509_csr(base64.b64decode(document["spec"]["request"]))
    assert asked.subject.rfc4514_string() == "CN=jane@example.org,O=ops,O=dev"
    assert asked.is_signature_valid
    assert "expirationSeconds" not in users.request(User("jane", (), None), KEY, "user-1")["spec"]


def made(begun: timedelta = timedelta(days=1), days: int = 30, wanted: User = JANE) -> str:
    """A kubeconfig as one was made some time ago."""
    document = users.request(wanted, KEY, "user-1")
    asked = x509.load_pem_x509_csr(base64.b64decode(document["spec"]["request"]))
    start = NOW - begun - timedelta(minutes=5)
    signed = (
        x509.CertificateBuilder().subject_name(asked.subject).issuer_name(asked.subject).public_key(asked.public_key())
        .serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=days, minutes=5))
        .sign(KEY, hashes.SHA256())
    )  # fmt: skip
    pem = signed.public_bytes(serialization.Encoding.PEM).decode()
    return users.kubeconfig(wanted, "production", SERVER, AUTHORITY, pem, KEY)


def outdated(text: str, wanted: User = JANE, server: str = SERVER, ca: str = AUTHORITY) -> str | None:
    return users.outdated(text, wanted, server, ca, NOW)


def test_a_kubeconfig_is_of_one_context_and_is_good() -> None:
    document = yaml.safe_load(made())
    assert document["current-context"] == "jane@example.org@production"
    assert [each["name"] for each in document["contexts"]] == ["jane@example.org@production"]
    assert document["contexts"][0]["context"] == {"cluster": "production", "user": "jane@example.org@production"}
    key = serialization.load_pem_private_key(base64.b64decode(document["users"][0]["user"]["client-key-data"]), None)
    assert key.public_key() == KEY.public_key()
    assert outdated(made()) is None


@pytest.mark.parametrize(("days", "words"), [(19, None), (21, "it ends on 2026-12-04")])
def test_one_is_made_anew_when_a_third_of_its_time_is_left(days: int, words: str | None) -> None:
    assert outdated(made(timedelta(days=days))) == words


def test_one_is_made_anew_when_it_is_to_be_another() -> None:
    assert outdated(made(), User("jane@example.org", ("dev",), 30)) == "its groups are dev, ops"
    assert outdated(made(wanted=User("jane", (), 30))) == "its groups are none"
    assert outdated(made(), User("jane@example.org", ("dev", "ops"), 60)) == "it is for 30 days"
    assert outdated(made(), server="https://192.0.2.101:6443") == "it is of another CA or endpoint"
    assert outdated(made(), ca="another") == "it is of another CA or endpoint"
    assert outdated(made(days=365), User("jane@example.org", ("dev", "ops"), None)) is None


@pytest.mark.parametrize("text", ["", "users: []", "{", "users: [{user: {client-certificate-data: TUlJ}}]"])
def test_one_that_cannot_be_read_is_made_anew(text: str) -> None:
    assert outdated(text) == "it cannot be read"
    with pytest.raises(ValueError, match="no kubeconfig with a client certificate"):
        users.certificate(text)
