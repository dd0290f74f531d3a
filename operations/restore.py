"""A restore of etcd, step by step on all its members; each step is decided by what the members are.

New data is made beside the old while whatever runs still runs. Then all static pods stop, the old data is set aside by
renaming and the new one takes its place; nothing is deleted but copies of the snapshot
(https://etcd.io/docs/v3.6/op-guide/recovery/).
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pyinfra import host, inventory
from pyinfra.api import FunctionCommand, OperationError, StringCommand, operation

from cluster.backup import Manifest, sha256
from cluster.topology import Node
from facts.checksum import Checksums
from facts.etcd import ETCDCTL
from facts.restore import ASIDE, BEFORE, DATA, MANIFESTS, WORK, Restoration, RestoreState
from operations import transfer
from operations.change import will
from operations.kubeadm import own_api, ready

PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
BUMPS = "etcdutl snapshot restore --help 2>&1 | grep -q -e --bump-revision"
Commands = Generator[StringCommand | FunctionCommand, None, None]


@dataclass(frozen=True)
class Restore:
    """One restore: of which backup, under which name, onto which members."""

    id: str
    manifest: Manifest
    snapshot: Path
    members: tuple[str, ...]

    @property
    def work(self) -> str:
        """Where a member's copy of the snapshot and its new data are made."""
        return WORK + self.id

    @property
    def before(self) -> str:
        """Where the old data is set aside."""
        return BEFORE + self.id

    @property
    def bump(self) -> int:
        """By how much revisions move forward: to the microseconds since 1970 when the restore was begun.

        No cluster writes as many in that time, so a later restore, of whichever backup, has later revisions than any
        watcher has seen. Where clocks went back, at least the backup's own are left behind.
        """
        moment = datetime.strptime(self.id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return max(10**6 * int(moment.timestamp()) - self.manifest.revision, 10**9)

    def swapped(self, state: RestoreState) -> bool:
        """Whether a member has its new data in place."""
        return self.id in state["befores"] and state["works"].get(self.id) != "prepared"


def states(restore: Restore) -> dict[str, RestoreState]:
    """What each member is now."""
    return {name: inventory.get_host(name).get_fact(Restoration) for name in restore.members}


def restore_script(restore: Restore, name: str, peers: dict[str, str], digest: str) -> str:
    """Shell that makes a member's new data from its copy of the snapshot."""
    flags = {
        "--name": name,
        "--initial-cluster": ",".join(f"{each}={url}" for each, url in peers.items()),
        "--initial-cluster-token": restore.id,
        "--initial-advertise-peer-urls": peers[name],
    }
    words = " ".join(f"{flag} {shlex.quote(value)}" for flag, value in flags.items())
    return (
        f"umask 077; cd {restore.work} && "
        f'{{ test "$(sha256sum < snapshot.db | cut -d" " -f1)" = {digest} || '
        "{ echo 'the snapshot did not come whole: run again' >&2; exit 1; }; } && "
        "etcdutl snapshot status snapshot.db -w json >/dev/null && rm -rf data.new data || exit 1; "
        # 3.6 and late 3.5 have it; without it watchers must be started anew, as API servers and kubelets are anyway.
        f"more=; if {BUMPS}; then more='--bump-revision {restore.bump} --mark-compacted'; fi; "
        f"etcdutl snapshot restore snapshot.db --data-dir data.new {words} $more >restore.log 2>&1 || "
        "{ tail -n 5 restore.log >&2; exit 1; }; sync && mv -T data.new data"
    )


STOP = (
    f"umask 077; mkdir -p {ASIDE}; for p in {' '.join(PODS)}; do test ! -e {MANIFESTS}/$p.yaml || "
    f"mv -f {MANIFESTS}/$p.yaml {ASIDE}/ || exit 1; done; sync; "
    # Pods, not containers: one that fails again and again has a pod all the time.
    "left() { crictl pods -q --state ready --namespace '^kube-system$' --label tier=control-plane; }; "
    # The kubelet stops what has no manifest; where it does not run, nobody else would.
    'for i in $(seq 150); do l=$(left) || exit 1; test -n "$l" || exit 0; '
    "test $i -ne 90 || crictl stopp $l >/dev/null; sleep 1; done; "
    "echo 'static pods are still running:' >&2; crictl pods >&2; exit 1"
)


def swap_script(restore: Restore) -> str:
    """Shell that sets the old data aside and puts the new in its place, or goes on where it was stopped."""
    return (
        f"umask 077; mkdir -p {restore.before} && "
        f"if test -e {DATA}/member; then mv -T {DATA}/member {restore.before}/member; fi && "
        f"mv -T {restore.work}/data/member {DATA}/member && sync"
    )


def put_back(*pods: str, verb: str = "start") -> str:
    """Shell that has the kubelet run static pods again; a `restart` of it forgets how often they have failed."""
    moves = " && ".join(f"{{ test ! -e {ASIDE}/{pod}.yaml || mv -f {ASIDE}/{pod}.yaml {MANIFESTS}/; }}" for pod in pods)
    return f"{moves} && timeout 90 systemctl {verb} kubelet.service"


def etcd_script(restore: Restore, seconds: int = 180) -> str:
    """Shell that runs the member, waits until it is healthy, and compares its keys with the backup's.

    Keys of leases end with these: they are counted at the revision that was restored, while no API server writes.
    """
    manifest = restore.manifest
    return (
        f"{put_back('etcd', verb='restart')} || exit 1; end=$(($(date +%s) + {seconds})); "
        f"until {ETCDCTL} endpoint health >/dev/null 2>&1; do test $(date +%s) -lt $end || "
        f"{{ echo 'etcd is not healthy after {seconds} s; it says:' >&2; "
        "crictl logs --tail 10 $(crictl ps -a -q --name '^etcd$' | head -n 1) >&2; exit 1; }; sleep 1; done; "
        f"test -e {ASIDE}/kube-apiserver.yaml || exit 0; "
        f"r={manifest.revision}; if {BUMPS}; then r=$((r + {restore.bump})); fi; "
        f'n=$({ETCDCTL} get "" --from-key --count-only --rev=$r -w fields | sed -n \'s/^"Count" : //p\'); '
        f'test "$n" = {manifest.live_keys} || {{ '
        f'echo "etcd has $n keys, the backup {manifest.live_keys}: API servers stay off" >&2; exit 1; }}'
    )


def controllers_script(seconds: int = 120) -> str:
    """Shell that runs the controllers, and waits until both have stayed up for 5 s, for one that fails is begun again
    and again."""
    pods = ("kube-controller-manager", "kube-scheduler")
    ps = f"crictl ps -q --state Running --name '^({'|'.join(pods)})$' --label io.kubernetes.pod.namespace=kube-system"
    return (
        f"{put_back(*pods)} || exit 1; rmdir {ASIDE} 2>/dev/null; "
        f"seen=; for i in $(seq {seconds // 5}); do now=$({ps} | sort); "
        'test $(echo "$now" | wc -w) -eq 2 && test "$now" = "$seen" && exit 0; seen=$now; sleep 5; done; '
        f"echo '{' and '.join(pods)} do not both stay up within {seconds} s; they say:' >&2; "
        f'for p in {" ".join(pods)}; do crictl logs --tail 10 $(crictl ps -a -q --name "^$p$" | head -n 1) >&2; done; '
        "exit 1"
    )


@operation()
def prepare(restore: Restore) -> Commands:
    """
    Send the snapshot to this member, check it there, and make the new data beside the old.

    + restore: the restore; on members that it finds prepared or done by an interrupted run it goes on
    """
    found = states(restore)
    mine = found[host.name]
    done = [name for name, state in found.items() if restore.swapped(state)]
    if host.name in done or (done and mine["works"].get(restore.id) == "prepared"):
        host.noop(f"the new data of {host.name} is there")
        return
    if done:
        raise OperationError(
            f"{host.name}: {', '.join(done)} already have the data of this restore, and {host.name} was not made ready "
            f"for it. To begin anew, rename {restore.before} and {restore.work} on {', '.join(done)}, then run again."
        )
    will(f"send the snapshot to {WORK}TIME, check it by etcdutl, and make the new data of {host.name} there")
    yield StringCommand(f"umask 077; mkdir -p {restore.work}")
    dest, digest = f"{restore.work}/snapshot.db", sha256(restore.snapshot)
    if host.get_fact(Checksums, paths=(dest,)).get(dest) != digest:
        yield FunctionCommand(transfer.send, (restore.snapshot, dest), {})
    peers = {state["name"]: state["peer_url"] for state in states(restore).values()}
    yield StringCommand(restore_script(restore, states(restore)[host.name]["name"], peers, digest))


@operation()
def stop(restore: Restore) -> Commands:
    """
    Stop the four static pods of this member, whose manifests are set aside, unless all members have their new data.

    + restore: the restore
    """
    if all(map(restore.swapped, states(restore).values())):
        host.noop("every member has its new data")
        return
    will(f"move the manifests of {', '.join(PODS)} to {ASIDE}, and wait until these have stopped")
    yield StringCommand(STOP)


@operation()
def swap(restore: Restore) -> Commands:
    """
    Set the old data of this member aside, and put the new in its place.

    + restore: the restore
    """
    if restore.swapped(host.get_fact(Restoration)):
        host.noop(f"{host.name} has its new data")
        return
    will(f"set the data in {DATA}/member aside, as {BEFORE}TIME/member, and put the new in its place")
    yield StringCommand(swap_script(restore))


@operation()
def start_etcd(restore: Restore) -> Commands:
    """
    Run etcd with its new data, wait until it is healthy, and see that it has every key of the backup.

    + restore: the restore
    """
    will(f"run etcd, wait until it is healthy and see that it has the backup's {restore.manifest.live_keys} keys")
    yield StringCommand(etcd_script(restore))


@operation()
def start_api_server(node: Node) -> Commands:
    """
    Run this control plane's API server, and wait until it is ready.

    + node: this host
    """
    will("run kube-apiserver and wait until it is ready")
    yield StringCommand(put_back("kube-apiserver"))
    yield StringCommand(ready(own_api(node)))


@operation()
def start_controllers() -> Commands:
    """Run kube-controller-manager and kube-scheduler, which read everything anew, and wait until they run."""
    will("run kube-controller-manager and kube-scheduler and wait until they run")
    yield StringCommand(controllers_script())


@operation()
def restart_kubelet() -> Commands:
    """Have the kubelet of this node read its pods anew from the API."""
    will("restart the kubelet")
    yield StringCommand(
        "if test -e /etc/kubernetes/kubelet.conf; then timeout 90 systemctl restart kubelet.service; fi"
    )


@operation()
def finish(restore: Restore) -> Commands:
    """
    Remove this member's copy of the snapshot; the old data stays where it was set aside.

    + restore: the restore
    """
    will(f"remove {WORK}TIME, the copy of the snapshot; the old data stays in {BEFORE}TIME")
    yield StringCommand(f"rm -rf {restore.work}")
    host.log(f"The data from before is in {restore.before}: remove it when the cluster is well.")


def ids(found: Sequence[RestoreState], backup: str) -> list[str]:
    """Restores of a backup that were begun on these control planes and not ended, by their ids' ends."""
    return sorted({each for state in found for each in state["works"] if each.endswith(f"-{backup}")})
