"""Packages of the distribution, from the bundle's repository and from nowhere else.

apt and dnf check the repository's signature and every package by its key, `repository.asc`, which was checked against
bundle.lock on arrival like the rest.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State, StringCommand, operation

from bundle.rpms import VERSIONLOCK
from cluster.pieces import NODE_DIRECTORY
from facts.package import Packages, PackageState
from operations.change import will

# The package managers' own state for the bundle's repository, apart from the system's sources and lists.
STATE = "/var/lib/pyinfra-kubeadm"


def apt(release: str) -> str:
    """Shell after which "$@" is `apt-get` that sees the bundle's repository only (sources.list(5), apt.conf(5))."""
    state = f"{STATE}/apt"
    options = {
        "Dir::Etc::sourcelist": f"{state}/bundle.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": f"{state}/lists",
        "Dir::Cache": f"{state}/cache",
        "APT::Get::List-Cleanup": "0",
        "APT::Update::Error-Mode": "any",
        "Dpkg::Options::": "--force-confold",
        "DPkg::Lock::Timeout": "120",
    }
    words = " ".join(f"-o {shlex.quote(f'{key}={value}')}" for key, value in options.items())
    repository = posixpath.join(NODE_DIRECTORY, "packages", release)
    source = f"deb [signed-by={repository}/repository.asc] file:{repository} ./"
    # Lists of the bundle before, whose packages may have been newer, are forgotten.
    return (
        f"mkdir -p {state}/cache/archives/partial && rm -rf {state}/lists && mkdir -p {state}/lists/partial && "
        f"echo '{source}' > {state}/bundle.list && "
        f"export DEBIAN_FRONTEND=noninteractive && set -- apt-get -qq {words}"
    )


def apt_install(release: str, chosen: Sequence[str]) -> str:
    """Shell that installs these packages, as name=version, and what they need."""
    return (
        f'{apt(release)} && "$@" update && "$@" install -y --no-install-recommends --allow-downgrades '
        f"--allow-change-held-packages {shlex.join(chosen)} >/dev/null"
    )


def apt_hold(_: str, names: Sequence[str]) -> str:
    """Shell that keeps packages at the version that is installed."""
    return f"apt-mark hold {shlex.join(names)} >/dev/null"


def apt_release(_: str, names: Sequence[str]) -> str:
    """Shell that lets packages be upgraded again."""
    return f"apt-mark unhold {shlex.join(names)} >/dev/null"


def dnf(release: str) -> str:
    """Shell after which "$@" is `dnf` that sees the bundle's repository only (dnf.conf(5)).

    The keys of the packages' own repositories are beside `repository.asc`; dnf gives them to rpm. Modules' streams
    were chosen when the bundle was built, hence module_hotfixes.
    """
    state, repository = f"{STATE}/dnf", posixpath.join(NODE_DIRECTORY, "packages", release)
    lines = [
        "[bundle]", "name=bundle", f"baseurl=file://{repository}", "enabled=1", "gpgcheck=1", "repo_gpgcheck=1",
        "module_hotfixes=1", "skip_if_unavailable=0",
    ]  # fmt: skip
    return (
        f"rm -rf {state} && mkdir -p {state}/repositories && "
        f"{{ printf '%s\\n' {shlex.join(lines)} && printf gpgkey= && printf 'file://%s ' {repository}/*.asc; }} "
        f"> {state}/repositories/bundle.repo && "
        f"set -- dnf -y -q --setopt=reposdir={state}/repositories --setopt=cachedir={state}/cache "
        "--setopt=install_weak_deps=0"
    )


def dnf_install(release: str, chosen: Sequence[str]) -> str:
    """Shell that installs these packages, as name-version, and what they need.

    Plugins have no part in it: versionlock would keep a version that is held, others ask the network.
    """
    return f'{dnf(release)} && "$@" --noplugins install {shlex.join(chosen)} >/dev/null'


def dnf_hold(release: str, names: Sequence[str]) -> str:
    """Shell that locks packages to the version that is installed, and to no other."""
    quoted, lock = shlex.join(names), "\"$@\" --disableplugin='*' --enableplugin=versionlock versionlock"
    return f"{dnf(release)} && {lock} delete {quoted} >/dev/null && {lock} add {quoted} >/dev/null"


def dnf_release(release: str, names: Sequence[str]) -> str:
    """Shell that unlocks packages."""
    lock = "\"$@\" --disableplugin='*' --enableplugin=versionlock versionlock"
    return f"{dnf(release)} && {lock} delete {shlex.join(names)} >/dev/null"


def lacking(
    installed: Mapping[str, PackageState], names: Sequence[str], versions: Mapping[str, str], hold: Sequence[str]
) -> list[str]:
    """Packages to install: those that are not there, and held ones of another version than the bundle's."""
    return [
        name
        for name in names
        if name not in installed or (name in hold and installed[name]["version"] != versions[name])
    ]


@dataclass(frozen=True)
class Manager:
    """How a package manager is told what to install, one version of one package, to hold it and let it go."""

    install: Callable[[str, Sequence[str]], str]
    hold: Callable[[str, Sequence[str]], str]
    release: Callable[[str, Sequence[str]], str]
    at: str
    # Packages without which nothing is held.
    holding: tuple[str, ...]


MANAGERS = {
    "deb": Manager(apt_install, apt_hold, apt_release, at="=", holding=()),
    "rpm": Manager(dnf_install, dnf_hold, dnf_release, at="-", holding=(VERSIONLOCK,)),
}


# Run of pyinfra -> host, package -> the operation that was planned to install it, by pyinfra's hash.
_planned: WeakKeyDictionary[State, dict[tuple[str, str], str | None]] = WeakKeyDictionary()


@operation()
def packages(
    names: Sequence[str],
    versions: Mapping[str, str],
    release: str,
    hold: Sequence[str] = (),
    format: Literal["deb", "rpm"] = "deb",
    unstarted: Mapping[str, str] = {},
) -> Generator[StringCommand, None, None]:
    """
    Install packages and what they need; hold those whose version matters to the cluster.

    + names: packages wanted
    + versions: the bundle's version of each
    + release: whose repository to take them from, such as "debian-12"
    + hold: packages kept at the bundle's version against upgrades
    + format: of the release's packages, "deb" or "rpm"
    + unstarted: package -> unit that it brings and must not start, such as {"nginx": "nginx.service"}; the unit is
      masked before the package is installed for the first time, and left as it is where the package is there
    """
    manager = MANAGERS[format]
    wanted = sorted({*names, *(manager.holding if hold else ())})
    installed = host.get_fact(Packages, names=tuple(wanted), format=format)
    coming = _planned.setdefault(host.state, {}) if not host.state.is_executing else {}
    for name in wanted:  # what an earlier operation of this plan installs is there when this one is executed
        if coming.get((host.name, name), host.current_op_hash) != host.current_op_hash:
            installed = {**installed, name: PackageState(version=versions[name], held=False)}
    missing = lacking(installed, wanted, versions, hold)
    coming |= {(host.name, name): host.current_op_hash for name in missing}
    loose = [name for name in hold if name in missing or not installed[name]["held"]]
    masked = [unit for name, unit in unstarted.items() if name in wanted and name not in installed]
    chosen = [f"{name}{manager.at}{versions[name]}" for name in missing]
    changed = [
        f"{name} {installed[name]['version'] if name in installed else 'none'} -> {versions[name]}" for name in missing
    ]
    for verb, what in (("mask", masked), ("install", changed), ("hold", loose)):
        if what:
            will(f"{verb} {', '.join(what)}")
    if masked:
        yield StringCommand(f"systemctl mask {shlex.join(masked)}")
    if missing:
        yield StringCommand(manager.install(release, chosen))
    if loose:
        yield StringCommand(manager.hold(release, loose))
    if not missing and not loose:
        host.noop(f"{len(wanted)} packages are installed, {len(hold)} of them held")
