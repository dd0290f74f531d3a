"""Endpoints, as people write them and as programs read them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from cluster.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "host", "port", "written"),
    [
        ("k8s.example.org:6443", "k8s.example.org", 6443, "k8s.example.org:6443"),
        ("k8s.example.org", "k8s.example.org", 6443, "k8s.example.org:6443"),
        ("K8S.Example.org:443", "k8s.example.org", 443, "k8s.example.org:443"),
        ("api:8443", "api", 8443, "api:8443"),
        ("192.0.2.1:8443", IPv4Address("192.0.2.1"), 8443, "192.0.2.1:8443"),
        ("192.0.2.1", IPv4Address("192.0.2.1"), 6443, "192.0.2.1:6443"),
        ("[2001:DB8::1]:443", IPv6Address("2001:db8::1"), 443, "[2001:db8::1]:443"),
        ("[2001:db8::1]", IPv6Address("2001:db8::1"), 6443, "[2001:db8::1]:6443"),
    ],
)
def test_an_endpoint_is_a_name_or_an_address_and_a_port(text: str, host: Any, port: int, written: str) -> None:
    found = Endpoint.parse(text)
    assert found == Endpoint(host, port)
    assert str(found) == written
    assert found.name == (host if isinstance(host, str) else None)


@pytest.mark.parametrize(
    "text",
    [
        "", ":6443", "k8s.example.org:", "k8s.example.org:0", "k8s.example.org:65536", "k8s.example.org:https",
        "https://k8s.example.org:6443", "k8s.example.org:6443/", "admin@k8s.example.org", "k8s example", "k8s_api:6443",
        "-k8s:6443", f"{'a' * 64}.example.org:6443", "10.0.0.300:6443", "10.0.0:6443", "2001:db8::1", "[2001:db8::1",
        "k8s.example.org.:6443", "k8s.example.org:6443\n",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a DNS name or an address, with a port, such as k8s\.example\.org"):
        Endpoint.parse(text)
