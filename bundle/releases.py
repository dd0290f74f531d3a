"""A release of each minor of Kubernetes that Go modules can be had of, and how it is built: releases.yaml, typed."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

PATH = Path(__file__).with_suffix(".yaml")


class Release(BaseModel):
    """A release of Kubernetes, the Go release that builds it (`1.24.9`), and modules it takes of another patch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    go: str
    require: dict[str, str] = {}

    def module(self, path: str) -> str:
        """The version of one of its published modules, such as k8s.io/kubelet."""
        return self.require.get(path) or self.version.replace("v1.", "v0.", 1)


@functools.cache
def load() -> dict[str, Release]:
    """Minor -> release, from the oldest to the newest."""
    return TypeAdapter(dict[str, Release]).validate_python(yaml.safe_load(PATH.read_text()))
