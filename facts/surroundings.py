"""What else runs or is set on a host that a cluster will meet."""

from __future__ import annotations

import re
from typing import Literal, TypedDict

from pyinfra.api import FactBase

TOOLS = "ip ping bash find xargs"
SOCKETS = "/run/docker.sock /run/cri-dockerd.sock /run/dockershim.sock /run/crio/crio.sock"
# Where systemd and PAM take the environment of what is started from.
ENVIRONMENTS = (
    "/etc/environment /etc/systemd/system.conf /etc/systemd/system.conf.d/*.conf "
    "/etc/systemd/system/containerd.service.d/*.conf /etc/systemd/system/kubelet.service.d/*.conf "
    "/etc/default/kubelet /etc/sysconfig/kubelet"
)
VARIABLE = re.compile(r"\b(https?_proxy|all_proxy|no_proxy)=(?:\"([^\"]*)|'([^']*)|([^\s\"']*))", re.IGNORECASE)


class SurroundingsState(TypedDict):
    proxies: dict[str, dict[str, str]]
    firewalls: list[str]
    selinux: Literal["enforcing", "permissive", "none"]
    apparmor_without_parser: bool
    network_manager: bool
    sockets: list[str]
    packages: list[str]
    containerd_config: bool
    drop_ins: list[str]
    missing: list[str]


class Surroundings(FactBase[SurroundingsState]):
    """Proxies, firewalls, security modules, other container runtimes, and which tools there are not.

    ::

        {"proxies": {"/etc/environment": {"https_proxy": "http://10.0.0.9:3128", "no_proxy": "localhost"}},
         "firewalls": ["ufw"], "selinux": "none", "apparmor_without_parser": False, "network_manager": False,
         "sockets": ["/run/docker.sock"], "packages": ["docker-ce"], "containerd_config": True, "drop_ins": [],
         "missing": ["ping"]}

    A proxy is a file's or, as `the environment`, that of a login; users and passwords in it are left out on the host.
    `network_manager`: it runs and is not told to leave interfaces alone. `containerd_config`: there is a config.toml.
    """

    @staticmethod
    def default() -> SurroundingsState:
        return SurroundingsState(
            proxies={},
            firewalls=[],
            selinux="none",
            apparmor_without_parser=False,
            network_manager=False,
            sockets=[],
            packages=[],
            containerd_config=False,
            drop_ins=[],
            missing=[],
        )

    def command(self) -> str:
        wanted = "grep -iE '(https?|all|no)_proxy='"
        return (
            f"{{ env | {wanted} | sed 's/^/the environment:/'; {wanted} -H {ENVIRONMENTS} 2>/dev/null | "
            "grep -vE '^[^:]*:[[:space:]]*#'; } | sed 's|//[^/[:space:]]*@|//|g; s/^/proxy /'; "
            "systemctl is-active -q firewalld 2>/dev/null && echo firewall firewalld; "
            "grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && echo firewall ufw; "
            "systemctl is-active -q nftables 2>/dev/null && echo firewall nftables; "
            "test -r /sys/fs/selinux/enforce && echo selinux $(cat /sys/fs/selinux/enforce); "
            "grep -qs Y /sys/module/apparmor/parameters/enabled && "
            "! command -v apparmor_parser >/dev/null && ! test -x /usr/sbin/apparmor_parser && echo apparmor; "
            "systemctl is-active -q NetworkManager 2>/dev/null && "
            "! grep -rqs '^unmanaged-devices+\\?=' /etc/NetworkManager /run/NetworkManager/conf.d && "
            "echo networkmanager; "
            f"for s in {SOCKETS}; do test -S $s && echo socket $s; done; "
            "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' containerd.io docker-ce 2>/dev/null "
            "| sed -n 's/^installed /package /p'; "
            "command -v dpkg-query >/dev/null || "
            "rpm -q --qf 'package %{NAME}\\n' containerd.io docker-ce 2>/dev/null | grep '^package [^ ]*$'; "
            "test -e /etc/containerd/config.toml && echo config; "
            'for f in /etc/systemd/system/containerd.service.d/*.conf; do test -e "$f" && echo "dropin $f"; done; '
            f"for t in {TOOLS}; do command -v $t >/dev/null || echo missing $t; done; true"
        )

    def process(self, output: list[str]) -> SurroundingsState:
        found = self.default()
        for line in output:
            kind, _, rest = line.partition(" ")
            if kind == "proxy":
                source, _, text = rest.partition(":")
                for name, *values in VARIABLE.findall(text):
                    if value := "".join(values):
                        found["proxies"].setdefault(source, {})[name.lower()] = value
            elif kind == "firewall":
                found["firewalls"].append(rest)
            elif kind == "selinux":
                found["selinux"] = "enforcing" if rest == "1" else "permissive"
            elif kind == "apparmor":
                found["apparmor_without_parser"] = True
            elif kind == "networkmanager":
                found["network_manager"] = True
            elif kind == "socket":
                found["sockets"].append(rest)
            elif kind == "package":
                found["packages"].append(rest)
            elif kind == "config":
                found["containerd_config"] = True
            elif kind == "dropin":
                found["drop_ins"].append(rest)
            elif kind == "missing":
                found["missing"].append(rest)
        return found
