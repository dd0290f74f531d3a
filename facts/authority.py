"""The CAs that a host trusts, and those that it signs by."""

from __future__ import annotations

from typing import Literal, TypedDict

from pyinfra.api import FactBase

from cluster.certificates import HAPROXY_CA, KUBELET_CLIENT, PKI, ROTATED
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBECONFIGS, ROTATION, State
from facts.kubernetes import kubectl

DIRECTORIES = (PKI, f"{ROTATION}/old", f"{ROTATION}/new")
FILES = tuple(f"{directory}/{name}" for directory in DIRECTORIES for name in AUTHORITIES)
SIGNS = "--cluster-signing-cert-file="


class Authorities(FactBase[State]):
    """Certificates of CAs in files and kubeconfigs, public halves of their keys, and what kube-controller-manager signs
    by.

    ::

        {"certificates": {"/etc/kubernetes/pki/ca.crt": ["-----BEGIN ..."], "/etc/kubernetes/kubelet.conf": [...]},
         "keys": {"/etc/kubernetes/pki/ca.key": "-----BEGIN PUBLIC KEY..."},
         "changed": {"/etc/kubernetes/pki/ca.crt": 1794990000},
         "signing": "/etc/kubernetes/pki/ca.crt", "running": "/etc/kubernetes/pki/ca.crt"}

    The kubelet's own certificates are among them. Times are seconds since 1970. No private key leaves the host.
    """

    @staticmethod
    def default() -> State:
        return State(certificates={}, keys={}, changed={}, signing=None, running=None)

    def command(self) -> str:
        return (
            "c() { sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p'; }; "
            'm() { test -e "$1" && stat -Lc "$2 %Y %n" "$1"; }; '
            f"for f in {' '.join(FILES)}; do "
            'm "$f.crt" certificates && c < "$f.crt"; '
            'm "$f.key" key && openssl pkey -in "$f.key" -pubout 2>/dev/null; done; '
            f'for f in {KUBELET_CLIENT} {ROTATED} {HAPROXY_CA}; do m "$f" certificates && c < "$f"; done; '
            f'for f in {" ".join(KUBECONFIGS)}; do m "$f" certificates && '
            "sed -n 's/^ *certificate-authority-data: *//p' \"$f\" | base64 -d 2>/dev/null | c; done; "
            f"m {CONTROLLER_MANAGER} manifest && sed -n 's/.*{SIGNS}/signing /p' {CONTROLLER_MANAGER}; "
            "for p in $(pgrep -x kube-controller); do "
            f"tr '\\0' '\\n' < /proc/$p/cmdline | sed -n 's/^{SIGNS}/running /p'; done 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> State:
        state = self.default()
        path, lines = "", list[str]()
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind in ("certificates", "key", "manifest"):
                changed, _, path = rest.partition(" ")
                state["changed"][path] = int(changed)
                if kind == "certificates":
                    state["certificates"][path] = []
            elif kind == "signing":
                state["signing"] = rest
            elif kind == "running":
                state["running"] = rest
            elif line.startswith("-----BEGIN"):
                lines = [line]
            elif line.startswith("-----END"):
                text = "\n".join([*lines, line, ""])
                if path in state["certificates"]:
                    state["certificates"][path].append(text)
                else:
                    state["keys"][path] = text
            else:
                lines.append(line)
        return state


class PublishedState(TypedDict):
    state: Literal["unreachable", "published"]
    cluster_info: list[str]
    namespaces: dict[str, list[str]]
    workloads: dict[str, str]


# What marks the pods of a workload as begun since this CA is known to the cluster.
MARK = "pyinfra-kubeadm/ca"
# Namespaces of what kubeadm and this project install; an operator undoes what is changed of what it has made.
NAMESPACES = ("kube-system", "kube-flannel", "tigera-operator", "headlamp", "ingress-nginx", "local-path-storage")


class Published(FactBase[PublishedState]):
    """CAs as the cluster tells them to nodes that join and to pods, and whether workloads were begun anew since.

    ::

        {"state": "published", "cluster_info": ["-----BEGIN ..."], "namespaces": {"default": ["-----BEGIN ..."]},
         "workloads": {"kube-system daemonset/kube-proxy": "0123456789abcdef"}}

    A workload's word is that of its mark, and empty without one.
    """

    @staticmethod
    def default() -> PublishedState:
        return PublishedState(state="unreachable", cluster_info=[], namespaces={}, workloads={})

    def command(self) -> str:
        get = f"{kubectl()} --request-timeout=20s get"
        roots = '{{range .items}}namespace {{.metadata.namespace}}{{"\\n"}}{{index .data "ca.crt"}}{{"\\n"}}{{end}}'
        kinds = (
            "{{range .items}}workload {{with .spec.template.metadata.annotations}}"
            f'{{{{with index . "{MARK}"}}}}{{{{.}}}}{{{{end}}}}{{{{end}}}} {{{{.metadata.namespace}}}} '
            '{{.kind}}/{{.metadata.name}}{{"\\n"}}{{end}}'
        )
        return (
            f"i=$({get} configmap cluster-info -n kube-public -o go-template='{{{{.data.kubeconfig}}}}' "
            "2>/dev/null) && "
            f"r=$({get} configmaps -A --field-selector metadata.name=kube-root-ca.crt -o go-template='{roots}' "
            "2>/dev/null) && "
            f"w=$({get} deployments,daemonsets,statefulsets -A -o go-template='{kinds}' 2>/dev/null) && "
            "echo published && echo \"$i\" | sed -n 's/^ *certificate-authority-data: *//p' | base64 -d && echo && "
            'echo "$r" && echo "$w"; true'
        )

    def process(self, output: list[str]) -> PublishedState:
        state = self.default()
        if output[0].strip() != "published":
            return state
        state["state"] = "published"
        into, lines = state["cluster_info"], list[str]()
        for line in output[1:]:
            if line.startswith("namespace "):
                into = state["namespaces"].setdefault(line.split()[1], [])
            elif line.startswith("workload "):
                *marks, namespace, name = line.split()[1:]
                if namespace in NAMESPACES:
                    state["workloads"][f"{namespace} {name.lower()}"] = "".join(marks)
            elif line.startswith("-----BEGIN"):
                lines = [line]
            elif line.startswith("-----END"):
                into.append("\n".join([*lines, line, ""]))
            else:
                lines.append(line)
        return state
