"""Pieces of the bundle to every host, by role, checked on arrival (guide 2.4).

Hosts: all. Changes: /var/lib/pyinfra-kubeadm/bundle. Undo: remove that directory; it can be carried again.
"""

from pyinfra import host
from pyinfra.api import deploy

from cluster.pieces import pieces
from deploys import plan
from operations import bundle


@deploy("Distribute")
def distribute() -> None:
    plan.refuse(plan.damage())
    bundle.pieces(
        name="Carry pieces of the bundle",
        source=plan.settings().bundle_dir,
        files=pieces(plan.lock(), host.groups, plan.RELEASE),
    )
    plan.barrier("distribute")


plan.run(__name__, distribute)
