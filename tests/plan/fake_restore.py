"""What the machines of fake_nodes.py know of a restore."""

from __future__ import annotations

import hashlib
import re

from facts.restore import ASIDE, BEFORE, MANIFESTS, WORK, Restoration
from operations.restore import PODS, STOP, controllers_script
from tests.plan.fake_nodes import CA, ETCD_DATA, KUBERNETES, Node, Refused, command, fact, like


@fact(Restoration)
def _(node: Node) -> str:
    lines = [f"placed {pod}" for pod in PODS if f"{MANIFESTS}/{pod}.yaml" in node.files]
    lines += [f"aside {pod}" for pod in PODS if f"{ASIDE}/{pod}.yaml" in node.files]
    if "placed etcd" in lines or "aside etcd" in lines:
        lines += [f"name {node.name}", f"peer_url https://{node.addresses[0]}:2380", "version 3.6.8"]
    lines.append(f"program {'bumps' if node.has('etcdutl') else 'absent'}")
    if CA in node.files:
        lines.append(f"ca_cert_hash sha256:{node.sha256(CA)}")
    if node.state.get("authorities", {}).get("rotation"):
        old = node.world.cluster["authorities"]["old"]["ca"]
        lines.append(f"ca_cert_hash sha256:{hashlib.sha256(old.encode()).hexdigest()}")
    lines.append(f"room_mib {node.state.get('room_mib', 9000)}")
    for path in node.files:
        if found := re.fullmatch(rf"{WORK}([^/]+)", path):
            lines.append(f"{'prepared' if f'{path}/data/member' in node.files else 'begun'} {found[1]}")
        if found := re.fullmatch(rf"{BEFORE}([^/]+)", path):
            lines.append(f"before {found[1]}")
    return "\n".join(lines)


@command(rf"umask 077; mkdir -p (?P<work>{WORK}\S+)")
def _(node: Node, work: str) -> None:
    node.write(work, "")


@command(rf"upload (?P<path>{WORK}\S+/snapshot.db)")
def _(node: Node, path: str, stdin: str) -> None:
    node.write(path, stdin, "600")


PEERS = r"--initial-cluster (?P<peers>\S+) --initial-cluster-token (?P<id>\S+)"


@command(rf"umask 077; cd (?P<work>{WORK}\S+) && .* {PEERS} .*")
def _(node: Node, work: str, peers: str, id: str) -> None:
    if f"{work}/snapshot.db" not in node.files or f"{node.name}=https://" not in peers or not work.endswith(id):
        raise Refused("the snapshot did not come whole: run again")
    node.write(f"{work}/data/member", f"restored by {id} with {peers}")


@command(like(STOP))
def _(node: Node) -> None:
    for pod in PODS:
        if f"{MANIFESTS}/{pod}.yaml" in node.files:
            node.files[f"{ASIDE}/{pod}.yaml"] = node.files.pop(f"{MANIFESTS}/{pod}.yaml")


@command(rf"umask 077; mkdir -p (?P<before>{BEFORE}\S+) && if test .* mv -T (?P<work>{WORK}\S+)/data/member .*")
def _(node: Node, before: str, work: str) -> None:
    masters = [each for each in node.world.nodes.values() if f"{MANIFESTS}/etcd.yaml" in each.files]
    if masters:
        raise Refused(f"etcd of {masters[0].name} runs while data is exchanged")
    node.write(before, "")
    if ETCD_DATA in node.files:
        node.files[f"{before}/member"] = node.files.pop(ETCD_DATA)
    node.files[ETCD_DATA] = node.files.pop(f"{work}/data/member")


def put_back(node: Node, *pods: str) -> None:
    for pod in pods:
        if f"{ASIDE}/{pod}.yaml" in node.files:
            node.files[f"{MANIFESTS}/{pod}.yaml"] = node.files.pop(f"{ASIDE}/{pod}.yaml")


@command(r"\{ test ! -e \S+/etcd.yaml .* endpoint health .* --count-only .*")
def _(node: Node) -> None:
    others = [each for each in node.world.nodes.values() if f"{ASIDE}/etcd.yaml" in each.files or each is node]
    texts = {each.files[ETCD_DATA]["text"] for each in others}
    if len(texts) != 1 or "restored by" not in texts.pop():
        raise Refused("etcd is not healthy after 180 s")
    put_back(node, "etcd")
    node.state["quorum_lost"] = False


@command(r"\{ test ! -e \S+/kube-apiserver.yaml .* systemctl start kubelet.service")
def _(node: Node) -> None:
    put_back(node, "kube-apiserver")


@command(like(controllers_script()))
def _(node: Node) -> None:
    put_back(node, "kube-controller-manager", "kube-scheduler")


@command(r"if test -e /etc/kubernetes/kubelet.conf; then timeout \d+ systemctl restart kubelet.service; fi")
def _(node: Node) -> None:
    if f"{KUBERNETES}/kubelet.conf" in node.files:
        node.start_kubelet()


@command(rf"rm -rf (?P<work>{WORK}\S+)")
def _(node: Node, work: str) -> None:
    for path in [each for each in node.files if each == work or each.startswith(f"{work}/")]:
        del node.files[path]
