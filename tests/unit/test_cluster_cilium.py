"""Cilium: which manifest of the bundle a cluster takes, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import cilium
from cluster.compatibility import refusals, warnings
from cluster.lock import File, Lock
from cluster.settings import Settings, load

SIX = {"vip": "fd00::100", "pod_subnet": "fd00:10:244::/56", "service_subnet": "fd00:10:96::/112"}
BOTH = {"pod_subnet": "10.244.0.0/16,fd00:10:244::/56", "service_subnet": "10.96.0.0/12,fd00:10:96::/112"}
BOTH_SIX_FIRST = {key: ",".join(reversed(value.split(","))) for key, value in BOTH.items()}
# As the chart has it, with a Deployment of the site's own values before and after the operator's.
MANIFEST = """\
---
# Source: cilium/templates/hubble-relay/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hubble-relay
spec:
  replicas: 2
---
# Source: cilium/templates/cilium-operator/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cilium-operator
  namespace: kube-system
spec:
  # See docs on ServerCapabilities.LeasesResourceLock in file pkg/k8s/version/version.go
  replicas: 2
  selector: {}
---
kind: Deployment
metadata:
  name: hubble-ui
spec:
  replicas: 2
"""


def settings(**own: Any) -> Settings:
    return load({"vip": "10.0.0.100", "cni": "cilium", **own})


def lock(*families: str, version: str = "v1.20.2") -> Lock:
    files = tuple(
        File(path=f"networks/cilium-{family}.yaml", size=1, sha256="a" * 64, name=f"cilium-{family}", version=version)
        for family in families
    )
    return Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={}, images=(), packages=(),
        package_sets={}, files=files,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own", "family"), [({}, "ipv4"), (SIX, "ipv6"), (BOTH, "dual"), (BOTH_SIX_FIRST, "dual")], ids=str
)
def test_the_manifest_is_that_of_the_clusters_families(own: dict[str, Any], family: str) -> None:
    wanted = settings(**own)
    assert cilium.path(wanted) == f"networks/cilium-{family}.yaml"
    assert cilium.problems(wanted, lock("ipv4", "ipv6", "dual")) == []
    assert cilium.version(wanted, lock(family)) == "v1.20.2"
    assert cilium.version(wanted, lock()) == ""


def test_a_bundle_without_it_is_said() -> None:
    assert cilium.problems(settings(), lock("ipv6")) == [
        "cni: is cilium, and the bundle has no networks/cilium-ipv4.yaml. Set `networks: [cilium]` in bundle.yaml and "
        "build the bundle anew; docs/networks.md has more."
    ]


def test_nodes_without_ipv4_need_a_release_that_reaches_them() -> None:
    assert cilium.problems(settings(**SIX), lock("ipv6", version="v1.17.16")) == [
        "cni: Cilium v1.17.16 reaches other nodes by IPv4 alone, and pod_subnet fd00:10:244::/56 is IPv6; take 1.18 or "
        "later."
    ]
    assert cilium.problems(settings(**SIX), lock("ipv6", version="v1.18.0")) == []
    assert cilium.problems(settings(**BOTH), lock("dual", version="v1.17.16")) == []


@pytest.mark.parametrize(
    ("version", "least"),
    [("v1.20.2", "5.10"), ("1.18.0", "5.10"), ("v1.17.16", "5.4"), ("v1.15.19", "4.19.57"), ("v1.13.0", "4.19.57")],
)
def test_the_least_kernel_is_that_of_the_release(version: str, least: str) -> None:
    assert cilium.kernel(version) == least


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 2), (6, 2)])
def test_there_are_no_more_operators_than_nodes(nodes: int, replicas: int) -> None:
    made = cilium.manifest(MANIFEST, nodes)
    assert [line for line in made.splitlines() if "replicas" in line] == [
        "  replicas: 2", f"  replicas: {replicas}", "  replicas: 2",
    ]  # fmt: skip
    assert len(made) == len(MANIFEST)


@pytest.mark.parametrize(
    ("kubernetes", "version", "take"),
    [
        ("v1.32.1", "v1.20.2", "take 1.19 or earlier, or Kubernetes 1.33."),
        ("v1.30.1", "v1.20.2", "take 1.18 or earlier, or Kubernetes 1.33."),
        ("v1.21.14", "v1.19.7", "take 1.14 or earlier, or Kubernetes 1.31."),
    ],
)
def test_an_older_kubernetes_than_its_maintainers_test_is_refused_with_what_goes(
    kubernetes: str, version: str, take: str
) -> None:
    (found,) = refusals(kubernetes, {"cilium": version})
    assert "its maintainers do not support it with a Kubernetes older than those that they test" in found
    assert found.endswith(take)


def test_a_newer_kubernetes_than_its_maintainers_test_is_said() -> None:
    assert refusals("v1.36.2", {"cilium": "v1.19.7"}) == []
    assert warnings("v1.36.2", {"cilium": "v1.19.7"}) == [
        "Cilium v1.19.7 may work with Kubernetes 1.36, but its maintainers test 1.20."
    ]
    assert warnings("v1.36.2", {"cilium": "v1.20.2"}) == []
