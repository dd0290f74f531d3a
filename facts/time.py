"""A host's clock, and whether something keeps it."""

from __future__ import annotations

from pyinfra.api import FactBase


class TimeSynchronized(FactBase[bool | None]):
    """Whether the kernel's clock is disciplined by some time service, as `timedatectl` reads it from adjtimex(2).

    ::

        True

    None where there is no `timedatectl` to ask.
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self) -> str:
        return "timeout 10 timedatectl show -p NTPSynchronized --value 2>/dev/null || true"

    def process(self, output: list[str]) -> bool | None:
        return {"yes": True, "no": False}.get(output[0].strip()) if output else None


class Time(FactBase[float]):
    """A host's clock, in seconds since 1970.

    ::

        1795590000.123456789
    """

    @staticmethod
    def default() -> float:
        return 0.0

    def command(self) -> str:
        return "date +%s.%N"

    def process(self, output: list[str]) -> float:
        return float(output[0])
