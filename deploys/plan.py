"""What every layer needs while planning: the checked settings, topology and bundle of this run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host, inventory, logger
from pyinfra.api import Host as PyinfraHost
from pyinfra.api import Inventory, operation
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import OperationMeta
from pyinfra.context import ctx_host, ctx_inventory

from bundle.network import problems as network_problems
from bundle.verify import BundleError, read_lock, verify
from cluster import addons as known_addons
from cluster import addressing, backup, balancing, configuration, families, firewall, networks, ports, removal
from cluster import runtime as runtimes
from cluster import topology as roles
from cluster.changes import Host
from cluster.endpoint import Endpoint
from cluster.families import Family
from cluster.findings import report, unknown
from cluster.ip_families import addresses
from cluster.lock import Lock
from cluster.preflight.system import lacking, runtime_problems
from cluster.runtime import Wanted
from cluster.settings import Settings, SettingsError, disagreements, load
from cluster.topology import EVEN, Node, Topology, check, even
from deploys import record
from deploys.ask import at_once
from facts.hardware import Hardware, HardwareState
from operations import file, package
from operations.once import once

GROUPS = ("control_plane", "worker", "load_balancer")
# What hosts are, where preflight has asked them.
_seen: dict[str, HardwareState] = {}
# What a day-two deploy is told by `--data`, beside settings: these names.
_options: set[str] = set()

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
    return _settings(inventory.get_host(name) if name else ctx_host.get())


@once
def _settings(of: PyinfraHost) -> Settings:
    try:
        return load({key: value for key, value in of.data.dict().items() if key not in _options})
    except SettingsError as error:
        raise InputError(str(error)) from None


def option(name: str) -> Any:
    """What `--data NAME=VALUE` tells this deploy, as pyinfra reads it; None where nothing was said."""
    return inventory.override_data.get(name) if name in _options else None


def removed() -> tuple[str, ...]:
    """Names of the hosts that `--data remove=NAME[,NAME]` takes out in this run."""
    return tuple(dict.fromkeys(name.strip() for name in str(option("remove") or "").split(",") if name.strip()))


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
    """All hosts of the inventory by role, `--limit` or not, but for those that this run takes out."""
    return removal.without(everybody(), removed()) if removed() else everybody()


def everybody() -> Topology:
    """All hosts of the inventory by role, those too that this run takes out."""
    return _everybody(ctx_inventory.get())


@once
def _everybody(known: Inventory) -> Topology:
    groups = {name: tuple(node_of(member.name) for member in known.groups.get(name, ())) for name in GROUPS}
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


@once
def problems() -> list[str]:
    """Everything wrong with the inventory, the settings and the lock, in words; asks no host."""
    mine, known = settings(), topology()
    if "remove" in _options and (refused := removal.problems(everybody(), removed())):
        return refused
    found = disagreements({node.name: settings(node.name) for node in known.nodes}) + check(known, mine)
    found += _even(known, mine)
    found += addressing.check(known, mine) + balancing.check(known, mine) + ports.clashes(known, mine)
    found += unknown(mine.waived_checks)
    found += _documents(known)
    by_release = [runtime_problems(mine, lock(), name) for name in lock().package_sets]
    if all(by_release):  # else it is asked which release a host is of
        found += dict.fromkeys(line for lines in by_release for line in lines)
    found += networks.problems(mine) + network_problems(mine, lock()) + firewall.problems(mine)
    found += known_addons.problems(mine, lock()) + _certificate_problems()
    if lock().kubernetes_version != mine.kubernetes_version:
        found.append(
            f"{mine.bundle_dir}/bundle.lock is for Kubernetes {lock().kubernetes_version}, the settings ask for "
            f"{mine.kubernetes_version}. Build or carry the bundle of that version, or change kubernetes_version."
        )
    return found


def backup_certificate() -> str | None:
    """The certificate to which backups are encrypted, as PEM; None where they are not. Raises BackupError."""
    path = settings().backup_certificate
    return backup.recipient(Path(path)) if path else None


def _certificate_problems() -> list[str]:
    try:
        backup_certificate()
    except backup.BackupError as error:
        return [f"backup_certificate: {error}. docs/backup.md says how to make one."]
    return []


def _even(known: Topology, mine: Settings) -> list[str]:
    """Why an even number of control planes is none; where it is waived, or is what a removal leaves, it is said."""
    found = even(known)
    if found and (removed() or EVEN in mine.waived_checks):
        logger.warning(f"{'Warning' if removed() else 'Waived'}: {found}")
        return []
    return [f"{found} (check: {EVEN})"] if found else []


def _documents(known: Topology) -> list[str]:
    """What Kubernetes would not take of the settings for its documents; a host's own with its name before it."""
    by_host = {node.name: configuration.problems(settings(node.name)) for node in known.nodes}
    for first in known.control_planes[:1]:
        for node in (*known.control_planes[1:], *known.workers):
            by_host[node.name] += configuration.kubelet_problems(settings(node.name), settings(first.name))
    found = dict.fromkeys(line for lines in by_host.values() for line in lines)
    whose = {line: [name for name, lines in by_host.items() if line in lines] for line in found}
    return [line if len(names) == len(by_host) else f"{', '.join(names)}: {line}" for line, names in whose.items()]


@once
def _damage(directory: str, public_key: str | None) -> list[str]:
    return verify(Path(directory), public_key)


def damage() -> list[str]:
    """Every byte of the bundle that is not as locked, in words."""
    return _damage(settings().bundle_dir, settings().bundle_public_key)


def refuse(found: Sequence[str]) -> None:
    """Stop before the first change. Raises InputError that lists what was found, if anything was."""
    if found:
        raise InputError("Nothing was changed on any host. Found:\n" + "\n".join(f"  - {line}" for line in found))


@once
def _lock(directory: str, public_key: str | None) -> Lock:
    return read_lock(Path(directory), public_key)


def lock() -> Lock:
    """The lock of the bundle on this machine. Raises InputError when it cannot be read, or nobody vouches for it."""
    try:
        return _lock(settings().bundle_dir, settings().bundle_public_key)
    except BundleError as error:
        raise InputError(str(error)) from None


@once
def systems() -> dict[str, str]:
    """What each host of this run is by its /etc/os-release, such as "rocky-9.4"; asked at once."""
    names = [node.name for node in in_run(everybody().nodes)]
    unseen = [name for name in names if name not in _seen]
    found = _seen | at_once(unseen, lambda it: it.get_fact(Hardware))
    return {name: families.system(found[name]) for name in names}


def seen(hardware: Mapping[str, HardwareState]) -> None:
    """Have what hosts have said already in this run, by name."""
    _seen.update(hardware)


@once
def _lacking() -> list[str]:
    """What hosts of this run need for their releases and the bundle has not; without packages nothing can be waived."""
    found = report(lacking(systems(), settings(), topology(), lock()), settings().waived_checks)
    return [each.line() for each in found if not each.waived or each.check == "os-release"]


def release() -> str:
    """The release of this host, as the bundle names it. Raises InputError with all hosts that cannot be served."""
    refuse(_lacking())
    return families.release(systems()[host.name], lock().package_sets) or ""


def family() -> Family:
    """What is this host's own among distributions."""
    found = families.of(release())
    assert found, "release() has refused what is not known"
    return found


def packages(*sets: str, name: str, hold: str | Sequence[str] = ()) -> OperationMeta:
    """Install sets of packages of the bundle, such as "runtime"; `hold` is a set, or names of packages."""
    mine = release()
    known = lock().package_sets[mine]
    names = [package for each in sets for package in known[each]]
    return package.packages(
        name=name,
        names=names,
        versions={row.name: row.version for row in lock().packages if row.release == mine},
        release=mine,
        hold=known[hold] if isinstance(hold, str) else hold,
        format=family().format,
        unstarted={name: unit for name, unit in family().unstarted.items() if name in names},
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


def in_run(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Those of these hosts that `--limit` leaves in this run."""
    return tuple(node for node in nodes if host.state.is_host_in_limit(inventory.get_host(node.name)))


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


def run(
    module: str, layer: Callable[[], object], options: Sequence[str] = (), anyway: bool = False, only: bool = False
) -> None:
    """Run a layer when its file was named on pyinfra's command line, not when it is imported.

    pyinfra executes such a file with no `__name__` of its own, so it reads that of `builtins`. `options` are names that
    `--data` may have beside settings. One that only looks runs `anyway`, and says what is wrong itself.
    With `only` it is planned and no more.
    """
    if module == "builtins":
        _options.update(options, record.OPTIONS)
        if anyway:
            layer()
            return
        record.begin(refuse, only)
        refuse(problems())
        layer()
        record.end(_about, refuse, only)


def _about() -> dict[str, Any]:
    """The site and the run, as a plan has them."""
    mine, path = settings(), Path(settings().bundle_dir) / "bundle.lock"
    return {
        "cluster_name": mine.cluster_name,
        "kubernetes_version": mine.kubernetes_version,
        "bundle": hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "",
        "endpoint": str(endpoint()),
        "hosts": {
            each.name: Host(
                groups=tuple(name for name in GROUPS if name in each.groups), address=str(node_of(each.name).address)
            )
            for each in host.state.inventory.iter_activated_hosts()
        },
    }
