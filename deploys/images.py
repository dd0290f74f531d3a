"""Images into the runtime, from the node's own pieces of the bundle (guide 3.2); nothing where they are pulled.

Hosts: control_plane, worker. Changes: containerd's namespace k8s.io, or CRI-O's storage. Undo: `crictl rmi`.
"""

from pyinfra import host
from pyinfra.api import deploy

from cluster import pieces
from deploys import plan
from operations import containerd, crio


@deploy("Images")
def images() -> None:
    wanted = pieces.images(plan.lock(), host.groups)
    if wanted and plan.settings().image_delivery == "load":
        digests = {image.digest for image in wanted}
        sizes = {digest: file.size for file in plan.lock().files if (digest := f"sha256:{file.sha256}") in digests}
        load = {"containerd": containerd.images, "cri-o": crio.images}[plan.settings().container_runtime]
        load(name="Import images", wanted=wanted, sizes=sizes)
    plan.barrier("images")


plan.run(__name__, images)
