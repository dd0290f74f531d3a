"""Texts of one or two addresses or networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from cluster import ip_families
from cluster.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "written", "versions"),
    [
        ("192.0.2.1", "192.0.2.1", (4,)),
        ("2001:DB8:0::1", "2001:db8::1", (6,)),
        ("192.0.2.1,2001:db8::1", "192.0.2.1,2001:db8::1", (4, 6)),
        ("2001:db8::1, 192.0.2.1", "2001:db8::1,192.0.2.1", (6, 4)),
    ],
)
def test_addresses_are_read_in_their_order(text: str, written: str, versions: tuple[int, ...]) -> None:
    found = ip_families.addresses(text)
    assert (str(found), found.versions) == (written, versions)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not appear to be an IPv4 or IPv6 address"),
        ("192.0.2.1,", "'' does not appear to be"),
        ("192.0.2.1;2001:db8::1", "does not appear to be"),
        ("[2001:db8::1]", "does not appear to be"),
        ("192.0.2.1,192.0.2.2", "there are several of one family"),
        ("192.0.2.1,2001:db8::1,2001:db8::2", "there are several of one family"),
        ("fe80::1", "is link-local"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        ip_families.addresses(text)


def test_a_network_with_a_host_s_part_is_refused() -> None:
    with pytest.raises(ValueError, match="fd00::1/64 has host bits set"):
        ip_families.networks("10.244.0.0/16,fd00::1/64")


@pytest.mark.parametrize(
    ("part", "whole", "is_within"),
    [
        ("10.96.0.0/12", "0.0.0.0/0", True),
        ("10.96.0.0/12", "::/0", False),
        ("fd00::/112", "::/0", True),
        ("fd00::/64", "fd00::/112", False),
    ],
)
def test_a_network_is_within_one_of_its_own_family(part: str, whole: str, is_within: bool) -> None:
    assert ip_families.within(ip_network(part), ip_network(whole)) == is_within


def test_an_address_and_a_port_are_written_as_in_a_url() -> None:
    assert str(Endpoint(IPv4Address("192.0.2.1"), 6443)) == "192.0.2.1:6443"
    assert str(Endpoint(IPv6Address("2001:db8::1"), 6443)) == "[2001:db8::1]:6443"
