"""containerd, with the whole of its configuration, and crictl's (guide 3.2).

Hosts: control_plane, worker. Changes: packages, /etc/containerd/config.toml, /etc/crictl.yaml, containerd.service.
Undo: `apt-mark unhold containerd runc`, then remove them.
"""

from pyinfra.api import deploy

from cluster.pieces import image
from deploys import plan
from operations import file, service

CONFIG = "/etc/containerd/config.toml"


@deploy("Runtime")
def runtime() -> None:
    if plan.me() not in plan.topology().load_balancers:
        plan.packages("base", "runtime", hold="runtime", name="Install containerd and what kubelet calls")
        configured = file.content(
            name="Write containerd's configuration",
            dest=CONFIG,
            content=plan.template("containerd/config.toml.j2", pause=image(plan.lock(), "pause").name),
        )
        file.content(
            name="Write crictl's configuration", dest="/etc/crictl.yaml", content=plan.template("crictl/crictl.yaml.j2")
        )
        service.unit(name="Run containerd", unit="containerd.service", restart_on=[configured], config_files=[CONFIG])
    plan.barrier("runtime")


plan.run(__name__, runtime)
