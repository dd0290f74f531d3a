"""Clocks: whether something keeps them, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from cluster.findings import Finding
from cluster.preflight.seen import Clock, Seen

# Seconds. etcd warns above one (v3.6, server/etcdserver/api/rafthttp/probing_status.go).
SKEW, DRIFT, CONTROL = 5.0, 1.0, 60.0


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of clocks. A difference counts as far as it is certain."""
    if seen.cluster.time_sync == "check":
        for name, kept in seen.synchronized.items():
            if not kept:  # None is a host that cannot tell
                yield Finding("time", (name,), "the clock is not synchronized")
    yield from apart(seen.clocks)


def apart(clocks: Mapping[str, Clock]) -> Iterator[Finding]:
    """Findings of clocks that are not like the others' or this machine's; by host."""
    if not clocks:
        return
    middle = median(clock.offset for clock in clocks.values())
    for name, clock in clocks.items():
        away = clock.offset - middle
        certain = abs(away) - clock.uncertainty
        if certain > DRIFT:
            way = "ahead of" if away > 0 else "behind"
            what = f"the clock is {abs(away):.1f} s {way} the middle of all hosts"
            check = "clock-skew" if certain > SKEW else "clock-drift"
            yield Finding(check, (name,), f"{what} (give or take {clock.uncertainty:.1f} s)")
    if abs(middle) - max(clock.uncertainty for clock in clocks.values()) > CONTROL:
        way = "ahead of" if middle > 0 else "behind"
        yield Finding("clock-control", (), f"the hosts' clocks are {abs(middle):.0f} s {way} this machine's")
