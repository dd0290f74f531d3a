"""The images that Calico's operator will ask for, which no manifest names: its own program lists them.

`operator --print-images=list`: https://github.com/tigera/operator/blob/v1.36.0/main.go. The program is taken out of
the operator's image in the bundle and run here, as kubeadm is for its own list.
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bundle import oci, references
from bundle.command import BuildError, run
from bundle.references import Reference

PATH = "tigera/operator"
ADVICE = "Name Calico's images under `extra_images` in bundle.yaml."


def is_operator(reference: Reference) -> bool:
    """Whether an image is Calico's operator, in whatever registry."""
    return f"/{reference.path}".endswith(f"/{PATH}")


def images(layout: Path, placement: Mapping[str, str]) -> list[str]:
    """Full references of the images that the operator in a layout of its own asks for. Raises BuildError.

    Those of Calico for Linux; of Calico Enterprise, Windows and FIPS mode it lists more. `placement` is that of
    `manifests.calico_placement`.
    """
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "operator")
        _extract(layout, program)
        try:
            # Nothing of the environment is its business.
            listed = run(program, "--print-images=list", env={}).split()
        except (BuildError, OSError) as error:
            raise BuildError(f"Calico's operator does not list its images here: {error}. {ADVICE}") from None
    found = [references.parse(text) for text in listed]
    wanted = [each for each in found if each.path.startswith("calico/") and not _special(each)]
    if not wanted:
        raise BuildError(f"Calico's operator lists no image of Calico: {' '.join(listed)[:300]}. {ADVICE}")
    return sorted({_placed(each, placement) for each in wanted})


def _special(reference: Reference) -> bool:
    return reference.path.endswith("-windows") or reference.tag.endswith("-fips")


def _placed(reference: Reference, placement: Mapping[str, str]) -> str:
    """A reference as the operator makes it of an Installation's settings.

    https://github.com/tigera/operator/blob/v1.36.0/pkg/components/references.go
    """
    directory, _, name = reference.path.rpartition("/")
    parts = (
        placement.get("registry", reference.host).strip("/"),
        placement.get("imagePath", directory).strip("/"),
        f"{placement.get('imagePrefix', '')}{name}{reference.suffix}",
    )
    return references.parse("/".join(parts)).name


def _extract(layout: Path, program: Path) -> None:
    """Write the program of the operator's image; the last layer that has it counts."""
    (image,) = oci.images(layout)
    manifest = json.loads(oci.blob(layout, image["digest"]).read_text())
    for layer in reversed(manifest["layers"]):
        with tempfile.TemporaryFile() as tar:
            oci.unpack(oci.blob(layout, layer["digest"]), tar)
            tar.seek(0)
            with tarfile.open(fileobj=tar) as archive:
                for member in archive:
                    if member.isfile() and os.path.basename(member.name) == "operator" and member.mode & 0o111:
                        content = archive.extractfile(member)
                        assert content is not None
                        program.write_bytes(content.read())
                        program.chmod(0o755)
                        return
    raise BuildError(f"{image['name']} has no program named operator. {ADVICE}")
