"""The cluster's CAs replaced while it works: its own, that of aggregated API servers and etcd's (docs/certificates.md).

Hosts: all, load balancers too. CAs are replaced that end within `certificate_warning_days`, or were made before a time
by `--data made_before=2026-01-31`. A backup is taken; then in three phases, each on one node after the other, the new
CA is trusted beside the old, certificates are signed by the new, and the old is trusted no more; then another backup is
taken. With `--data through=1` the run ends after that phase. A run that was interrupted is continued by running it
again.
Changes: /etc/kubernetes/pki, kubeconfigs in /etc/kubernetes, kubelets' certificates, HAProxy's file of CAs, restarts of
all of these, the ConfigMaps cluster-info and kube-root-ca.crt, pods of kubeadm's and this project's, secrets/ on the
control machine. Undo: none once kubelets have certificates of the new CA; the old files are in
/var/lib/pyinfra-kubeadm/replaced-certificates.
"""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from cluster.certificates import HAPROXY_CA
from cluster.rotation import PHASES
from deploys import authorities, expiry, live, plan
from deploys.authorities import Rotation
from deploys.etcd_backup import etcd_backup
from operations import kubelet, pki, rotation, service


@deploy("Rotation of CAs")
def rotate_ca() -> None:
    through = last()
    plan.refuse(live.moving())
    begun = authorities.under_way()
    if not begun:
        plan.barrier("rotation of CAs")
        return
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    first = topology.first_control_plane
    if begun.fresh:
        etcd_backup()
    if me == first:
        rotation.begin(name="Make the new CAs", settings=settings, topology=topology, node=me)
    plan.barrier("the new CAs")
    if me in topology.control_planes:
        rotation.copy(name="Have both CAs on every control plane", topology=topology, node=me)
    plan.barrier("both CAs")
    for wanted in host.loop([each for each in PHASES if each <= through]):
        phase(wanted, begun)
    if through == max(PHASES):
        # Older ones have CAs that nodes do not know once the old ones are forgotten.
        etcd_backup()
        if me in topology.control_planes:
            rotation.end(name="Forget the old CAs", topology=topology)
        plan.barrier("rotation of CAs")


def last() -> int:
    """The phase after which the run ends. Raises InputError."""
    said = plan.option("through")
    if said is not None and (isinstance(said, bool) or said not in PHASES):
        raise plan.InputError(f"through: must be a phase, 1, 2 or 3, not {said!r}, such as --data through=1.")
    return max(PHASES) if said is None else int(said)


def phase(wanted: int, begun: Rotation) -> None:
    """One phase on all hosts, one after the other."""
    topology, me = plan.topology(), plan.me()
    first = topology.first_control_plane
    for each in host.loop((*topology.control_planes, *topology.workers)):
        if me == each:
            files(wanted, begun.phases[me.name])
        plan.barrier(f"phase {wanted} on {each.name}")
    if wanted == 2:
        kubelets(begun.serving)
    elif wanted >= begun.least():
        balancers(wanted)
    if me == first:
        if wanted != 2:
            rotation.publish(
                name=f"Phase {wanted}: tell nodes that join, and pods", topology=topology, at=plan.endpoint(),
                wanted=wanted,
            )  # fmt: skip
        if wanted >= begun.phases[first.name]:
            pki.kubeconfig(
                name=f"Phase {wanted}: keep the administrator's kubeconfig",
                dest=str(Path(plan.settings().secrets_dir) / plan.settings().cluster_name / "admin.conf"),
                renewed=begun.phases[first.name] < wanted,
            )
    plan.barrier(f"phase {wanted}")


def files(wanted: int, begun: int) -> None:
    """A node's files, and what reads them; `begun` is the phase that it was in."""
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    if me in topology.control_planes:
        question = expiry.question(me)
        laid = rotation.lay(
            name=f"Phase {wanted}: {PHASES[wanted]} on {me.name}",
            settings=settings, topology=topology, node=me, question=question, wanted=wanted,
        )  # fmt: skip
        rotation.restart(
            name=f"Phase {wanted}: restart what reads it on {me.name}",
            topology=topology, node=me, question=question, wanted=wanted,
        )  # fmt: skip
    else:
        laid = rotation.lay_worker(
            name=f"Phase {wanted}: {PHASES[wanted]} on {me.name}", topology=topology, wanted=wanted
        )
    if wanted != 2 and wanted >= begun:  # in the second they are restarted with their new certificates
        service.unit(
            name=f"Phase {wanted}: restart the kubelet of {me.name}",
            unit="kubelet.service", restart_on=[laid], config_files=rotation.KUBELET_READS,
        )  # fmt: skip


def kubelets(serving: bool) -> None:
    """Certificates of kubelets, which the cluster signs by the new CA now; those for serving too where it does that."""
    topology, me = plan.topology(), plan.me()
    nodes = (*topology.control_planes, *topology.workers)
    for each in host.loop(nodes):
        if me == each:
            rotation.client(name=f"Phase 2: the kubelet's certificates on {me.name}", topology=topology, node=me)
        plan.barrier(f"the kubelet of {each.name}")
    if me == topology.first_control_plane:
        kubelet.approve(
            name="Phase 2: approve serving certificates of kubelets", nodes=nodes, wanted=False, again=serving
        )
    plan.barrier("certificates of kubelets")


def balancers(wanted: int) -> None:
    """HAProxy's CAs, by which it knows API servers."""
    for each in host.loop(plan.balancers()):
        if plan.me() == each:
            laid = rotation.balancer(
                name=f"Phase {wanted}: HAProxy's CAs on {each.name}", topology=plan.topology(), wanted=wanted
            )
            service.unit(
                name=f"Phase {wanted}: reload HAProxy on {each.name}",
                unit="haproxy.service", reload_on=[laid], config_files=[HAPROXY_CA],
            )  # fmt: skip
        plan.barrier(f"HAProxy on {each.name}")


plan.run(__name__, rotate_ca, options=("made_before", "through"))
