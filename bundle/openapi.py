"""OpenAPI definitions that a module's repository leaves out, generated as its own Makefile does it.

Kubernetes up to 1.23 has `zz_generated.openapi.go` in no tree: `make generated_files` writes it
(https://github.com/kubernetes/kubernetes/blob/v1.21.14/build/root/Makefile.generated_files, OpenAPI generation). The
Makefile ends when the API rules that the definitions break are others than those that it knows; so does this.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bundle.catalogue import Module, OpenApi
from bundle.command import BuildError, run

NAME = "zz_generated.openapi"
ASKS = re.compile(r"^\s*//\s*\+k8s:openapi-gen=", re.MULTILINE)


def tree(
    go: Path,
    module: Module,
    wanted: OpenApi,
    replaced: Sequence[tuple[str, str]],
    staged: Sequence[str],
    directory: Path,
    env: Mapping[str, str],
) -> Path:
    """A copy of the module's tree, in a directory, with its definitions.

    `replaced` is the replacements of the module's go.mod, of which `staged` are by modules of its own tree, and `env`
    what Go is run with. Raises BuildError.
    """
    read = [_at(new) for old, new in replaced if old in staged and old not in wanted.without]
    trees = _trees(go, [f"{module.module}@{module.known_as}", *read])
    packages = sorted({package for name, path in trees.items() for package in asking(name, path)})
    source = trees[module.module]
    workspace = directory / "openapi"
    workspace.mkdir()
    lines = "".join(f"replace {old} => {new}\n" for old, new in replaced)
    (workspace / "go.mod").write_text(
        f"module openapi\n\ngo {_go(source)}\n\nrequire {module.module} {module.known_as}\n\n{lines}"
    )
    imports = "".join(f'import _ "{name}"\n' for name in (wanted.generator, *module.packages.values()))
    (workspace / "tools.go").write_text(f"// +build tools\n\npackage openapi\n\n{imports}")
    run(go, "mod", "tidy", "-e", cwd=workspace, env=env)
    run(go, "build", "-o", workspace / "generator", wanted.generator, cwd=workspace, env=env)
    # The generator finds packages by the `go` of its PATH.
    root = run(go, "env", "GOROOT", cwd=workspace, env=env).strip()
    own = {**env, "PATH": f"{root}/bin:{env['PATH']}", "GOTOOLCHAIN": "local"}
    target = f"{module.module}/{wanted.package}"
    run(
        workspace / "generator", "--logtostderr", "-i", ",".join(packages), "-p", target, "-O", NAME,
        "-h", source / wanted.header, "-o", workspace / "made", "-r", workspace / "violations",
        cwd=workspace, env=own,
    )  # fmt: skip
    if (workspace / "violations").read_text() != (source / wanted.violations).read_text():
        raise BuildError(
            f"OpenAPI definitions of {module.module} {module.version}: other API rules are broken than "
            f"{wanted.violations} of its tree has, so they are not upstream's. Take another patch release."
        )
    copy = directory / "tree"
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for path in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        path.chmod(0o755)  # the module cache can be read alone, and shutil keeps the modes of directories
    shutil.copyfile(workspace / "made" / target / f"{NAME}.go", copy / wanted.package / f"{NAME}.go")
    return copy


def asking(module: str, tree: Path) -> Iterator[str]:
    """The packages of a module in whose source some type asks for definitions."""
    for path in tree.rglob("*.go"):
        within = path.relative_to(tree).parent
        if not any(step.startswith(("_", ".")) for step in within.parts) and ASKS.search(path.read_text()):
            yield "/".join((module, *within.parts))


def _trees(go: Path, names: Sequence[str]) -> dict[str, Path]:
    """The directories of modules' sources (module@version), downloaded and checked by Go."""
    said, found = run(go, "mod", "download", "-json", *names, cwd=Path("/")), {}
    decoder, at = json.JSONDecoder(), 0
    while said[at:].strip():  # one document after another
        at += len(said[at:]) - len(said[at:].lstrip())
        row, at = decoder.raw_decode(said, at)
        found[row["Path"]] = Path(row["Dir"])
    return found


def _at(replacement: str) -> str:
    return replacement.replace(" ", "@")


def _go(source: Path) -> str:
    """The release of Go that a module is written in."""
    match = re.search(r"^go (\S+)$", (source / "go.mod").read_text(), re.MULTILINE)
    return match[1] if match else "1.16"
