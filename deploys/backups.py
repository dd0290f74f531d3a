"""What deploys of backups need while planning, once a run.

pyinfra executes the file of a deploy anew for every host: what all of them must be told alike is looked at here.
"""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path

from pyinfra import logger

from cluster.backup import MANIFEST, NODE_DIRECTORY, PRIVATE_DIRECTORY, BackupError, sha256, unsuitable
from cluster.pieces import short_name
from cluster.topology import Node
from deploys import plan
from deploys.ask import ask
from facts.etcd import ETCDCTL, Leader, Members
from facts.restore import Restoration, RestoreState
from operations import backup
from operations.once import once
from operations.restore import Restore, ids

# What all control planes share; kubeadm makes the rest of the PKI of it.
SHARED = (
    "ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key",
)  # fmt: skip
PKI = "etc/kubernetes/pki/"
END = "-----END CERTIFICATE-----\n"


def script() -> str:
    """The program that makes a backup, of this run's settings."""
    return plan.template(
        "backup/etcd-backup.j2",
        directory=NODE_DIRECTORY, private=PRIVATE_DIRECTORY, etcdctl=ETCDCTL, certificate=plan.backup_certificate(),
    )  # fmt: skip


@once
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


@once
def _opened() -> backup.Opened:
    """The backup that was named, checked and decrypted. Raises InputError."""
    named, key = plan.option("backup"), plan.option("backup_key")
    if not named:
        plan.refuse(["no backup is named: add --data backup=DIRECTORY, such as secrets/NAME/backups/..."])
    try:
        return backup.opened(Path(str(named)).expanduser(), Path(str(key)).expanduser() if key else None)
    except BackupError as error:
        plan.refuse([str(error)])
        raise


def authority() -> str | None:
    """The CA of the backup that this run restores, by its hash; None in a run that restores none."""
    return _opened().manifest.ca_cert_hash if plan.option("backup") else None


def authorities() -> dict[str, str]:
    """What of the backup's PKI every control plane shares, and what else it has, by path on the node."""
    with tarfile.open(_opened().pki) as tar:
        members = {each.name: each for each in tar if each.isfile()}
        wanted = [name for name in members if not name.startswith(PKI) or name.removeprefix(PKI) in SHARED]
        texts = {name: file.read().decode() for name in wanted if (file := tar.extractfile(members[name]))}
    if f"{PKI}rotation/old/ca.crt" in members:
        # Of two CAs in a file the first signs; kube-controller-manager, as kubeadm makes it, takes one alone.
        texts |= {name: "".join(texts[name].partition(END)[:2]) for name in wanted if name.endswith("ca.crt")}
    return {f"/{name}": texts[name] for name in wanted}


@once
def restore() -> tuple[Restore, bool]:
    """The restore, and whether its control plane is to be made first. Raises InputError with all that forbids it."""
    settings, topology = plan.settings(), plan.topology()
    source = _opened()
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
    end = sha256(source.directory / MANIFEST)[:8]
    begun = ids(list(found.values()), end)
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
    known = {name: state["ca_cert_hashes"] for name, state in found.items()}
    for version in sorted(versions):
        problems += unsuitable(source.manifest, settings.cluster_name, settings.kubernetes_version, version, known)
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
    """Members that have a quorum, unless it was said that their data is to go."""
    cluster = plan.settings().cluster_name
    if str(plan.option("replace_running")) == cluster:
        return []
    leaders = ask(Leader, plan.topology().control_planes)
    running = [name for name, leader in leaders.items() if leader == "known"]
    if not running:
        return []
    return [
        f"{', '.join(running)}: etcd runs there and has a quorum, and what was written since the backup would be lost. "
        f"If that is what you want, add --data replace_running={cluster}; it is set aside all the same."
    ]


def _room(found: dict[str, RestoreState], members: tuple[str, ...], size: int) -> list[str]:
    needed = 2 * size // 2**20 + 128
    short = [
        f"{name}: there is room for {found[name]['room_mib']} MiB in /var/lib/etcd, {needed} are needed beside the old "
        "data, which stays. Make room."
        for name in members
        if found[name]["room_mib"] < needed
    ]
    without = [name for name in members if found[name]["program"] == "absent"]
    lacking = [f"{name}: there is no etcdutl. Run deploys/packages.py." for name in without]
    return short + lacking


def _tell(wanted: Restore, found: dict[str, RestoreState], begun: bool) -> None:
    """What the run is about to do, and what it leaves out."""
    logger.info("The backup is %s", wanted.manifest.words())
    if begun:
        logger.info("A restore of it was begun as %s and is gone on with", wanted.id)
    members = [found[name] for name in wanted.members]
    if begun and all(wanted.swapped(state) and not state["aside"] for state in members):
        kept = ", ".join(name for name in wanted.members if wanted.id in found[name]["works"])
        logger.warning(
            "Its data has been in place on all members since, so nothing is restored anew: only what is left of it is "
            "removed. To restore it once more, run this again afterwards; where etcd does not come up, remove %s on %s "
            "first, a copy of the snapshot.", wanted.work, kept,
        )  # fmt: skip
    left = [name for name, state in found.items() if name not in wanted.members]
    if left:
        logger.warning(
            "%s: no member of etcd by kubeadm's manifests. The restore is onto %s; then run deploys/cluster.py, which "
            "joins control planes anew.", ", ".join(left), ", ".join(wanted.members),
        )  # fmt: skip
    if any(len(state["ca_cert_hashes"]) > 1 for state in found.values()):
        logger.warning(
            "A rotation of CAs is under way, of which the backup may know nothing. Then run deploys/rotate_ca.py: it "
            "tells nodes that join, and pods, of the CAs again and goes on."
        )
    plain = [name for name in wanted.members if found[name]["program"] == "plain"]
    if plain:
        logger.warning(
            "%s: etcdutl there cannot have revisions move forward. Programs that watch the API and are not restarted "
            "here, such as operators, must be.", ", ".join(plain),
        )  # fmt: skip
