"""Pod networks that the cluster's families of addresses rule out."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import networks
from cluster.settings import load

SIX = {"vip": "fd00::100", "pod_subnet": "fd00:10:244::/56", "service_subnet": "fd00:10:96::/112"}
BOTH = {
    "vip": "10.0.0.100", "pod_subnet": "10.244.0.0/16,fd00:10:244::/56",
    "service_subnet": "10.96.0.0/12,fd00:10:96::/112",
}  # fmt: skip


@pytest.mark.parametrize("cni", ["bridge", "calico"])
@pytest.mark.parametrize(("own", "families"), [(SIX, "IPv6"), (BOTH, "IPv4 and IPv6")])
def test_a_network_that_is_made_for_ipv4_alone_is_refused_with_ipv6(
    cni: str, own: dict[str, Any], families: str
) -> None:
    assert networks.problems(load({**own, "cni": cni})) == [
        f"cni: is {cni}, which is made for IPv4 alone here, and pod_subnet {own['pod_subnet']} is {families}. Take "
        "flannel or cilium, or with `none` a network of your own, or give networks of IPv4."
    ]
    assert networks.problems(load({"vip": "10.0.0.100", "cni": cni})) == []


@pytest.mark.parametrize("cni", ["flannel", "cilium", "none"])
def test_flannel_cilium_and_networks_of_ones_own_have_any_families(cni: str) -> None:
    assert networks.problems(load({**SIX, "cni": cni})) == networks.problems(load({**BOTH, "cni": cni})) == []
