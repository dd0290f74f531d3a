"""What these machines do with certificates: those that kubeadm makes, what ports serve of them, and what is signed.

Certificates are real and made here; their times are by a clock of the machines' own, which begins at NOW.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from cluster.certificates import ADMIN, BUNDLE_SERVER, CA, HAPROXY_CA, KINDS, KUBELET, KUBELET_CLIENT, PROGRAMS, UNFILED
from facts.certificate import Certificates
from facts.kubeadm import StoredConfiguration
from facts.kubernetes import kubectl
from operations import certificates
from operations.kubeadm import ready
from operations.user import KUBECTL
from tests.plan.fake_nodes import Node, Refused, command, fact, like

NOW, DAY = 1_800_000_000, 86400
_KEY = ec.generate_private_key(ec.SECP256R1())


def made(
    name: str,
    signer: str,
    days: float,
    now: int,
    names: list[str] | None = None,
    key: str | None = None,
    age: int = 400,
) -> str:
    """A certificate that ends in so many days; `key` is its signer's where that is another than these machines' own."""
    start = datetime.fromtimestamp(now, UTC) - timedelta(days=age)
    signing = load_pem_private_key(key.encode(), None) if key else _KEY
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    # A CA is signed by itself.
    public = (signing if name == signer else _KEY).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(datetime.fromtimestamp(now + int(days * DAY), UTC))
    )
    if names:
        found = [
            x509.IPAddress(ipaddress.ip_address(each)) if re.fullmatch(r"[\d.]+|.*:.*", each) else x509.DNSName(each)
            for each in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def kubeconfig_of(pem: str) -> str:
    """A kubeconfig, as far as it is looked at."""
    return yaml.safe_dump({"users": [{"user": {"client-certificate-data": base64.b64encode(pem.encode()).decode()}}]})


def administrators(node: Node) -> str:
    """The administrator's kubeconfig, as `kubeadm init` and `kubeadm join` make one."""
    return kubeconfig_of(made("kubernetes-admin", "kubernetes", 365, now(node)))


def now(node: Node) -> int:
    return NOW + node.world.clock


def role(node: Node) -> str | None:
    """What it is of the cluster; the cluster itself may be away."""
    if CA not in node.files:
        return None
    return "control-plane" if ADMIN in node.files else "worker"


def known(node: Node) -> dict[str, dict]:
    """This host's certificates, made when they are first asked for: files, served ones, and starts of programs."""
    if "certificates" not in node.state:
        at = now(node)
        files = {path: made("kubernetes", "kubernetes", 3650, at) for path in (CA, HAPROXY_CA) if path in node.files}
        if BUNDLE_SERVER in node.files:
            files[BUNDLE_SERVER] = made("lb", "lb", 3650, at)
        if role(node):
            files[KUBELET] = made(node.name, f"{node.name}-ca@{NOW}", 365, at)
            files[KUBELET_CLIENT] = made(f"system:node:{node.name}", "kubernetes", 365, at)
        if role(node) == "control-plane":
            names = api_names(node, node.world.cluster["configuration"])
            files |= {kind.path: made(kind.name, "kubernetes", 365, at, names) for kind in KINDS[:-3]}
            files |= {kind.path: made(kind.name, "kubernetes", 365, at) for kind in KINDS[-2:]}
        node.state["certificates"] = {
            "files": {path: {"pem": pem, "changed": at} for path, pem in files.items()},
            "ports": {}, "started": {},
        }  # fmt: skip
        for program in PROGRAMS if role(node) == "control-plane" else ():
            start(node, program)
        for port, path in {"10250": KUBELET, "5443": BUNDLE_SERVER}.items():
            if path in files:
                node.state["certificates"]["ports"][port] = files[path]
    return node.state["certificates"]


def start(node: Node, program: str) -> None:
    """Have a program read what is on disk now."""
    own = node.state["certificates"]
    own["started"][program] = now(node)
    own["ports"] |= {
        kind.port: own["files"][kind.path]["pem"] for kind in KINDS if kind.port and kind.program == program
    }
    own["ports"] |= {port: made(program, program, 365, now(node)) for port, each in UNFILED.items() if each == program}


def api_names(node: Node, configuration: str) -> list[str]:
    document = yaml.safe_load(configuration)
    own = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    own += [node.name, "10.96.0.1", node.addresses[0]]
    return list(dict.fromkeys([*own, *document["apiServer"]["certSANs"]]))


HEAD, TAIL = Certificates().command(ports=(), files=(HAPROXY_CA, BUNDLE_SERVER)).split("echo containers")


@command(f"{re.escape(HEAD)}(?P<asked>.*)echo containers{re.escape(TAIL)}", "fact")
def _(node: Node, asked: str) -> str:
    own = known(node)
    lines = [f"now {now(node)}"]
    for path, file in own["files"].items():
        lines += [f"file {file['changed']} {path}", file["pem"].rstrip()]
    for port in re.findall(r"p '?([^';]+?)'? -connect", asked):
        lines += [f"port {port}", own["ports"].get(port, "").rstrip()]
    rows = [{"metadata": {"name": program}, "createdAt": str(at * 10**9)} for program, at in own["started"].items()]
    return "\n".join([*lines, "containers", json.dumps({"containers": rows})])


@fact(StoredConfiguration)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    return node.world.cluster["configuration"]


@command(rf"{re.escape(kubectl())} patch configmap kubeadm-config -n kube-system --type=merge --patch-file=/dev/stdin")
def _(node: Node, stdin: str) -> None:
    node.api()
    node.world.cluster["configuration"] = yaml.safe_load(stdin)["data"]["ClusterConfiguration"]


@command(r"(?P<script>umask 077; f=\$\(mktemp /run/kubeadm.*" + re.escape(certificates.REPLACED) + r".* renew\(\) .*)")
def _(node: Node, script: str, stdin: str) -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all(stdin)}
    own = known(node)
    for path in re.findall(r"rm -f (/\S+)[^{]*\{ k init phase", script):
        names = api_names(node, yaml.safe_dump(documents["ClusterConfiguration"]))
        own["files"][path] = {"pem": made("anew", "kubernetes", 365, now(node), names), "changed": now(node)}
    for name, path in re.findall(r"&& renew (\S+) (/\S+)", script):
        old = x509.load_pem_x509_certificate(own["files"][path]["pem"].encode())
        names = [str(each.value) for each in san(old)]
        own["files"][path] = {
            "pem": made(name, "kubernetes", 365, now(node), names, own.get("key")),
            "changed": now(node),
        }  # fmt: skip
        if path == ADMIN:
            node.write(ADMIN, kubeconfig_of(own["files"][path]["pem"]), "600")


def san(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


for _program in PROGRAMS:

    @command(re.escape(certificates.restart_script(_program)))
    def _(node: Node, program: str = _program) -> None:
        known(node)
        start(node, program)


@command(like(ready("ANY_endpoint", certificates.LIMIT)), "read")
def _(node: Node, endpoint: str) -> None:
    node.api()


@command(like(certificates.etcd_healthy()), "read")
def _(node: Node) -> None:
    node.api()


@command(r"install -d .* mv /var/lib/kubelet/pki/kubelet\.crt .* systemctl restart kubelet\.service .*")
def _(node: Node) -> None:
    own = known(node)
    own["files"][KUBELET] = {"pem": made(node.name, f"{node.name}-ca@{NOW}", 365, now(node)), "changed": now(node)}
    own["ports"]["10250"] = own["files"][KUBELET]["pem"]


# Users


@command(rf"{re.escape(KUBECTL)} create -f - >/dev/null")
def _(node: Node, stdin: str) -> None:
    node.api()
    document = json.loads(stdin)
    node.world.cluster.setdefault("users", {})[document["metadata"]["name"]] = document | {"status": {}}


@command(rf"{re.escape(KUBECTL)} certificate approve (?P<name>user-\S+) >/dev/null")
def _(node: Node, name: str) -> None:
    document = node.world.cluster["users"][name]
    asked = x509.load_pem_x509_csr(base64.b64decode(document["spec"]["request"]))
    begin = datetime.now(UTC) - timedelta(minutes=5)
    signed = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")]))
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(seconds=document["spec"]["expirationSeconds"]))
        .sign(_KEY, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    document["status"] = {"certificate": base64.b64encode(pem).decode()}


@command(rf"{re.escape(KUBECTL)} get csr (?P<name>user-\S+) -o json", "read")
def _(node: Node, name: str) -> str:
    return json.dumps(node.world.cluster["users"][name])
