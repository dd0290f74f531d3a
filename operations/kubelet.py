"""Kubelets that serve by certificates of the cluster's CA, so that who asks them can check them."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Generator, Sequence

import gevent
from cryptography import x509
from cryptography.x509.oid import NameOID
from pyinfra import host, inventory, logger
from pyinfra.api import StringCommand, operation

from cluster.topology import Node
from facts.kubelet import CONFIG, KubeletServing, ServingRequest, ServingRequests, SharedKubeletConfig
from facts.kubernetes import kubectl
from operations.change import will

LINE = "serverTLSBootstrap: true"
APPROVE = "approve serving certificates of kubelets"
USAGES = {"digital signature", "key encipherment", "server auth"}
SWITCH = (
    f"t=$(mktemp {CONFIG}.XXXXXXXX) && trap 'rm -f \"$t\"' EXIT && grep -v '^serverTLSBootstrap:' {CONFIG} > \"$t\"; "
    f'echo \'{LINE}\' >> "$t" && chmod 644 "$t" && mv -fT "$t" {CONFIG} && '
    "timeout 120 systemctl restart kubelet.service"
)


def faults(request: ServingRequest, nodes: Sequence[Node]) -> list[str]:
    """Why a request for a serving certificate is not one of these nodes' own, in words; an empty list when it is.

    What the signer itself asks of it, and that it names no other machine than the one that asks
    (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
    """
    name = request["user"].removeprefix("system:node:")
    node = next((node for node in nodes if node.name == name), None)
    if node is None or request["user"] != f"system:node:{name}" or "system:nodes" not in request["groups"]:
        return [f"it is of {request['user']}, which is no node of the inventory"]
    found = []
    if not set(request["usages"]) <= USAGES or "server auth" not in request["usages"]:
        found.append(f"it asks for {', '.join(request['usages'])}")
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(request["request"]))
        signed = asked.is_signature_valid
    except ValueError as error:
        return [f"it cannot be read: {error}"]
    if not signed:
        found.append("its signature is not right")
    subject = {(each.oid, each.value) for each in asked.subject}
    if subject != {(NameOID.COMMON_NAME, request["user"]), (NameOID.ORGANIZATION_NAME, "system:nodes")}:
        found.append(f"its subject is {asked.subject.rfc4514_string()}")
    try:
        names = list(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    own = [x509.DNSName(node.name), *map(x509.IPAddress, node.addresses)]
    strange = [str(each.value) for each in names if each not in own]
    if strange or not names:
        found.append(
            f"it is for {', '.join(strange) or 'no name'}, and {node.name} has {' and '.join(map(str, node.addresses))}"
        )
    return found


@operation()
def serve_by_authority() -> Generator[StringCommand, None, None]:
    """Have a kubelet that runs ask the cluster's CA for its serving certificate; one to come is configured so."""
    if (state := host.get_fact(KubeletServing)) != "own":
        host.noop("kubelet asks the cluster's CA" if state != "none" else "kubelet will be configured so when it joins")
        return
    will("have the cluster's CA sign what the kubelet serves by", effect="restarts kubelet")
    yield StringCommand(SWITCH)


@operation()
def share_serving() -> Generator[StringCommand, None, None]:
    """Have nodes that will join, and upgrades, keep to it: in the configuration that the cluster keeps for kubelets."""
    known = host.get_fact(SharedKubeletConfig)
    if not known or LINE in known["text"].splitlines():
        host.noop("the cluster's configuration of kubelets has it" if known else "kubeadm will write it so")
        return
    will(f"set serverTLSBootstrap in ConfigMap {known['name']}")
    lines = [line for line in known["text"].splitlines() if not line.startswith("serverTLSBootstrap:")]
    patch = json.dumps({"data": {"kubelet": "\n".join([*lines, LINE, ""])}})
    yield StringCommand(
        f"{kubectl()} patch configmap {known['name']} -n kube-system --type=merge --patch-file=/dev/stdin", _stdin=patch
    )


@operation()
def approve(
    nodes: Sequence[Node], wanted: bool, seconds: int = 120, again: bool = False
) -> Generator[StringCommand, None, None]:
    """
    Approve what kubelets of these nodes ask of the cluster's CA, having checked names and addresses; wait for each.

    + nodes: control planes and workers
    + wanted: whether kubelets that have not been configured yet will ask
    + seconds: how long to wait for their requests and certificates
    + again: an earlier operation of this run has kubelets ask anew
    """
    command = f"{kubectl()} certificate approve"
    if not host.state.is_executing:
        states = [inventory.get_host(node.name).get_fact(KubeletServing) for node in nodes]
        theirs = [each for each in host.get_fact(ServingRequests) if not faults(each, nodes)]
        if theirs or again or "waiting" in states or (wanted and {"none", "own"} & set(states)):
            will(APPROVE, later="the requests are known once they are made")
            yield StringCommand(command)
        else:
            host.noop("no kubelet waits for a serving certificate")
        return
    refused: dict[str, list[str]] = {}
    approved = False
    for waited in range(0, seconds + 1, 2):
        requests = {each["name"]: faults(each, nodes) for each in host.get_fact(ServingRequests)}
        refused |= {name: found for name, found in requests.items() if found}
        if own := sorted(name for name, found in requests.items() if not found):
            approved = True
            will(APPROVE)
            yield StringCommand(f"{command} {' '.join(own)}")
        left = [node.name for node in nodes if inventory.get_host(node.name).get_fact(KubeletServing) == "waiting"]
        if not left:
            break
        if waited % 20 == 0:
            logger.info("    not yet, after %s s of %s: certificates for %s", waited, seconds, ", ".join(left))
        gevent.sleep(2)
    lines = [f"request {name} is left unanswered: {'; '.join(found)}" for name, found in refused.items()]
    for line in lines:
        logger.warning("%s%s", host.print_prefix, line)
    if left:
        text = "\n  - ".join([f"No serving certificate came for the kubelets of {', '.join(left)}.", *lines])
        yield StringCommand(f"printf '%s\\n' {shlex.quote(text)} >&2; exit 1")
    if not approved:
        host.noop("no kubelet waits for a serving certificate")
