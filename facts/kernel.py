"""Kernel modules and settings."""

from __future__ import annotations

import shlex
from typing import Literal, cast

from pyinfra.api import FactBase

Module = Literal["loaded", "builtin", "available", "absent"]
# A function that the kernel has with a module which leaves no other sign when it is compiled in.
SYMBOLS = {"nf_conntrack": "nf_conntrack_in", "nf_tables": "nft_do_chain", "ip_tables": "ipt_do_table"}
SYMBOLS |= {"ip6_tables": "ip6t_do_table"}
SYMBOLS |= {"vxlan": "vxlan_xmit", "ip_vs": "ip_vs_conn_put", "ip_vs_rr": "ip_vs_rr_schedule"}
SYMBOLS |= {"ipip": "ipip_tunnel_xmit", "ip_set": "ip_set_test", "xt_set": "set_match_v4"}
SYMBOLS |= {"ip_set_hash_ip": "hash_ip_create", "cls_bpf": "cls_bpf_classify", "sch_ingress": "clsact_init"}


class KernelModules(FactBase[dict[str, Module]]):
    """Whether each module can be used, is to be loaded, or is not to be had.

    ::

        {"overlay": "builtin", "br_netfilter": "loaded", "ip_vs": "available", "nope": "absent"}

    A module compiled into the kernel is not in /proc/modules, and often not in /sys/module either; what it
    provides shows it: a file system in /proc/filesystems, sysctls of bridges in /proc/sys/net/bridge, a function in
    /proc/kallsyms. Those that can be loaded are listed in modules.dep, whether there is a `modinfo` or not.
    """

    @staticmethod
    def default() -> dict[str, Module]:
        return {}

    def command(self, names: tuple[str, ...]) -> str:
        symbols = " ".join(f"{module}) s={symbol};;" for module, symbol in SYMBOLS.items())
        return (
            f"for m in {shlex.join(name.replace('-', '_') for name in names)}; do "
            f"case $m in {symbols} *) s=;; esac; "
            'if grep -qs "^$m " /proc/modules; then echo "$m loaded"; '
            'elif test -d /sys/module/$m || grep -qw "$m" /proc/filesystems '
            "|| { test $m = br_netfilter && test -d /proc/sys/net/bridge; } "
            '|| grep -qs "/$m\\.ko" /lib/modules/$(uname -r)/modules.builtin '
            '|| { test -n "$s" && grep -qs " $s\\$" /proc/kallsyms; }; then echo "$m builtin"; '
            "elif modinfo $m >/dev/null 2>&1 "
            '|| grep -qs "/$m\\.ko[.a-z]*:" /lib/modules/$(uname -r)/modules.dep; then echo "$m available"; '
            'else echo "$m absent"; fi; done'
        )

    def process(self, output: list[str]) -> dict[str, Module]:
        return cast("dict[str, Module]", dict(line.split() for line in output))


class Sysctl(FactBase[dict[str, str | None]]):
    """The live values of some kernel settings; None for one that the kernel does not have (yet).

    ::

        {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": None}
    """

    @staticmethod
    def default() -> dict[str, str | None]:
        return {}

    def command(self, keys: tuple[str, ...]) -> str:
        return (
            # sysctl(8): within a name, such as that of a VLAN's interface, a dot is written as a slash.
            f"for k in {shlex.join(keys)}; do f=/proc/sys/$(echo $k | tr ./ /.); "
            'if test -r "$f"; then echo "$k=$(cat "$f")"; else echo "$k"; fi; done'
        )

    def process(self, output: list[str]) -> dict[str, str | None]:
        values: dict[str, str | None] = {}
        for line in output:
            key, found, value = line.partition("=")
            values[key] = " ".join(value.split()) if found else None
        return values
