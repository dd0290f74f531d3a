"""Commands run on another host in the middle of an operation, such as on a control plane during a join."""

from __future__ import annotations

from pyinfra import host, inventory
from pyinfra.api import Host, OperationError, QuoteString, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS


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
