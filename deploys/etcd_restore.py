"""etcd as it was in a backup that deploys/etcd_backup.py fetched (guide 7, docs/backup.md): `--data backup=DIRECTORY`.

Onto the members that there are, whether their quorum is lost or their data; or, where no control plane is left, onto
the first one, whose PKI comes from the backup and which `kubeadm init` makes anew. deploys/cluster.py then joins the
control planes that lack.

Hosts: control_plane, all of them; kubelets of the run's nodes are restarted. Changes: /var/lib/etcd, where old data is
set aside and never deleted; static pods stop meanwhile. Undo: with the manifests set aside again, the old data goes
back by renaming (docs/backup.md).
"""

import tarfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from gevent.lock import RLock
from pyinfra import host, logger
from pyinfra.api import deploy

from cluster import backup as backups
from cluster.backup import BackupError, unsuitable
from cluster.pieces import short_name
from deploys import plan
from deploys.ask import ask
from deploys.distribute import distribute
from deploys.firewall import firewall
from deploys.images import images
from deploys.load_balancer import load_balancer
from deploys.node import node
from deploys.packages import packages
from deploys.preflight import preflight
from deploys.runtime import runtime
from facts.etcd import Members
from facts.restore import Restoration, RestoreState
from operations import backup, file, kubeadm, restore
from operations.restore import Restore

_once = RLock()
# What all control planes share; kubeadm makes the rest of the PKI of it.
SHARED = (
    "ca.crt",
    "ca.key",
    "sa.pub",
    "sa.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
)
PKI = "etc/kubernetes/pki/"


@deploy("etcd restore")
def etcd_restore() -> None:
    with _once:  # all hosts go by the same answer
        wanted, bare = checked()
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
        for dest, text in authorities().items():
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


@cache
def opened() -> backup.Opened:
    """The backup that was named, checked and decrypted. Raises InputError."""
    named, key = host.data.get("backup"), host.data.get("backup_key")
    if not named:
        plan.refuse(["no backup is named: add --data backup=DIRECTORY, such as secrets/NAME/backups/..."])
    try:
        return backup.opened(Path(str(named)).expanduser(), Path(str(key)).expanduser() if key else None)
    except BackupError as error:
        plan.refuse([str(error)])
        raise


def authorities() -> dict[str, str]:
    """What of the backup's PKI every control plane shares, and what else it has, by path on the node."""
    with tarfile.open(opened().pki) as tar:
        texts = {each.name: file.read().decode() for each in tar if (file := tar.extractfile(each))}
    wanted = [name for name in texts if not name.startswith(PKI) or name.removeprefix(PKI) in SHARED]
    return {f"/{name}": texts[name] for name in wanted}


@cache
def checked() -> tuple[Restore, bool]:
    """The restore, and whether its control plane is to be made first. Raises InputError with all that forbids it."""
    settings, topology = plan.settings(), plan.topology()
    source = opened()
    missing = [each.name for each in topology.control_planes if each not in plan.in_run(topology.control_planes)]
    if missing:
        plan.refuse(
            [
                f"{', '.join(missing)}: not in this run, and a member that is left out would go on as another cluster. "
                "Widen --limit to all control planes."
            ]
        )
    found: dict[str, RestoreState] = ask(Restoration, topology.control_planes)
    members = tuple(name for name, state in found.items() if state["name"])
    end = backups.sha256(source.directory / backups.MANIFEST)[:8]
    begun = restore.ids(list(found.values()), end)
    others = {name: sorted(set(state["works"]) - set(begun)) for name, state in found.items()}
    problems = [
        f"{name}: a restore of another backup was begun there ({', '.join(ids)}). End that one by its own backup, or "
        f"rename /var/lib/etcd/restore-{ids[0]} if it is not to be ended."
        for name, ids in others.items()
        if ids
    ]
    name = begun[-1] if begun else f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{end}"
    wanted = Restore(name, source.manifest, source.snapshot, members or (topology.first_control_plane.name,))
    versions = {each["version"] for each in found.values() if each["version"]} or {_etcd()}
    authorities = {name: state["ca_cert_hash"] for name, state in found.items()}
    for version in sorted(versions):
        problems += unsuitable(
            source.manifest, settings.cluster_name, settings.kubernetes_version, version, authorities
        )
    if not any(wanted.swapped(found[each]) for each in members):
        problems += _running()
        problems += _room(found, members, source.snapshot.stat().st_size)
    plan.refuse(list(dict.fromkeys(problems)))
    _tell(wanted, found, bool(begun))
    return wanted, not members


def _etcd() -> str:
    """The version of etcd that the bundle has."""
    image = next(each.name for each in plan.lock().images if short_name(each.name) == "etcd")
    return image.rpartition(":")[2].removeprefix("v").partition("-")[0]


def _running() -> list[str]:
    """Members that run and agree, unless it was said that their data is to go."""
    cluster = plan.settings().cluster_name
    if str(host.data.get("replace_running")) == cluster:
        return []
    states = ask(Members, plan.topology().control_planes)
    running = [name for name, state in states.items() if state["state"] == "running"]
    if not running:
        return []
    return [
        f"{', '.join(running)}: etcd runs there and has a quorum, and what was written since the backup would be lost. "
        f"If that is what you want, add --data replace_running={cluster}; it is set aside all the same."
    ]


def _room(found: dict[str, RestoreState], members: tuple[str, ...], size: int) -> list[str]:
    needed = 2 * size // 2**20 + 128
    short = [
        f"{name}: {found[name]['free_mib']} MiB are free in /var/lib/etcd, {needed} are needed beside the old data, "
        "which stays. Make room."
        for name in members
        if found[name]["free_mib"] < needed
    ]
    without = [name for name in members if found[name]["program"] == "absent"]
    lacking = [f"{name}: there is no etcdutl. Run deploys/packages.py." for name in without]
    return short + lacking


def _tell(wanted: Restore, found: dict[str, RestoreState], begun: bool) -> None:
    """What the run is about to do, and what it leaves out."""
    logger.info("The backup is %s", wanted.manifest.words())
    if begun:
        logger.info("A restore of it was begun as %s and is gone on with", wanted.id)
    left = [name for name, state in found.items() if name not in wanted.members]
    if left:
        logger.warning(
            "%s: no member of etcd by kubeadm's manifests. The restore is onto %s; then run deploys/cluster.py, which "
            "joins control planes anew.", ", ".join(left), ", ".join(wanted.members),
        )  # fmt: skip
    plain = [name for name in wanted.members if found[name]["program"] == "plain"]
    if plain:
        logger.warning(
            "%s: etcdutl there cannot have revisions move forward. Programs that watch the API and are not restarted "
            "here, such as operators, must be.", ", ".join(plain),
        )  # fmt: skip


plan.run(__name__, etcd_restore)
