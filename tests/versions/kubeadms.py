"""Real kubeadms, one of each minor of Kubernetes, built from Go modules and kept in the bundle's cache.

`python -m tests.versions.kubeadms` builds those of the tests, with `--full` all, and shows how far it is.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from bundle import catalogue, gobuild, releases
from cluster.compatibility import parse

CATALOGUE = catalogue.load()
OWN = ".".join(map(str, parse(CATALOGUE.kubernetes_version)[:2]))
# One of each version of kubeadm's API that is written, the last being the bundle's own.
FEW = ("1.21", "1.27", OWN)


def version(minor: str) -> str:
    """The release that is built of a minor: of the bundle's own that of the bundle."""
    return CATALOGUE.kubernetes_version if minor == OWN else releases.load()[minor].version


@cache
def build(minor: str) -> Path:
    """The kubeadm of a minor; by the Go release that upstream builds it by, the bundle's own by the bundle's Go."""
    release = releases.load()[minor]
    (whole,) = CATALOGUE.components["kubernetes"].build
    changed: dict[str, Any] = {"version": version(minor), "packages": {"kubeadm": whole.packages["kubeadm"]}}
    if minor != OWN:
        changed["require"] = release.require
    go = gobuild.toolchain("1.21" if minor != OWN else CATALOGUE.go)
    exact = "" if minor == OWN else release.go
    return gobuild.build(go, "kubeadm", whole.model_copy(update=changed), CATALOGUE.platform, exact) / "kubeadm"


def kubeadm(minor: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a minor's kubeadm. The commands used here read a file, need no cluster and leave the machine as it is."""
    return subprocess.run(
        [build(minor), *words], capture_output=True, text=True, errors="replace", check=False, timeout=60
    )


if __name__ == "__main__":
    for each in releases.load() if "--full" in sys.argv else FEW:
        print(f"kubeadm {version(each)}: {build(each)}", flush=True)
