"""Real kubeadms, one of each minor of Kubernetes, built from Go modules and kept in the bundle's cache.

`python -m tests.versions.kubeadms` builds those of the tests, with `--full` all, and shows how far it is.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from bundle import catalogue, gobuild, versions
from cluster.compatibility import parse

CATALOGUE = catalogue.load()
OWN = ".".join(map(str, parse(CATALOGUE.kubernetes_version)[:2]))
# One of each version of kubeadm's API that is written, the last being the bundle's own.
FEW = ("1.21", "1.27", OWN)


def version(minor: str) -> str:
    """The release that is built of a minor: of the bundle's own that of the bundle."""
    return CATALOGUE.kubernetes_version if minor == OWN else versions.load().minors[minor].kubernetes


@cache
def build(minor: str) -> Path:
    """The kubeadm of a minor; by the Go release that upstream builds it by, the bundle's own by the bundle's Go."""
    (whole, *_) = CATALOGUE.components["kubernetes"].build
    row = versions.load().minors[minor]
    changed = {
        "version": version(minor),
        "packages": {"kubeadm": "k8s.io/kubernetes/cmd/kubeadm"},
        "require": row.require,
        "go": row.go,
    }
    go = gobuild.toolchain("1.21" if row.go else CATALOGUE.go)
    return gobuild.build(go, "kubeadm", whole.model_copy(update=changed), CATALOGUE.platform) / "kubeadm"


def kubeadm(minor: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a minor's kubeadm. The commands used here read a file, need no cluster and leave the machine as it is."""
    return subprocess.run(
        [build(minor), *words], capture_output=True, text=True, errors="replace", check=False, timeout=60
    )


if __name__ == "__main__":
    for each in versions.load().minors if "--full" in sys.argv else FEW:
        print(f"kubeadm {version(each)}: {build(each)}", flush=True)
