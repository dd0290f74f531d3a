"""Everything that would make the deploy fail, found before the first change (guide 2.1).

Hosts: all. Changes nothing. All findings of all hosts are reported at once.
"""

from functools import cache
from ipaddress import IPv4Interface

from pyinfra import inventory
from pyinfra.api import deploy

from cluster import preflight as requirements
from cluster.topology import check, check_vip
from deploys import plan
from facts.hardware import Hardware


@cache
def findings(directory: str) -> list[str]:
    """Problems of the whole inventory; looked for once a run, whichever host comes first."""
    settings, topology = plan.settings(), plan.topology()
    found = check(topology, settings)
    lock = plan.lock()
    if lock.kubernetes_version != settings.kubernetes_version:
        found.append(
            f"{directory}/bundle.lock is for Kubernetes {lock.kubernetes_version}, the settings ask for "
            f"{settings.kubernetes_version}. Build or carry the bundle of that version, or change kubernetes_version."
        )
    if found:
        return found
    hardware = {
        node.name: inventory.get_host(node.name).get_fact(Hardware)
        for node in (*topology.load_balancers, *topology.control_planes, *topology.workers)
    }
    found += requirements.check_hardware(hardware, topology, lock.platform, settings.waived_checks)
    subnets = [
        IPv4Interface(f"{row['address']}/{row['prefix']}")
        for node in topology.load_balancers
        for row in hardware[node.name]["addresses"]
        if row["address"] == str(node.address)
    ]
    return found + check_vip(settings, subnets)


@deploy("Preflight")
def preflight() -> None:
    found = findings(plan.settings().bundle_dir)
    if found:
        raise plan.InputError("Nothing was changed. Preflight found:\n" + "\n".join(f"  - {line}" for line in found))


plan.run(__name__, preflight)
