"""The bundle to every host (guide 2.4): once from here to a server, from there to the others, by role and content.

It goes in parts, each handed on while the next one comes (cluster/relay.py).

Hosts: all. Changes: /var/lib/pyinfra-kubeadm; on the bundle's servers nginx, /etc/bundle-server and
bundle-server.service. Undo: stop that service and remove these; all of it can be carried again.
"""

from collections.abc import Callable, Sequence
from functools import partial

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from cluster import relay
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
    servers, me = plan.bundle_servers(), plan.me()
    first, *others = servers
    # Images too, whichever way nodes get theirs: the kubelet may throw one away and ask for it again.
    wanted = everything() if me in servers else needed()
    schedule = relay.schedule(everything(), wanted, me, servers)
    # Packages come first, by which servers install what they serve with.
    brought = step(schedule, 0)
    if me == first:
        serve(after=[brought])
    brought = step(schedule, 1)
    if me in others:
        serve(after=[brought])
    later = [step(schedule, number) for number in range(2, len(schedule))]
    if me in servers:
        labels.restore("what came later", [NODE_DIRECTORY], [brought, *later])
    plan.barrier("distribute")


def step(schedule: Sequence[Sequence[File]], number: int) -> OperationMeta:
    """Have this host get its part of a step, while the others get theirs."""
    settings, servers, me = plan.settings(), plan.bundle_servers(), plan.me()
    first, *others = servers
    way: Callable[..., OperationMeta]
    if me == first:
        way = partial(bundle.carry, source=settings.bundle_dir)
    elif me in others:
        way = partial(bundle_server.fetch, servers=[first], port=settings.bundle_port)
    else:
        # Each host begins with another server, so that all of them have an equal part.
        turn = plan.topology().nodes.index(me) % len(servers)
        way = partial(bundle_server.fetch, servers=[*servers[turn:], *servers[:turn]], port=settings.bundle_port)
    # One line for all hosts: pyinfra takes calls on different lines for operations that follow one another.
    return way(
        name=f"Carry the bundle, step {number + 1} of {len(schedule)}",
        files=schedule[number],
        later=[file for part in schedule[number + 1 :] for file in part],
    )


def needed() -> list[File]:
    """The pieces that this host needs for its role."""
    return pieces(plan.lock(), host.groups, plan.release(), load=plan.settings().image_delivery == "load")


def everything() -> list[File]:
    """All pieces that any host can ask for, of whatever release, and what the site has added for people to fetch."""
    added = [each for each in plan.lock().files if each.path in plan.lock().extras]
    return [*pieces(plan.lock(), plan.GROUPS, None), *added]


def serve(after: Sequence[OperationMeta]) -> None:
    """Have this host hand the bundle on; `after` are operations that bring pieces of it."""
    plan.packages("mirror", name="Install nginx")
    labels.serve_bundle(after=after)
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
