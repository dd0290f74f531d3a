"""CRI-O's configuration, and images copied into its storage from the node's pieces of the bundle (guide 3.2)."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from facts.crio import Images
from operations.containerd import importing, index

# Files of a site's own beside ours are kept; those that sort after it win.
DROP_INS = "/etc/crio/crio.conf.d"
CONFIG = f"{DROP_INS}/10-kubernetes.conf"
POLICY = "/etc/crio/policy.json"
ROOT, RUNROOT = "/var/lib/containers/storage", "/run/containers/storage"
# Refuses what is not TOML, or not of an option's type. Values are looked at when CRI-O starts.
CHECK = "crio --config {} --config-dir '' config >/dev/null"


def requests(images: Sequence[Image], sizes: Mapping[str, int]) -> str:
    """What `copy_script` reads: for each image its name, a tab, and a line of its index."""
    return "".join(f"{image.name}\t{index(image, sizes[image.digest])}\n" for image in images)


def copy_script(seconds: int, root: str = ROOT, runroot: str = RUNROOT, policy: str = POLICY) -> str:
    """Shell that copies each image of standard input into CRI-O's storage, which may run meanwhile."""
    blobs = shlex.quote(posixpath.join(NODE_DIRECTORY, "images/blobs"))
    # containers-transports(5): a storage is named whole, for skopeo has defaults of its own.
    storage = f"containers-storage:[overlay@{root}+{runroot}]"
    one = f"""\
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT
echo '{{"imageLayoutVersion":"1.0.0"}}' > "$d/oci-layout" && printf '%s\\n' "$1" | cut -f 2 > "$d/index.json" &&
ln -s {blobs} "$d/blobs" &&
timeout {seconds} skopeo --policy {policy} copy -q "oci:$d" {shlex.quote(storage)}"$(printf '%s\\n' "$1" | cut -f 1)"
"""
    return f'xargs -r -d "\\n" -n 1 sh -c {shlex.quote(one)} sh'


@operation()
def images(wanted: Sequence[Image], sizes: dict[str, int], seconds: int = 600) -> Generator[StringCommand, None, None]:
    """
    Copy the images that CRI-O does not have, by name and digest.

    + wanted: the images, from bundle.lock
    + sizes: bytes of each manifest, by digest
    + seconds: how long the copy of one may take
    """
    lacking = importing("CRI-O", "crio", host.get_fact(Images), wanted)
    if lacking:
        yield StringCommand(copy_script(seconds), _stdin=requests(lacking, sizes))
