"""Write cluster/fields.tsv anew from the Go types of every release in bundle/versions.yaml.

    .venv/bin/python -m tools.fields.generate

For a new minor of Kubernetes, add it to bundle/versions.yaml and cluster/compatibility.yaml, run this and read what
`git diff cluster/fields.tsv` says: those are the fields that came and went. It needs Go and the Go module proxy. A type
that reads JSON in its own way stops it; main.go then wants to be told what that takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

from bundle import gobuild, versions
from cluster import compatibility, fields

KUBEADM = "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
MODULES = ("k8s.io/kubelet", "k8s.io/kube-proxy", "k8s.io/component-base", "k8s.io/apimachinery", "k8s.io/api")
HEAD = """\
# Fields of Kubernetes' configuration documents: kind, path, type, first and last minor. By tools/fields/generate.py.
# In a path [] is an entry of a list, {} a value of a map. No last minor: the newest has it. kubeadm's own documents are
# those of the API version that is written for the minor (cluster/compatibility.yaml).
"""


def directory(go: Path, module: str, version: str) -> str:
    """Where Go keeps the source of a module, downloaded if need be."""
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{module}@{version}"], cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: {module}@{version} cannot be had: {done.stdout}{done.stderr}")
    return str(json.loads(done.stdout)["Dir"])


def rows(go: Path, release: versions.Row) -> list[str]:
    """Fields of one release, as main.go prints them."""
    api = compatibility.kubeadm_api(release.kubernetes).rpartition("/")[2]
    kinds = {kind: f"{KUBEADM}/{api}.{kind}" for kind in fields.KINDS if kind not in fields.COMPONENTS}
    kinds |= {"KubeletConfiguration": "k8s.io/kubelet/config/v1beta1.KubeletConfiguration"}
    kinds |= {"KubeProxyConfiguration": "k8s.io/kube-proxy/config/v1alpha1.KubeProxyConfiguration"}
    places = {module: directory(go, module, release.module(module)) for module in MODULES}
    places["k8s.io/kubernetes"] = directory(go, "k8s.io/kubernetes", release.kubernetes)
    done = subprocess.run(
        [go, "run", str(Path(__file__).with_name("main.go"))],
        input=json.dumps({"modules": places, "kinds": kinds}), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def main() -> None:
    go = gobuild.toolchain("1.21")
    minors = list(versions.load().minors)
    having: dict[str, list[int]] = {}
    for index, (minor, release) in enumerate(versions.load().minors.items()):
        print(f"reading the types of Kubernetes {release.kubernetes} ({minor})", flush=True)
        for row in rows(go, release):
            having.setdefault(row, []).append(index)
    lines = []
    for row, found in having.items():
        for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0]):
            present = [index for _, index in run]
            last = "" if present[-1] == len(minors) - 1 else minors[present[-1]]
            lines.append(f"{row}\t{minors[present[0]]}\t{last}")
    order = {kind: place for place, kind in enumerate(fields.KINDS)}
    lines.sort(key=lambda line: (order[line.split("\t")[0]], line.split("\t")[1:]))
    beside = fields.PATH.with_suffix(".new")
    beside.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    beside.replace(fields.PATH)


if __name__ == "__main__":
    main()
