"""Whether a node swaps, and what would make it swap after a reboot."""

from __future__ import annotations

from typing import TypedDict

from pyinfra.api import FactBase


class SwapState(TypedDict):
    devices: list[str]
    fstab: list[str]
    units: list[str]
    zram: bool


class Swap(FactBase[SwapState]):
    """Swap that is on, and the three things that turn it on at boot.

    ::

        {"devices": ["/dev/sda2"], "fstab": ["UUID=1-2 none swap sw 0 0"], "units": ["dev-sda2.swap"], "zram": False}

    Units that systemd makes from fstab are left out: they go with their line
    (https://www.freedesktop.org/software/systemd/man/systemd.swap.html).
    """

    @staticmethod
    def default() -> SwapState:
        return SwapState(devices=[], fstab=[], units=[], zram=False)

    def command(self) -> str:
        return (
            "sed -n '2,$s/^/device /p' /proc/swaps; "
            "grep -E '^[[:space:]]*[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap([[:space:]]|$)' "
            "/etc/fstab 2>/dev/null | sed 's/^/fstab /'; "
            "systemctl list-unit-files --type=swap --no-legend --plain 2>/dev/null "
            '| awk \'$2 != "masked" && $2 != "generated" {print "unit " $1}\'; '
            "for f in /etc/systemd/zram-generator.conf /usr/lib/systemd/zram-generator.conf; do "
            "test -e $f || continue; test -s $f && echo zram $f; break; done; true"
        )

    def process(self, output: list[str]) -> SwapState:
        state = self.default()
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "device":
                state["devices"].append(rest.split()[0])
            elif kind == "fstab":
                state["fstab"].append(rest.strip())
            elif kind == "unit":
                state["units"].append(rest.strip())
            elif kind == "zram":
                # An empty file in /etc masks the vendor's; `test -s` has passed over it.
                state["zram"] = True
        return state
