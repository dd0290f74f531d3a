"""A container runtime as it runs, and what of runtimes a host has."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from pyinfra.api import FactBase

from cluster.runtime import PACKAGES, UNITS

State = Literal["absent", "unreachable", "running"]
PROGRAMS = {"containerd": "containerd", "cri-o": "crio"}
SECOND = "# configuration"


class RuntimeState(TypedDict):
    state: State
    error: str
    cgroup_driver: str | None
    sandbox_image: str | None
    registries: str | None
    kubelet_driver: str | None


class Runtime(FactBase[RuntimeState]):
    """What a running container runtime answers, and the driver that the kubelet beside it is configured with.

    ::

        {"state": "running", "error": "", "cgroup_driver": "systemd", "sandbox_image": "registry.k8s.io/pause:3.10.2",
         "registries": "/etc/containerd/certs.d", "kubelet_driver": "systemd"}

    `state` is "absent" without the runtime, and "unreachable" when it does not serve the CRI; then `error` has crictl's
    words. `kubelet_driver` is None before there is a kubelet's configuration. All else is the daemon's own answer, to
    `crictl info`, or of CRI-O at /config of its socket. containerd 2 no longer tells image and registries: they are
    what it makes of its files (`containerd config dump`). CRI-O has no `registries`.
    """

    @staticmethod
    def default() -> RuntimeState:
        return _state("absent")

    def command(self, runtime: str, socket: str) -> str:
        path = shlex.quote(socket)
        crictl = f"timeout 20 crictl --runtime-endpoint unix://{path} info"
        second = {
            "containerd": "timeout 20 containerd config dump 2>/dev/null",
            "cri-o": f"curl --disable -s --max-time 20 --unix-socket {path} http://crio/config",
        }
        return (
            "sed -n 's/^cgroupDriver: */kubelet /p' /var/lib/kubelet/config.yaml 2>/dev/null; "
            f"if ! command -v {PROGRAMS[runtime]} >/dev/null; then echo absent; "
            f"elif i=$({crictl} 2>/dev/null); then echo running; printf '%s\\n' \"$i\"; echo '{SECOND}'; "
            f"{second[runtime]} || true; else echo unreachable; {crictl} 2>&1 | tail -n 3; fi"
        )

    def process(self, output: list[str]) -> RuntimeState:
        kubelet = next((line.split()[1] for line in output[:1] if line.startswith("kubelet ")), None)
        word, *rest = output[1:] if kubelet else output
        if word not in ("absent", "unreachable", "running"):
            raise ValueError(f"not an answer of this fact: {word!r}")
        found = _state(cast("State", word), kubelet=kubelet)
        if word == "unreachable":
            found["error"] = " ".join(" ".join(rest).split())
        if word == "running":
            at = rest.index(SECOND)
            answer, configuration = json.loads("\n".join(rest[:at])), tomllib.loads("\n".join(rest[at + 1 :]))
            if "crio" in configuration:
                _add_crio(found, configuration["crio"])
            else:
                _add_containerd(found, answer["config"], configuration)
        return found


def _state(state: State, kubelet: str | None = None) -> RuntimeState:
    return RuntimeState(
        state=state, error="", cgroup_driver=None, sandbox_image=None, registries=None, kubelet_driver=kubelet
    )


def _add_crio(found: RuntimeState, configuration: Mapping[str, Any]) -> None:
    found["cgroup_driver"] = configuration["runtime"]["cgroup_manager"]
    found["sandbox_image"] = configuration["image"]["pause_image"]


def _add_containerd(found: RuntimeState, answer: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
    runtimes = answer["containerd"]
    options = runtimes["runtimes"].get(runtimes["defaultRuntimeName"], {}).get("options") or {}
    found["cgroup_driver"] = "systemd" if options.get("SystemdCgroup") else "cgroupfs"
    if "sandboxImage" in answer:
        found["sandbox_image"], found["registries"] = answer["sandboxImage"], answer["registry"]["configPath"]
    else:
        images = configuration.get("plugins", {}).get("io.containerd.cri.v1.images", {})
        found["sandbox_image"] = images.get("pinned_images", {}).get("sandbox")
        found["registries"] = images.get("registry", {}).get("config_path")


class InstalledState(TypedDict):
    packages: dict[str, str]
    unit: bool
    kubelet_socket: str | None


class Installed(FactBase[InstalledState]):
    """Where a host has a runtime from, and the socket at which its kubelet asks one.

    ::

        {"packages": {"containerd": "1.6.20~ds1-1+deb12u3"}, "unit": False,
         "kubelet_socket": "/run/containerd/containerd.sock"}

    `packages` are those that bring this runtime, by version; `unit` says that its unit is a file of /etc, and not of a
    package. `kubelet_socket` is None on a host that is no node; in which of three files it is follows from kubeadm's
    version.
    """

    @staticmethod
    def default() -> InstalledState:
        return InstalledState(packages={}, unit=False, kubelet_socket=None)

    def command(self, runtime: str) -> str:
        names, kubelet = shlex.join(PACKAGES[runtime]), "/var/lib/kubelet"
        return (
            "{ dpkg-query -W -f 'package ${Package} ${Version} ${db:Status-Status}\\n' "
            f"{names} || rpm -q --qf 'package %{{NAME}} %{{VERSION}}-%{{RELEASE}} installed\\n' {names}; }} "
            f"2>/dev/null; test -f /etc/systemd/system/{UNITS[runtime]} && echo unit; "
            f"cat {kubelet}/instance-config.yaml {kubelet}/config.yaml {kubelet}/kubeadm-flags.env 2>/dev/null | "
            "grep -oiE 'container-?runtime-?endpoint[:=] *\"?unix://[^ \"]+' | sed 's,.*unix://,socket ,' | head -n 1"
        )

    def process(self, output: list[str]) -> InstalledState:
        rows = [line.split() for line in output]
        return InstalledState(
            packages={row[1]: row[2] for row in rows if len(row) == 4 and row[3] == "installed"},
            unit=["unit"] in rows,
            kubelet_socket=next((row[1] for row in rows if row[0] == "socket"), None),
        )
