"""catalogue.yaml, typed."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

PATH = Path(__file__).with_name("catalogue.yaml")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Module(_Model):
    """A Go module, the programs built from it (name -> main package), and later versions of what it requires."""

    module: str
    version: str
    packages: dict[str, str]
    stamp: dict[str, str] = {}
    cgo: bool = False
    require: dict[str, str] = {}


class ImageRecipe(_Model):
    """Files of an image (path in it -> program) and how it starts."""

    files: dict[str, str]
    base: bool = False
    entrypoint: tuple[str, ...] = ()
    user: str = ""


class Release(_Model):
    """A distribution's release: its suite, sets of package names, and what images' base layer is made of."""

    suite: str
    sets: dict[str, tuple[str, ...]]
    image_base: tuple[str, ...]


class Catalogue(_Model):
    """Everything a bundle is made from."""

    platform: str
    kubernetes_version: str
    go: str
    modules: dict[str, Module]
    programs: dict[str, tuple[str, ...]]
    images: dict[str, ImageRecipe]
    extra_images: tuple[str, ...]
    packages: dict[str, Release]


def load(path: Path = PATH) -> Catalogue:
    """Read the catalogue. Raises pydantic's ValidationError when a name or type is wrong."""
    return Catalogue.model_validate(yaml.safe_load(path.read_text()))
