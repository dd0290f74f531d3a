"""All images of a bundle in one OCI layout: from a directory at hand, a registry, a mirror of it, or made here.

Each image and each of its layers is kept in the cache, so that a build that was cut short goes on where it was.
"""

from __future__ import annotations

import dataclasses
import errno
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from bundle import archives, cache, calico, manifests, packing, recipes, references, skopeo
from bundle.catalogue import Catalogue, Source
from bundle.command import BuildError, run
from bundle.components import Found, Pins
from bundle.download import Unavailable
from bundle.oci import Content
from bundle.packing import Image
from bundle.progress import say, step
from bundle.recipes import Programs
from bundle.references import Reference
from bundle.sources import Kind, Place, ask, candidates_of


def wanted(catalogue: Catalogue, kubeadm: Path) -> list[str]:
    """References of all images: what this very kubeadm lists, what the site's manifests name, and the catalogue's own.

    Calico's operator names more, which `layout` adds. Raises BuildError.
    """
    listed = run(kubeadm, "config", "images", "list", "--kubernetes-version", catalogue.kubernetes_version).split()
    named = manifests.images(map(Path, catalogue.manifests))
    return sorted({references.parse(each).name for each in (*listed, *named, *catalogue.extra_images)})


def hosts(names: Collection[str]) -> set[str]:
    """The registries of images."""
    return {references.parse(name).host for name in names}


def layout(
    catalogue: Catalogue,
    names: Collection[str],
    programs: Programs,
    base: Callable[[], Path],
    found: Found,
    pins: Pins,
) -> tuple[Path, list[Image]]:
    """The directory of one OCI layout with these images, and what each of them is; from the cache or made.

    `programs` and `base` are as in `recipes.make`; `found` is `sources.places` of `hosts`; `pins` is the digest that
    an image's registry gave it when the lock was made, by the image's source. Raises BuildError.
    """
    with _room(), _fetching() as blobs:
        images = _obtained(_Search(catalogue, programs, base, found, pins, blobs), names)
        return packing.together(images), images


def _obtained(search: _Search, names: Collection[str]) -> list[Image]:
    """The images of these names, and those that Calico's operator names if it is one of them. Raises BuildError."""
    images = [search.image(references.parse(name)) for name in sorted(names)]
    operators = [image for image in images if calico.is_operator(references.parse(image.reference))]
    if operators:
        placement = manifests.calico_placement(map(Path, search.catalogue.manifests))
        more = {name for image in operators for name in calico.images(image.layout, placement)}
        known = {image.reference for image in images}
        images += [search.image(references.parse(name)) for name in sorted(more - known)]
    return images


def take_archive(path: Path, platform: str, name: str = "") -> list[Image]:
    """The images of an archive, under the names that it gives them; under `name` when it has one image.

    Raises BuildError: when it is refused or damaged, is for another platform, or has an image without a name.
    """
    entries = archives.entries(path, platform)
    if name and len(entries) != 1:
        raise BuildError(f"{path}: has {len(entries)} images, which cannot all be named {name}. Give no name.")
    taken = []
    for entry in entries:
        names = (references.parse(name).name,) if name else entry.names
        if not names:
            raise BuildError(
                f"{path}: image {entry.image_id} has no name. Give it one, such as registry.example.org/app:1.0, or "
                "save it by its name (`docker save NAME:TAG`), not by its ID."
            )
        with _room():
            taken += [_from_archive(path, entry, each, platform) for each in names]
    return taken


@contextmanager
def _fetching() -> Iterator[Path]:
    """A directory for what comes, as long as it is not packed."""
    cache.ROOT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache.ROOT) as directory:
        yield Path(directory)


@contextmanager
def _room() -> Iterator[None]:
    """What to do when something cannot be written to the cache."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = error.filename or cache.ROOT
        raise BuildError(
            f"{where}: {error.strerror}. Make room there, or set XDG_CACHE_HOME to another place."
        ) from None


def _from_archive(path: Path, entry: archives.Entry, name: str, platform: str) -> Image:
    """An image of an archive under a name. Raises BuildError."""

    def make(made: Path) -> None:
        with _fetching() as directory, step(f"taking {name}") as report:
            content = archives.content(path, entry, platform, directory)
            packing.pack(made, name, platform, content, report)

    made = cache.directory("image", ["archive", name, entry.image_id, platform], make)
    return Image(name, made, None, f"archive:{path.name}#{entry.image_id}", packing.labelled_licence(made))


@dataclass(frozen=True)
class _Search:
    """Images, looked for in one of the catalogue's sources after another; `blobs` is for what registries give."""

    catalogue: Catalogue
    programs: Programs
    base: Callable[[], Path]
    found: Found
    pins: Pins
    blobs: Path
    answered: dict[tuple[Kind, str], list[Place]] = field(default_factory=dict)

    def image(self, reference: Reference) -> Image:
        """An image, and a line that says where it is from and why not from elsewhere. Raises BuildError."""
        errors: list[Unavailable] = []
        for source in (each for each in self.catalogue.sources if each != "directory" or self.catalogue.directory):
            try:
                image, where = self._from(source, reference)
            except Unavailable as error:
                errors.append(error)
            else:
                reasons = "; ".join(error.reason for error in errors)
                say(f"{reference.name}: {where}{', for ' if reasons else ''}{reasons}")
                return self._licensed(image)
        attempts = "".join(f"\n  - {error}" for error in errors) or " no source of the catalogue has images."
        raise BuildError(
            f"{reference.name} cannot be had:{attempts}\nA mirror (`mirrors`), or a `directory` with an archive of the "
            "image, can be named in bundle.yaml; docs/bundle.md shows how."
        )

    def _from(self, source: Source, reference: Reference) -> tuple[Image, str]:
        """An image from one source, and the words for it. Raises Unavailable."""
        if source == "directory":
            return self._at_hand(reference)
        if source == "build":
            return recipes.make(self.catalogue, reference, self.programs, self.base), "made here"
        return self._registry(source, reference)

    def _licensed(self, image: Image) -> Image:
        """The image, with the licence of the components whose programs it has when its label says none."""
        recipe = self.catalogue.recipes.get(references.parse(image.reference).short)
        if image.licence or recipe is None:
            return image
        return dataclasses.replace(image, licence=recipes.licence(self.catalogue, recipe.files.values()))

    def _at_hand(self, reference: Reference) -> tuple[Image, str]:
        """An image of the archives at hand. Raises Unavailable when none has it."""
        entries = self._archives.get(reference.name, [])
        if not entries:
            raise Unavailable(f"no archive in {self.catalogue.directory} has it")
        if len({entry.image_id for _, entry in entries}) > 1:
            files = " and ".join(path.name for path, _ in entries)
            raise BuildError(f"{reference.name}: {files} have different images of this name. Remove all but one.")
        path, entry = entries[0]
        return _from_archive(path, entry, reference.name, self.catalogue.platform), f"from {path}"

    @cached_property
    def _archives(self) -> dict[str, list[tuple[Path, archives.Entry]]]:
        """The images of the archives at hand, by their names."""
        known: dict[str, list[tuple[Path, archives.Entry]]] = {}
        for path in sorted(Path(self.catalogue.directory).glob("*.tar")):
            try:
                entries = archives.entries(path, self.catalogue.platform)
            except archives.NoImages:
                continue
            except Unavailable as error:
                say(f"{path}: is passed over, for {error.reason}")
                continue
            for entry in entries:
                for name in entry.names:
                    known.setdefault(name, []).append((path, entry))
        return known

    def _registry(self, kind: Kind, reference: Reference) -> tuple[Image, str]:
        """An image from its registry or from mirrors of it. Raises Unavailable."""
        places = partial(self._places, kind, reference.host)
        if pinned := reference.digest or self.pins.get(_source(reference), ""):
            return self._pulled(reference, pinned, places)
        errors = []
        for place in places():
            try:
                with step(f"asking {place.address} for {reference.name}"):
                    origin = skopeo.origin_of(reference, place)
                return self._pulled(reference, origin, partial(list, [place]))
            except Unavailable as error:
                errors.append(error)
        raise _joined(errors)

    def _pulled(self, reference: Reference, origin: str, places: Callable[[], Sequence[Place]]) -> tuple[Image, str]:
        """The image of a digest, from the cache or from the first place that has it. Raises Unavailable."""
        where = f"from the cache{', as bundle.lock pins it' if _source(reference) in self.pins else ''}"
        platform = self.catalogue.platform

        def make(made: Path) -> None:
            nonlocal where
            content, place = _fetched(reference, origin, places(), platform, self.blobs)
            with step(f"packing {reference.name}") as report:
                packing.pack(made, reference.name, platform, content, report)
            where = f"from {'its mirror ' if place.kind == 'mirror' else ''}{place.address}"

        made = cache.directory("image", [_source(reference), origin, platform], make)
        return Image(reference.name, made, origin, _source(reference), packing.labelled_licence(made)), where

    def _places(self, kind: Kind, host: str) -> list[Place]:
        """The places of a kind that answer. Raises Unavailable when none does."""
        places = [place for place in self.found.get(host, []) if place.kind == kind]
        if not places and (self.found.get(host) or host not in self.found):
            # Another kind answered, so nobody has asked this one; or nobody knew of this registry.
            if (kind, host) not in self.answered:
                candidates = candidates_of(self.catalogue, kind, host)
                answers = ask(place.address for place in candidates)
                self.answered[kind, host] = [place for place in candidates if not answers[place.address]]
            places = self.answered[kind, host]
        if not places:
            raise Unavailable(f"{host} does not answer" if kind == "upstream" else f"no mirror of {host} answers")
        return places


def _source(reference: Reference) -> str:
    return f"docker://{reference.name}"


def _fetched(
    reference: Reference, origin: str, places: Sequence[Place], platform: str, blobs: Path
) -> tuple[Content, Place]:
    """What the first place that has an image gives, and which place it is. Raises Unavailable."""
    errors = []
    for place in places:
        try:
            with step(f"fetching {reference.name} from {place.address}") as report:
                return skopeo.pull(reference, origin, place, platform, blobs, report), place
        except Unavailable as error:
            errors.append(error)
    raise _joined(errors)


def _joined(errors: Sequence[Unavailable]) -> Unavailable:
    """One error for several places."""
    if len(errors) == 1:
        return errors[0]
    return Unavailable("; ".join(error.reason for error in errors), "\n".join(dict.fromkeys(map(str, errors))))
