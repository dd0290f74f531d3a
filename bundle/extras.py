"""What a site adds to a bundle: images and files of its own. They stay when the bundle is built again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bundle import assemble, images, oci, sources
from bundle.assemble import Contents, Label
from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.components import Program
from bundle.download import sha256_of
from bundle.packing import Image
from bundle.signature import LOCK, SIGNATURE
from bundle.verify import read_lock, verify
from cluster import lock
from cluster.lock import Lock

DIRECTORY = "files"


def add_image(output: Path, wanted: Catalogue, what: str, name: str = "") -> Lock:
    """Add an image to the bundle: a reference, asked for as the catalogue's sources have it, or an archive's file.

    `name` is for an archive whose one image has none. Raises BuildError, or BundleError when there is no bundle, which
    stays as it was.
    """
    if name and not Path(what).is_file():
        raise BuildError(f"{what}: is no file, and only the image of a file can be named. Leave the name out.")
    wanted = wanted.model_copy(update={"platform": read_lock(output).platform})
    if Path(what).is_file():
        taken = images.take_archive(Path(what), wanted.platform, name)
        layouts = [image.layout for image in taken]
    else:
        fetched = wanted.model_copy(update={"sources": tuple(each for each in wanted.sources if each != "build")})
        found = sources.places(fetched, images.hosts([what]))
        layout, taken = images.layout(fetched, [what], _nothing, _no_base, found, {})
        layouts = [layout]

    def change(beside: Path, known: Contents) -> Contents:
        present = {row["name"] for row in oci.images(beside / "images")}
        for image in taken:
            if image.reference in present and image.reference not in known.extras:
                raise BuildError(
                    f"{image.reference}: the bundle has an image of this name, which the cluster itself needs. Give "
                    "yours another name."
                )
        return with_images(beside, known, layouts, taken)

    return amend(output, change, wanted.signing_key)


def add_file(output: Path, wanted: Catalogue, path: Path) -> Lock:
    """Add a file to the bundle, as files/ and its name; it takes the place of one of that name. Raises as above."""
    return amend(output, lambda beside, known: with_files(beside, known, [path]), wanted.signing_key)


def amend(output: Path, change: Callable[[Path, Contents], Contents], signing_key: str) -> Lock:
    """Change a bundle that is whole. What is not changed is linked, not copied. Raises as above."""
    with assemble.alone(output):
        if problems := verify(output):  # else damage would be locked as if it were right
            raise BuildError("The bundle is not whole, and nothing was added:\n" + "\n".join(problems))
        known = Contents.of(read_lock(output))

        def lay_out(beside: Path) -> Contents:
            shutil.copytree(output, beside, copy_function=os.link, dirs_exist_ok=True)
            for name in (LOCK, SIGNATURE):
                (beside / name).unlink(missing_ok=True)
            return change(beside, known)

        return assemble.finish(output, lay_out, signing_key)


def with_files(beside: Path, known: Contents, paths: Sequence[Path]) -> Contents:
    """Put files into a bundle that is being laid out. Raises BuildError."""
    labels, added = dict(known.labels), list(known.extras)
    names = [path.name for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BuildError(
            f"Several files are named {', '.join(twice)}, and {DIRECTORY}/ has one of a name. Rename them."
        )
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise BuildError(f"{path}: is no file that could be added. Name a file; a directory goes in as an archive.")
        inside = f"{DIRECTORY}/{path.name}"
        (beside / DIRECTORY).mkdir(exist_ok=True)
        (beside / inside).unlink(missing_ok=True)  # a link to the old bundle's, which must not be written to
        shutil.copyfile(path, beside / inside)
        labels[inside] = Label(path.name, source=f"file:{path.name}")
        added.append(inside)
    return replace(known, labels=labels, extras=tuple(dict.fromkeys(added)))


def with_images(beside: Path, known: Contents, layouts: Collection[Path], taken: Collection[Image]) -> Contents:
    """Put images into a bundle that is being laid out; one of a name that is there takes its place."""
    names = {image.reference for image in taken}
    directory, merged = beside / "images", beside / "images.new"
    others = [row for row in oci.images(directory) if row["name"] not in names]
    target = oci.Layout(merged)
    target.include(directory, {row["name"] for row in others})
    labels: dict[str, Label] = {}
    for layout in layouts:
        target.include(layout, names)
        labels |= assemble.image_labels(layout, taken)
    target.finish()
    shutil.rmtree(directory)
    merged.rename(directory)
    # A blob that others have as well stays under their name.
    needed = {_blob(digest) for row in others for digest in row["blobs"]}
    labels |= {path: each for path, each in known.labels.items() if path in needed or path not in labels}
    origins = {**known.origins, **{image.reference: image.origin for image in taken}}
    return replace(known, labels=labels, origins=origins, extras=tuple(dict.fromkeys([*known.extras, *sorted(names)])))


def kept(beside: Path, known: Contents, output: Path, earlier: Lock) -> Contents:
    """Put what was added to the earlier bundle into the one that is being laid out. Raises BuildError."""
    present = {row["name"] for row in oci.images(beside / "images")}
    images = {image.name: image for image in earlier.images if image.name not in present}
    files = {file.path: file for file in earlier.files}
    left = [name for name in earlier.extras if name not in known.extras and (name in files or name in images)]
    for name in left:
        for part in ["images/index.json", *_blobs(images[name])] if name in images else [name]:
            if not (output / part).is_file() or sha256_of(output / part) != files[part].sha256:
                raise BuildError(
                    f"{output / part}: is of {name}, which was added to the bundle, and is not as it was then. Put it "
                    f"back, or take {name} out of `extras` in {output / LOCK} to do without it."
                )
    added = with_files(beside, known, [output / name for name in left if name in files])
    labels = Contents.of(earlier).labels
    taken = []
    for name in left:
        if name in images:
            label = labels[_blobs(images[name])[0]]
            taken.append(Image(name, output / "images", images[name].origin, label.source, label.licence))
    return with_images(beside, added, [output / "images"], taken) if taken else added


def _blobs(image: lock.Image) -> list[str]:
    """The files of an image in a bundle, its manifest's first."""
    return [_blob(digest) for digest in image.blobs]


def _blob(digest: str) -> str:
    return f"images/blobs/{digest.replace(':', '/')}"


def _nothing(names: Collection[str]) -> Mapping[str, Program]:
    raise BuildError(f"{', '.join(names)}: is not built for an image that a site adds.")


def _no_base() -> Path:
    raise BuildError("No image that a site adds is made here.")
