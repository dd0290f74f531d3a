"""kubeadm, kubelet, kubectl, CNI plugins, and kubelet's service (guide 3.3).

Hosts: control_plane, worker. Changes: /usr/bin, /opt/cni/bin, kubelet.service. Undo: disable the service and remove
the files.
"""

import posixpath

from pyinfra import host
from pyinfra.api import deploy

from cluster import pieces
from cluster.lock import File
from deploys import labels, plan, versions
from facts.kubeadm import KubeadmNode
from operations import bundle, file, service

UNIT = "/etc/systemd/system/kubelet.service"
DROP_IN = f"{UNIT}.d/10-kubeadm.conf"


def programs() -> dict[str, File]:
    """Programs of Kubernetes that this host runs: destination -> piece. Those of the runtime are its layer's."""
    every, runtime = (of(plan.lock(), host.groups) for of in (pieces.programs, pieces.runtime_programs))
    return {dest: file for dest, file in every.items() if dest not in {*runtime, pieces.CRICTL}}


def service_of_kubelet() -> None:
    """kubelet's unit, and the service restarted when that has changed."""
    files = [
        file.content(
            name="Write kubelet's service",
            dest=UNIT,
            content=plan.template("kubelet/kubelet.service.j2", runtime=plan.runtime().unit),
        ),
        file.content(
            name="Write kubeadm's part of it",
            dest=DROP_IN,
            content=plan.template("kubelet/10-kubeadm.conf.j2", environment=plan.family().kubelet_environment),
        ),
    ]
    others = file.aside(
        name="Set aside what else configures kubelet's service",
        directory=f"{UNIT}.d", known=(posixpath.basename(DROP_IN), *plan.settings().kubelet_drop_ins),
    )  # fmt: skip
    # Without a configuration it would only start and fail; `kubeadm init` and `join` start it.
    joined = host.get_fact(KubeadmNode)["state"] in ("control-plane", "worker")
    service.unit(
        name="Enable kubelet",
        unit="kubelet.service",
        restart_on=[*files, others],
        config_files=(UNIT, DROP_IN),
        running=joined,
        effect="pods go on",
    )


@deploy("Packages")
def packages() -> None:
    if wanted := programs():
        installed = bundle.programs(name="Install kubeadm, kubelet, kubectl and CNI plugins", wanted=wanted)
        labels.restore("programs of Kubernetes", list(wanted), [installed])
        service_of_kubelet()
    plan.barrier("packages")


def alone() -> None:
    """Unless that would give nodes of another version their programs, all at once."""
    plan.refuse(versions.behind())
    packages()


plan.run(__name__, alone)
