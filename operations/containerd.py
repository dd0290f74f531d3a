"""containerd's configuration checked, and images imported from the node's pieces of the bundle (guide 3.2)."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from cluster.runtime import REGISTRIES
from facts.containerd import Images, ImagesState
from operations.change import will

CONFIG = "/etc/containerd/config.toml"
# Files of a site's own, which are kept and laid over CONFIG.
DROP_INS = "/etc/containerd/conf.d"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def check_script(pause: str, driver: str) -> str:
    """Shell that fails unless containerd would have what matters from a file, `{}`, and those that it imports.

    Its status alone says little: containerd 1.6 takes a file of a later version for an empty one, and of 1.x a plugin's
    table in an imported file takes the place of the whole table.
    """
    lines = (
        f"SystemdCgroup = {str(driver == 'systemd').lower()}",
        f'= "{pause}"',
        f'config_path = "{REGISTRIES}"',
    )
    what = f"containerd would not have this of its configuration, as it is with the files in {DROP_INS}"
    return (
        "containerd --config {} config dump | tr \\' '\"' | { d=$(cat); "
        f'for l in {shlex.join(lines)}; do case "$d" in *"$l"*) ;; *) echo "{what}: $l" >&2; exit 1;; esac; done; }}'
    )


def index(image: Image, size: int) -> str:
    """The index.json of a layout that holds this image only, in one line.

    `io.containerd.image.name` is what `ctr images import` names an image by
    (https://github.com/containerd/containerd/blob/v1.6.20/images/annotations.go).
    """
    names = {"io.containerd.image.name": image.name}
    manifest = {"mediaType": MANIFEST, "digest": image.digest, "size": size, "annotations": names}
    return json.dumps({"schemaVersion": 2, "manifests": [manifest]})


def requests(images: Sequence[Image], sizes: Mapping[str, int]) -> str:
    """What `import_script` reads: for each image a line of its index, a tab, and its blobs' files."""
    lines = []
    for image in images:
        blobs = " ".join(f"blobs/{blob.replace(':', '/')}" for blob in dict.fromkeys(image.blobs))
        lines.append(f"{index(image, sizes[image.digest])}\t{blobs}\n")
    return "".join(lines)


def import_script(seconds: int) -> str:
    """Shell that streams each image of standard input into containerd, as many at once as there are processors."""
    layout = shlex.quote(posixpath.join(NODE_DIRECTORY, "images"))
    # A pipe has the status of its end only, hence the file that says that tar has failed.
    one = f"""\
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT
echo '{{"imageLayoutVersion":"1.0.0"}}' > "$d/oci-layout" && printf '%s\\n' "$1" | cut -f 1 > "$d/index.json" &&
{{ tar -c -C "$d" oci-layout index.json -C {layout} $(printf '%s\\n' "$1" | cut -f 2) || touch "$d/failed"; }} |
    timeout {seconds} ctr -n k8s.io images import - >/dev/null && test ! -e "$d/failed"
"""
    return f'xargs -r -d "\\n" -n 1 -P "$(nproc)" sh -c {shlex.quote(one)} sh'


def importing(name: str, unit: str, state: ImagesState, wanted: Sequence[Image]) -> list[Image]:
    """The images to import into a runtime of this state; says so while planning, and why there are none."""
    if host.state.is_executing and state["state"] != "running":
        raise OperationError(
            f"{host.name}: {name} is {state['state']}, so no image can be imported. Look at `systemctl status "
            f"{unit}` and `journalctl -u {unit}` there, then run again."
        )
    if state["state"] == "unreachable":
        host.noop(f"{name} does not answer now; the images it has are looked at when this runs")
        return []
    lacking = [image for image in wanted if state["images"].get(image.name) != image.digest]
    if not lacking:
        host.noop(f"{len(wanted)} images are loaded")
    for image in lacking:
        will(f"import {image.name} ({image.digest[:19]}, {image.size / 1e6:.0f} MB)")
    return lacking


@operation()
def images(wanted: Sequence[Image], sizes: dict[str, int], seconds: int = 600) -> Generator[StringCommand, None, None]:
    """
    Import the images that containerd does not have, by name and digest.

    On a bare host there is no containerd while planning; it will be there, and empty. One that does not answer then
    has kept its images.

    + wanted: the images, from bundle.lock
    + sizes: bytes of each manifest, by digest
    + seconds: how long the import of one may take
    """
    lacking = importing("containerd", "containerd", host.get_fact(Images), wanted)
    if lacking:
        yield StringCommand(import_script(seconds), _stdin=requests(lacking, sizes))
