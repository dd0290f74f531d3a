"""Whether every host is a machine of its own, and the one that the inventory means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from cluster.findings import Finding
from cluster.preflight.seen import Seen


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of who hosts are. A machine that has no such identity, such as one without DMI, is passed over."""
    machines = {node.name: state for node in seen.asked if (state := seen.hardware.get(node.name))}
    own = {node.name: row for node in seen.asked if (row := seen.own_address(node))}
    yield from _alike("hostname", "host name", {name: state["hostname"] for name, state in machines.items()})
    yield from _alike("mac", "MAC address", {name: row["mac"] for name, row in own.items()})
    yield from _alike("machine-id", "machine-id", {name: state["machine_id"] for name, state in machines.items()})
    yield from _alike("product-uuid", "product_uuid", {name: state["product_uuid"] for name, state in machines.items()})
    for node in seen.asked:
        rows = machines.get(node.name, {}).get("addresses", [])
        for address in node.addresses:
            if rows and all(row["address"] != str(address) for row in rows):
                has = ", ".join(row["address"] for row in rows if not row["address"].startswith("127."))
                what = f"no interface has its address {address}; it has {has or 'none'}"
                yield Finding("address", (node.name,), what)


def _alike(check: str, what: str, values: Mapping[str, str | None]) -> Iterator[Finding]:
    owners = defaultdict(list)
    for name, value in values.items():
        if value:
            owners[value].append(name)
    for value, names in owners.items():
        if len(names) > 1:
            yield Finding(check, tuple(names), f"the same {what} {value}")
