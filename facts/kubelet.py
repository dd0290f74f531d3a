"""How kubelets prove who they are to those that ask them."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict, cast

from pyinfra.api import FactBase

from facts.kubernetes import kubectl

Serving = Literal["none", "own", "waiting", "authority"]
CONFIG = "/var/lib/kubelet/config.yaml"
CERTIFICATE = "/var/lib/kubelet/pki/kubelet-server-current.pem"
SIGNER = "kubernetes.io/kubelet-serving"


class KubeletServing(FactBase[Serving]):
    """By what certificate the kubelet of this host serves.

    Returns "none" where no kubelet is configured, "own" for one that it has made itself, "waiting" when it asks for one
    of the cluster's CA and has got none, else "authority"
    (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation).
    """

    @staticmethod
    def default() -> Serving:
        return "none"

    def command(self) -> str:
        return (
            f"test -e {CONFIG} || {{ echo none; exit; }}; "
            f"grep -q '^serverTLSBootstrap: true' {CONFIG} || {{ echo own; exit; }}; "
            # A certificate whose time is over is none.
            f"openssl x509 -in {CERTIFICATE} -noout -checkend 0 >/dev/null 2>&1 && echo authority || echo waiting"
        )

    def process(self, output: list[str]) -> Serving:
        word = output[0].strip()
        if word not in ("none", "own", "waiting", "authority"):
            raise ValueError(f"not an answer of this fact: {word!r}")
        return cast(Serving, word)


class SharedKubeletConfig(FactBase[dict[str, str]]):
    """The kubelet's configuration that the cluster keeps for nodes that join.

    ::

        {"name": "kubelet-config", "text": "apiVersion: kubelet.config.k8s.io/v1beta1\\n..."}

    Empty where there is no cluster to ask. Its name has the minor release in it before Kubernetes 1.24.
    """

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self) -> str:
        return f"{kubectl()} --request-timeout=20s get configmaps -n kube-system -o json 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, str]:
        text = "".join(output)
        items = json.loads(text)["items"] if text.startswith("{") else []
        found = {
            item["metadata"]["name"]: item["data"]["kubelet"]
            for item in items
            if item["metadata"]["name"].startswith("kubelet-config") and "kubelet" in (item.get("data") or {})
        }
        return {"name": max(found), "text": found[max(found)]} if found else {}


class ServingRequest(TypedDict):
    name: str
    user: str
    groups: list[str]
    usages: list[str]
    request: str


class ServingRequests(FactBase[list[ServingRequest]]):
    """Requests of kubelets for serving certificates that nobody has answered.

    ::

        [{"name": "csr-7xk2p", "user": "system:node:w1", "groups": ["system:nodes", "system:authenticated"],
          "usages": ["digital signature", "server auth"], "request": "-----BEGIN CERTIFICATE REQUEST-----..."}]

    `request` is in base64 as the API has it. Empty also where there is no cluster to ask.
    """

    @staticmethod
    def default() -> list[ServingRequest]:
        return []

    def command(self) -> str:
        return f"{kubectl()} --request-timeout=20s get certificatesigningrequests -o json 2>/dev/null || true"

    def process(self, output: list[str]) -> list[ServingRequest]:
        text = "".join(output)
        return waiting(json.loads(text)["items"]) if text.startswith("{") else []


def waiting(items: list[dict[str, Any]]) -> list[ServingRequest]:
    """The requests among CertificateSigningRequests that are of kubelets and have no answer."""
    return [
        ServingRequest(
            name=item["metadata"]["name"],
            user=item["spec"].get("username", ""),
            groups=item["spec"].get("groups", []),
            usages=item["spec"].get("usages", []),
            request=item["spec"]["request"],
        )
        for item in items
        if item["spec"].get("signerName") == SIGNER and not (item.get("status") or {}).get("conditions")
    ]
