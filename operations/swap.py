"""Swap turned off, now and at the next boot (guide 3.1)."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from facts.swap import Swap
from operations.change import will

COMMENT = "# off for Kubernetes: "
# Comments out every line of fstab whose type is swap; beside and renamed, so that a cut never halves fstab.
FSTAB = (
    "cp -p /etc/fstab /etc/fstab.new && sed -E -i "
    r"'s|^([[:space:]]*[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap([[:space:]].*)?)$"
    rf"|{COMMENT}\1|' "
    "/etc/fstab.new && mv -fT /etc/fstab.new /etc/fstab"
)


@operation()
def off() -> Generator[StringCommand, None, None]:
    """Turn swap off and remove what would turn it on again: fstab lines, swap units, the zram generator."""
    state = host.get_fact(Swap)
    if state == Swap.default():
        host.noop("there is no swap")
        return
    will(f"turn off swap: {', '.join(f'{key} {value}' for key, value in state.items() if value)}")
    if state["fstab"]:
        yield StringCommand(FSTAB)
    for unit in state["units"]:
        yield StringCommand(f"systemctl mask --now {shlex.quote(unit)}")
    if state["zram"]:
        # An empty file of this name overrides the distribution's (zram-generator.conf(5)).
        yield StringCommand("truncate -s 0 /etc/systemd/zram-generator.conf && systemctl daemon-reload")
    if state["devices"]:
        yield StringCommand("swapoff -a")
