"""What kubeadm has made of a node, and what the cluster says of itself."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict, cast

from pyinfra.api import FactBase

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=10s"
# This node's own API server: the kubeconfig's is the endpoint, where any of them may answer.
OWN = (
    "s=$(sed -n 's/.*--advertise-address=//p' /etc/kubernetes/manifests/kube-apiserver.yaml 2>/dev/null "
    "| sed 's/.*:.*/[&]/'); "
    f'k="{KUBECTL} ${{s:+--server=https://$s:6443}}"; '
)
MADE_BY_INIT = "configmap/kubeadm-config daemonset/kube-proxy"
KUBECONFIGS = ("admin", "super-admin", "bootstrap-kubelet", "kubelet", "controller-manager", "scheduler")
STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")


class NodeState(TypedDict):
    state: Literal["none", "partial", "control-plane", "worker"]
    busy: bool
    manifests: list[str]
    etcd_data: bool
    ca_cert_hash: str | None


class KubeadmNode(FactBase[NodeState]):
    """What kubeadm left on this node's disk.

    ::

        {"state": "control-plane", "busy": False, "manifests": ["etcd", "kube-apiserver", ...], "etcd_data": True,
         "ca_cert_hash": "sha256:1f..."}

    "control-plane": all four static pods and kubelet.conf, kubeadm's own sign of one
    (IsControlPlaneNode looks for kube-apiserver.yaml). "worker": kubelet.conf and the CA, no static pod, no
    admin.conf. "partial": anything less that is not nothing, such as after a join that was killed. `busy`: a kubeadm
    is at work now. The hash of the CA's public key is the one that `kubeadm join` wants.
    """

    @staticmethod
    def default() -> NodeState:
        return NodeState(state="none", busy=False, manifests=[], etcd_data=False, ca_cert_hash=None)

    def command(self) -> str:
        return (
            "cd /etc/kubernetes 2>/dev/null && "
            f"for f in manifests/*.yaml {' '.join(f'{name}.conf' for name in KUBECONFIGS)} pki/ca.crt; do "
            'test -e "$f" && echo "file $f"; done; '
            "test -d /var/lib/etcd/member && echo etcd; pgrep -x kubeadm >/dev/null && echo busy; "
            'k=$(openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt 2>/dev/null) && test -n "$k" '
            '&& h=$(echo "$k" | openssl pkey -pubin -outform der 2>/dev/null | sha256sum) '
            '&& echo "hash ${h%% *}"; true'
        )

    def process(self, output: list[str]) -> NodeState:
        files = {line[5:] for line in output if line.startswith("file ")}
        manifests = sorted(
            name.removeprefix("manifests/").removesuffix(".yaml") for name in files if name.startswith("manifests/")
        )
        hashes = [line.split()[1] for line in output if line.startswith("hash ")]
        etcd_data = "etcd" in output
        return NodeState(
            state=self._state(files, manifests, etcd_data),
            busy="busy" in output,
            manifests=manifests,
            etcd_data=etcd_data,
            ca_cert_hash=f"sha256:{hashes[0]}" if hashes else None,
        )

    @staticmethod
    def _state(
        files: set[str], manifests: list[str], etcd_data: bool
    ) -> Literal["none", "partial", "control-plane", "worker"]:
        joined = "kubelet.conf" in files and "pki/ca.crt" in files
        own = set(manifests) & set(STATIC_PODS)
        if joined and own == set(STATIC_PODS) and "admin.conf" in files:
            return "control-plane"
        if joined and not own and not etcd_data and "admin.conf" not in files:
            return "worker"
        # The CA alone is what the load balancers' layer has kubeadm make before `init`.
        if not own and not etcd_data and not any(name.endswith(".conf") for name in files):
            return "none"
        return "partial"


class MemberNode(TypedDict):
    ready: bool
    roles: list[str]
    taints: list[str]  # of roles, by which pods stay away


Initialised = Literal["initialised", "not-initialised", "unreachable", "none"]


class ClusterState(TypedDict):
    state: Initialised
    nodes: dict[str, MemberNode]


class ClusterConfig(FactBase[ClusterState]):
    """Whether this control plane's API server has a cluster that `kubeadm init` finished, and its nodes.

    ::

        {"state": "initialised",
         "nodes": {"cp1": {"ready": True, "roles": ["control-plane"], "taints": ["control-plane"]}}}

    "none": no admin.conf here. "unreachable": there is one, but this node's own API server does not answer.
    "not-initialised": it answers, but lacks something `kubeadm init` makes; the DaemonSet kube-proxy is the
    last (kubeadm 1.36, cmd/init.go). With kube-proxy disabled in kubeadm this would need another sign.
    """

    @staticmethod
    def default() -> ClusterState:
        return ClusterState(state="none", nodes={})

    def command(self) -> str:
        return (
            f"{OWN} if ! test -s /etc/kubernetes/admin.conf; then echo none; "
            "elif ! n=$($k get nodes -o json 2>/dev/null); then echo unreachable; "
            f"elif ! m=$($k -n kube-system get --ignore-not-found -o name {MADE_BY_INIT} 2>/dev/null); "
            'then echo unreachable; elif test "$(echo "$m" | wc -l)" -ne 2; then echo not-initialised; '
            'else echo initialised; fi; printf "%s\\n" "$n"'
        )

    def process(self, output: list[str]) -> ClusterState:
        state = output[0].strip()
        if state not in ("initialised", "not-initialised", "unreachable", "none"):
            raise ValueError(f"not an answer of this fact: {state!r}")
        body = "\n".join(output[1:]).strip()
        items: list[dict[str, Any]] = json.loads(body)["items"] if body else []
        nodes = {item["metadata"]["name"]: _node(item) for item in items}
        return ClusterState(state=cast("Initialised", state), nodes=nodes)


def _node(item: dict[str, Any]) -> MemberNode:
    prefix = "node-role.kubernetes.io/"
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
    labels = item["metadata"].get("labels", {})
    taints = [each["key"] for each in item.get("spec", {}).get("taints", []) if each["effect"] == "NoSchedule"]
    roles, tainted = ([key.removeprefix(prefix) for key in keys if key.startswith(prefix)] for keys in (labels, taints))
    return MemberNode(ready=ready, roles=roles, taints=tainted)


class Token(TypedDict):
    id: str
    expires: str


class JoinState(TypedDict):
    tokens: list[Token]
    certificate_key_token: str | None


class JoinInfo(FactBase[JoinState]):
    """Bootstrap tokens by their public id, and the token whose end is also that of the uploaded certificates.

    ::

        {"tokens": [{"id": "abcdef", "expires": "2026-11-24T10:00:00Z"}], "certificate_key_token": "ghijkl"}

    Neither token secrets nor the certificate key leave the node: the template prints ids and times only.
    """

    @staticmethod
    def default() -> JoinState:
        return JoinState(tokens=[], certificate_key_token=None)

    def command(self) -> str:
        template = (
            '{{range .items}}token {{index .data "token-id" | base64decode}} '
            '{{with index .data "expiration"}}{{. | base64decode}}{{end}}{{"\\n"}}{{end}}'
        )
        owner = '{{range .metadata.ownerReferences}}owner {{.name}}{{"\\n"}}{{end}}'
        return (
            f"{KUBECTL} -n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token "
            f"-o go-template='{template}' 2>/dev/null; "
            f"{KUBECTL} -n kube-system get secret kubeadm-certs -o go-template='{owner}' 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> JoinState:
        state = self.default()
        for line in output:
            kind, *words = line.split()
            if kind == "token":
                state["tokens"].append(Token(id=words[0], expires=words[1] if len(words) > 1 else ""))
            elif kind == "owner":
                state["certificate_key_token"] = words[0].removeprefix("bootstrap-token-")
        return state


class StoredConfiguration(FactBase[str | None]):
    """The ClusterConfiguration that the cluster keeps for kubeadm, as YAML; None where this control plane's API is not
    to be asked for it."""

    @staticmethod
    def default() -> None:
        return None

    def command(self) -> str:
        template = '{{index .data "ClusterConfiguration"}}'
        return f"{OWN} $k -n kube-system get configmap kubeadm-config -o go-template='{template}' 2>/dev/null || true"

    def process(self, output: list[str]) -> str:
        return "\n".join(output) + "\n"


class Readable(FactBase[dict[str, str]]):
    """Modes of what holds secrets on a node and is open to others than its owner and group, by path; as a rule none.

    ::

        {"/etc/kubernetes/pki/ca.key": "644"}
    """

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self) -> str:
        where = (
            "/etc/kubernetes/*.conf /etc/kubernetes/manifests /etc/kubernetes/pki /var/lib/kubelet/pki /var/lib/etcd"
        )
        what = ("*.conf", "*.key", "*/manifests/*.yaml", "*/kubelet-client-*.pem", "/var/lib/etcd")
        named = " -o ".join(f"-path '{each}'" for each in what)
        return rf"find {where} -maxdepth 2 \( {named} \) -not -type l -perm /007 -printf '%m %p\n' 2>/dev/null; true"

    def process(self, output: list[str]) -> dict[str, str]:
        return {path: mode for mode, path in (line.split(" ", 1) for line in output)}
