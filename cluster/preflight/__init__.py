"""What hosts must be before they can be a cluster (guide 2.1), compared with what they are; by subject."""

from cluster.findings import Finding
from cluster.preflight import (
    identity,
    kernel,
    leftovers,
    machine,
    network,
    reach,
    runtime,
    surroundings,
    system,
    time,
    versions,
)
from cluster.preflight.seen import Seen


def judge(seen: Seen) -> list[Finding]:
    """Everything that was found."""
    subjects = (machine, system, kernel, identity, network, reach, time, leftovers, versions, runtime, surroundings)
    return [finding for subject in subjects for finding in subject.check(seen)]
