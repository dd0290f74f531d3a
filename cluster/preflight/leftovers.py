"""What an earlier cluster has left on nodes. A run of this project that was interrupted has left nothing that is found
here: what it had begun is taken up again (operations/kubeadm.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.findings import Finding
from cluster.networks import CNI_FILES
from cluster.preflight.seen import Seen
from cluster.topology import Node


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of nodes that are not of this cluster, or not of it alone."""
    ours = _authority(seen)
    for node in seen.nodes:
        if state := seen.kubeadm.get(node.name):
            theirs = state["ca_cert_hash"]
            if ours and theirs not in (None, ours):
                what = f"it has the CA of another cluster ({theirs}, here {ours})"
                yield Finding("foreign-cluster", (node.name,), what)
            elif state["etcd_data"] and not theirs and not state["manifests"]:
                yield Finding("leftover-etcd", (node.name,), "/var/lib/etcd has data, and there is no etcd to them")
            elif _orphan(seen, node, ours):
                what = "/etc/kubernetes has files of a node, and no control plane has a cluster"
                yield Finding("leftover-cluster", (node.name,), what)
            yield from _things(seen, node, state["state"] == "none")


def _authority(seen: Seen) -> str | None:
    """The CA of this cluster, by its hash: that of most control planes, of equally many the first one's; where none has
    one, the restored one."""
    found = [seen.kubeadm.get(node.name, {}).get("ca_cert_hash") for node in seen.topology.control_planes]
    counted = Counter(each for each in found if each)
    return counted.most_common(1)[0][0] if counted else seen.restored


def _orphan(seen: Seen, node: Node, ours: str | None) -> bool:
    """Whether it is a node while all control planes were asked and none has a CA; these are made first."""
    everybody = all(each.name in seen.kubeadm for each in seen.topology.control_planes)
    is_worker = node not in seen.topology.control_planes
    return everybody and ours is None and is_worker and seen.kubeadm[node.name]["state"] != "none"


def _configurations(name: str, own: str, files: list[str], bare: bool) -> Iterator[Finding]:
    """Files in /etc/cni/net.d beside the network's own."""
    others = {each: cni for cni, each in CNI_FILES.items() if each in files and each != own}
    if others and not bare and own not in files:
        file, cni = next(iter(others.items()))
        yield Finding("network-changed", (name,), f"its network is {cni}: /etc/cni/net.d has {file}, and not {own}")
        return
    for each in files:
        # Beside the network's own file, one that comes before it is taken in its place. A bridge's has the node's own
        # subnet, which it gets when it joins.
        stale = each == own and own == CNI_FILES["bridge"]
        if (each != own or stale) if bare else each < own:
            yield Finding("leftover-cni" if bare else "cni-before", (name,), f"/etc/cni/net.d has {each}")


def _things(seen: Seen, node: Node, bare: bool) -> Iterator[Finding]:
    found = seen.leftovers.get(node.name)
    if not found:
        return
    if own := CNI_FILES.get(seen.cluster.cni):  # a network of the user's own may have any
        files = [each for each in found["cni_files"] if each not in seen.cluster.cni_files]
        yield from _configurations(node.name, own, files, bare)
    if not bare:
        return
    if node in seen.topology.control_planes and found["etcd_files"]:
        what = f"/var/lib/etcd is not empty ({', '.join(found['etcd_files'][:3])})"
        yield Finding("etcd-directory", (node.name,), what)
    # Once a run of ours has come here, they may be of a join that was cleaned up and is still to be done again.
    if found["ours"]:
        return
    things = [*(f"interface {name}" for name in found["interfaces"])]
    if found["chains"]:
        things.append("packet filter chains of Kubernetes (KUBE-)")
    if things:
        yield Finding("leftover-network", (node.name,), f"it has {', '.join(things)}")
