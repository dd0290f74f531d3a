"""containerd, with the whole of its configuration, and crictl's (guide 3.2).

Hosts: control_plane, worker. Changes: packages, /etc/containerd, /etc/crictl.yaml, containerd.service.
Undo: `apt-mark unhold containerd runc`, then remove them.
"""

from pyinfra.api import deploy

from cluster.pieces import image
from deploys import plan
from operations import bundle_server, file, service

CONFIG = "/etc/containerd/config.toml"
HOSTS = "/etc/containerd/certs.d/_default/hosts.toml"
TRUST = "/etc/containerd/certs.d/bundle-servers.crt"


@deploy("Runtime")
def runtime() -> None:
    if plan.me() not in plan.topology().load_balancers:
        plan.packages("base", "runtime", hold="runtime", name="Install containerd and what kubelet calls")
        configured = file.content(
            name="Write containerd's configuration",
            dest=CONFIG,
            content=plan.template("containerd/config.toml.j2", pause=image(plan.lock(), "pause").name),
        )
        bundle_server.trust(name="Trust the bundle's servers", dest=TRUST, servers=plan.bundle_servers())
        urls = [bundle_server.url(node, plan.settings().bundle_port) for node in plan.bundle_servers()]
        # containerd reads these for each pull. Loaded images need them too: the kubelet may throw one away.
        file.content(
            name="Have containerd ask the bundle's servers for images",
            dest=HOSTS, content=plan.template("containerd/hosts.toml.j2", servers=urls, ca=TRUST),
        )  # fmt: skip
        file.content(
            name="Write crictl's configuration", dest="/etc/crictl.yaml", content=plan.template("crictl/crictl.yaml.j2")
        )
        service.unit(name="Run containerd", unit="containerd.service", restart_on=[configured], config_files=[CONFIG])
    plan.barrier("runtime")


plan.run(__name__, runtime)
