"""What operations do to hosts: said while planning, noted while planning and executing alike.

pyinfra 3.10 knows of an operation that it changes something, and of its commands; what they come to is known to the
operation alone. Were this upstream's, `host.noop(description)` would have a counterpart for changes, and callbacks and
`--json` would give it with the host and the operation.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import Host, State
from pyinfra.api.operation import OperationMeta

from cluster.changes import Change

# Run of pyinfra -> host, operation, whether it is executed -> changes, in their order.
_noted: WeakKeyDictionary[State, dict[tuple[str, str | None, bool], list[Change]]] = WeakKeyDictionary()


def will(words: str, diff: Iterable[str] = (), effect: str = "", later: str = "") -> None:
    """
    Note what the running operation does to its host; before its first command, where planning ends.

    + words: what is done, with a verb first, such as "modify /etc/hosts (content)"
    + diff: lines of a unified diff, without secrets
    + effect: what comes of it for what runs, such as "restarts kubelet"
    + later: what of it cannot be known before the run
    """
    at = (host.name, host.current_op_hash, host.state.is_executing)
    known = _noted.setdefault(host.state, {}).setdefault(at, [])
    change = Change(words=words, diff=tuple(diff), effect=effect, later=later)
    if change not in known:  # an operation is asked more than once when another one needs to know
        known.append(change)


def noted(of: Host, operation: str | None, executing: bool) -> tuple[Change, ...]:
    """What an operation, by pyinfra's hash of it, has said of a host while planning or executing."""
    return tuple(_noted.get(of.state, {}).get((of.name, operation, executing), ()))


def any_changes(metas: Iterable[OperationMeta]) -> bool:
    """Whether one of these operations has changed its host or, before it ran, will.

    Under `-y` pyinfra 3.10 plans nothing, and `will_change`, asked after the operation, compares with what it has
    just made.
    """
    return any(meta.did_change() if meta.is_complete() else meta.will_change for meta in metas)
