"""A backup of etcd now, fetched to the control machine (guide 7, docs/backup.md). Each run makes another one.

Hosts: the first control plane of the run whose etcd member is healthy; shows the others' backups too. Changes:
/var/backups/kubernetes there, of which the newest of its kind are kept; secrets/ on the control machine, where nothing
is ever removed. Undo: remove the backup.
"""

from pathlib import Path

from pyinfra.api import deploy

from deploys import backups, plan
from operations import backup


@deploy("etcd backup")
def etcd_backup() -> None:
    settings = plan.settings()
    if plan.me() == backups.member():
        directory = Path(settings.secrets_dir) / settings.cluster_name / "backups"
        backup.take(name="Back up etcd", script=backups.script(), directory=str(directory))
    plan.barrier("the backup")
    if plan.me() in plan.topology().control_planes:
        backup.report(name="Say which backups there are")


plan.run(__name__, etcd_backup)
