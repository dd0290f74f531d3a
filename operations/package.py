"""Packages of the distribution, from the bundle's repository and from nowhere else."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster.pieces import NODE_DIRECTORY
from facts.package import Packages, PackageState

# apt's own state for the bundle's repository, apart from the system's sources and lists.
STATE = "/var/lib/pyinfra-kubeadm/apt"


def apt(release: str) -> str:
    """`apt-get` that sees the bundle's repository only. Its bytes were checked against bundle.lock on arrival."""
    options = {
        "Dir::Etc::sourcelist": f"{STATE}/bundle.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": f"{STATE}/lists",
        "Dir::Cache": f"{STATE}/cache",
        "APT::Get::List-Cleanup": "0",
        "Dpkg::Options::": "--force-confold",
        "DPkg::Lock::Timeout": "120",
    }
    words = " ".join(f"-o {shlex.quote(f'{key}={value}')}" for key, value in options.items())
    repository = posixpath.join(NODE_DIRECTORY, "packages", release)
    source = f"deb [trusted=yes] file:{repository} ./"
    return (
        f"mkdir -p {STATE}/lists/partial {STATE}/cache/archives/partial && echo '{source}' > {STATE}/bundle.list && "
        f"export DEBIAN_FRONTEND=noninteractive && set -- apt-get -qq {words}"
    )


def lacking(
    installed: Mapping[str, PackageState], names: Sequence[str], versions: Mapping[str, str], hold: Sequence[str]
) -> list[str]:
    """Packages to install: those that are not there, and held ones of another version than the bundle's."""
    return [
        name
        for name in names
        if name not in installed or (name in hold and installed[name]["version"] != versions[name])
    ]


@operation()
def packages(
    names: Sequence[str], versions: Mapping[str, str], release: str, hold: Sequence[str] = ()
) -> Generator[StringCommand, None, None]:
    """
    Install packages and what they need; hold those whose version matters to the cluster.

    + names: packages wanted
    + versions: the bundle's version of each
    + release: whose repository to take them from, such as "debian-12"
    + hold: packages kept at the bundle's version against upgrades
    """
    wanted = sorted(set(names))
    installed = host.get_fact(Packages, names=tuple(wanted))
    missing = lacking(installed, wanted, versions, hold)
    loose = [name for name in hold if name in missing or not installed[name]["held"]]
    chosen = [f"{name}={versions[name]}" for name in missing]
    if not host.state.is_executing:
        for verb, what in (("install", chosen), ("hold", loose)):
            if what:
                host.log(f"Will {verb} {', '.join(what)}")
    if missing:
        yield StringCommand(
            f'{apt(release)} && "$@" update && "$@" install -y --no-install-recommends --allow-downgrades '
            f"--allow-change-held-packages {shlex.join(chosen)} >/dev/null"
        )
    if loose:
        yield StringCommand(f"apt-mark hold {shlex.join(loose)} >/dev/null")
    if not missing and not loose:
        host.noop(f"{len(wanted)} packages are installed, {len(hold)} of them held")
