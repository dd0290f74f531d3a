"""Charts rendered by helm, so that none is needed in the cluster (https://helm.sh/docs/helm/helm_template/)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from bundle.command import run
from bundle.manifests import LOADER


@contextmanager
def environment() -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory for helm, and an environment without what whoever builds has set for it.

    Settings, repositories and plugins of theirs would make another manifest.
    """
    with tempfile.TemporaryDirectory() as scratch:
        homes = {f"HELM_{each}_HOME": f"{scratch}/{each}" for each in ("CACHE", "CONFIG", "DATA")}
        own = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
        yield Path(scratch), {**own, **homes, "KUBECONFIG": "/dev/null"}


def rendered(
    helm: Path,
    name: str,
    chart: Path,
    namespace: str,
    kubernetes: str,
    values: Sequence[Path],
    env: Mapping[str, str],
) -> tuple[str, list[str]]:
    """The manifest that a chart, a directory or an archive, gives for a version of Kubernetes, and what was left out.

    That are hooks, which helm alone runs, by kind and name. Raises BuildError with helm's words.
    """
    words = [word for each in values for word in ("--values", str(each))]
    text = run(
        helm, "template", name, chart, "--namespace", namespace, "--include-crds", "--skip-tests",
        "--kube-version", kubernetes, *words, env=env,
    )  # fmt: skip
    return _without_hooks(text)


def _without_hooks(text: str) -> tuple[str, list[str]]:
    """A rendered chart without what helm runs before or after it, and the names of that.

    https://helm.sh/docs/topics/charts_hooks/
    """
    kept, hooks = [], []
    for part in f"\n{text}".split("\n---\n"):
        document = yaml.load(part, LOADER)
        metadata = (document.get("metadata") or {}) if isinstance(document, dict) else {}
        if "helm.sh/hook" in (metadata.get("annotations") or {}):
            hooks.append(f"{document['kind']} {metadata.get('name')}")
        elif document:
            kept.append(f"---\n{part.strip()}\n")
    return "".join(kept), hooks
