"""Shell by which a rotation of CAs is done on a node (operations/rotation.py)."""

from __future__ import annotations

import json
import shlex

from cluster.certificates import CONFIGS, KUBELET_CLIENT, PKI, ROTATED
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBECONFIGS, KUBELET_CONF, ROTATION, SIGNING
from cluster.topology import Node
from facts.authority import MARK
from facts.kubernetes import kubectl

MAKING = f"{PKI}/.rotation"
KUBECTL = f"{kubectl()} --request-timeout=20s"
HEALTHY = (
    "for i in $(seq 60); do curl -sf --max-time 2 http://127.0.0.1:10248/healthz >/dev/null && exit 0; sleep 1; done; "
    "journalctl -u kubelet -n 20 --no-pager >&2; exit 1"
)


def begin() -> str:
    """Shell that has kubeadm make new CAs, and puts them beside the old ones; standard input is its configuration."""
    copies = " && ".join(f"cp -p {PKI}/{name}.crt {PKI}/{name}.key {_parent('old', name)}" for name in AUTHORITIES)
    phases = " && ".join(
        f'timeout 120 kubeadm init phase certs {each} --config "$f" >/dev/null'
        for each in ("ca", "front-proxy-ca", "etcd-ca")
    )
    return (
        'umask 077; f=$(mktemp /run/kubeadm.XXXXXXXX) && trap \'rm -f "$f"\' EXIT && cat > "$f" && '
        f"rm -rf {MAKING} && mkdir -p {MAKING}/old/etcd {MAKING}/new/etcd && {copies} && {phases} && "
        f"sync -f {MAKING} && mv -T {MAKING} {ROTATION}"
    )


def _parent(which: str, name: str) -> str:
    return f"{MAKING}/{which}/{name}".rpartition("/")[0]


SEND = f"tar -C {ROTATION} -c old new | base64 -w 76"
WHOLE = " && ".join(
    f"test -s {MAKING}/{which}/{name}.{suffix}"
    for which in ("old", "new")
    for name in AUTHORITIES
    for suffix in ("crt", "key")
)
RECEIVE = (
    f"umask 077; rm -rf {MAKING} && mkdir {MAKING} && base64 -d > {MAKING}/tar && "
    f"tar -C {MAKING} -x -f {MAKING}/tar && rm {MAKING}/tar && {WHOLE} && sync -f {MAKING} && mv -T {MAKING} {ROTATION}"
)
# `put MODE DEST` writes standard input beside a file and renames it, where that differs. A name that begins with a dot
# is none of a static pod's.
PUT = (
    'put() { t="${2%/*}/.${2##*/}.rotation"; cat > "$t" && chmod "$1" "$t" && sync "$t" && '
    '{ cmp -s "$t" "$2" && rm -f "$t" || mv -fT "$t" "$2"; }; }; '
)


def lay(wanted: int) -> str:
    """Shell that gives a control plane's files the CAs of a phase."""
    order = {1: ("old", "new"), 2: ("new", "old"), 3: ("new",)}[wanted]
    signer = "old" if wanted < 2 else "new"
    parts = []
    for name in AUTHORITIES:
        bundle = " ".join(f"{ROTATION}/{each}/{name}.crt" for each in order)
        parts.append(f"put 600 {PKI}/{name}.key < {ROTATION}/{signer}/{name}.key")
        parts.append(f"cat {bundle} | put 644 {PKI}/{name}.crt")
    # Written elsewhere first: the kubelet reads what is in the directory of manifests.
    edited = f"{CONFIGS}/.manifest"
    manifest = (
        f"sed -E 's#(--cluster-signing-cert-file=).*#\\1{SIGNING[wanted]}.crt#; "
        f"s#(--cluster-signing-key-file=).*#\\1{SIGNING[wanted]}.key#' {CONTROLLER_MANAGER} > {edited} && "
        f"{{ cmp -s {edited} {CONTROLLER_MANAGER} && rm {edited} || {{ chmod 600 {edited} && sync {edited} && "
        f"mv -fT {edited} {CONTROLLER_MANAGER}; }}; }}"
    )
    return f"umask 077; {PUT}{' && '.join(parts)} && {_kubeconfigs()} && {manifest}"


def lay_on_worker() -> str:
    """Shell that gives a worker's files the CAs of standard input."""
    return f"umask 077; {PUT}put 644 {PKI}/ca.crt && {_kubeconfigs()}"


def _kubeconfigs() -> str:
    """Shell that has the kubeconfigs that are here trust what ca.crt has."""
    return (
        f'b=$(base64 -w 0 < {PKI}/ca.crt) && for f in {" ".join(KUBECONFIGS)}; do test -e "$f" || continue; '
        'sed -E "s#^( *certificate-authority-data: *).*#\\1$b#" "$f" | put 600 "$f" || exit 1; done'
    )


def client(node: Node) -> str:
    """Shell that gets the kubelet a certificate of the new CA, which is standard input, and restarts it with that.

    The kubelet's own right to ask is used, which the cluster approves by itself, and the key does not leave the node
    (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers).
    """
    directory = KUBELET_CLIENT.rpartition("/")[0]
    kubelet = f"kubectl --kubeconfig {KUBELET_CONF} --request-timeout=10s"
    request = json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "NAME"},
            "spec": {
                "request": "REQUEST", "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["digital signature", "key encipherment", "client auth"],
            },
        }
    )  # fmt: skip
    return (
        f"umask 077; w=$(mktemp -d {directory}/.rotation.XXXXXXXX) && trap 'rm -rf \"$w\"' EXIT && cat > $w/ca && "
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $w/key "
        f"-subj '/O=system:nodes/CN=system:node:{node.name}' -out $w/csr 2>/dev/null && "
        "n=node-csr-rotation-$(sha256sum < $w/csr | cut -c 1-16) && r=$(base64 -w 0 < $w/csr) && "
        f'echo {shlex.quote(request)} | sed "s#REQUEST#$r#; s#NAME#$n#" | '
        f"{kubelet} create --validate=false -f - >/dev/null && "
        f"for i in $(seq 60); do {kubelet} get csr $n -o 'jsonpath={{.status.certificate}}' 2>/dev/null | base64 -d "
        "> $w/crt; test -s $w/crt && break; sleep 1; done && "
        "{ openssl verify -CAfile $w/ca $w/crt >/dev/null || { "
        f"echo '{node.name}: no certificate of the new CA came for the kubelet; crictl logs of "
        "kube-controller-manager, which signs, says why' >&2; exit 1; }; } && "
        f"d={directory}/kubelet-client-$(date -u +%Y-%m-%d-%H-%M-%S).pem && cat $w/crt $w/key > $w/pem && "
        f"sync $w/pem && mv -fT $w/pem $d && ln -s $d $w/link && mv -fT $w/link {KUBELET_CLIENT} && "
        f"rm -f {ROTATED} && timeout 120 systemctl restart kubelet.service && {HEALTHY}"
    )


def inform() -> str:
    """Shell that has the ConfigMap cluster-info, by which nodes join, tell of the CAs of standard input."""
    return (
        f"b=$(base64 -w 0) && c=$({KUBECTL} get configmap cluster-info -n kube-public "
        "-o jsonpath='{.data.kubeconfig}') && { printf 'data:\\n  kubeconfig: |\\n' && echo \"$c\" | "
        'sed -E "s#^( *certificate-authority-data: *).*#\\1$b#; s#^#    #"; } | '
        f"{KUBECTL} patch configmap cluster-info -n kube-public --type=merge --patch-file=/dev/stdin >/dev/null"
    )


def begin_anew(workload: str, mark: str) -> str:
    """Shell that has a workload's pods begun anew, by its strategy."""
    namespace, name = workload.split()
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": {MARK: mark}}}}})
    return f"{KUBECTL} patch -n {namespace} {name} --type=merge -p {shlex.quote(patch)} >/dev/null"


def rolled_out(workload: str, seconds: int = 300) -> str:
    """Shell that waits until a workload's pods are those of its template."""
    namespace, name = workload.split()
    return f"{kubectl()} rollout status -n {namespace} {name} --timeout={seconds}s"
