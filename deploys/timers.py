"""A program on a host that a systemd timer runs."""

from __future__ import annotations

import shlex

from deploys import plan
from operations import file, service
from operations.timer import PROGRAMS, UNITS


def run(timer: str, what: str, templates: str, script: str, schedule: str) -> None:
    """Write a program with its service and timer, and have the timer run.

    + timer: its name, such as "etcd-backup", by which program, service and timer are called
    + what: what it does, in words, such as "backups"
    + templates: the directory of both units below templates/
    + script: the program
    + schedule: as OnCalendar of the timer has it
    """
    units = [f"{UNITS}/{timer}.service", f"{UNITS}/{timer}.timer"]
    file.content(name=f"Write the program of {what}", dest=f"{PROGRAMS}/{timer}", mode="700", content=script)
    unit = file.content(
        name=f"Write the service of {what}", dest=units[0], content=plan.template(f"{templates}/{timer}.service.j2")
    )
    written = file.content(
        name=f"Write the timer of {what}", dest=units[1], content=plan.template(f"{templates}/{timer}.timer.j2"),
        validate=f"systemd-analyze calendar {shlex.quote(schedule)} >/dev/null",
    )  # fmt: skip
    service.unit(name=f"Run the timer of {what}", unit=f"{timer}.timer", restart_on=[unit, written], config_files=units)
