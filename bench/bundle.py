"""The offline bundle beside plain tools, all measured in one run: build, size, transfer, loading, next release.

    python3 bench/bundle.py               # in .venv; takes the lab down, and raises one of its own
    python3 bench/bundle.py --engines     # and how nodes fetch from another server than nginx
    python3 bench/bundle.py --only load   # some parts, without writing the report

Prints a table and writes bench/bundle.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import wire
from bench.common import ROOT, TASKS, Row, machine, on, table, timed
from bundle import oci
from bundle.command import BuildError
from bundle.verify import BundleError, read_lock
from cluster.lock import Lock
from lab import layout
from lab.layout import LabError
from operations.containerd import import_script, requests

BUNDLE = ROOT / "dist" / "bundle"
LOADER = "cp1"
ARCHIVES = f"{wire.SCRATCH}/archives"
IMPORT = "ctr -n k8s.io images import"  # takes no archive that is compressed
# containerd's own clean-up of what no image needs comes with --sync. Names come back while the kubelet's part of it
# looks at new images, hence the loop.
EMPTY = """\
for turn in $(seq 30); do
    names=$(ctr -n k8s.io images ls -q) && test -z "$names" || ctr -n k8s.io images rm --sync $names >/dev/null
    left=$(ctr -n k8s.io images ls -q; ctr -n k8s.io content ls -q; ctr -n k8s.io snapshots ls | tail -n +2)
    test -n "$left" || exit 0
    sleep 1
done
echo "containerd keeps: $left" >&2; exit 1
"""


def build(work: Path) -> list[Row]:
    """A build that finds everything in the cache, beside what it must do at least."""
    seconds, _ = timed("bundle, from a full cache", [*TASKS, "bundle", "build"])
    begun = time.monotonic()
    shutil.copytree(BUNDLE, work / "copy")
    for file in read_lock(BUNDLE).files:
        with (work / "copy" / file.path).open("rb") as content:
            hashlib.file_digest(content, "sha256")
    least = time.monotonic() - begun
    shutil.rmtree(work / "copy")
    return [Row("build of all from a full cache", seconds, "its files copied and hashed", least, "s")]


def size(work: Path) -> list[Row]:
    """The bundle's images beside what the guide makes of the same ones."""
    lock = read_lock(BUNDLE)
    ours = sum(file.size for file in lock.files if file.path.startswith("images/")) / 1e6
    archives = guide_archives(lock, work)
    whole = work / "whole.tar"
    join(archives, whole)
    together = gzipped(whole).stat().st_size / 1e6
    apart = sum(gzipped(path).stat().st_size for path in archives) / 1e6
    whole.unlink()
    what, tool = f"images/, by `{' '.join(oci.PACK[:2])}`", "`docker save` \\| `gzip -6`"
    return [
        Row(what, ours, f"{tool}, each image a file", apart, "MB", most=0.6),
        Row(what, ours, f"{tool}, all in one file, shared layers once", together, "MB"),
    ]


def guide_archives(lock: Lock, work: Path) -> list[Path]:
    """What `docker save` would write of each image, by skopeo; made once."""
    directory = work / "archives"
    directory.mkdir(exist_ok=True)
    found = []
    for number, image in enumerate(lock.images):
        path = directory / f"{number}.tar"
        if not path.exists():
            print(f"==> {image.name} as a docker archive", flush=True)
            source, target = f"oci:{BUNDLE / 'images'}:{image.name}", f"docker-archive:{path}:{image.name}"
            # By way of plain layers: Docker's manifests know no zstd.
            plain = f"dir:{directory / 'plain'}"
            subprocess.run(["skopeo", "copy", "--quiet", "--dest-decompress", source, plain], check=True)
            subprocess.run(["skopeo", "copy", "--quiet", plain, target], check=True)
            shutil.rmtree(directory / "plain")
        found.append(path)
    return found


def gzipped(path: Path) -> Path:
    """A file by `gzip -6`, beside it; made once."""
    target = Path(f"{path}.gz")
    if not target.exists():
        print(f"==> gzip -6 of {path.name}, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        subprocess.run(["gzip", "-6", "--keep", str(path)], check=True)
    return target


def join(archives: Sequence[Path], target: Path) -> None:
    """Write docker archives as one that has each of their files once, as `docker save` writes several images."""
    seen: set[str] = set()
    rows: list[object] = []
    with tarfile.open(target, "w") as whole:
        for path in archives:
            with tarfile.open(path) as archive:
                for entry in archive:
                    content = archive.extractfile(entry) if entry.isfile() else None
                    if entry.name == "manifest.json" and content:
                        rows += json.load(content)
                    elif entry.name not in seen and entry.name != "repositories":
                        seen.add(entry.name)
                        whole.addfile(entry, content)
        manifest = json.dumps(rows).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        whole.addfile(entry, io.BytesIO(manifest))


def load(work: Path) -> list[Row]:
    """All images into containerd on one node, beside archives one after another; medians of three."""
    lock = read_lock(BUNDLE)
    archives = [gzipped(path) for path in guide_archives(lock, work)]
    wire.deploy("runtime")
    on(LOADER, f"install -d -m 777 {ARCHIVES}")
    config = str(layout.STATE / "ssh_config")
    subprocess.run(["scp", "-q", "-F", config, *map(str, archives), f"{LOADER}:{ARCHIVES}/"], check=True)
    on(LOADER, f"gunzip --keep {ARCHIVES}/*.gz")
    digests = {image.digest for image in lock.images}
    sizes = {digest: file.size for file in lock.files if (digest := f"sha256:{file.sha256}") in digests}
    asked, names = requests(lock.images, sizes), {image.name for image in lock.images}
    seconds = wire.rounds(
        {
            "import_script": partial(loaded, names, import_script(600), asked),
            "docker archives": partial(loaded, names, one_by_one("tar", f'{IMPORT} "$f"')),
            "docker archives, gzip -6": partial(loaded, names, one_by_one("tar.gz", f'gzip -dc "$f" | {IMPORT} -')),
        }
    )
    what, ours = f"{len(names)} images into containerd: import_script", seconds.pop("import_script")
    return [Row(what, ours, f"`ctr images import`, {name}", theirs, "s") for name, theirs in seconds.items()]


def one_by_one(suffix: str, command: str) -> str:
    """Shell that runs a command on each of the node's archives with this ending, "$f"."""
    return f"for f in {ARCHIVES}/*.{suffix}; do {command} >/dev/null || exit 1; done"


def loaded(names: set[str], script: str, stdin: str = "") -> float:
    """Seconds that a script takes to load these images into an emptied containerd, by the node's clock."""
    on(LOADER, EMPTY)
    clock = f"begun=$(date +%s%N); ({script}\n) || exit 1; ended=$(date +%s%N)"
    *there, nanoseconds = on(LOADER, f"{clock}; ctr -n k8s.io images ls -q; echo $((ended - begun))", stdin).split()
    if missing := names - set(there):
        sys.exit(f"error: {LOADER} has not loaded {', '.join(sorted(missing))}")
    return int(nanoseconds) / 1e9


@contextmanager
def bare_nodes() -> Iterator[None]:
    """A lab of its own; gone at the end, however that comes."""
    timed("lab down", [*TASKS, "lab", "down"])
    try:
        timed("lab up", [*TASKS, "lab", "up"])
        yield
    finally:
        subprocess.run([*TASKS, "lab", "down"], check=False)


def report(rows: Sequence[Row], command: str) -> str:
    """The figures as Markdown."""
    lines = [
        "# The offline bundle beside plain tools", "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.", "",
        *table(rows), "",
        "A ratio is of the figure to the one beside it, and the goal is for the ratio. Build: one from an empty cache "
        "is in [report.md](report.md). Size: `docker save` by skopeo.", "",
        f"Transfer: what the control machine sends was held to {wire.RATE} by tc (tbf on the lab's bridge); what nodes "
        "send each other was not. Runs of distribute.py have pyinfra's start-up in them, a reading of the whole "
        "bundle, connecting, and nginx being installed; files.put has its start-up. Plain TCP was received by Perl, "
        "for bare nodes have no netcat.", "",
        "Loading: medians of three rounds, containerd emptied before each. Engines: medians of three rounds over the "
        "lab's bridge, not held.", "",
        "Next release: a stand-in in which kubeadm, kubelet, kubectl and the last layer of each kube-* image are "
        "random bytes of the same size; what has changed is by `bundle.compare`. Counted by the interfaces, SSH, TLS "
        "and headers included; segments that the kernel passes on as one have one header.", "",
    ]  # fmt: skip
    return "\n".join(lines)


MEASURES: dict[str, Callable[[Path], list[Row]]] = {  # in this order; each is given a directory to work in
    "build": build,
    "size": size,
    "transfer": partial(wire.transfer, BUNDLE),
    "load": load,
    "engines": lambda _: wire.engines(BUNDLE),
    "patch": partial(wire.patch, BUNDLE),
}
IN_LAB = {"transfer", "load", "engines", "patch"}


def measure(parts: Sequence[str], work: Path) -> list[Row]:
    """Every figure of these parts, each shown as soon as it is there."""
    rows: list[Row] = []
    with ExitStack() as stack:
        up = False
        for part in MEASURES:
            if part not in parts:
                continue
            if part in IN_LAB and not up:
                stack.enter_context(bare_nodes())
                up = True
                if part != "transfer":  # which leaves the bundle on all nodes
                    wire.deploy("distribute")
            found = MEASURES[part](work)
            print("\n".join(table(found)), flush=True)
            rows += found
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", action="store_true", help="measure fetching from docker-registry too")
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="measure these, and write no report")
    arguments = parser.parse_args()
    parts = arguments.only or [part for part in MEASURES if part != "engines" or arguments.engines]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: told to end"))
    BUNDLE.parent.mkdir(exist_ok=True)
    try:
        # Beside the bundle, whose files are linked to.
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=BUNDLE.parent) as work:
            rows = measure(parts, Path(work))
    except (BundleError, BuildError, LabError) as error:
        sys.exit(f"error: {error}")
    text = report(rows, shlex.join(["python3", "bench/bundle.py", *sys.argv[1:]]))
    print(text)
    if not arguments.only:
        (ROOT / "bench" / "bundle.md").write_text(text)


if __name__ == "__main__":
    main()
