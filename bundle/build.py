"""A whole bundle: everything obtained or taken from the cache, then laid out, described, locked and signed."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from functools import cache, partial
from pathlib import Path

from bundle import (
    addons,
    assemble,
    catalogue,
    cilium,
    components,
    debs,
    extras,
    images,
    licences,
    packages,
    rpms,
    signature,
    sources,
)
from bundle.assemble import Contents, Label
from bundle.catalogue import Catalogue, Release
from bundle.command import BuildError
from bundle.components import Program
from bundle.download import Unavailable
from bundle.packing import Image
from bundle.progress import say
from bundle.verify import BundleError, contradictions, read_lock
from bundle.versions import of_images
from cluster import compatibility
from cluster.cilium import CHART, DIRECTORY
from cluster.lock import MATCHED, Lock

APT_PACKAGES = (
    "mmdebstrap", "debian-archive-keyring", "apt-utils", "gcc", "libc6-dev", "ca-certificates", "curl", "skopeo",
    "zstd", "gpg", "gpg-agent", "gpgv", "openssh-client", "libseccomp-dev", "pkg-config",
)  # fmt: skip
RPM_PACKAGES = ("dnf", "dnf-plugins-core", "rpm", "createrepo-c")


def build(output: Path, site: Path, update: bool = False) -> Lock:
    """Make the bundle beside `output` and put it there whole.

    What an earlier bundle there has locked is taken again, byte for byte, unless `update` asks for what there is now.
    What was added to it stays. Raises BuildError.
    """
    wanted = catalogue.load(site)
    refuse(wanted.kubernetes_version, versions(wanted))
    with assemble.alone(output):
        earlier = _earlier(output)
        pinned = None if update else earlier
        pins = _pins(pinned)
        nodes = {"kubeadm", *(program for names in wanted.programs.values() for program in names)}
        found = sources.places(wanted, components.hosts(wanted, nodes))
        # Kubernetes' own come first: kubeadm says which etcd and CoreDNS go with it.
        first = nodes & components.programs_of(wanted.components["kubernetes"])
        programs = components.obtain(wanted, found, pins, first)
        references = images.wanted(wanted, programs["kubeadm"].path)
        wanted = catalogue.load(site, of_images(references))
        programs |= components.obtain(wanted, found, pins, nodes - first)
        repositories = {
            name: repository(wanted, name, release, packages.pins(pinned, name, release, wanted.platform))
            for name, release in wanted.packages.items()
        }
        for name, path in repositories.items():
            runtimes = {
                row.name: row.version for row in assemble.listed(path, name) if row.name in ("containerd", "cri-o")
            }
            refuse(wanted.kubernetes_version, runtimes)
        found |= sources.places(wanted, components.hosts(wanted, {"helm", CHART}))

        @cache
        def tool(name: str) -> Path:
            return components.obtain(wanted, found, {}, [name])[name].path

        manifests = addons.manifests(wanted, partial(tool, "helm"), pinned, output)
        networks = cilium.manifests(wanted, tool, pinned, output)
        own = [*wanted.manifests, *(str(each.path) for each in (*manifests.values(), *networks.values()))]
        wanted = wanted.model_copy(update={"manifests": tuple(own)})
        references = images.wanted(wanted, programs["kubeadm"].path)
        found |= sources.places(wanted, images.hosts(references))

        @cache
        def base() -> Path:
            name = next((name for name, release in wanted.packages.items() if release.image_base), "")
            if not name:
                raise BuildError("no release in `packages` of the catalogue has an `image_base`")
            return debs.base_root(name, wanted.packages[name], wanted.platform, repositories[name])

        def more(names: Collection[str]) -> Mapping[str, Program]:
            return components.obtain(wanted, found, pins, names)

        layout, taken = images.layout(wanted, references, more, base, found, pins)
        contents = _contents(wanted, programs, repositories, layout, taken, addons.labels(networks, DIRECTORY))
        contents = addons.described(contents, manifests)

        def lay_out(beside: Path) -> Contents:
            for directory, names in wanted.programs.items():
                (beside / directory).mkdir(parents=True)
                for name in names:
                    shutil.copyfile(programs[name].path, beside / directory / name)
                    (beside / directory / name).chmod(0o755)
            shutil.copytree(layout, beside / "images")
            for name, path in repositories.items():
                shutil.copytree(path, beside / "packages" / name)
            addons.lay_out(beside, manifests)
            addons.lay_out(beside, networks, DIRECTORY)
            named = extras.with_files(beside, contents, [Path(name).expanduser() for name in wanted.extra_files])
            return extras.kept(beside, named, output, earlier) if earlier else named

        return assemble.finish(output, lay_out, wanted.signing_key)


def versions(wanted: Catalogue) -> dict[str, str]:
    """The catalogue's versions that must go with its Kubernetes, by the names of compatibility.yaml."""
    return {MATCHED[name]: each.version for name, each in wanted.components.items() if name in MATCHED}


def refuse(kubernetes: str, known: Mapping[str, str]) -> None:
    """Stop at a combination of versions that cannot work; say which are not recommended. Raises BuildError."""
    try:
        found = compatibility.refusals(kubernetes, known)
    except ValueError as error:
        raise BuildError(f"{error} Correct it in bundle.yaml.") from None
    if found:
        lines = "".join(f"\n  - {line}" for line in found)
        raise BuildError(f"These versions do not go together; docs/compatibility.md has all that do:{lines}")
    for line in compatibility.warnings(kubernetes, known):
        say(f"note: {line}")


def repository(wanted: Catalogue, name: str, release: Release, pins: packages.Pins) -> Path:
    """A release's packages, from the distribution itself or a mirror, as the catalogue's sources have it."""
    make = {"deb": debs.repository, "rpm": rpms.repository}[release.format]
    errors = []
    for kind in (each for each in wanted.sources if each in ("upstream", "mirror")):
        places = [{}] if kind == "upstream" else mirrors(wanted, release)
        for place in places:
            try:
                return make(name, release, wanted.platform, place, pins)
            except Unavailable as error:
                errors.append(str(error))
                say(error.reason)
    raise BuildError(
        "\n".join(errors)
        or f"packages of {name}: `sources` has not `upstream`, and `mirrors` nothing for their archives. Add either."
    )


def mirrors(wanted: Catalogue, release: Release) -> list[dict[str, str]]:
    """What stands for the archives of a release, by host or host and path: one of each one's mirrors at a time."""
    addresses = [each.url for each in release.repositories.values()] + list(debs.SOURCES if release.suite else ())
    used = [address.partition("://")[2] for address in addresses]
    known = {
        host: places
        for host, places in wanted.mirrors.items()
        if places and any(address.startswith(host) for address in used)
    }
    most = max(map(len, known.values()), default=0)
    return [{host: places[min(turn, len(places) - 1)] for host, places in known.items()} for turn in range(most)]


def _earlier(output: Path) -> Lock | None:
    """The lock of the bundle that is there, if one is. Raises BuildError when it cannot be read."""
    if not (output / signature.LOCK).exists():
        return None
    advice = f"Its lock says what must come again: put back the right one, or remove {output} to lock anew."
    try:
        lock = read_lock(output)
    except BundleError as error:
        raise BuildError(f"{error} {advice}") from None
    if found := contradictions(lock):
        raise BuildError(f"{output / signature.LOCK}: {'; '.join(found)}. {advice}")
    return lock


def _pins(earlier: Lock | None) -> dict[str, str]:
    """What each source must give: a program's sha256, an image's digest at its registry."""
    if earlier is None:
        return {}
    others = ("images/", "packages/", f"{extras.DIRECTORY}/", f"{addons.DIRECTORY}/", f"{DIRECTORY}/")
    programs = {file.source: file.sha256 for file in earlier.files if not file.path.startswith(others)}
    return programs | {f"docker://{each.name}": each.origin for each in earlier.images if each.origin}


def _contents(
    wanted: Catalogue,
    programs: Mapping[str, Program],
    repositories: Mapping[str, Path],
    layout: Path,
    taken: Collection[Image],
    networks: Mapping[str, Label],
) -> Contents:
    """What is known of everything that the catalogue asks for."""
    labels = {
        f"{directory}/{name}": Label(name, programs[name].version, programs[name].source, programs[name].licence)
        for directory, names in wanted.programs.items()
        for name in names
    }
    labels |= assemble.image_labels(layout, taken) | dict(networks)
    for name, path in repositories.items():
        known = licences.of(path)
        rows = assemble.listed(path, name)
        labels |= {row.file: Label(row.name, row.version, licence=known.get(Path(row.file).name, "")) for row in rows}
    return Contents(
        platform=wanted.platform,
        kubernetes_version=wanted.kubernetes_version,
        components={name: each.version for name, each in wanted.components.items()},
        package_sets={name: release.sets for name, release in wanted.packages.items()},
        labels=labels,
        origins={image.reference: image.origin for image in taken},
    )
