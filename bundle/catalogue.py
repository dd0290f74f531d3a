"""What goes into a bundle: catalogue.yaml, changed by the site's own bundle.yaml, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from bundle import versions
from bundle.command import BuildError
from cluster import families
from cluster.lock import Label, Sha256
from cluster.pieces import RUNTIME

PATH = Path(__file__).with_name("catalogue.yaml")
Source = Literal["directory", "upstream", "mirror", "build"]
# As in https://go.dev/dl, without `go`; or the file of a module's source that has it.
GoRelease = Annotated[str, StringConstraints(pattern=r"^(1\.\d+(\.\d+)?|\.go-version)$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Download(_Model):
    """Where upstream has a component's programs.

    URLs have `{version}`, `{number}` (the version without its `v`), `{os}`, `{arch}` and `{program}` in them.

    `programs` is each program's path in the archive, empty where the file is the program itself. `checksum` may
    name the file by `{url}`; it holds a sha256 alone, or lines of a sha256 and a file's name.
    """

    url: str
    checksum: str
    programs: dict[str, str]


class OpenApi(_Model):
    """OpenAPI definitions that are not in a module's tree, and are generated before it is built.

    `generator` is a main package, of the version that the module's go.mod names. It reads the packages that ask for it
    in the module and in those of its staging directory but `without`, writes `package` below `header`, and must find
    the `violations` of API rules that upstream knows.
    """

    generator: str
    package: str
    header: str
    violations: str
    without: tuple[str, ...] = ()


class Module(_Model):
    """A Go module, the programs built from it (name -> main package), and later versions of what it requires.

    `c` are programs of C that it has beside these: name -> a file of it, or a directory with all files of the program.

    Without a version of its own it is of the component's, and so is the release of `go` that builds it. `pseudo` has
    the versions that Go knows by another name (https://go.dev/ref/mod#pseudo-versions); `tags` choose parts of its
    source. `charts` are directories of its source that are taken as they are: name -> directory.
    """

    # A field that is None is not part of what the cache knows a program by: gobuild.build.
    module: str
    version: str = ""
    packages: dict[str, str] = {}
    charts: dict[str, str] | None = None
    stamp: dict[str, str] = {}
    cgo: bool = False
    tags: tuple[str, ...] | None = None
    require: dict[str, str] = {}
    go: GoRelease | None = None
    pseudo: dict[str, str] | None = None
    openapi: OpenApi | None = None
    c: dict[str, str] | None = None

    @property
    def programs(self) -> frozenset[str]:
        """Every program that is built from it."""
        return frozenset({*self.packages, *(self.c or {})})

    @property
    def known_as(self) -> str:
        """The version as Go knows it."""
        return (self.pseudo or {}).get(self.version, self.version)


class Component(_Model):
    """Programs of one version, from one upstream, and how its modules are built.

    By the release of `go`, None: the catalogue's; with `require`, versions of what they require.
    """

    version: str
    licence: str
    go: GoRelease | None = None
    require: dict[str, str] = {}
    download: Download | None = None
    build: tuple[Module, ...] = ()

    @model_validator(mode="after")
    def _versions(self) -> Component:
        """Modules without a version or a release of Go get the component's."""
        build = tuple(
            each.model_copy(
                update={
                    "version": each.version or self.version,
                    "go": each.go or self.go,
                    "require": self.require | each.require,
                }
            )
            for each in self.build
        )
        object.__setattr__(self, "build", build)
        return self

    @property
    def programs(self) -> frozenset[str]:
        """Every program that it can give."""
        built = {program for module in self.build for program in (*module.programs, *(module.charts or ()))}
        return frozenset(built | set(self.download.programs if self.download else ()))


class Runtime(_Model):
    """What a container runtime has beside the distribution's: programs of components, and packages."""

    programs: tuple[str, ...]
    packages: tuple[str, ...] = ()


class Recipe(_Model):
    """Files of an image (path in it -> program) and how it starts."""

    files: dict[str, str]
    base: bool = False
    entrypoint: tuple[str, ...] = ()
    user: str = ""


class RemoteFile(_Model):
    """One file by its address, and what it must be."""

    url: str
    sha256: Sha256


class Chart(_Model):
    """A Helm chart: a directory or archive by its `path`, or one of a repository by name and version.

    `values` are files, a later one before an earlier one. With `sha256` the repository's archive must be that.
    """

    path: str = ""
    repository: str = ""
    name: str = ""
    version: str = ""
    sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Chart:
        """It is in one place, by everything that leads there."""
        if bool(self.path) == any((self.repository, self.name, self.version)) or (
            not self.path and not all((self.repository, self.name, self.version))
        ):
            raise ValueError("must have `path`, or else all of `repository`, `name` and `version`")
        return self


class OwnAddon(_Model):
    """An add-on of the site's own: manifests, files or addresses, or a chart; and the namespace it is in."""

    manifests: tuple[str | RemoteFile, ...] = ()
    chart: Chart | None = None
    namespace: Label = "default"

    @model_validator(mode="after")
    def _something(self) -> OwnAddon:
        """It is made of one or the other."""
        if bool(self.manifests) == bool(self.chart):
            raise ValueError("must have either `manifests` or `chart`")
        return self


class Network(_Model):
    """A pod network by its chart, which is the component's of its name: values of the chart."""

    values: dict[str, Any] = {}


class Repository(_Model):
    """A repository of packages beside the distribution's own: its address, and the file of the key it is signed by."""

    url: str
    key: str


class Release(_Model):
    """A distribution's release: sets of package names, where they are from, and what images' base layer is made of.

    A deb release has a `suite` of Debian's or Ubuntu's; an rpm release names every repository.
    """

    format: Literal["deb", "rpm"]
    suite: str = ""
    repositories: dict[str, Repository] = {}
    sets: dict[str, tuple[str, ...]]
    image_base: tuple[str, ...] = ()


class Catalogue(_Model):
    """Everything a bundle is made from. The last five fields are bundle.yaml's alone."""

    platform: str
    kubernetes_version: str
    sources: tuple[Source, ...]
    mirrors: dict[str, tuple[str, ...]]
    go: str
    components: dict[str, Component]
    programs: dict[str, tuple[str, ...]]
    recipes: dict[str, Recipe]
    extra_images: tuple[str, ...]
    packages: dict[str, Release]
    runtime: str = "package"
    runtimes: dict[str, Runtime] = {}
    addons: tuple[str, ...] = ()
    offered_addons: dict[str, tuple[str, ...]] = {}
    own_addons: dict[Label, OwnAddon] = {}
    networks: tuple[str, ...] = ()
    offered_networks: dict[str, Network] = {}
    directory: str = ""
    manifests: tuple[str, ...] = ()
    extra_files: tuple[str, ...] = ()
    signing_key: str = ""

    @model_validator(mode="after")
    def _one_kubernetes(self) -> Catalogue:
        """The programs are of the version that the bundle is of."""
        if self.components["kubernetes"].version != self.kubernetes_version:
            raise ValueError("components.kubernetes.version is another than kubernetes_version: set that alone")
        return self

    @model_validator(mode="after")
    def _one_runtime(self) -> Catalogue:
        """Programs, packages and components are those of the chosen runtime; those of the others are left out."""
        if self.runtime not in ("package", *self.runtimes):
            raise ValueError(f"runtime: must be one of {', '.join(('package', *self.runtimes))}, not {self.runtime}")
        chosen = self.runtimes.get(self.runtime)
        programs = self.programs | ({RUNTIME: chosen.programs} if chosen else {})
        others = {name for each in self.runtimes.values() for name in each.programs} - set(programs.get(RUNTIME, ()))
        kept = {name: each for name, each in self.components.items() if not each.programs or each.programs - others}
        object.__setattr__(self, "programs", programs)
        object.__setattr__(self, "components", kept)
        if chosen:
            sets = {"runtime": chosen.packages}
            releases = {
                name: each.model_copy(update={"sets": {**each.sets, **sets}}) for name, each in self.packages.items()
            }
            object.__setattr__(self, "packages", releases)
        return self

    @model_validator(mode="after")
    def _chosen_addons(self) -> Catalogue:
        """Images of the add-ons that are wanted are extra ones; components and recipes of the others are left out, and
        so are components of networks that are not wanted."""
        if unknown := sorted(set(self.addons) - set(self.offered_addons)):
            raise ValueError(f"addons: there is no {', '.join(unknown)}; there are {', '.join(self.offered_addons)}")
        if unknown := sorted(set(self.networks) - set(self.offered_networks)):
            raise ValueError(f"networks: there is no {', '.join(unknown)}; there is {', '.join(self.offered_networks)}")
        if taken := sorted(set(self.own_addons) & {*self.offered_addons, "coredns"}):
            raise ValueError(f"own_addons: {', '.join(taken)} is one of the catalogue's. Give yours another name")
        versions = {name: each.version for name, each in self.components.items()}
        images = tuple(each.format(**versions) for name in self.addons for each in self.offered_addons[name])
        others = {name for name in self.components for each in self._unwanted() if f"{{{name}}}" in each}
        others |= set(self.offered_networks) - set(self.networks)
        if not self.networks and not any(each.chart for each in self.own_addons.values()):
            others.add("helm")
        kept = {name: each for name, each in self.components.items() if name not in others}
        recipes = {name: each for name, each in self.recipes.items() if name not in others}
        object.__setattr__(self, "recipes", recipes)
        object.__setattr__(self, "extra_images", (*self.extra_images, *images))
        object.__setattr__(self, "components", kept)
        return self

    def _unwanted(self) -> list[str]:
        """Images of the add-ons that nobody wants, before versions are put in."""
        return [each for name, rows in self.offered_addons.items() if name not in self.addons for each in rows]


def load(site: Path | None = None, listed: Mapping[str, str] | None = None) -> Catalogue:
    """The catalogue as the site wants it, with the versions that go with its Kubernetes.

    `listed` is what `versions.of_images` makes of the images that its kubeadm lists, once that is at hand. Raises
    BuildError that names what is wrong in which file: versions.NoSuchMinor for a Kubernetes that is in no row.
    """
    text: dict[str, Any] = yaml.safe_load(PATH.read_text())
    own = _own(site) if site is not None and site.exists() else {}
    where = site if own else PATH
    text = known(text, own)
    kubernetes = own.get("kubernetes_version", text["kubernetes_version"])
    if isinstance(kubernetes, str):
        text = _merged(text, versions.of_kubernetes(text, kubernetes, listed or {}))
    text = merged(versions.of_releases(text, _versions(merged(text, own))), own)
    try:
        return Catalogue.model_validate(text)
    except ValidationError as error:
        lines = "".join(f"\n  - {_words(row['loc'], row['msg'])}" for row in error.errors())
        raise BuildError(f"{where}: cannot be used:{lines}\ndocs/bundle.md describes each name.") from None


def _own(site: Path) -> dict[str, Any]:
    """What a bundle.yaml says. Raises BuildError."""
    try:
        own = yaml.safe_load(site.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BuildError(f"{site}: is not YAML: {error}. docs/bundle.md shows what it may hold.") from None
    except OSError as error:
        raise BuildError(f"{site}: cannot be read: {error.strerror}.") from None
    if not isinstance(own, dict):
        raise BuildError(f"{site}: must hold names and values, as docs/bundle.md shows.")
    return own


def _versions(text: Mapping[str, Any]) -> dict[str, str]:
    """The versions of components, as far as they are any."""
    components = text["components"] if isinstance(text["components"], dict) else {}
    found = {name: each.get("version") for name, each in components.items() if isinstance(each, dict)}
    return {name: version for name, version in found.items() if isinstance(version, str)}


def known(text: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The catalogue with what is known of the releases that it or the site names (cluster/families.yaml).

    One that names its `format` is described whole by who names it, and nothing is added.
    """
    site = own.get("packages")
    rows = {**(site if isinstance(site, dict) else {}), **text["packages"]}
    whole = {name for name, row in rows.items() if isinstance(row, dict) and "format" in row}
    packages = {name: families.defaults(name) | text["packages"].get(name, {}) for name in rows if name not in whole}
    return {**text, "packages": text["packages"] | packages}


def _words(names: Sequence[str | int], what: str) -> str:
    """What is wrong, after the names that lead to it."""
    return ": ".join(filter(None, (".".join(map(str, names)), what.removeprefix("Value error, "))))


def merged(text: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The catalogue with the site's lines in it: names are merged, lists of images are added to, others replaced.

    A mirror of the site's is one line, `host: place`, and goes before the catalogue's.
    """
    if "kubernetes_version" in own:
        text = _merged(text, {"components": {"kubernetes": {"version": own["kubernetes_version"]}}})
    result = _merged(text, own)
    if isinstance(mirrors := own.get("mirrors"), dict):
        known = text["mirrors"]
        mine = {host: places if isinstance(places, list) else [places] for host, places in mirrors.items()}
        result["mirrors"] = {**known, **{host: [*places, *known.get(host, [])] for host, places in mine.items()}}
    if isinstance(images := own.get("extra_images"), list):
        result["extra_images"] = [*text["extra_images"], *images]
    return result


def _merged(text: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Names of names merged, however deep; everything else replaced."""
    result = dict(text)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(text.get(name), dict)
        result[name] = _merged(text[name], value) if both else value
    return result
