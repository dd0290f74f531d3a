"""The container runtime, with the whole of its configuration, and crictl (guide 3.2).

Hosts: control_plane, worker. Changes: packages, /usr/bin, /etc/crictl.yaml; of containerd /etc/containerd, /etc/nerdctl
and containerd.service; of CRI-O /etc/crio, /etc/containers and crio.service. Undo: stop the service; `apt-mark unhold`
and remove the packages, or remove what the bundle brought; docs/runtimes.md names it.
"""

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from cluster import pieces
from cluster import runtime as runtimes
from cluster.runtime import REGISTRIES, Wanted
from deploys import labels, live, plan
from operations import bundle, bundle_server, containerd, crio, file, service
from operations import runtime as operations

HOSTS = f"{REGISTRIES}/_default/hosts.toml"
TRUST = f"{REGISTRIES}/bundle-servers.crt"
MIRRORS = "/etc/containers/registries.conf.d/10-bundle.conf"


@deploy("Runtime")
def runtime() -> None:
    wanted, topology = plan.runtime(), plan.topology()
    nodes = plan.in_run((*topology.control_planes, *topology.workers))
    # In a cluster one node comes first: a runtime that does not start there ends the run before the others have it.
    alone = live.joined()[-1:]
    for some in host.loop((alone, [each for each in nodes if each not in alone])):
        if plan.me() in some:
            {"containerd": _containerd, "cri-o": _crio}[wanted.name](wanted)
        plan.barrier("runtime")


def _containerd(wanted: Wanted) -> None:
    carried = runtimes.is_carried(plan.lock())
    plan.packages(
        "base", "runtime", hold="runtime", name=f"Install {'' if carried else 'containerd and '}what kubelet calls"
    )
    changed, files = _install(wanted, "containerd and runc", "containerd/containerd.service.j2")
    release = plan.lock().versions(plan.release())["containerd"]
    version = runtimes.config_version(release)
    text = plan.template(
        f"containerd/config-{1 if version == 2 else 2}.toml.j2",
        version=version,
        cni_directories=runtimes.has_cni_directories(release),
        drop_ins=containerd.DROP_INS,
        pause=wanted.pause,
        driver=wanted.driver,
        registries=REGISTRIES,
    )
    configured = file.content(
        name="Write containerd's configuration", dest=containerd.CONFIG, content=text,
        validate=containerd.check_script(wanted.pause, wanted.driver), packaged=True,
    )  # fmt: skip
    bundle_server.trust(name="Trust the bundle's servers", dest=TRUST, servers=plan.bundle_servers())
    urls = [f"https://{bundle_server.registry(node, plan.settings().bundle_port)}" for node in plan.bundle_servers()]
    # containerd reads these for each pull. Loaded images need them too: the kubelet may throw one away.
    file.content(
        name="Have containerd ask the bundle's servers for images",
        dest=HOSTS, content=plan.template("containerd/hosts.toml.j2", servers=urls, ca=TRUST),
    )  # fmt: skip
    file.content(
        name="Write nerdctl's configuration",
        dest="/etc/nerdctl/nerdctl.toml",
        content=plan.template("containerd/nerdctl.toml.j2", socket=wanted.socket, registries=REGISTRIES),
    )
    _run(wanted, [*changed, configured], [*files, containerd.CONFIG, containerd.DROP_INS])


def _crio(wanted: Wanted) -> None:
    plan.packages("base", "runtime", hold="runtime", name="Install what CRI-O and kubelet call")
    changed, files = _install(wanted, "CRI-O", "crio/crio.service.j2")
    policy = file.content(
        name="Write CRI-O's policy of signatures", dest=crio.POLICY, content=plan.template("crio/policy.json.j2")
    )
    text = plan.template(
        "crio/10-kubernetes.conf.j2",
        root=crio.ROOT,
        runroot=crio.RUNROOT,
        socket=wanted.socket,
        pause=wanted.pause,
        policy=crio.POLICY,
        driver=wanted.driver,
        oci=runtimes.oci_runtime(plan.lock()),
    )
    configured = file.content(name="Write CRI-O's configuration", dest=crio.CONFIG, content=text, validate=crio.CHECK)
    servers = [bundle_server.registry(node, plan.settings().bundle_port) for node in plan.bundle_servers()]
    for node, server in zip(plan.bundle_servers(), servers, strict=True):
        bundle_server.trust(
            name=f"Trust the bundle's server {node.name}",
            dest=f"/etc/containers/certs.d/{server}/ca.crt", servers=[node],
        )  # fmt: skip
    registries = sorted({each.registry for each in pieces.by_registry(plan.lock())})
    mirrors = file.content(
        name="Have CRI-O ask the bundle's servers for images",
        dest=MIRRORS, content=plan.template("crio/registries.conf.j2", registries=registries, servers=servers),
    )  # fmt: skip
    _run(wanted, [*changed, policy, configured, mirrors], [*files, crio.POLICY, crio.DROP_INS, MIRRORS])


def _install(wanted: Wanted, what: str, unit: str) -> tuple[list[OperationMeta], list[str]]:
    """crictl, and a runtime that is in the bundle with its unit: what this changes, and the files that it runs from."""
    every, own = (of(plan.lock(), host.groups) for of in (pieces.programs, pieces.runtime_programs))
    bundle.programs(name="Install crictl", wanted={pieces.CRICTL: every[pieces.CRICTL]})
    if not own:
        return [], []
    path = f"/etc/systemd/system/{wanted.unit}"
    installed = bundle.programs(name=f"Install {what}", wanted=own)
    labels.restore(what, list(own), [installed])
    written = file.content(name=f"Write the service of {wanted.name}", dest=path, content=plan.template(unit))
    return [installed, written], [*own, path]


def _run(wanted: Wanted, changed: list[OperationMeta], files: list[str]) -> None:
    file.content(
        name="Write crictl's configuration",
        dest="/etc/crictl.yaml", content=plan.template("crictl/crictl.yaml.j2", socket=f"unix://{wanted.socket}"),
    )  # fmt: skip
    service.unit(
        name=f"Run {wanted.name}",
        unit=wanted.unit,
        restart_on=changed,
        config_files=files,
        drift=operations.drift(wanted),
        effect="pods go on",
    )
    operations.agrees(name=f"Assert that {wanted.name} runs as configured", wanted=wanted)


plan.run(__name__, runtime)
