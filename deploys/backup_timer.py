"""Backups of etcd by a timer, with retention, on every control plane (guide 7, docs/backup.md).

Hosts: control_plane. Changes: /usr/local/sbin/etcd-backup, etcd-backup.service and etcd-backup.timer; these then make
/var/backups/kubernetes. Undo: `backup_schedule = None`; backups stay.
"""

from pyinfra.api import deploy

from deploys import backups, plan, timers
from facts.backup import NAME
from operations import timer


@deploy("Backup timer")
def backup_timer() -> None:
    settings = plan.settings()
    if plan.me() in plan.topology().control_planes:
        if settings.backup_schedule is None:
            timer.absent(name="Remove the timer of backups", timer=NAME)
        else:
            timers.run(NAME, "backups", templates="backup", script=backups.script(), schedule=settings.backup_schedule)
    plan.barrier("backup timer")


plan.run(__name__, backup_timer)
