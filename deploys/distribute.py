"""The bundle to every host (guide 2.4): once from here to a server, from there to the others, by role and content.

Hosts: all. Changes: /var/lib/pyinfra-kubeadm; on the bundle's servers nginx, /etc/bundle-server and
bundle-server.service. Undo: stop that service and remove these; all of it can be carried again.
"""

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY, by_registry, pieces
from deploys import labels, plan
from operations import bundle, bundle_server, file, service

CONFIG = f"{bundle_server.DIRECTORY}/nginx.conf"
UNIT = "/etc/systemd/system/bundle-server.service"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@deploy("Distribute")
def distribute() -> None:
    plan.refuse(plan.damage())
    settings, servers, me = plan.settings(), plan.bundle_servers(), plan.me()
    first, *others = servers
    if me == first:
        # Images too, whichever way nodes get theirs: the kubelet may throw one away and ask for it again.
        carried = bundle.carry(name="Carry the bundle", source=settings.bundle_dir, files=everything())
        serve(carried)
    plan.barrier(f"the bundle on {first.name}")
    if me in others:
        fetched = bundle_server.fetch(
            name=f"Fetch the bundle from {first.name}", files=everything(), servers=[first], port=settings.bundle_port
        )
        serve(fetched)
    plan.barrier("the bundle's servers")
    if me not in servers:
        # Each host begins with another server, so that all of them have an equal part.
        turn = plan.topology().nodes.index(me) % len(servers)
        bundle_server.fetch(
            name="Fetch pieces of the bundle",
            files=pieces(plan.lock(), host.groups, plan.release(), load=settings.image_delivery == "load"),
            servers=[*servers[turn:], *servers[:turn]],
            port=settings.bundle_port,
        )
    plan.barrier("distribute")


def everything() -> list[File]:
    """All pieces that any host can ask for, of whatever release, and what the site has added for people to fetch."""
    added = [each for each in plan.lock().files if each.path in plan.lock().extras]
    return [*pieces(plan.lock(), plan.GROUPS, None), *added]


def serve(brought: OperationMeta) -> None:
    plan.packages("mirror", name="Install nginx")
    labels.serve_bundle(after=[brought])
    made = bundle_server.certificate(name="Make the server's certificate", node=plan.me())
    text = plan.template(
        "bundle-server/nginx.conf.j2",
        certificate=bundle_server.CERTIFICATE,
        key=bundle_server.KEY,
        directory=NODE_DIRECTORY,
        node=plan.me(),
        clients=plan.topology().nodes,
        images=by_registry(plan.lock()),
        media_type=MANIFEST,
    )
    written = file.content(
        name="Write the server's configuration", dest=CONFIG, content=text, validate="nginx -t -q -c {}"
    )
    unit = file.content(
        name="Write the server's service", dest=UNIT, content=plan.template("bundle-server/bundle-server.service.j2")
    )
    service.unit(
        name="Serve the bundle",
        unit="bundle-server.service",
        restart_on=[made, written, unit],
        config_files=(bundle_server.CERTIFICATE, CONFIG, UNIT),
    )


plan.run(__name__, distribute)
