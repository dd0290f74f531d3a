"""What the bundle costs on the wire: to one host and to all, beside plain tools, and for the next patch release."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from bench.common import PYINFRA, TASKS, Row, on, ssh, timed
from bundle import assemble, oci, signature
from bundle.compare import difference
from bundle.verify import read_lock
from cluster.lock import File, Image, Lock
from cluster.pieces import NODE_DIRECTORY, pieces, short_name
from cluster.settings import Settings
from lab import layout
from lab.layout import BRIDGE
from operations.bundle_server import CERTIFICATE, KEY
from operations.package import apt_install

RATE = "200mbit"
# Large enough for what the kernel sends at a time (tc-tbf(8)).
HOLD = ("tbf", "rate", RATE, "burst", "256k", "latency", "50ms")
GROUPS = ("control_plane", "worker", "load_balancer")
RELEASE = "debian-12"  # what the lab's nodes are
CARRYING = "Distribute | Carry the bundle, step "
PROGRAMS = ("bin/kubeadm", "bin/kubelet", "bin/kubectl")
NODES = [layout.node(name) for name in layout.DEFAULT]
SERVER, FETCHERS = NODES[0], NODES[1:]
# Where a node keeps what belongs to the benchmark alone.
SCRATCH = "/var/tmp/bench"
PORT = 9999
# Perl is on every Debian; netcat and socat are not. It writes what comes to a file until the sender has ended.
RECEIVE = """\
use IO::Socket::INET;
$| = 1;
my ($address, $port, $path) = @ARGV;
my ($data, $size);
open my $file, ">", $path or die "$!\\n";
my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => $address, LocalPort => $port) or die "$!\\n";
print "ready\\n";
my $sender = $listener->accept or die "$!\\n";
while ($size = sysread $sender, $data, 1 << 20) { syswrite($file, $data) == $size or die "$!\\n" }
defined $size or die "$!\\n";
close $file or die "$!\\n";
"""


def deploy(name: str, *flags: str) -> tuple[float, dict[str, float]]:
    """Run a deploy on the lab: the seconds of it, and of its operations."""
    return timed(f"deploys/{name}.py {' '.join(flags)}", [*PYINFRA, f"deploys/{name}.py", "-y", *flags])


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold what this machine sends to the nodes; what they send to each other does not pass the bridge's own queue."""
    subprocess.run(["tc", "qdisc", "replace", "dev", BRIDGE, "root", *HOLD], check=True)
    try:
        yield
    finally:  # the bridge may be gone, and the rule with it
        subprocess.run(["tc", "qdisc", "del", "dev", BRIDGE, "root"], stderr=subprocess.DEVNULL, check=False)


def transfer(bundle: Path, work: Path) -> list[Row]:
    """The bundle to bare nodes and the same bytes by plain tools, over a link that is held. Leaves it on all nodes."""
    files = pieces(read_lock(bundle), GROUPS, RELEASE)
    size = sum(file.size for file in files) / 1e6
    packed = packed_files(bundle, files, work / "pieces.tar")
    with held():
        alone, operations = deploy("distribute", "--limit", SERVER.name)
        carrying = sum(seconds for name, seconds in operations.items() if name.startswith(CARRYING))
        plain = received(packed)
        upload = [*PYINFRA, "files.put", f"src={packed}", f"dest={SCRATCH}/put", "--limit", SERVER.name, "-y"]
        put, _ = timed("pyinfra's files.put of one tar", upload)
        timed(f"an empty disk for {SERVER.name}", [*TASKS, "lab", "replace", SERVER.name])
        everyone, _ = deploy("distribute")
    stream = packed.stat().st_size / 1e6 / plain
    packed.unlink()
    one, tcp = f"distribute.py to {SERVER.name} alone", "the same bytes by plain TCP, written to disk"
    return [
        Row(f"distribute.py to {len(NODES)} bare nodes", everyone, one, alone, "s", most=1.3),
        Row("rate of its steps `Carry the bundle`", size / carrying, tcp, stream, "MB/s", least=0.8),
        Row(f"rate of {one}, start-up and service included", size / alone, tcp, stream, "MB/s", least=0.8),
        Row(one, alone, "pyinfra's files.put of the same as one tar, nothing checked", put, "s"),
    ]


def packed_files(bundle: Path, files: Sequence[File], target: Path) -> Path:
    """A tar of these pieces."""
    with tarfile.open(target, "w") as tar:
        for file in files:
            tar.add(bundle / file.path, file.path)
    return target


def received(path: Path) -> float:
    """Seconds until a node has written a file that is sent to it over one TCP stream, as netcat would."""
    print(f"==> {path.stat().st_size / 1e6:.0f} MB over plain TCP", flush=True)
    script = f"mkdir -p {SCRATCH} && exec perl -e '{RECEIVE}' {SERVER.address} {PORT} {SCRATCH}/received"
    with subprocess.Popen(ssh(SERVER.name, script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        try:
            if receiver.stdout.readline() != b"ready\n":
                raise SystemExit(f"error: {SERVER.name} does not listen; its words are above")
            begun = time.monotonic()
            with path.open("rb") as content, socket.create_connection((SERVER.address, PORT), timeout=120) as sender:
                sender.sendfile(content)
                sender.shutdown(socket.SHUT_WR)
                sender.recv(1)  # nothing, once all is written
            seconds = time.monotonic() - begun
        except BaseException:
            receiver.terminate()
            raise
    if receiver.returncode:
        raise SystemExit(f"error: {SERVER.name} has not received it ({receiver.returncode}); its words are above")
    return seconds


def sent() -> dict[str, int]:
    """Bytes sent to each node since it was plugged in, and by this machine to all of them; headers included."""
    names = [BRIDGE, *(node.link for node in NODES)]
    return {name: int(Path(f"/sys/class/net/{name}/statistics/tx_bytes").read_text()) for name in names}


def patch(bundle: Path, work: Path) -> list[Row]:
    """What travels for a stand-in of the next patch release; the nodes have the bundle."""
    old, new = read_lock(bundle), next_release(bundle, work / "next")
    before = sent()
    deploy("distribute", "--data", f"bundle_dir={work / 'next'}")
    carried = {name: size - before[name] for name, size in sent().items()}
    changed = [part_carried(old, new, GROUPS if node.group == "load_balancer" else [node.group]) for node in NODES]
    whole, once = difference(old, new).carried / 1e6, carried[BRIDGE] / 1e6
    needed, arrived = sum(changed) / 1e6, sum(carried[node.link] for node in NODES) / 1e6
    what = "next release:"
    return [
        Row(f"{what} sent by the control machine", once, "what has changed", whole, "MB", most=1.1),
        Row(f"{what} received by {len(NODES)} nodes", arrived, "the same, by their roles", needed, "MB", most=1.1),
    ]


def part_carried(old: Lock, new: Lock, groups: Sequence[str]) -> int:
    """Bytes of new content among what a host of these groups needs."""
    parts = (lock.model_copy(update={"files": tuple(pieces(lock, groups, RELEASE))}) for lock in (old, new))
    return difference(*parts).carried


def next_release(bundle: Path, target: Path) -> Lock:
    """Lay out a bundle whose kubeadm, kubelet, kubectl and own layers of kube-* images are random bytes of their size.

    All else is linked to the first one's. An image's own layer is its last.
    """
    known = read_lock(bundle)
    for file in known.files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.path in PROGRAMS:
            path.write_bytes(os.urandom(file.size))
        elif not file.path.startswith("images/"):
            os.link(bundle / file.path, path)
    made = oci.Layout(target / "images")
    kube = [image for image in known.images if short_name(image.name).startswith("kube-")]
    made.include(bundle / "images", {image.name for image in known.images} - {image.name for image in kube})
    for image in kube:
        _patched(bundle / "images", image, known.platform, made)
    made.finish()
    lock = assemble.described(target, assemble.Contents.of(known))
    (target / signature.LOCK).write_text(lock.model_dump_json(indent=2) + "\n")
    return lock


def _patched(images: Path, image: Image, platform: str, made: oci.Layout) -> None:
    manifest = json.loads(oci.blob(images, image.digest).read_text())
    config = json.loads(oci.blob(images, manifest["config"]["digest"]).read_text())
    *shared, own = manifest["layers"]
    beside = made.directory / "layer"
    beside.write_bytes(os.urandom(own["size"]))
    layer = oci.describe(beside, own["mediaType"])
    made.take(beside, layer["digest"])
    beside.unlink()
    for each in shared:
        made.take(oci.blob(images, each["digest"]), each["digest"])
    config["rootfs"]["diff_ids"][-1] = layer["digest"]
    made.add(image.name, platform, json.dumps(config).encode(), [(each, "") for each in (*shared, layer)])


def engines(bundle: Path) -> list[Row]:
    """Five nodes that fetch all blobs of images from one, by curl over TLS, from nginx and from docker-registry."""
    lock = read_lock(bundle)
    sums = sorted({blob.removeprefix("sha256:") for image in lock.images for blob in image.blobs})
    curl = next(row.version for row in lock.packages if row.release == RELEASE and row.name == "curl")
    certificate = on(SERVER.name, f"cat {CERTIFICATE}")
    for node in NODES:
        on(node.name, f"{apt_install(RELEASE, [f'curl={curl}'])} && mkdir -p {SCRATCH}")
        on(node.name, f"cat > {SCRATCH}/ca.crt", certificate)
    _start_registry()
    size = sum(oci.blob(bundle / "images", f"sha256:{each}").stat().st_size for each in sums)

    def urls(pattern: str) -> str:
        return "".join(f'url = "https://{SERVER.address}:{pattern}{each}"\noutput = "{each}"\n' for each in sums)

    requests = {
        "nginx": urls(f"{Settings.model_fields['bundle_port'].default}/pieces/images/blobs/sha256/"),
        "docker-registry": urls("5000/v2/bundle/blobs/sha256:"),
    }
    seconds = rounds({name: partial(_fetched, lines, size) for name, lines in requests.items()})
    on(SERVER.name, "systemctl stop bench-registry")
    what = f"{len(FETCHERS)} nodes fetch {size / 1e6:.0f} MB each from one: nginx"
    return [Row(what, seconds["nginx"], "docker-registry", seconds["docker-registry"], "s")]


def rounds(ways: dict[str, Callable[[], float]], count: int = 3) -> dict[str, float]:
    """The median of some rounds, in each of which every way has its turn; seconds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(1, count + 1):
        for name, way in ways.items():
            found[name].append(way())
            print(f"==> {name}, {number} of {count}: {found[name][-1]:.2f} s", flush=True)
    return {name: median(seconds) for name, seconds in found.items()}


def _fetched(lines: str, size: int) -> float:
    """Seconds until every node has these files, of this size in all."""
    script = (
        f"rm -rf {SCRATCH}/got && mkdir {SCRATCH}/got && cd {SCRATCH}/got && "
        f"curl --disable -sS --fail --fail-early --cacert {SCRATCH}/ca.crt -K - && cat -- * | wc -c"
    )
    begun = time.monotonic()
    with ThreadPoolExecutor(len(FETCHERS)) as pool:
        found = list(pool.map(lambda node: int(on(node.name, script, lines)), FETCHERS))
    seconds = time.monotonic() - begun
    if set(found) != {size}:
        raise SystemExit(f"error: nodes have fetched {found} bytes, not {size} each")
    return seconds


def _start_registry() -> None:
    """Start a docker-registry on the server, with the bundle's blobs linked into its storage.

    Where it looks: https://github.com/distribution/distribution/blob/v2.8.2/registry/storage/paths.go
    """
    program = shutil.which("docker-registry")
    if program is None:
        raise SystemExit("error: docker-registry is not installed. Install it, or run without --engines")
    copy = ["scp", "-q", "-F", str(layout.STATE / "ssh_config"), program, f"{SERVER.name}:/tmp/docker-registry"]
    subprocess.run(copy, check=True)
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{SCRATCH}/data"}},
        "http": {"addr": f"{SERVER.address}:5000", "tls": {"certificate": CERTIFICATE, "key": KEY}},
    }
    on(SERVER.name, f"cat > {SCRATCH}/config.yml", json.dumps(config))  # JSON is YAML
    on(SERVER.name, storage_script(f"{NODE_DIRECTORY}/images/blobs/sha256", f"{SCRATCH}/data"))
    serve = f"systemd-run -q --unit=bench-registry {SCRATCH}/docker-registry serve {SCRATCH}/config.yml"
    ask = f"curl --disable -sS --fail --cacert {SCRATCH}/ca.crt --retry 20 --retry-connrefused --retry-delay 1"
    on(SERVER.name, f"install -m 755 /tmp/docker-registry {SCRATCH}/docker-registry && {serve}")
    on(SERVER.name, f"{ask} https://{SERVER.address}:5000/v2/")


def storage_script(blobs: str, data: str) -> str:
    """Shell that links blobs into a registry's storage, as those of the repository `bundle`."""
    return f"""\
set -e
root={data}/docker/registry/v2
cd {blobs}
for sum in *; do
    blob=$root/blobs/sha256/$(echo "$sum" | cut -c 1-2)/$sum link=$root/repositories/bundle/_layers/sha256/$sum
    mkdir -p "$blob" "$link"
    ln -f "$sum" "$blob/data"
    printf 'sha256:%s' "$sum" > "$link/link"
done
"""
