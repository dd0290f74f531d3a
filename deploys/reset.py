"""A host, or all, as if this project and kubeadm had never been there (docs/nodes.md). It cannot be undone.

    pyinfra inventories/prod.py deploys/reset.py --data reset=CLUSTER_NAME
    pyinfra inventories/prod.py deploys/reset.py --data reset=CLUSTER_NAME --limit NAME

Hosts: all of the run. Changes: stops and removes what the layers have made, etcd's data with it. What stays is in
docs/nodes.md; with `--data packages=true` packages go too. Undo: restore a snapshot of etcd onto a new cluster.
"""

from pyinfra import logger
from pyinfra.api import deploy

from deploys import plan
from deploys.cleanup import clean
from deploys.removal import still_member


@deploy("Reset")
def reset() -> None:
    plan.refuse(confirmed() or still_member())
    clean(purge=plan.option("packages") is True)
    plan.barrier("reset")
    if plan.me() == plan.topology().first_control_plane:
        logger.info(f"Kept on this machine: {plan.settings().secrets_dir}/{plan.settings().cluster_name}")


def confirmed() -> list[str]:
    """Why the cluster's name was not given, in words."""
    name, said = plan.settings().cluster_name, plan.option("reset")
    if said is None:
        return [
            f"reset: nobody has said that cluster {name} is to go. Its hosts lose everything of it, etcd's data too. "
            f"If that is meant, add `--data reset={name}`."
        ]
    if str(said) != name:
        return [f"reset: says {said}, and the cluster of this inventory is {name}. Take the right inventory."]
    return []


plan.run(__name__, reset, options=("reset", "packages", "gone"))
