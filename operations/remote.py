"""Commands run on another host in the middle of an operation, such as on a control plane during a join."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from pyinfra import host, inventory
from pyinfra.api import FactBase, Host, OperationError, QuoteString, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS

from cluster.topology import Node

Answer = TypeVar("Answer")
SHARED = 15.0  # seconds for which an answer is given to other hosts too


@dataclass
class _Shared:
    answer: Any
    given: set[str] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)

    def is_for(self, name: str) -> bool:
        return name not in self.given and time.monotonic() - self.since < SHARED


_shared: WeakKeyDictionary[State, dict[Hashable, _Shared]] = WeakKeyDictionary()
_once = RLock()


def shared(name: str, kind: type[FactBase[Answer]], **arguments: Hashable) -> Answer:
    """A fact of another host that every host asks for in the same operation: asked once, for all that come soon after.

    A host that asks again has something new to see, and so has another operation: these ask anew. The answer is not to
    be changed.
    """
    key = (host.executing_op_hash, name, kind, *sorted(arguments.items()))
    with _once:
        known = _shared.setdefault(host.state, {})
        if key not in known or not known[key].is_for(host.name):
            known[key] = _Shared(inventory.get_host(name).get_fact(kind, **arguments))
        known[key].given.add(host.name)
        return known[key].answer  # type: ignore[no-any-return]


def on(name: str, script: str, stdin: str | None = None, why: str = "") -> list[str]:
    """Run a shell script on a host of the inventory and return its standard output, line by line.

    It runs with this operation's own sudo and shell arguments. `stdin` may hold secrets: neither it nor
    the output is printed. Raises OperationError, which ends the run, when the script fails.
    """
    other: Host = inventory.get_host(name)
    if not other.connected:
        other.connect(reason=why or "for another host's operation", raise_exceptions=True)
    arguments = {
        key: value for key, value in (host.current_op_global_arguments or {}).items() if key in CONNECTOR_ARGUMENT_KEYS
    }
    if stdin is not None:
        arguments["_stdin"] = stdin
    ok, output = other.run_shell_command(StringCommand("sh", "-c", QuoteString(script)), **arguments)
    if not ok:
        raise OperationError(f"{name}: {why or 'a command'} failed for {host.name}: {output.stderr[-2000:]}")
    return list(output.stdout_lines)


def reached(nodes: Iterable[Node]) -> Iterator[Node]:
    """Those of these nodes that can be asked; hosts of this run come first, for of the others one may be down."""
    others = []
    for node in nodes:
        if not host.state.is_host_in_limit(inventory.get_host(node.name)):
            others.append(node)
        elif inventory.get_host(node.name).connected:
            yield node
    for node in others:
        other = inventory.get_host(node.name)
        if not other.connected:
            other.connect(reason="to ask it for the cluster's state", show_errors=False)
        if other.connected:
            yield node
