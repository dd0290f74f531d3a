"""How much of a disk the kubelet keeps free, and evicts pods for.

https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

SIGNAL, DEFAULT = "imagefs.available", "15%"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%|[kMGT]|[KMGT]i)?")


@dataclass(frozen=True)
class Amount:
    """A share of a file system, or bytes."""

    share: float = 0.0
    bytes: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """An amount from `15%` or a quantity such as `1Gi`; what is neither is nothing, for the kubelet judges it."""
        if not (found := TEXT.fullmatch(text)):
            return cls()
        number, unit = float(found[1]), found[2] or ""
        return cls(share=number / 100) if unit == "%" else cls(bytes=number * UNITS[unit])

    def of(self, size: float) -> float:
        """How much that is of a file system of this many MiB, in MiB."""
        return self.share * size + self.bytes / 2**20


def kept(kubelet_config: Mapping[str, Any]) -> Amount:
    """What the kubelet with these fields of its own keeps free where images are."""
    hard = kubelet_config.get("evictionHard")
    if hard is None:
        return Amount.parse(DEFAULT)
    # Signals that are left out of a list of one's own are off, unless the kubelet is to take its defaults for them.
    left_out = DEFAULT if kubelet_config.get("mergeDefaultEvictionSettings") else "0"
    return Amount.parse(str(hard.get(SIGNAL, left_out)))
