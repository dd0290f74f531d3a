"""Secrets taken out of text, and what must stay."""

from __future__ import annotations

import base64

import pytest

from cluster.redaction import REMOVED, redact

BODY = "MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\n{BODY}\n-----END EC PRIVATE KEY-----"
CERTIFICATE = f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----"
DIGEST = "5f" * 32


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (KEY, BODY),
        (KEY.replace("\n", "\\n"), BODY),
        ("\n".join(f"Nov 25 cp1 cat[1]: {line}" for line in KEY.splitlines()), BODY),
        (KEY[: KEY.index("-----END")], BODY),
        (KEY[KEY.index(BODY) + 5 :], BODY[5:]),
        (f"client-key-data: {base64.b64encode(KEY.encode()).decode()}", base64.b64encode(KEY.encode()).decode()),
        (f"it was {base64.b64encode(KEY.encode()).decode()}", base64.b64encode(KEY.encode()).decode()[:60]),
        ("token abcdef.0123456789abcdef.", "0123456789abcdef"),
        (f"kubeadm join --certificate-key {DIGEST}", DIGEST),
        (f"certificate key:\nNov 25 cp1 kubeadm[1]: {DIGEST}", DIGEST),
        ("auth_pass swordfish", "swordfish"),
        ("  stats auth admin:swordfish", "swordfish"),
        ("user admin insecure-password swordfish", "swordfish"),
        ("[h.header]\nAuthorization = ['Basic c3dvcmQ=', 'Bearer x']", "c3dvcmQ"),
        ('password = "sword \\"fish"', "fish"),
        ("REGISTRY_PASSWORD=swordfish", "swordfish"),
        ('{\\"token\\":\\"swordfish\\"}', "swordfish"),
        ("--token=swordfish", "swordfish"),
        ("https://me:swordfish@example.org/", "swordfish"),
        ("Environment=A=swordfish \\\n  B=swordfish\nExecStart=x", "swordfish"),
        ("kind: Secret\nstringData:\n    a: swordfish\n    b: swordfish", "swordfish"),
        ('{\n"kind": "Secret",\n"data": {\n"a": "c3dvcmQ="\n}}', "c3dvcmQ"),
    ],
)
def test_secrets_are_taken_out(text: str, secret: str) -> None:
    assert secret not in redact(f"before\n{text}\nafter")
    assert REMOVED in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        CERTIFICATE,
        f"client-certificate-data: {base64.b64encode(CERTIFICATE.encode()).decode()}",
        f"image registry.k8s.io/etcd@sha256:{DIGEST}",
        f"cri-containerd-{DIGEST}.scope",
        "--authorization-mode=Node,RBAC --enable-bootstrap-token-auth=true",
        "authorization:\n  mode: Webhook",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
        "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env",
        "secretName: serving-certificate",
        "",
        "\x00\x01\ufffd binary \x7f",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_what_is_around_a_secret_stays() -> None:
    assert redact(f"before\n{KEY}\nafter") == f"before\n{REMOVED}\nafter"
    assert redact("Environment=A=b\nExecStart=x") == f"Environment={REMOVED}\nExecStart=x"


def test_a_long_line_without_an_end_takes_no_longer_than_its_length() -> None:
    for text in ("QUJD" * 250_000, "a.b-c_" * 150_000, "-----BEGIN PRIVATE KEY-----" * 20_000, "token " * 150_000):
        redact(text)
