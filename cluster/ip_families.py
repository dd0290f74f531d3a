"""IPv4 and IPv6: an address or a network, or one of each, written as Kubernetes does with a comma between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Generic, TypeVar

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Kind = TypeVar("Kind", Address, Network)


@dataclass(frozen=True)
class Families(Generic[Kind]):
    """One, or one of each family; the first is of the family that is asked for first."""

    first: Kind
    second: Kind | None = None

    @property
    def each(self) -> tuple[Kind, ...]:
        """The first, and the second if there is one."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def versions(self) -> tuple[int, ...]:
        """The families in their order, such as (4, 6)."""
        return tuple(each.version for each in self.each)

    def __str__(self) -> str:
        return ",".join(map(str, self.each))


def words(versions: Iterable[int]) -> str:
    """Families by their names, such as "IPv4 and IPv6"."""
    return " and ".join(f"IPv{version}" for version in versions)


def within(part: Network, whole: Network) -> bool:
    """Whether a network is part of another, or is it."""
    return part.version == whole.version and part.network_address in whole and part.prefixlen >= whole.prefixlen


def addresses(value: object) -> Families[Address]:
    """Addresses of a text such as "192.0.2.1" or "192.0.2.1,2001:db8::1". Raises ValueError."""
    found = _parsed(value, ip_address, "an address")
    for each in found.each:
        if isinstance(each, IPv6Address) and each.is_link_local:
            raise ValueError(f"{each} is link-local: it is one in each network that a host is in")
    return found


def networks(value: object) -> Families[Network]:
    """Networks of a text such as "10.244.0.0/16" or "10.244.0.0/16,fd00:10:244::/56". Raises ValueError."""
    return _parsed(value, ip_network, "a network")


def _parsed(value: object, parse: Callable[[str], Kind], what: str) -> Families[Kind]:
    parts = str(value).split(",")
    try:
        found = [parse(part.strip()) for part in parts]
    except ValueError as error:
        raise ValueError(f"must be {what}, or one of IPv4 and one of IPv6 with a comma between ({error})") from None
    if len({each.version for each in found}) < len(found):
        raise ValueError(f"must be {what}, or one of IPv4 and one of IPv6; there are several of one family")
    return Families(*found)
