"""Images in the cache, each in a layout of its own, their layers packed by zstd once and linked from there.

An image from elsewhere keeps its config, and so its ID; its layers are packed anew, which makes other digests than its
registry has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from bundle import cache, oci
from bundle.command import BuildError
from bundle.oci import Content, Layer, Layout
from bundle.progress import Report

LICENCE = "org.opencontainers.image.licenses"


@dataclass(frozen=True)
class Image:
    """An image at hand, in a layout of its own.

    `origin` is the digest that its registry gave the reference. `source` is what its bytes follow from, wherever they
    were fetched; with an origin it is the name of a pin in a lock. `licence` is empty where nobody has said.
    """

    reference: str
    layout: Path
    origin: str | None
    source: str
    licence: str


def pack(made: Path, name: str, platform: str, content: Content, report: Report) -> None:
    """Make the layout of an image that came from elsewhere. Raises BuildError when a layer is not the config's."""
    plain = json.loads(content.config)["rootfs"]["diff_ids"]
    if len(plain) != len(content.layers):
        raise BuildError(f"{name}: has {len(content.layers)} layers, and {len(plain)} by its config. Get it again.")
    target = Layout(made)
    layers = []
    for number, (diff_id, path) in enumerate(zip(plain, content.layers, strict=True), 1):
        what = f"layer {number} of {len(plain)}"
        unpack = partial(_unpack, path, diff_id, name)
        if oci.is_zstd(path):  # small already, and packing is what takes time
            unpack(None)
            described = oci.describe(path, oci.LAYER)
            target.take(path, described["digest"])
            layers.append((described, diff_id))
        else:
            layers.append(layer(target, diff_id, unpack, what, report))
    target.add(name, platform, content.config, layers)
    target.finish()


def _unpack(path: Path, diff_id: str, name: str, target: IO[bytes] | None) -> None:
    if (found := oci.unpack(path, target)) != diff_id:
        raise BuildError(f"{name}: a layer of it has digest {found}, and {diff_id} by its config. Get it again.")


def layer(target: Layout, recipe: object, write: Callable[[IO[bytes]], object], what: str, report: Report) -> Layer:
    """Put the layer that `write` writes into a layout, packed, or from the cache as the recipe says."""

    def make(made: Path) -> None:
        packed = oci.pack(write, made / "layer", progress(what, report))
        (made / "layer.json").write_text(json.dumps(packed))

    kept = cache.directory("image-layer", recipe, make)
    descriptor, plain = json.loads((kept / "layer.json").read_text())
    with _kept():
        target.take(kept / "layer", descriptor["digest"])
    return descriptor, plain


def progress(what: str, report: Report) -> oci.Progress:
    """Reports how much of something is packed."""
    return lambda done, of: report(f"{what}, {done / 1e6:.0f} of {of / 1e6:.0f} MB")


def together(images: Iterable[Image]) -> Path:
    """The directory of one layout with all of these images, each blob once; from the cache or made."""
    layouts = {image.layout.name: image.layout for image in images}

    def make(made: Path) -> None:
        whole = Layout(made)
        with _kept():
            for path in layouts.values():
                whole.include(path)
        whole.finish()

    return cache.directory("images", sorted(layouts), make)


@contextmanager
def _kept() -> Iterator[None]:
    """What to do when something of the cache is damaged; blobs are linked to from several places of it."""
    try:
        yield
    except BuildError as error:
        raise BuildError(f"{error} Remove {cache.ROOT}/image* and build again.") from None


def labelled_licence(layout: Path) -> str:
    """The licence that an image's label says; empty when it has none."""
    (image,) = oci.images(layout)
    config = json.loads(oci.blob(layout, image["blobs"][1]).read_text())
    return str(((config.get("config") or {}).get("Labels") or {}).get(LICENCE, ""))
