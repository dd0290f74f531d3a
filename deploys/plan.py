"""What every layer needs while planning: the checked settings, topology and bundle of this run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host, inventory
from pyinfra.api import operation
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import OperationMeta

from bundle.verify import BundleError, read_lock
from cluster.lock import Lock
from cluster.settings import Settings, SettingsError, load
from cluster.topology import Node, Topology, check
from operations import package

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


class InputError(PyinfraError):
    """The inventory, settings or bundle cannot work; nothing was changed on any host."""


def settings() -> Settings:
    """The settings of this host, checked. Raises InputError with every problem."""
    try:
        return load(host.data.dict())
    except SettingsError as error:
        raise InputError(str(error)) from None


def node_of(name: str) -> Node:
    data = inventory.get_host(name).data
    address = data.get("address") or data.get("ssh_hostname") or name
    try:
        return Node(name, IPv4Address(address))
    except ValueError:
        raise InputError(
            f"{name}: address {address!r} is not an IPv4 address. kubeadm, etcd and HAProxy are configured with it. "
            "Set `address` for this host in the inventory."
        ) from None


def topology() -> Topology:
    """All hosts of the inventory by role, `--limit` or not."""
    groups = {name: tuple(node_of(member.name) for member in inventory.groups.get(name, ())) for name in GROUPS}
    return Topology(
        control_planes=groups["control_plane"],
        workers=groups["worker"],
        load_balancers=groups["load_balancer"],
    )


def problems() -> list[str]:
    """Everything wrong with this run's topology, in words."""
    return check(topology(), settings())


@lru_cache(maxsize=1)
def _lock(directory: str) -> Lock:
    return read_lock(Path(directory))


def lock() -> Lock:
    """The lock of the bundle on this machine. Raises InputError when it cannot be read."""
    try:
        return _lock(settings().bundle_dir)
    except BundleError as error:
        raise InputError(str(error)) from None


def packages(*sets: str, name: str, hold: str | Sequence[str] = ()) -> OperationMeta:
    """Install sets of packages of the bundle, such as "runtime"; `hold` is a set, or names of packages."""
    known = lock().package_sets[RELEASE]
    names = [package for each in sets for package in known[each]]
    held = known[hold] if isinstance(hold, str) else hold
    versions = {row.name: row.version for row in lock().packages if row.release == RELEASE}
    return package.packages(name=name, names=names, versions=versions, release=RELEASE, hold=held)


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
        if found := problems():
            raise InputError("Nothing was changed on any host:\n" + "\n".join(f"  - {line}" for line in found))
        layer()
