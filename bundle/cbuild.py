"""Static programs from the files of C that some Go modules have, by the machine's own compiler."""

from __future__ import annotations

from pathlib import Path

from bundle import cache, gobuild
from bundle.catalogue import Module
from bundle.command import run
from bundle.progress import step


def build(go: Path, name: str, module: Module, place: str, platform: str, *flags: str) -> tuple[Path, str]:
    """A program from one file of a module, or from all that a directory of it has; and what its bytes follow from.

    It is from the cache or compiled now. Raises BuildError.
    """
    compiler = run("gcc", "-dumpfullversion").strip()
    source = f"gcc:{module.module}/{place}@{module.known_as} gcc-{compiler} {platform}"

    def compile_it(made: Path) -> None:
        code = gobuild.source(go, module) / place
        files = sorted(code.glob("*.c")) if code.is_dir() else [code]
        with step(f"compiling {name}"):
            run("gcc", "-Os", "-static", *flags, "-o", made / name, *files)

    return cache.directory(name, [source, flags], compile_it) / name, source
