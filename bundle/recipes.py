"""Images made here, from the programs of the catalogue's components (guide 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from bundle import cache, cbuild, gobuild, oci, packing, references
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.components import Program, programs_of
from bundle.download import Unavailable, WrongBytes, sha256_of
from bundle.packing import Image
from bundle.progress import step
from bundle.references import Reference

# Gives programs by their names; asked only for what a recipe needs, for they may have to be built.
Programs = Callable[[Collection[str]], Mapping[str, Program]]
PAUSE = "build/pause/linux/pause.c"


def disagreements(catalogue: Catalogue, names: Sequence[str]) -> list[str]:
    """Why images cannot be made here: there is no recipe, or the catalogue's programs are of another version."""
    found = []
    for reference in map(references.parse, names):
        if reference.short not in catalogue.recipes:
            found.append(f"{reference.name}: the catalogue has no recipe for {reference.short}")
            continue
        for program in catalogue.recipes[reference.short].files.values():
            version = _version(catalogue, program)
            # kube-* images are of Kubernetes' own version, which is what was built; agnhost has one of its own.
            same = reference.tag.lstrip("v").partition("-")[0] == version.lstrip("v")
            tagged = reference.short in catalogue.components or reference.short.startswith("kube-")
            if version and tagged and not same:
                found.append(f"{reference.name}: the catalogue builds {program} {version}")
    return found


def _version(catalogue: Catalogue, program: str) -> str:
    """The version of a program that is built from source; empty when none of the catalogue's modules has it."""
    modules = (module for component in catalogue.components.values() for module in component.build)
    return next((module.version for module in modules if program in module.packages), "")


def make(catalogue: Catalogue, reference: Reference, programs: Programs, base: Callable[[], Path]) -> Image:
    """An image made by its recipe, from the cache or now. `base` gives the root file system that some stand on.

    Raises BuildError: Unavailable when there is no recipe, or its programs cannot be had.
    """
    if problems := disagreements(catalogue, [reference.name]):
        raise Unavailable("; ".join(problem.partition(": ")[2] for problem in problems))
    recipe = catalogue.recipes[reference.short]
    try:
        used = _programs(catalogue, reference, programs)
        root = base() if recipe.base else None
    except WrongBytes:
        raise
    except BuildError as error:
        raise Unavailable(f"it cannot be made here ({error})") from None

    def build(made: Path) -> None:
        target = oci.Layout(made)
        layers = []
        with step(f"packing {reference.name}") as report:
            if root is not None:
                write = partial(oci.write_tar, files={}, tree=root)
                layers.append(packing.layer(target, ["base", root.parent.name], write, "base", report))
            if files := {path: used[program].path for path, program in recipe.files.items()}:
                layers.append(target.layer(files, progress=packing.progress("programs", report)))
        target.image(reference.name, catalogue.platform, layers, recipe.entrypoint, recipe.user)
        target.finish()

    sums = {program: sha256_of(each.path) for program, each in used.items()}
    stands_on = [root.parent.name] if root is not None else []
    key = ["recipe", reference.name, catalogue.platform, recipe.model_dump(), sums, stands_on]
    made = cache.directory("image", key, build)
    source = f"recipe:{reference.short} {', '.join([*(each.source for each in used.values()), *stands_on])}"
    return Image(reference.name, made, None, source, licence(catalogue, used))


def _programs(catalogue: Catalogue, reference: Reference, programs: Programs) -> dict[str, Program]:
    """The programs of an image, by name. Raises BuildError."""
    needed = sorted(set(catalogue.recipes[reference.short].files.values()))
    components = [each for each in needed if each != "pause"]
    given = programs(components) if components else {}
    return {each: given[each] if each in given else pause(catalogue, reference.tag) for each in needed}


def licence(catalogue: Catalogue, programs: Collection[str]) -> str:
    """The licences of the components that programs are of, as one SPDX expression. pause is Kubernetes' own."""
    names = {"kubeadm" if program == "pause" else program for program in programs}
    components = catalogue.components.values()
    return " AND ".join(sorted({each.licence for each in components if programs_of(each) & names}))


def pause(catalogue: Catalogue, version: str) -> Program:
    """The pause program, one file of C in the Kubernetes tree, compiled. Raises BuildError."""
    component = next(each for each in catalogue.components.values() if "kubeadm" in programs_of(each))
    module = next(module for module in component.build if "kubeadm" in module.packages)
    go = gobuild.toolchain(catalogue.go)
    path, source = cbuild.build(go, "pause", module, PAUSE, catalogue.platform, f"-DVERSION={version}")
    return Program(path, version, source, component.licence)
