"""Add-ons (docs/addons.md): each a manifest that the first control plane applies, in the order of the setting.

Hosts: the first control plane; all control planes and workers where kubelets are to serve by certificates of the
cluster's CA. Changes: /etc/kubernetes/addons.d, what the manifests hold, /var/lib/kubelet/config.yaml.
Undo: take an add-on out of the setting; the next run says how to remove what is left.
"""

import hashlib
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import deploy

from cluster import addons as known
from deploys import plan
from facts.kubernetes import Addons
from operations import addons as operations
from operations import file, kubelet

# What a context of an administrator's kubeconfig is, but for the namespace.
CONTEXT = """\
apiVersion: v1
kind: Config
current-context: addon
contexts:
  - name: addon
    context: {{cluster: {cluster}, user: kubernetes-admin, namespace: {namespace}}}
"""


@deploy("Add-ons")
def addons(upgraded: bool = False) -> None:
    """`upgraded`: kubeadm makes CoreDNS anew before, in this run."""
    settings, topology = plan.settings(), plan.topology()
    nodes = (*topology.control_planes, *topology.workers)
    first = topology.first_control_plane
    if known.serving(settings) and plan.me() in nodes:
        if plan.me() == first:
            kubelet.share_serving(name="Have the cluster's configuration of kubelets ask for serving certificates")
        kubelet.serve_by_authority(name="Have kubelet ask the cluster's CA for its serving certificate")
    plan.barrier("configuration of kubelets")
    if plan.me() == first:
        kubelet.approve(
            name="Approve serving certificates of kubelets", nodes=nodes, wanted=known.serving(settings)
        )  # fmt: skip
        for name in host.loop(settings.addons):
            add(name, anew=upgraded and name == "coredns")
        say_what_is_left(settings.addons)
    plan.barrier("add-ons")


def add(name: str, anew: bool) -> None:
    """Apply one add-on, of this project's or the site's own; `anew` when its objects are made otherwise before."""
    path, context, also = known.manifest(name), "", ""
    if name in known.OFFERED:
        text = rendered(name)
        if name == "metrics-server":
            operations.metrics_certificate(name="Make metrics-server's certificate")
            also = "apiservice v1beta1.metrics.k8s.io"
    else:
        text = (Path(plan.settings().bundle_dir) / known.OWN / f"{name}.yaml").read_text()
        context = f"{known.DIRECTORY}/{name}.context"
        file.content(
            name=f"Write where {name} is", dest=context,
            content=CONTEXT.format(cluster=plan.settings().cluster_name, namespace=plan.lock().addons[name]),
        )  # fmt: skip
    written = file.content(name=f"Write the manifest of {name}", dest=path, content=text)
    # Pods wait for a network that is still to be installed.
    wait = plan.settings().cni != "none" or plan.settings().cni_manifest is not None
    operations.applied(
        name=f"Apply {name} and wait until it works" if wait else f"Apply {name}",
        path=path, written_by=written, context=context, also=also, wait=wait, partial=name == "coredns",
        anew=anew,
    )  # fmt: skip


def rendered(name: str) -> str:
    """The manifest of an add-on of this project's."""
    settings = plan.settings()
    values: dict[str, object] = {**known.images(name, plan.lock())}
    if name == "coredns":
        text = known.corefile(settings)
        values |= {
            "corefile": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), "spread": known.spread(settings)
        }  # fmt: skip
    if name == "node-local-dns":
        values |= {"link_local": known.LINK_LOCAL, "cluster_dns": known.cluster_dns(settings)}
    return plan.template(f"addons/{name}.yaml.j2", **values)


def say_what_is_left(wanted: tuple[str, ...]) -> None:
    """Add-ons that were applied once and are wanted no longer, and how to remove each."""
    for name in host.get_fact(Addons, directory=known.DIRECTORY):
        if name not in wanted:
            logger.warning(
                "%sadd-on %s is no longer in `addons`. It is left as it is; as root on %s: %s",
                host.print_prefix, name, host.name, known.removal(name),
            )  # fmt: skip


plan.run(__name__, addons)
