"""A backup of etcd now, fetched to the control machine (guide 7, docs/backup.md). Each run makes another one.

Hosts: the first control plane of the run whose etcd member is healthy; shows the others' backups too. Changes:
/var/backups/kubernetes there, of which the newest of its kind are kept; secrets/ on the control machine, where nothing
is ever removed. Undo: remove the backup.
"""

from functools import cache
from pathlib import Path

from gevent.lock import RLock
from pyinfra.api import deploy

from cluster.topology import Node
from deploys import plan
from deploys.ask import ask
from deploys.backup_timer import script
from facts.etcd import Members
from operations import backup

_once = RLock()


@deploy("etcd backup")
def etcd_backup() -> None:
    settings = plan.settings()
    with _once:  # all hosts go by the same answer
        chosen = member()
    if plan.me() == chosen:
        directory = Path(settings.secrets_dir) / settings.cluster_name / "backups"
        backup.take(name="Back up etcd", script=script(), directory=str(directory))
    plan.barrier("the backup")
    if plan.me() in plan.topology().control_planes:
        backup.report(name="Say which backups there are")


@cache
def member() -> Node:
    """The first control plane of this run whose etcd member is healthy. Raises InputError when none is."""
    states = ask(Members, plan.in_run(plan.topology().control_planes))
    for node in plan.topology().control_planes:
        for each in states.get(node.name, Members.default())["members"]:
            if each["name"] == node.name and each["healthy"] and not each["learner"]:
                return node
    what = [f"{name}: its etcd is {state['state']}, and its member not healthy" for name, state in states.items()]
    plan.refuse(what or ["no control plane is among the hosts of this run: widen --limit."])
    raise AssertionError("what was found is refused")


plan.run(__name__, etcd_backup)
