"""What every layer needs while planning: the checked settings, topology and bundle of this run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host, inventory
from pyinfra.api import operation
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import OperationMeta

from bundle.verify import BundleError, read_lock, verify
from cluster import balancing, configuration, networks, ports
from cluster import runtime as runtimes
from cluster import topology as roles
from cluster.compatibility import refusals
from cluster.endpoint import Endpoint
from cluster.families import addresses
from cluster.findings import unknown
from cluster.lock import Lock
from cluster.runtime import Wanted
from cluster.settings import Settings, SettingsError, disagreements, load
from cluster.topology import Node, Topology, check
from operations import file, package

GROUPS = ("control_plane", "worker", "load_balancer")
# The distribution whose packages the bundle has.
RELEASE = "debian-12"

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals["Endpoint"] = Endpoint


class InputError(PyinfraError):
    """The inventory, settings or bundle cannot work; nothing was changed on any host."""


def settings(name: str | None = None) -> Settings:
    """The settings of this host or the named one, checked. Raises InputError with every problem."""
    try:
        return load((inventory.get_host(name) if name else host).data.dict())
    except SettingsError as error:
        raise InputError(str(error)) from None


def node_of(name: str) -> Node:
    data = inventory.get_host(name).data
    address = data.get("address") or data.get("ssh_hostname") or name
    try:
        return Node(name, *addresses(address).each)
    except ValueError as error:
        raise InputError(
            f"{name}: address {address!r}: {error}. kubeadm, etcd and HAProxy are configured with it. Set `address` "
            "for this host in the inventory."
        ) from None


def topology() -> Topology:
    """All hosts of the inventory by role, `--limit` or not."""
    groups = {name: tuple(node_of(member.name) for member in inventory.groups.get(name, ())) for name in GROUPS}
    return Topology(
        control_planes=groups["control_plane"],
        workers=groups["worker"],
        load_balancers=groups["load_balancer"],
    )


def bundle_servers() -> tuple[Node, ...]:
    """Hosts that hand the bundle on, in the settings' order; the first gets it from this machine."""
    return roles.bundle_servers(topology(), settings())


def balancers() -> tuple[Node, ...]:
    """Hosts that run HAProxy and Keepalived, in the inventory's order."""
    return balancing.balancers(settings(), topology())


def endpoint() -> Endpoint:
    """Where nodes and people find the API."""
    return balancing.endpoint(settings(), topology())


@cache
def problems() -> list[str]:
    """Everything wrong with the inventory, the settings and the lock, in words; asks no host, and looks once a run."""
    mine, known = settings(), topology()
    found = disagreements({node.name: settings(node.name) for node in known.nodes}) + check(known, mine)
    found += networks.check(known, mine) + balancing.check(known, mine) + ports.clashes(known, mine)
    found += unknown(mine.waived_checks)
    found += _documents(known)
    found += refusals(lock().kubernetes_version, lock().versions(RELEASE))
    found += runtimes.problems(mine, lock(), RELEASE)
    if lock().kubernetes_version != mine.kubernetes_version:
        found.append(
            f"{mine.bundle_dir}/bundle.lock is for Kubernetes {lock().kubernetes_version}, the settings ask for "
            f"{mine.kubernetes_version}. Build or carry the bundle of that version, or change kubernetes_version."
        )
    return found


def _documents(known: Topology) -> list[str]:
    """What Kubernetes would not take of the settings for its documents; a host's own with its name before it."""
    by_host = {node.name: configuration.problems(settings(node.name)) for node in known.nodes}
    for first in known.control_planes[:1]:
        for node in (*known.control_planes[1:], *known.workers):
            by_host[node.name] += configuration.kubelet_problems(settings(node.name), settings(first.name))
    found = dict.fromkeys(line for lines in by_host.values() for line in lines)
    whose = {line: [name for name, lines in by_host.items() if line in lines] for line in found}
    return [line if len(names) == len(by_host) else f"{', '.join(names)}: {line}" for line, names in whose.items()]


@cache
def _damage(directory: str, public_key: str | None) -> list[str]:
    return verify(Path(directory), public_key)


def damage() -> list[str]:
    """Every byte of the bundle that is not as locked, in words; looked at once a run."""
    return _damage(settings().bundle_dir, settings().bundle_public_key)


def refuse(found: Sequence[str]) -> None:
    """Stop before the first change. Raises InputError that lists what was found, if anything was."""
    if found:
        raise InputError("Nothing was changed on any host. Found:\n" + "\n".join(f"  - {line}" for line in found))


@cache
def _lock(directory: str, public_key: str | None) -> Lock:
    return read_lock(Path(directory), public_key)


def lock() -> Lock:
    """The lock of the bundle on this machine. Raises InputError when it cannot be read, or nobody vouches for it."""
    try:
        return _lock(settings().bundle_dir, settings().bundle_public_key)
    except BundleError as error:
        raise InputError(str(error)) from None


def packages(
    *sets: str, name: str, hold: str | Sequence[str] = (), unstarted: Mapping[str, str] | None = None
) -> OperationMeta:
    """Install sets of packages of the bundle, such as "runtime"; `hold` is a set, or names of packages.

    `unstarted` names units that would start by being installed: package -> unit.
    """
    known = lock().package_sets[RELEASE]
    rows = [row for row in lock().packages if row.release == RELEASE]
    return package.packages(
        name=name,
        names=[package for each in sets for package in known[each]],
        versions={row.name: row.version for row in rows},
        release=RELEASE,
        hold=known[hold] if isinstance(hold, str) else hold,
        format="rpm" if all(row.file.endswith(".rpm") for row in rows) else "deb",
        unstarted=unstarted or {},
    )


def kubelet_patch() -> bool:
    """Write what this host's kubelet_config has beyond the cluster's, for kubeadm; whether there is any."""
    patch = configuration.kubelet_patch(settings(), settings(topology().first_control_plane.name))
    if patch is not None:
        file.content(name="Write the kubelet's own configuration", dest=configuration.KUBELET_PATCH, content=patch)
    return patch is not None


def runtime() -> Wanted:
    """The container runtime of the nodes."""
    return runtimes.wanted(settings(), lock())


def template(path: str, **values: object) -> str:
    """A file of templates/ rendered with this run's settings; a name it does not know is an error."""
    return TEMPLATES.get_template(path).render(settings=settings(), **values)


def in_group(name: str) -> bool:
    """Whether this host is in a group of the inventory."""
    return name in host.groups


def me() -> Node:
    """This host as a node of the topology."""
    return node_of(host.name)


@operation(is_idempotent=True)
def _barrier() -> Generator[str, None, None]:
    host.noop("every host has come this far")
    return
    yield


def barrier(after: str) -> None:
    """Hold every host until all have done the layer before: pyinfra orders hosts by their own chains.

    An operation that is registered on all hosts is the only thing that joins those chains (pyinfra 3.10).
    """
    _barrier(name=f"Every host has finished: {after}")


def run(module: str, layer: Callable[[], object]) -> None:
    """Run a layer when its file was named on pyinfra's command line, not when it is imported.

    pyinfra executes such a file with no `__name__` of its own, so it reads that of `builtins`.
    """
    if module == "builtins":
        refuse(problems())
        layer()
