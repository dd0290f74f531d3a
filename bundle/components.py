"""Each component's programs: from a directory at hand, from upstream, from a mirror of it, or built from source.

All programs of a component that can be downloaded come from one place. A place that does not answer, or has not all
of them, is passed over for the next; a place that has other bytes than the checksum or an earlier bundle.lock says
ends the build.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bundle import archive, cache, cbuild, gobuild
from bundle.catalogue import Catalogue, Component, Module
from bundle.command import BuildError
from bundle.download import Unavailable, WrongBytes, checksum, fetch, fetch_text, has, sha256_of
from bundle.progress import say, step
from bundle.sources import Kind, Place, ask, candidates_of

Found = Mapping[str, list[Place]]
Pins = Mapping[str, str]
CHANGED = (
    "What is there was changed, or was changed on the way: compare it with what the project itself publishes "
    "before anything else."
)
HOW_BUILT = (
    "The same source and Go gave other bytes. If you changed how it is built (`stamp`, `require`, another C library), "
    "build once without the old bundle.lock; if not, find out what did."
)


@dataclass(frozen=True)
class Program:
    """A program at hand. `source` is what its bytes follow from, wherever they were fetched: a pin's name in a lock."""

    path: Path
    version: str
    source: str
    licence: str


@dataclass(frozen=True)
class File:
    """A file that upstream publishes, where its checksum is, and the programs in it (program -> member).

    The member is empty where the file is the program itself.
    """

    url: str
    checksum: str
    programs: Mapping[str, str]

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return posixpath.basename(urlsplit(self.url).path)

    @property
    def host(self) -> str:
        """The host, with its port if it has one."""
        return urlsplit(self.url).netloc

    def source(self, program: str) -> str:
        """The canonical source of a program's bytes."""
        member = self.programs[program]
        return f"{self.url}#{posixpath.normpath(member)}" if member else self.url


def hosts(catalogue: Catalogue, wanted: Collection[str]) -> set[str]:
    """The hosts that these programs, and their checksums, are published at."""
    files = [file for component in catalogue.components.values() for file in files_of(component, catalogue, wanted)]
    return {urlsplit(url).netloc for file in files for url in (file.url, file.checksum)}


def files_of(component: Component, catalogue: Catalogue, wanted: Collection[str]) -> list[File]:
    """The files to download for the wanted ones of a component's programs."""
    if component.download is None:
        return []
    system, architecture = catalogue.platform.split("/")
    found: dict[str, File] = {}
    for program, member in component.download.programs.items():
        if program in wanted:
            values = {
                "version": component.version, "number": component.version.removeprefix("v"), "os": system,
                "arch": architecture, "program": program,
            }  # fmt: skip
            url = _filled(component.download.url, values)
            at = _filled(component.download.checksum, {**values, "url": url})
            known = found[url].programs if url in found else {}
            found[url] = File(url, at, {**known, program: _filled(member, values)})
    return list(found.values())


def _filled(template: str, values: Mapping[str, str]) -> str:
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError):
        names = ", ".join(f"{{{name}}}" for name in values)
        raise BuildError(f"{template}: may have no braces but {names}. Correct it in bundle.yaml.") from None


def obtain(catalogue: Catalogue, found: Found, pins: Pins, wanted: Collection[str]) -> dict[str, Program]:
    """The wanted programs, each as the first of the catalogue's sources gives it. Raises BuildError.

    `found` is `sources.places` of `hosts`; `pins` is the sha256 that a source's program must have.
    """
    left = set(wanted)
    result: dict[str, Program] = {}
    for name, component in catalogue.components.items():
        own = sorted(left & programs_of(component))
        if own:
            result.update(_Search(catalogue, found, pins, name, component).all(own))
            left -= set(own)
    if left:
        raise BuildError(f"No component of the catalogue has these programs: {', '.join(sorted(left))}.")
    return result


def programs_of(component: Component) -> set[str]:
    """Every program that a component can give."""
    return set(component.programs)


@dataclass(frozen=True)
class _Search:
    """One component's programs, looked for in one source after another."""

    catalogue: Catalogue
    found: Found
    pins: Pins
    name: str
    component: Component

    @property
    def title(self) -> str:
        return f"{self.name} {self.component.version}"

    def all(self, wanted: list[str]) -> dict[str, Program]:
        """All wanted programs, and a line that says where they are from and why not from elsewhere."""
        result: dict[str, Program] = {}
        origins: list[str] = []
        reasons: list[str] = []
        for source in self.catalogue.sources:
            left = [program for program in wanted if program not in result]
            if not left:
                break
            if source == "build":
                got, origin = self._built(left, reasons)
            else:
                got, origin = self._downloaded(source, left, reasons)
            if got:
                result.update(got)
                origins.append(origin if len(got) == len(wanted) else f"{', '.join(sorted(got))} {origin}")
        missing = [program for program in wanted if program not in result]
        if missing:
            attempts = "".join(f"\n  - {reason}" for reason in reasons) or "\n  - no source of the catalogue has them"
            raise BuildError(
                f"{self.title}: {', '.join(missing)} cannot be had:{attempts}\n"
                "If there is a proxy, set https_proxy. Else name a mirror (`mirrors`) or a `directory` with the files "
                "in bundle.yaml; docs/bundle.md shows how."
            )
        say(f"{self.title}: {'; '.join(origins)}{', for ' if reasons else ''}{' and '.join(reasons)}")
        return result

    def _downloaded(self, kind: Kind, wanted: list[str], reasons: list[str]) -> tuple[dict[str, Program], str]:
        """Those of the programs that are published, if one place of a kind has all of them, and the words for it."""
        files = files_of(self.component, self.catalogue, wanted)
        if not files:
            return {}, ""
        if kept := self._kept(files):
            return kept, "from the cache, as bundle.lock pins it"
        for place in self._places(kind, files[0].host, reasons):
            try:
                got = {program: made for file in files for program, made in self._file(file, place).items()}
            except Unavailable as error:
                reasons.append(error.reason)
            else:
                return got, f"from {'its mirror ' if kind == 'mirror' else ''}{place.address}"
        return {}, ""

    def _kept(self, files: list[File]) -> dict[str, Program]:
        """The programs of these files, if every one is pinned and in the cache."""
        kept = {}
        for file in files:
            for program in file.programs:
                pin = self.pins.get(file.source(program), "")
                path = _kept_at(program, pin)
                if not has(path, pin):
                    return {}
                kept[program] = self._program(file, program, path)
        return kept

    def _places(self, kind: Kind, host: str, reasons: list[str]) -> list[Place]:
        """The places of a kind to try; when there is none, the reason is noted."""
        if kind == "directory":
            return [Place("directory", self.catalogue.directory)] if self.catalogue.directory else []
        found = self.found.get(host, [])
        if found and found[0].kind != kind:
            # Another kind answered, so nobody has asked this one; but that did not have everything.
            candidates = candidates_of(self.catalogue, kind, host)
            answers = ask(place.address for place in candidates)
            found = [place for place in candidates if not answers[place.address]]
        if not found and kind == "upstream":
            reasons.append(f"{host} does not answer")
        elif not found and self.catalogue.mirrors.get(host):
            reasons.append(f"no mirror of {host} answers")
        return found

    def _file(self, file: File, place: Place) -> dict[str, Program]:
        """The programs of a file, from a place. Raises BuildError: Unavailable when the place has it not."""
        url = _locate(place, file.url)
        if not any(file.programs.values()):
            return {program: self._plain(file, program, place, url) for program in file.programs}
        sha256, by = self._published(file, place, url)
        packed = cache.ROOT / "downloads" / sha256 / file.name
        self._fetch(url, packed, sha256, by)
        return {program: self._program(file, program, path) for program, path in self._unpacked(file, packed).items()}

    def _plain(self, file: File, program: str, place: Place, url: str) -> Program:
        """A program that is a file of its own."""
        pin = self.pins.get(file.source(program))
        sha256, by = (pin, "bundle.lock") if pin else self._published(file, place, url)
        path = _kept_at(program, sha256)
        self._fetch(url, path, sha256, by)
        return self._program(file, program, path)

    def _fetch(self, url: str, target: Path, sha256: str, by: str) -> None:
        """Download a file of whose sha256 `by` speaks, unless it is there."""
        if has(target, sha256):
            return
        try:
            with step(f"downloading {posixpath.basename(urlsplit(url).path)} of {self.title}") as report:
                fetch(url, target, sha256, report)
        except WrongBytes as error:
            raise WrongBytes(f"{error} What it must have is said by {by}. {CHANGED}") from None

    def _published(self, file: File, place: Place, url: str) -> tuple[str, str]:
        """The sha256 of a file and where it is from: upstream before the place that the file comes from."""
        host = urlsplit(file.checksum).netloc
        known = self.found.get(host, [])
        if place.kind == "directory":
            asked = [place, *known]
        elif host == file.host:
            asked = [*(each for each in known if each.kind == "upstream" and each != place), place]
        else:
            asked = known
        reasons = []
        for each in asked:
            try:
                at = _locate(each, file.checksum)
                sha256 = checksum(fetch_text(at), file.name)
            except Unavailable as error:
                reasons.append(error.reason)
                continue
            if each.kind == "mirror":
                say(f"{url}: checked by the mirror's own checksum, for upstream's cannot be asked; bundle.lock pins it")
            return sha256, at
        if place.kind != "directory":
            raise Unavailable(f"{url} has no checksum: {'; '.join(reasons) or f'{host} does not answer'}")
        say(f"{url}: there is no checksum to check it by; bundle.lock pins it from now on")
        return sha256_of(_path(place, file.url)), "the file itself"

    def _unpacked(self, file: File, packed: Path) -> dict[str, Path]:
        """The programs of an archive, in the cache. Raises BuildError when one is not what its pin says."""
        result = {}
        with tempfile.TemporaryDirectory(dir=packed.parent) as directory:
            archive.unpack(packed, file.programs, Path(directory))
            for program in file.programs:
                sha256 = sha256_of(Path(directory, program))
                source = file.source(program)
                _as_pinned(source, sha256, self.pins, "Upstream has another archive there now than it had.")
                result[program] = _kept_at(program, sha256)
                result[program].parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(directory, program), result[program])
        return result

    def _program(self, file: File, program: str, path: Path) -> Program:
        path.chmod(0o755)
        return Program(path, self.component.version, file.source(program), self.component.licence)

    def _built(self, wanted: Collection[str], reasons: list[str]) -> tuple[dict[str, Program], str]:
        """Those of the programs that Go modules give, and the words for it. Raises WrongBytes as pins say."""
        result = {}
        try:
            for module in self.component.build:
                # One by one: a program's bytes must not follow from what else is wanted of its module.
                for program in sorted(set(wanted) & module.programs):
                    result[program] = self._compiled(module, program)
                for chart in sorted(set(wanted) & set(module.charts or ())):
                    result[chart] = self._chart(module, (module.charts or {})[chart])
        except WrongBytes:
            raise
        except BuildError as error:
            reasons.append(f"it cannot be built from source ({error})")
            return {}, ""
        others = sorted({program.version for program in result.values()} - {self.component.version})
        compiled = any(set(result) & set(module.packages) for module in self.component.build)
        how = "built from source" if compiled else "as its Go module has it"
        words = f"{how}{' as ' if others else ''}{', '.join(others)}"
        known = files_of(self.component, self.catalogue, wanted)
        return result, words if known else f"{words}, for the catalogue has no download of it"

    def _compiled(self, module: Module, program: str) -> Program:
        go, platform = gobuild.toolchain(self.catalogue.go), self.catalogue.platform
        if module.c and program in module.c:
            path, source = cbuild.build(go, program, module, module.c[program], platform)
        else:
            package = module.packages[program]
            only = module.model_copy(update={"packages": {program: package}, "c": None})
            path = gobuild.build(go, program, only, platform) / program
            source = f"go:{package}@{module.known_as} {gobuild.release(go, module)} {platform}"
        _as_pinned(source, sha256_of(path), self.pins, HOW_BUILT)
        return Program(path, module.version, source, self.component.licence)

    def _chart(self, module: Module, directory: str) -> Program:
        """A directory of a module's source, which Go has checked; of one nothing is pinned."""
        path = gobuild.source(gobuild.toolchain(self.catalogue.go), module) / directory
        if not path.is_dir():
            raise BuildError(f"{module.module} {module.version} has no {directory}")
        return Program(
            path, module.version, f"go:{module.module}/{directory}@{module.known_as}", self.component.licence
        )


def _as_pinned(source: str, sha256: str, pins: Pins, advice: str) -> None:
    if pins.get(source, sha256) != sha256:
        raise WrongBytes(f"{source}: has sha256 {sha256}, and bundle.lock says {pins[source]}. {advice}")


def _kept_at(program: str, sha256: str) -> Path:
    """Where the cache has a program."""
    return cache.ROOT / "programs" / sha256 / program


def _path(place: Place, url: str) -> Path:
    """A file's path in a directory: as upstream's host has it, else by its name alone. Raises Unavailable."""
    directory = Path(place.address).expanduser()
    parts = urlsplit(url)
    for path in (directory / parts.netloc / parts.path.lstrip("/"), directory / posixpath.basename(parts.path)):
        if path.is_file():
            return path
    raise Unavailable(f"{directory} has no {posixpath.basename(parts.path)}")


def _locate(place: Place, url: str) -> str:
    """The URL at a place of what upstream has there. Raises Unavailable when a directory has it not."""
    return _path(place, url).resolve().as_uri() if place.kind == "directory" else place.url(url)
