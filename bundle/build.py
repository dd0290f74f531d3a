"""A whole bundle: what is not in the cache is built, then everything is laid out and locked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bundle import catalogue, debs, gobuild, images, oci
from bundle.catalogue import Catalogue
from bundle.progress import say, step
from cluster.lock import File, Image, Lock

APT_PACKAGES = (
    "mmdebstrap", "debian-archive-keyring", "apt-utils", "gcc", "libc6-dev", "ca-certificates",
)  # fmt: skip
NAMES = {"Packages": "package index", "Release": "package index", "index.json": "image index"}


def build(output: Path) -> Lock:
    """Make the bundle beside `output` and put it there whole. Raises BuildError."""
    wanted = catalogue.load()
    go = gobuild.toolchain(wanted.go)
    programs: dict[str, Path] = {}
    versions: dict[str, str] = {}
    for name, module in wanted.modules.items():
        built = gobuild.build(go, name, module, wanted.platform)
        programs.update({program: built / program for program in module.packages})
        versions.update(dict.fromkeys(module.packages, module.version))
    references = images.wanted(wanted, programs["kubeadm"])
    tag = next(reference for reference in references if images.short(reference) == "pause").rpartition(":")[2]
    programs["pause"] = images.pause(gobuild.source(go, wanted.modules["kubernetes"]), tag) / "pause"
    layout = images.layout(wanted, references, programs)
    repositories = {name: debs.repository(name, release) for name, release in wanted.packages.items()}

    beside = output.with_name(f"{output.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    with step(f"writing {output.name}"):
        for directory, names in wanted.programs.items():
            (beside / directory).mkdir(parents=True)
            for name in names:
                shutil.copy(programs[name], beside / directory / name)
        shutil.copytree(layout, beside / "images")
        for name, repository in repositories.items():
            shutil.copytree(repository, beside / "packages" / name)
        lock = describe(wanted, beside, versions)
        (beside / "bundle.lock").write_text(lock.model_dump_json(indent=2) + "\n")
        old = output.with_name(f"{output.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if output.exists():
            output.rename(old)
        beside.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    size = sum(file.size for file in lock.files) / 1e6
    say(
        f"Kubernetes {lock.kubernetes_version}, {len(lock.images)} images, {len(lock.packages)} packages, "
        f"{len(lock.files)} files, {size:.0f} MB"
    )
    return lock


def describe(wanted: Catalogue, directory: Path, versions: dict[str, str]) -> Lock:
    """The lock of a bundle that lies in a directory."""
    found = [Image.model_validate(row) for row in oci.images(directory / "images")]
    packages = [row for name in wanted.packages for row in debs.listed(directory / "packages" / name, name)]
    owners = {row.file: (row.name, row.version) for row in packages}
    for image in found:
        for blob in image.blobs:
            owners.setdefault(f"images/blobs/{blob.replace(':', '/')}", _split(image.name))
    files = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        relative = str(path.relative_to(directory))
        default = (NAMES.get(path.name, path.name), versions.get(path.name, "-"))
        name, version = owners.get(relative, default)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(File(path=relative, size=path.stat().st_size, sha256=sha256, name=name, version=version))
    return Lock(
        format=1,
        platform=wanted.platform,
        kubernetes_version=wanted.kubernetes_version,
        components={name: module.version for name, module in wanted.modules.items()},
        images=tuple(found),
        packages=tuple(packages),
        package_sets={name: dict(release.sets) for name, release in wanted.packages.items()},
        files=tuple(files),
    )


def _split(reference: str) -> tuple[str, str]:
    name, _, tag = reference.rpartition(":")
    return name, tag
