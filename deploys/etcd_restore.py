"""etcd as it was in a backup that deploys/etcd_backup.py fetched (guide 7, docs/backup.md): `--data backup=DIRECTORY`.

Onto the members that there are, whether their quorum is lost or their data; or, where no control plane is left, onto
the first one, whose PKI comes from the backup and which `kubeadm init` makes anew. deploys/cluster.py then joins the
control planes that lack.

Hosts: control_plane, all of them; kubelets of the run's nodes are restarted. Changes: /var/lib/etcd, where old data is
set aside and never deleted; static pods stop meanwhile. Undo: with the manifests set aside again, the old data goes
back by renaming (docs/backup.md).
"""

from pyinfra import host
from pyinfra.api import deploy

from deploys import backups, plan
from deploys.distribute import distribute
from deploys.firewall import firewall
from deploys.images import images
from deploys.load_balancer import load_balancer
from deploys.node import node
from deploys.packages import packages
from deploys.preflight import preflight
from deploys.runtime import runtime
from operations import file, kubeadm, restore
from operations.restore import Restore


@deploy("etcd restore")
def etcd_restore() -> None:
    wanted, bare = backups.restore()
    if bare:
        first_control_plane(wanted)
    member = host.name in wanted.members
    if member:
        restore.prepare(name="Make the new data beside the old", restore=wanted)
    plan.barrier("the new data")
    if member:
        restore.stop(name="Stop the static pods", restore=wanted)
    plan.barrier("the stop of all members")
    if member:
        restore.swap(name="Set the old data aside", restore=wanted)
    plan.barrier("the exchange of data")
    if member:
        restore.start_etcd(name="Run etcd with the backup's data", restore=wanted)
    plan.barrier("etcd")
    if member:
        restore.start_api_server(name="Run the API server", node=plan.me())
    plan.barrier("API servers")
    if member:
        restore.start_controllers(name="Run the controllers")
    if plan.me() not in plan.topology().load_balancers:
        restore.restart_kubelet(name="Restart the kubelet")
    plan.barrier("controllers and kubelets")
    if member:
        restore.finish(name="Remove the copy of the snapshot", restore=wanted)


def first_control_plane(wanted: Restore) -> None:
    """Every layer up to the first control plane, made with the backup's PKI."""
    me, first = plan.me(), plan.topology().first_control_plane
    if me == first:
        for dest, text in backups.authorities().items():
            mode = "644" if dest.endswith((".crt", ".pub")) else "600"
            file.content(name=f"Put back {dest}", dest=dest, content=text, mode=mode, secret=True)
    plan.barrier("the backup's PKI")
    for layer in (preflight, firewall, distribute, node, runtime, images, packages, load_balancer):
        layer()
    if me == first:
        kubeadm.init(
            name=f"Initialise the cluster on {first.name}",
            settings=plan.settings(), topology=plan.topology(), node=me,
        )  # fmt: skip
    plan.barrier("kubeadm init")


plan.run(__name__, etcd_restore, options=("backup", "backup_key", "replace_running"))
