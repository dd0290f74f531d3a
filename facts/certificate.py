"""Certificates, on disk and as they are served."""

from __future__ import annotations

import json
import shlex
from typing import Literal, TypedDict, cast

from pyinfra.api import FactBase

from cluster.certificates import File, State


class CertificateState(TypedDict):
    state: Literal["absent", "valid", "ending", "other"]
    not_after: str | None


class Certificate(FactBase[CertificateState]):
    """Whether a certificate is there, is for this address, and when it ends.

    ::

        {"state": "valid", "not_after": "Nov 23 01:02:03 2036 GMT"}

    `state` is "absent" where there is no file, "other" when it is no certificate or one for another address, "ending"
    when it ends within 30 days. The key beside it (`.key` for `.crt`) must be there and fit.
    """

    @staticmethod
    def default() -> CertificateState:
        return CertificateState(state="absent", not_after=None)

    def command(self, path: str, address: str) -> str:
        crt, key = shlex.quote(path), shlex.quote(f"{path.removesuffix('.crt')}.key")
        public = f'p=$(openssl x509 -in {crt} -noout -pubkey) && test "$p" = "$(openssl pkey -in {key} -pubout)"'
        return (
            f"if test -e {crt} && test -e {key}; then ( {public} && "
            f"openssl x509 -in {crt} -noout -checkip {shlex.quote(address)} | grep -q 'does match' && "
            f"{{ openssl x509 -in {crt} -noout -checkend 2592000 >/dev/null && echo valid || echo ending; }} && "
            f"openssl x509 -in {crt} -noout -enddate ) 2>/dev/null || echo other; fi"
        )

    def process(self, output: list[str]) -> CertificateState:
        state = output[0].strip()
        if state not in ("valid", "ending", "other"):
            raise ValueError(f"not an answer of this fact: {state!r}")
        dates = [line.partition("=")[2] for line in output if line.startswith("notAfter=")]
        return CertificateState(
            state=cast('Literal["valid", "ending", "other"]', state), not_after=next(iter(dates), None)
        )


# The timer by which control planes renew them, of the fact `Timer`.
RENEWAL = "certificate-renewal"
# Where kubeadm and kubelets keep certificates. What a kubelet asked the cluster for takes the place of its own.
PLACES = (
    "/etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem "
    "$(ls /var/lib/kubelet/pki/kubelet-server-current.pem 2>/dev/null || echo /var/lib/kubelet/pki/kubelet.crt)"
)
# kubelet.conf names a file of the places above; a control plane's first one has a certificate in it.
KUBECONFIGS = "admin super-admin controller-manager scheduler"


class Certificates(FactBase[State]):
    """Every certificate of a host: in files, in kubeconfigs, and as its ports serve them now.

    ::

        {"now": 1795000000,
         "files": {"/etc/kubernetes/pki/ca.crt": {"changed": 1794990000, "pem": "-----BEGIN ...", "paired": True}},
         "ports": {"6443": "-----BEGIN ...", "10250": None}, "started": {"kube-apiserver": 1794990001}}

    `pem` is None where no certificate can be read, `paired` False where the key beside it is another's, `changed` when
    the file was written. A port that shows no certificate has None. `started` is when the container of each static pod
    was made: a program that reads a file once has the one of before, if it started before the file was changed. Times
    are seconds since 1970, by the host's clock. No key leaves the host.

    `ports` are names, with the address and port at which to ask and the server's name to ask for; `files` are more
    paths to look at.
    """

    @staticmethod
    def default() -> State:
        return State(now=0, files={}, ports={}, started={})

    def command(self, ports: tuple[tuple[str, str, str], ...], files: tuple[str, ...] = ()) -> str:
        more = "".join(f" {shlex.quote(path)}" for path in files)
        asked = "".join(
            f"p {shlex.quote(name)} -connect {shlex.quote(at)}{f' -servername {server}' if server else ''}; "
            for name, at, server in ports
        )
        return (
            "x() { openssl x509 2>/dev/null; }; u() { openssl x509 -noout -pubkey 2>/dev/null; }; date '+now %s'; "
            f'for f in {PLACES}{more}; do test -e "$f" || continue; stat -Lc "file %Y $f" "$f"; x < "$f"; '
            'k="${f%.crt}.key"; if test "$k" != "$f.key" && test -e "$k"; then '
            'test "$(u < "$f")" = "$(openssl pkey -in "$k" -pubout 2>/dev/null)" || echo unpaired; fi; done; '
            f'for n in {KUBECONFIGS}; do f="/etc/kubernetes/$n.conf"; test -e "$f" || continue; '
            'stat -Lc "file %Y $f" "$f"; '
            "sed -n 's/^ *client-certificate-data: *//p' \"$f\" | base64 -d 2>/dev/null | x; done; "
            'p() { echo "port $1"; shift; timeout 5 openssl s_client "$@" </dev/null 2>/dev/null | x; }; '
            f"{asked}"
            "echo containers; timeout 20 crictl ps --state Running --label io.kubernetes.pod.namespace=kube-system "
            "-o json 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> State:
        state = self.default()
        pem: list[str] | None = None
        at = output.index("containers")
        for line in output[:at]:
            kind, _, rest = line.partition(" ")
            if kind == "now":
                state["now"] = int(rest)
            elif kind == "file":
                changed, _, path = rest.partition(" ")
                state["files"][path] = File(changed=int(changed), pem=None, paired=True)
            elif kind == "port":
                path = ""
                name = rest
                state["ports"][name] = None
            elif kind == "unpaired":
                state["files"][path]["paired"] = False
            elif line.startswith("-----BEGIN"):
                pem = [line]
            elif pem is not None:
                pem.append(line)
                if line.startswith("-----END"):
                    text = "\n".join([*pem, ""])
                    pem = None
                    if path:
                        state["files"][path]["pem"] = text
                    else:
                        state["ports"][name] = text
        body = "\n".join(output[at + 1 :]).strip()
        for row in json.loads(body)["containers"] if body else []:
            state["started"][row["metadata"]["name"]] = int(row["createdAt"]) // 10**9
        return state
