"""Certificates renewed before they end, one control plane at a time, until ports serve the new ones.

Hosts: control_plane; of workers the kubelet's own certificate. Renewed is what ends within `certificate_warning_days`,
or within N days by `--data renew_within=N`; an API server's certificate is made anew for other names too
(`api_cert_extra_sans`, hosts added). Of a cluster whose certificates have all ended, every control plane is restarted
before the first must answer. Changes: /etc/kubernetes/pki, kubeconfigs in /etc/kubernetes, restarts of static pods and
kubelets, the ConfigMap kubeadm-config, secrets/ on the control machine. Undo: what was replaced is in
/var/lib/pyinfra-kubeadm/replaced-certificates, by time.
"""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from cluster.certificates import ADMIN
from deploys import expiry, live, plan
from operations import certificates, pki


@deploy("Renewal of certificates")
def renew_certificates() -> None:
    plan.refuse(live.moving())
    settings, topology, me = plan.settings(), plan.topology(), plan.me()
    renewal = expiry.renewal()
    first = topology.first_control_plane
    question = None if me in topology.load_balancers else expiry.question(me)
    for each in host.loop(renewal.order):
        if me == each and question:
            certificates.renew(
                name=f"Renew certificates of {each.name}",
                settings=settings, topology=topology, node=me, question=question, within=renewal.within,
                together=renewal.together,
            )  # fmt: skip
            certificates.restart(
                name=f"Restart what has other certificates on {each.name}",
                settings=settings, topology=topology, node=me, question=question, within=renewal.within,
                together=renewal.together,
            )  # fmt: skip
        plan.barrier(f"certificates of {each.name}")
    if renewal.together and me in topology.control_planes and question:
        certificates.prove(name="See that every control plane serves its certificates", node=me, question=question)
    plan.barrier("certificates of control planes")
    if question:
        certificates.kubelet(name="Renew the kubelet's own certificate", question=question, within=renewal.within)
    if me == first:
        certificates.share_names(
            name="Have the cluster's configuration ask for these names", settings=settings, topology=topology
        )
        pki.kubeconfig(
            name="Keep the administrator's kubeconfig",
            dest=str(Path(settings.secrets_dir) / settings.cluster_name / "admin.conf"),
            renewed=any(kind.path == ADMIN for kind in renewal.works[first.name].files),
        )


plan.run(__name__, renew_certificates, options=("renew_within",))
