"""Backups of etcd by a timer, with retention, on every control plane (guide 7, docs/backup.md).

Hosts: control_plane. Changes: /usr/local/sbin/etcd-backup, etcd-backup.service and etcd-backup.timer; these then make
/var/backups/kubernetes. Undo: `backup_schedule = None`; backups stay.
"""

import shlex

from pyinfra.api import deploy

from deploys import backups, plan
from facts.backup import SERVICE, TIMER
from operations import backup, file, service


@deploy("Backup timer")
def backup_timer() -> None:
    settings = plan.settings()
    if plan.me() in plan.topology().control_planes:
        if settings.backup_schedule is None:
            backup.no_timer(name="Remove the timer of backups")
        else:
            timer(settings.backup_schedule)
    plan.barrier("backup timer")


def timer(schedule: str) -> None:
    file.content(name="Write the program of backups", dest=backup.PROGRAM, mode="700", content=backups.script())
    unit = file.content(
        name="Write the service of backups",
        dest=f"{backup.UNITS}/{SERVICE}", content=plan.template("backup/etcd-backup.service.j2"),
    )  # fmt: skip
    written = file.content(
        name="Write the timer of backups",
        dest=f"{backup.UNITS}/{TIMER}", content=plan.template("backup/etcd-backup.timer.j2"),
        validate=f"systemd-analyze calendar {shlex.quote(schedule)} >/dev/null",
    )  # fmt: skip
    service.unit(
        name="Run the timer of backups",
        unit=TIMER, restart_on=[unit, written], config_files=[f"{backup.UNITS}/{SERVICE}", f"{backup.UNITS}/{TIMER}"],
    )  # fmt: skip


plan.run(__name__, backup_timer)
