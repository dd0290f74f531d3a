"""Labels of SELinux on files, as its policy says; pyinfra's own operations do the rest of it."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.selinux import Mislabelled
from operations.change import any_changes, will


@operation()
def labels(paths: Sequence[str], after: Sequence[OperationMeta] = ()) -> Generator[StringCommand, None, None]:
    """
    Give files the labels that the policy has for their paths; a new file has that of its directory.

    + paths: files, and directories with all that is beneath
    + after: operations that write them or change the policy
    """
    wrong = host.get_fact(Mislabelled, paths=tuple(paths))
    if not wrong and not any_changes(after):
        host.noop(f"labels of {', '.join(paths)} are as SELinux' policy says")
        return
    will(f"restore labels of {', '.join(paths)}")
    yield StringCommand(f"restorecon -R {shlex.join(paths)}")
