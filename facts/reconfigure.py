"""What kubeadm has written of a node and of the cluster, and what it would write by another configuration.

kubeadm itself does the writing, into a directory that it takes for its root (`--rootfs`, which every version has):
nothing there can reach what runs. The configuration is read from standard input.
"""

from __future__ import annotations

import base64
import json
import shlex
from typing import TypedDict

from pyinfra.api import FactBase

from cluster.pieces import NODE_DIRECTORY
from cluster.reconfiguration import FLAGS, KUBELET, MANIFESTS, PHASES, configmaps
from facts.kubeadm import KUBECONFIGS, OWN

# Directories of CAs that a static pod gets where a node has them
# (https://github.com/kubernetes/kubernetes/blob/v1.36.2/cmd/kubeadm/app/phases/controlplane/volumes.go).
AUTHORITIES = (
    "/etc/pki", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates", "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates", "/etc/ssl/certs",
)  # fmt: skip
ROOT = (
    'umask 077; r=$(mktemp -d /run/kubeadm.XXXXXXXX) && trap \'rm -rf "$r"\' EXIT && cat > "$r/configuration" && '
    'mkdir -p "$r/tmp" "$r/dry" && '
    # One that cannot run is replaced by the bundle's before anything is written by it; /run lets no program run.
    "p=kubeadm && { kubeadm version >/dev/null 2>&1 || { e=$(mktemp -d /var/lib/pyinfra-kubeadm/kubeadm.XXXXXXXX) && "
    f'trap \'rm -rf "$r" "$e"\' EXIT && install -m 755 {NODE_DIRECTORY}/bin/kubeadm "$e" && p="$e/kubeadm"; }}; }} && '
)
# kubeadm looks for one, and in a dry run asks nobody.
NOBODY = (
    '{"apiVersion":"v1","kind":"Config","clusters":[{"name":"a","cluster":{"server":"https://127.0.0.1:1"}}],'
    '"users":[{"name":"a","user":{}}],"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],'
    '"current-context":"a"}'
)
# What is written to standard input and read by nobody ends the connection.
NOTHING = "{ cat >/dev/null; exit 0; }"
SKIPPED = (
    "preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane,upload-certs,mark-control-plane,"
    "bootstrap-token,kubelet-finalize"
)


class Files(TypedDict):
    live: dict[str, str]
    wanted: dict[str, str]


class NodeFiles(FactBase[Files]):
    """A node's static pods, kubelet's configuration and arguments: as they are, and as kubeadm would write them.

    ::

        {"live": {"/etc/kubernetes/manifests/etcd.yaml": "apiVersion: v1\\n...", "/var/lib/kubelet/config.yaml": ...},
         "wanted": {...}}

    Both are empty on a host that is no node. `patches` is a directory of kubeadm's patches, if it is to read one.
    """

    @staticmethod
    def default() -> Files:
        return Files(live={}, wanted={})

    def command(self, control_plane: bool, patches: str = "") -> str:
        phases = [*(PHASES.values() if control_plane else ()), "kubelet-start"]
        paths = [*(f"{MANIFESTS}/{name}.yaml" for name in PHASES if control_plane), KUBELET, FLAGS]
        quoted = shlex.quote(patches)
        copied = f'mkdir -p "$r"{quoted} && cp -a {quoted}/. "$r"{quoted} && ' if patches else ""
        return (
            f"test -s /etc/kubernetes/kubelet.conf && test -e {KUBELET} || {NOTHING}; {ROOT}"
            f'for d in {" ".join(AUTHORITIES)}; do test ! -d $d || mkdir -p "$r$d" || exit 1; done && {copied}'
            'k() { timeout 60 "$p" --rootfs "$r" init phase "$@" --config /configuration >"$r/said" 2>&1 || '
            '{ cat "$r/said" >&2; exit 1; }; } && '
            + " && ".join(f"k {phase}" for phase in phases)
            + f" && for f in {' '.join(paths)}; do "
            'if test -e $f; then echo "live $f $(base64 -w0 $f)"; fi; '
            'if test -e "$r$f"; then echo "wanted $f $(base64 -w0 "$r$f")"; fi; done'
        )

    def process(self, output: list[str]) -> Files:
        found = self.default()
        for line in output:
            side, path, body = (*line.split(), "")[:3]
            files = found["live"] if side == "live" else found["wanted"]
            files[path] = base64.b64decode(body).decode()
        return found


class Servers(FactBase[dict[str, str]]):
    """Where the kubeconfigs that kubeadm keeps on a node lead, by path.

    ::

        {"/etc/kubernetes/kubelet.conf": "https://10.0.0.100:6443"}
    """

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self) -> str:
        paths = " ".join(f"/etc/kubernetes/{name}.conf" for name in KUBECONFIGS)
        return f"grep -Hs '^ *server:' {paths} || true"

    def process(self, output: list[str]) -> dict[str, str]:
        pairs = (line.partition(":")[::2] for line in output)
        return {path: rest.partition(":")[2].strip().strip('"') for path, rest in pairs}


class ClusterInfo(FactBase[str | None]):
    """The kubeconfig by which nodes that join find the cluster, from the ConfigMap cluster-info; None where it cannot
    be asked for."""

    @staticmethod
    def default() -> None:
        return None

    def command(self) -> str:
        template = '{{index .data "kubeconfig"}}'
        return f"{OWN} $k -n kube-public get configmap cluster-info -o go-template='{template}' 2>/dev/null || true"

    def process(self, output: list[str]) -> str:
        return "\n".join(output) + "\n"


class Maps(TypedDict):
    live: dict[str, dict[str, str]]
    wanted: dict[str, dict[str, str]]


class SharedConfiguration(FactBase[Maps]):
    """The ConfigMaps of kubeadm, of kubelets (by the name `kubelet`) and of kube-proxy: as they are, and as kubeadm
    would write them.

    ::

        {"live": {"kubeadm-config": {"ClusterConfiguration": "apiServer:\\n..."}, "kube-proxy": {"config.conf": ...}},
         "wanted": {...}}

    Both are empty where there is no cluster to ask. What kubeadm would write, it prints by `init --dry-run`; versions
    before 1.27 have printed all of it when they fail to show how to join.
    """

    @staticmethod
    def default() -> Maps:
        return Maps(live={}, wanted={})

    def command(self, kubelet: str) -> str:
        return (
            f"test -s /etc/kubernetes/admin.conf || {NOTHING}; {OWN} "
            f"live=$($k -n kube-system get configmap kubeadm-config kube-proxy {kubelet} -o json 2>/dev/null) || "
            f"{NOTHING}; {ROOT}"
            f"printf '%s' {shlex.quote(NOBODY)} > \"$r/dry/admin.conf\" && "
            'd() { KUBEADM_INIT_DRYRUN_DIR=/dry timeout 60 "$p" --rootfs "$r" init --dry-run --skip-token-print '
            f'--config /configuration --skip-phases={SKIPPED}$1 >"$r/said" 2>&1; }}; '
            # Not every version has that phase.
            "d ,show-join-command; ! grep -q 'invalid phase name' \"$r/said\" || d ''; "
            'echo "said $(base64 -w0 "$r/said")"; printf "%s\\n" "$live"'
        )

    def process(self, output: list[str]) -> Maps:
        said = base64.b64decode(output[0].split()[1]).decode()
        live = {item["metadata"]["name"]: item["data"] for item in json.loads("\n".join(output[1:]))["items"]}
        wanted = {name: data for name, data in configmaps(said).items() if name in live}
        if set(wanted) != set(live):
            raise ValueError(f"kubeadm does not print its ConfigMaps: {said[-1500:]}")
        return Maps(live=live, wanted=wanted)
