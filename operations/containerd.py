"""Images imported from the node's pieces of the bundle (guide 3.2)."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from facts.containerd import Images

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def index(images: Sequence[Image], sizes: dict[str, int]) -> str:
    """The index.json of a layout that holds these images only.

    `io.containerd.image.name` is what `ctr images import` names an image by
    (https://github.com/containerd/containerd/blob/v1.6.20/images/annotations.go).
    """
    manifests = [
        {
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": sizes[image.digest],
            "annotations": {"io.containerd.image.name": image.name},
        }
        for image in images
    ]
    return json.dumps({"schemaVersion": 2, "manifests": manifests})


def import_script(images: Sequence[Image], seconds: int) -> str:
    """Shell that streams the images' blobs with an index from standard input into containerd."""
    blobs = sorted({f"blobs/{blob.replace(':', '/')}" for image in images for blob in image.blobs})
    layout = shlex.quote(posixpath.join(NODE_DIRECTORY, "images"))
    return (
        'd=$(mktemp -d) && trap \'rm -rf "$d"\' EXIT && cat > "$d/index.json" && '
        'echo \'{"imageLayoutVersion":"1.0.0"}\' > "$d/oci-layout" && '
        f'tar -c -C "$d" oci-layout index.json -C {layout} {shlex.join(blobs)} '
        f"| timeout {seconds} ctr -n k8s.io images import - >/dev/null"
    )


@operation()
def images(wanted: Sequence[Image], sizes: dict[str, int], seconds: int = 600) -> Generator[StringCommand, None, None]:
    """
    Import the images that containerd does not have, by name and digest.

    On a bare host there is no containerd while planning; it will be there, and empty. One that does not answer then
    has kept its images.

    + wanted: the images, from bundle.lock
    + sizes: bytes of each manifest, by digest
    + seconds: how long the import may take
    """
    state = host.get_fact(Images)
    if host.state.is_executing and state["state"] != "running":
        raise OperationError(
            f"{host.name}: containerd is {state['state']}, so no image can be imported. Look at `systemctl status "
            "containerd` and `journalctl -u containerd` there, then run again."
        )
    if state["state"] == "unreachable":
        host.noop("containerd does not answer now; the images it has are looked at when this runs")
        return
    lacking = [image for image in wanted if state["images"].get(image.name) != image.digest]
    if not lacking:
        host.noop(f"{len(wanted)} images are loaded")
        return
    if not host.state.is_executing:
        for image in lacking:
            host.log(f"Will import {image.name} ({image.digest[:19]}, {image.size / 1e6:.0f} MB)")
    yield StringCommand(import_script(lacking, seconds), _stdin=index(lacking, sizes))
