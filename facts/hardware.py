"""What a machine is: processors, memory, disk, names, addresses."""

from __future__ import annotations

import json
from typing import TypedDict

from pyinfra.api import FactBase

# Go's names, which Kubernetes and OCI use, for the kernel's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Address(TypedDict):
    interface: str
    address: str
    prefix: int
    mac: str
    mtu: int


class HardwareState(TypedDict):
    hostname: str
    cpus: int
    memory_mib: int
    kernel: str
    architecture: str
    os_id: str
    os_version: str
    machine_id: str | None
    product_uuid: str | None
    systemd: bool
    disk_free_mib: int
    addresses: list[Address]


class Hardware(FactBase[HardwareState]):
    """A machine in one round trip.

    ::

        {"hostname": "cp1", "cpus": 2, "memory_mib": 7936, "kernel": "6.1.0-31-amd64", "architecture": "amd64",
         "os_id": "debian", "os_version": "12", "machine_id": "4c5...", "product_uuid": None, "systemd": True,
         "disk_free_mib": 51200, "addresses": [{"interface": "eth0", "address": "10.0.0.1", "prefix": 24,
         "mac": "52:54:00:12:34:56", "mtu": 1500}]}

    `machine_id` and `product_uuid` are None where there is none; containers have no DMI. `disk_free_mib` is that
    of /var/lib. Of IPv6 global addresses only, to which unique local ones belong; no address where there is no `ip`.
    """

    def command(self) -> str:
        return (
            "echo hostname $(uname -n); echo cpus $(nproc); echo kernel $(uname -r); echo machine $(uname -m); "
            "awk '/^MemTotal:/ {print \"memory\", int($2 / 1024)}' /proc/meminfo; "
            "sed -n 's/^ID=/os_id /p; s/^VERSION_ID=/os_version /p' /etc/os-release | tr -d '\"'; "
            "echo machine_id $(cat /etc/machine-id 2>/dev/null); "
            "echo product_uuid $(cat /sys/class/dmi/id/product_uuid 2>/dev/null); "
            "test -d /run/systemd/system && echo systemd yes; "
            "echo disk $(df -Pm /var/lib | awk 'NR == 2 {print $4}'); ip -j addr 2>/dev/null | sed 's/^/addr /'"
        )

    def process(self, output: list[str]) -> HardwareState:
        rows = {key: value.strip() for key, _, value in (line.partition(" ") for line in output)}
        return HardwareState(
            hostname=rows["hostname"],
            cpus=int(rows["cpus"]),
            memory_mib=int(rows["memory"]),
            kernel=rows["kernel"],
            architecture=ARCHITECTURES.get(rows["machine"], rows["machine"]),
            os_id=rows.get("os_id", ""),
            os_version=rows.get("os_version", ""),
            machine_id=rows.get("machine_id") or None,
            product_uuid=rows.get("product_uuid") or None,
            systemd=rows.get("systemd") == "yes",
            disk_free_mib=int(rows["disk"]),
            addresses=[
                Address(
                    interface=link["ifname"],
                    address=each["local"],
                    prefix=each["prefixlen"],
                    mac=link.get("address", ""),
                    mtu=link.get("mtu", 0),
                )
                for link in json.loads(rows.get("addr") or "[]")
                for each in link.get("addr_info", [])
                if each["family"] == "inet" or (each["family"] == "inet6" and each["scope"] == "global")
            ],
        )
