"""Versions of Kubernetes that run, beside the one that the bundle brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.compatibility import parse
from cluster.findings import Finding
from cluster.preflight.seen import Seen
from cluster.upgrade import static_pods, tag

# Members of an older etcd may lose their place when the first one runs 3.6
# (https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/, https://etcd.io/blog/2025/zombie_members_upgrade/).
ETCD_36_FROM, ETCD_36_BETTER_FROM = (3, 5, 20), (3, 5, 26)


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of nodes that run another version than the bundle's."""
    target = seen.cluster.kubernetes_version
    etcd = static_pods(image.name for image in seen.lock.images).get("etcd", "")
    for name, found in seen.versions.items():
        yield from skew(name, found, target)
        yield from _etcd(name, found["images"].get("etcd"), etcd)
    for name, asked in seen.removed_apis.items():
        yield from _removed(name, asked, target)


def skew(name: str, found: Mapping[str, Any], target: str) -> Iterator[Finding]:
    """How a node is not of the target's version, by what it runs (facts/upgrade.py).

    kubeadm goes one minor forward at a time; a kubelet may be three behind the API server, two up to 1.24
    (https://kubernetes.io/releases/version-skew-policy/).
    """
    image, kubelet = found["images"].get("kube-apiserver"), found["running"]
    server = tag(image) if image else None
    there, minor = [each for each in (server, kubelet) if each], parse(target)[1]
    behind = 3 if minor >= 25 else 2
    if ahead := [each for each in there if parse(each) > parse(target)]:
        yield Finding("kubernetes-downgrade", (name,), f"it runs Kubernetes {max(ahead, key=parse)}")
    elif server and parse(server)[1] < minor - 1:
        yield Finding("kubernetes-minor-skipped", (name,), f"its API server is {server}")
    elif kubelet and parse(kubelet)[1] < minor - behind:
        yield Finding("kubernetes-minor-skipped", (name,), f"its kubelet is {kubelet}")
    elif older := [each for each in there if parse(each) < parse(target)]:
        yield Finding("kubernetes-version", (name,), f"it runs Kubernetes {min(older, key=parse)}")


def _etcd(name: str, image: str | None, wanted: str) -> Iterator[Finding]:
    if not image or not wanted or parse(tag(wanted))[:2] != (3, 6):
        return
    if parse(tag(image)) < ETCD_36_FROM:
        yield Finding("etcd-too-old", (name,), f"its etcd is {tag(image)}")
    elif parse(tag(image)) < ETCD_36_BETTER_FROM:
        yield Finding("etcd-old", (name,), f"its etcd is {tag(image)}")


def _removed(name: str, asked: Mapping[str, str], target: str) -> Iterator[Finding]:
    for api, release in asked.items():
        if parse(release)[:2] <= parse(target)[:2]:
            yield Finding("removed-api", (name,), f"{api} was asked for, which Kubernetes {release} removes")
