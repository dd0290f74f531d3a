"""Firewalls that run with the rules on disk."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.firewall import Firewall
from operations.change import any_changes, will

# firewalld that cannot read its configuration falls back to the distribution's, which is not the site's: so it is
# checked before.
RELOAD = {
    "firewalld": "firewall-offline-cmd --check-config >/dev/null && firewall-cmd -q --reload",
    "ufw": "ufw reload >/dev/null",
}


@operation()
def loaded(
    firewall: Literal["firewalld", "ufw"], after: Sequence[OperationMeta]
) -> Generator[StringCommand, None, None]:
    """
    Have a firewall that is active filter by what is on disk.

    + firewall: which one
    + after: operations that write its rules
    """
    if not any_changes(after) and firewall not in host.get_fact(Firewall)["stale"]:
        host.noop(f"{firewall} runs with the rules on disk")
        return
    will(f"reload the rules of {firewall}")
    yield StringCommand(RELOAD[firewall])
