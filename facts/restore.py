"""What a restore of etcd finds, and has left, on a control plane."""

from __future__ import annotations

from typing import Literal, TypedDict

from pyinfra.api import FactBase

from cluster.certificates import CA
from cluster.rotation import ROTATION

MANIFESTS = "/etc/kubernetes/manifests"
ASIDE = "/etc/kubernetes/manifests.restore"
DATA = "/var/lib/etcd"
WORK, BEFORE = f"{DATA}/restore-", f"{DATA}/before-"


class RestoreState(TypedDict):
    placed: list[str]
    aside: list[str]
    name: str
    peer_url: str
    version: str
    program: Literal["absent", "plain", "bumps"]
    ca_cert_hashes: list[str]
    room_mib: int
    works: dict[str, Literal["begun", "prepared"]]
    befores: list[str]


class Restoration(FactBase[RestoreState]):
    """A control plane's static pods and etcd data, as far as a restore deals with them.

    ::

        {"placed": ["etcd", "kube-apiserver", ...], "aside": [], "name": "cp1", "peer_url": "https://10.0.0.21:2380",
         "version": "3.6.8", "program": "bumps", "ca_cert_hashes": ["sha256:1f..."], "room_mib": 9000,
         "works": {"20261125T150000Z-1a2b3c4d": "prepared"}, "befores": []}

    `name`, `peer_url` and `version` are those of kubeadm's manifest of etcd, set aside or not, and empty without one.
    `works` are restores that were begun: "prepared" has a member's new data that is not in use yet; `befores` are those
    that have set the old data aside. `program`: whether etcdutl can have revisions move forward. `ca_cert_hashes` are
    those of the CA that signs and, while CAs are rotated, of the one before. `room_mib` is what new data can have: what
    is free, and what restores that were begun hold.
    """

    @staticmethod
    def default() -> RestoreState:
        return RestoreState(
            placed=[], aside=[], name="", peer_url="", version="", program="absent", ca_cert_hashes=[], room_mib=0,
            works={}, befores=[],
        )  # fmt: skip

    def command(self) -> str:
        return (
            f"for f in {MANIFESTS}/*.yaml; do test -e $f && echo placed $(basename $f .yaml); done; "
            f"for f in {ASIDE}/*.yaml; do test -e $f && echo aside $(basename $f .yaml); done; "
            f"for f in {MANIFESTS}/etcd.yaml {ASIDE}/etcd.yaml; do test -e $f && "
            "sed -n 's/^ *- --name=/name /p; s/^ *- --initial-advertise-peer-urls=/peer_url /p; "
            "s/^ *image: .*:v\\{0,1\\}\\([0-9.]*\\).*/version \\1/p' $f; done; "
            "if ! command -v etcdutl >/dev/null; then echo program absent; "
            "elif etcdutl snapshot restore --help 2>&1 | grep -q -e --bump-revision; then echo program bumps; "
            "else echo program plain; fi; "
            f"for f in {CA} {ROTATION}/old/ca.crt; do "
            'k=$(openssl x509 -pubkey -noout -in $f 2>/dev/null) && test -n "$k" '
            '&& h=$(echo "$k" | openssl pkey -pubin -outform der 2>/dev/null | sha256sum) '
            '&& echo "ca_cert_hash sha256:${h%% *}"; done; '
            f"d={DATA}; test -d $d || d=/var/lib; held=$(du -scm {WORK}* 2>/dev/null | tail -n 1 | cut -f 1); "
            "echo room_mib $(($(df -Pm $d | awk 'NR == 2 {print $4}') + held)); "
            f"for d in {WORK}*; do test -d $d && if test -d $d/data/member; "
            f"then echo prepared ${{d#{WORK}}}; else echo begun ${{d#{WORK}}}; fi; done; "
            f"for d in {BEFORE}*; do test -d $d && echo before ${{d#{BEFORE}}}; done; true"
        )

    def process(self, output: list[str]) -> RestoreState:
        found = self.default()
        for line in output:
            kind, _, value = line.partition(" ")
            if kind == "placed":
                found["placed"].append(value)
            elif kind == "aside":
                found["aside"].append(value)
            elif kind == "begun":
                found["works"][value] = "begun"
            elif kind == "prepared":
                found["works"][value] = "prepared"
            elif kind == "before":
                found["befores"].append(value)
            elif kind == "room_mib":
                found["room_mib"] = int(value)
            elif kind == "program":
                found["program"] = "bumps" if value == "bumps" else "plain" if value == "plain" else "absent"
            elif kind == "ca_cert_hash":
                found["ca_cert_hashes"].append(value)
            elif kind == "name":
                found["name"] = value
            elif kind == "peer_url":
                found["peer_url"] = value
            elif kind == "version":
                found["version"] = value
        return found
