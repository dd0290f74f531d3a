"""Secrets taken out of text, and what must stay."""

from __future__ import annotations

import base64
import json
import re

import pytest

from cluster.redaction import REMOVED, redact

BODY = "MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\n{BODY}\n-----END EC PRIVATE KEY-----"
CERTIFICATE = f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----"
DIGEST = "5f" * 32

ENVIRONMENT = """\
    extraArgs:
    - name: v
      value: "4"
    env:
    - name: DB_URL
      value: swordfish
    - value: |-
        swordfish

        and swordfish
      name: KEY
    - name: POD_IP
      valueFrom:
        fieldRef: {fieldPath: status.podIP}
    # - name: OLD
    #   value: swordfish
    - name: "OF SEVERAL LINES"
      value: "sword
        fish"
    image: registry.k8s.io/etcd
"""
VARIABLES = [
    {"name": "A", "value": 'sword" \\ \nfish'},
    {"value": "swordfish\\", "name": "B"},
    {"value": "swordfish", "name": "C"},
    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
]
POD = json.dumps({"containers": [{"env": VARIABLES, "image": "registry.k8s.io/etcd"}]})
CONFIGMAP = json.dumps({"data": {"ClusterConfiguration": ENVIRONMENT}})
SHORT = json.dumps({"data": {"short": "extraEnvs:\n- name: A\n  value: swordfish"}})


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
        (f"certificate key {DIGEST}\nca-cert-hash sha256:{'1' * 64}", DIGEST),
        ("auth_pass swordfish", "swordfish"),
        ("  stats auth admin:swordfish", "swordfish"),
        ("user admin insecure-password swordfish", "swordfish"),
        ("[h.header]\nAuthorization = ['Basic c3dvcmQ=', 'Bearer x']", "c3dvcmQ"),
        ('password = "sword \\"fish"', "fish"),
        ("REGISTRY_PASSWORD=swordfish", "swordfish"),
        ('{\\"token\\":\\"swordfish\\"}', "swordfish"),
        ("--token=swordfish", "swordfish"),
        ("https://me:swordfish@example.org/", "swordfish"),
        ("Environment = A=swordfish\nExecStart=x", "swordfish"),
        ("default_env = ['A=b', # not ]\n  'B=swordfish',\n]\n", "swordfish"),
        ('{"env": ["A=\\"b", "B=swordfish"], "image": "etcd"}', "swordfish"),
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
        ENVIRONMENT,
        ENVIRONMENT.replace(" env:", ' "extraEnvs":  # of the site').replace("- name", '- "name"'),
        "- env:\n  - name: A\n    value: swordfish\n  image: registry.k8s.io/etcd",
        "env: [{name: A, value: swordfish}, {value: 'sword''fish', name: B}, {name: C, value: \"sword, fish\"}]",
        POD,
        json.dumps(json.loads(POD), indent=2),
        json.dumps({"last-applied-configuration": POD}),
        json.dumps({"twice": json.dumps({"last-applied-configuration": POD})}),
        CONFIGMAP,
        SHORT,
        json.dumps({"last-applied-configuration": CONFIGMAP}),
        '"container &Container{Env:[]EnvVar{EnvVar{Name:A,Value:sword, fish,ValueFrom:nil,},},} start failed"',
        "EnvVar{Name:A,Value:swordfish",
    ],
)
def test_values_of_variables_are_taken_out_whatever_their_names(text: str) -> None:
    said = redact(f"before\n{text}\nafter")
    assert not re.search("sword|fish", said), said
    assert REMOVED in said
    for kept in ("registry.k8s.io/etcd", "status.podIP", "before\n", "\nafter"):
        assert (kept in said) == (kept in f"before\n{text}\nafter")


def test_json_without_values_of_variables_is_json() -> None:
    for text in (POD, CONFIGMAP, SHORT):
        json.loads(redact(text))


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
        'extraArgs:\n- name: v\n  value: "4"\nextraEnvs: []\nfeatureGates:\n  value: true',
        "env:\n- name: POD_IP\n  valueFrom:\n    fieldRef:\n      fieldPath: status.podIP\nimage: x\nvalue: y",
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
    for text in (
        "QUJD" * 250_000, "a.b-c_" * 150_000, "-----BEGIN PRIVATE KEY-----" * 20_000, "token " * 150_000,
        'value":"' * 100_000, ", value: " * 100_000, "EnvVar{Name:a,Value:" * 50_000, "env:" + "\\" * 500_000,
        "certificate key: " + "words " * 150_000,
    ):  # fmt: skip
        redact(text)
