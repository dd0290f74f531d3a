"""The images that a cluster of this version needs, made from the programs built here (guide 2.3)."""

from __future__ import annotations

from pathlib import Path

from bundle import cache, debs
from bundle.catalogue import Catalogue
from bundle.command import BuildError, run
from bundle.oci import Layout
from bundle.progress import step


def wanted(catalogue: Catalogue, kubeadm: Path) -> list[str]:
    """References of all images: what this very kubeadm lists, and the catalogue's own."""
    listed = run(kubeadm, "config", "images", "list", "--kubernetes-version", catalogue.kubernetes_version).split()
    return sorted([*listed, *catalogue.extra_images])


def short(reference: str) -> str:
    """The last part of a reference's name: `etcd` of `registry.k8s.io/etcd:3.6.8-0`."""
    return reference.rpartition("/")[2].partition(":")[0]


def disagreements(catalogue: Catalogue, references: list[str]) -> list[str]:
    """Images whose tag is not of the version that the catalogue builds, or that it cannot build."""
    found = []
    for reference in references:
        name, tag = short(reference), reference.rpartition(":")[2]
        if name not in catalogue.images:
            found.append(f"{reference}: the catalogue has no image {name}")
            continue
        for program in catalogue.images[name].files.values():
            module = next((m for m in catalogue.modules.values() if program in m.packages), None)
            # kube-* images are of Kubernetes' own version, which is what was built; agnhost has one of its own.
            same = tag.lstrip("v").partition("-")[0] == (module.version.lstrip("v") if module else "")
            if module and not same and (name in catalogue.modules or name.startswith("kube-")):
                found.append(f"{reference}: the catalogue builds {program} {module.version}")
    return found


def pause(kubernetes: Path, version: str) -> Path:
    """The directory of the pause program, one file of C in the Kubernetes tree."""
    code = kubernetes / "build/pause/linux/pause.c"

    def make(made: Path) -> None:
        with step(f"compiling pause {version}"):
            run("gcc", "-Os", "-static", f"-DVERSION={version}", "-o", made / "pause", code)

    return cache.directory("pause", [version, code.read_text()], make)


def layout(catalogue: Catalogue, references: list[str], programs: dict[str, Path]) -> Path:
    """The directory of one OCI layout with all of these images, from the cache or made."""
    if found := disagreements(catalogue, references):
        raise BuildError("kubeadm and the catalogue do not agree:\n  " + "\n  ".join(found))
    recipes = {reference: catalogue.images[short(reference)].model_dump() for reference in references}
    sources = {name: path.parent.name for name, path in programs.items()}
    name, release = next(iter(catalogue.packages.items()))
    base = debs.base_root(name, release)

    def make(made: Path) -> None:
        target = Layout(made)
        with step(f"packing {len(references)} images") as report:
            shared = target.layer({}, base)
            for reference in references:
                report(reference)
                recipe = catalogue.images[short(reference)]
                own = target.layer({path: programs[program] for path, program in recipe.files.items()})
                layers = [shared, own] if recipe.base else [own]
                target.image(reference, catalogue.platform, layers, recipe.entrypoint, recipe.user)
            target.finish()

    return cache.directory("images", [catalogue.platform, recipes, sources, base.parent.name], make)
