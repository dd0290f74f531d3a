"""Names of all nodes in /etc/hosts: a closed network may have no DNS (guide 3.1)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from facts.file import FileState
from facts.network import BEGIN, END
from operations import file


def merged(old: str, names: Mapping[str, Sequence[str]]) -> str:
    """The file's text with our block in place of the one that was there, or at its end."""
    lines = old.splitlines()
    block = [BEGIN, *(f"{address} {name}" for name, addresses in names.items() for address in addresses), END]
    begin = None
    for at, line in enumerate(lines):
        if line == BEGIN:
            begin = at
        elif line == END and begin is not None:
            lines[begin : at + 1] = block
            break
    else:
        lines += block
    return "\n".join(lines) + "\n"


@operation()
def entries(names: Mapping[str, Sequence[str]], path: str = "/etc/hosts") -> Generator[StringCommand, None, None]:
    """
    Keep a block of names and addresses in /etc/hosts; what others wrote there stays.

    + names: host name -> its addresses
    + path: the file
    """
    current = host.get_fact(FileState, path=path)
    if current and current["content"] is None:
        raise OperationError(
            f"{host.name}: {path} is not UTF-8, so it is not written anew. Convert it (`iconv -t UTF-8`) and run again."
        )
    old = (current["content"] if current else None) or "127.0.0.1 localhost\n"
    yield from file.replaced(current, path, merged(old, names))
