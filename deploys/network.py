"""The pod network (guide 6.1), by `cni`: flannel, Calico, Cilium, a bridge and routes on each node, or the user's own.

Hosts: bridge, all nodes; all others, the first control plane. Changes: /etc/kubernetes/addons and what
its manifests make; of bridge /etc/cni/net.d/10-bridge.conflist, /usr/local/sbin/pod-network, pod-network.service.
Undo: `kubectl delete -f` the manifest; or stop the service, remove the three files, and restart the host.
"""

from ipaddress import IPv4Network
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from bundle.network import calico_files
from cluster import bridge, calico, cilium, flannel
from cluster.networks import CNI_FILES
from cluster.pieces import image
from deploys import live, plan
from facts.hardware import Hardware
from operations import bridge as operations
from operations import file, kubernetes, service

ADDONS = "/etc/kubernetes/addons"


@deploy("Pod network")
def network() -> None:
    topology, me = plan.topology(), plan.me()
    if me not in topology.load_balancers and (own := CNI_FILES.get(plan.settings().cni)):
        file.aside(
            name="Set aside other networks' configuration",
            directory="/etc/cni/net.d", known=plan.settings().cni_files, before=own,
        )  # fmt: skip
    networks = {"flannel": _flannel, "calico": _calico, "cilium": _cilium, "none": _own}
    if plan.settings().cni == "bridge":
        if me not in topology.load_balancers:
            _bridge()
    elif me == topology.first_control_plane:
        networks[plan.settings().cni]()
    plan.barrier("pod network")


def _flannel() -> None:
    path = f"{ADDONS}/flannel.yaml"
    text = plan.template(
        "flannel/flannel.yaml.j2",
        image=image(plan.lock(), "flannel").name,
        endpoint=plan.endpoint(),
        net_conf=flannel.net_conf(plan.settings()),
        cni_conf=flannel.cni_conf(),
        checksum=flannel.checksum(plan.settings()),
        interface=flannel.interface(plan.settings(), plan.topology()),
    )
    written = file.content(name="Write flannel's manifest", dest=path, content=text)
    kubernetes.apply(
        name="Apply flannel and wait for it on every node",
        path=path, written_by=written, wait_for="rollout status -n kube-flannel daemonset/kube-flannel-ds",
    )  # fmt: skip


def _calico() -> None:
    """Upstream's manifests of the bundle, and what the settings say of the network."""
    settings = plan.settings()
    texts = calico_files(settings, plan.lock())
    if settings.calico_installation == "manifest":
        path = f"{ADDONS}/calico.yaml"
        text = calico.manifest(texts["calico.yaml"], settings, calico.version(settings, plan.lock(), texts))
        written = file.content(name="Write Calico's manifest", dest=path, content=text)
        kubernetes.apply(
            name="Apply Calico and wait for it on every node",
            path=path, written_by=written, wait_for="rollout status -n kube-system daemonset/calico-node",
        )  # fmt: skip
        return
    path = f"{ADDONS}/tigera-operator.yaml"
    written = file.content(
        name="Write the manifest of Calico's operator", dest=path, content="---\n".join(texts.values())
    )
    kubernetes.apply(
        name="Apply Calico's operator and wait for it",
        path=path, written_by=written, wait_for="rollout status -n tigera-operator deployment/tigera-operator",
    )  # fmt: skip
    at = calico.placement(plan.lock())
    assert at is not None, "calico.problems has seen to it"
    path, text = f"{ADDONS}/calico-installation.yaml", calico.installation(settings, at)
    written = file.content(name="Write what the operator installs", dest=path, content=text)
    kubernetes.apply(
        name="Have the operator install Calico and wait for it on every node",
        path=path, written_by=written, wait_for="wait --for=condition=Available tigerastatus/calico",
        once_there="tigerastatus/calico", seconds=300, among_others=text,
    )  # fmt: skip


def _cilium() -> None:
    """The manifest that the bundle has of the chart, for the cluster's families."""
    settings, topology = plan.settings(), plan.topology()
    text = Path(settings.bundle_dir, cilium.path(settings)).read_text()
    path, nodes = f"{ADDONS}/cilium.yaml", len(topology.control_planes) + len(topology.workers)
    written = file.content(
        name="Write Cilium's manifest",
        # A site's values may have the chart make certificates.
        dest=path, content=cilium.manifest(text, nodes), mode="600", secret="\nkind: Secret\n" in text,
    )  # fmt: skip
    kubernetes.apply(
        name="Apply Cilium and wait for it on every node",
        path=path, written_by=written, wait_for=f"rollout status -n {cilium.NAMESPACE} daemonset/cilium", seconds=300,
    )  # fmt: skip


def _own() -> None:
    """The user's own manifest, where one is named; else there is nothing to do, and `verify` says what that leaves."""
    if given := plan.settings().cni_manifest:
        path = f"{ADDONS}/network.yaml"
        written = file.content(name="Write the network's manifest", dest=path, content=Path(given).read_text())
        kubernetes.apply(
            name="Apply the network and wait until every node is ready",
            path=path, written_by=written, wait_for="wait --for=condition=Ready node --all",
        )  # fmt: skip


def _bridge() -> None:
    topology, me, pods = plan.topology(), plan.me(), plan.settings().pod_subnet.first
    assert isinstance(pods, IPv4Network), "networks.problems has refused others"
    operations.configure(
        name="Configure the bridge of this node's pods",
        topology=topology, node=me, mtu=_mtu(), dest=f"/etc/cni/net.d/{CNI_FILES['bridge']}",
    )  # fmt: skip
    routes = operations.connect(name="Write routes to other nodes' pods", topology=topology, node=me, pods=pods)
    path = f"/etc/systemd/system/{bridge.UNIT}"
    text = plan.template("bridge/pod-network.service.j2", script=bridge.SCRIPT)
    written = file.content(name="Write the service of the routes", dest=path, content=text)
    service.unit(
        name="Have the routes, now and at boot",
        unit=bridge.UNIT, restart_on=[routes, written], config_files=[bridge.SCRIPT, path],
        drift=operations.drift(topology, me, pods),
    )  # fmt: skip


def _mtu() -> int:
    """That of the interface with this host's address; Ethernet's usual one where that is not known."""
    rows = host.get_fact(Hardware)["addresses"]
    return next((row["mtu"] for row in rows if row["address"] == str(plan.me().address)), 1500)


def alone() -> None:
    """Unless the cluster is to follow to another virtual IP first: API servers' certificates would not have it."""
    plan.refuse(live.moving())
    network()


plan.run(__name__, alone)
