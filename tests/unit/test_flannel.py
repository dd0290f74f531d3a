"""flannel's own configuration."""

from __future__ import annotations

import json

from cluster import flannel
from cluster.settings import load


def test_a_bridge_takes_the_address_of_a_new_subnet() -> None:
    first, _ = json.loads(flannel.cni_conf())["plugins"]
    assert first["delegate"] == {"hairpinMode": True, "isDefaultGateway": True, "forceAddress": True}


def test_each_configuration_has_pods_of_its_own() -> None:
    given: list[dict[str, str]] = [{}, {"flannel_backend": "host-gw"}, {"pod_subnet": "10.245.0.0/16"}]
    assert len({flannel.checksum(load({"vip": "10.0.0.100", **own})) for own in given}) == len(given)
