"""What the rotation of CAs needs while planning, once a run: whether there is one, how far it is, and what forbids it.

It is apart from the deploy, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pyinfra import inventory, logger

from cluster import rotation
from cluster.certificates import PKI, ROTATED
from cluster.rotation import PHASES, State
from cluster.topology import Node
from deploys import plan
from deploys.ask import ask
from facts.authority import Authorities
from facts.etcd import Members
from facts.file import FileState
from facts.kubeadm import ClusterConfig
from operations.once import once
from operations.verify import etcd_unhealthy


@dataclass(frozen=True)
class Rotation:
    """A rotation: whether this run begins it, the phase that each node was in, and whether kubelets are to serve by
    other certificates of the cluster's CA."""

    fresh: bool
    phases: Mapping[str, int]
    serving: bool

    def least(self) -> int:
        """The phase of the last of all nodes."""
        return min(self.phases.values())


def interrupted() -> list[str]:
    """Control planes with a rotation under way, in words: kubeadm would write what they have as it is without one."""
    found = ask(FileState, plan.in_run(plan.topology().control_planes), path=f"{rotation.ROTATION}/new/ca.crt")
    return [
        f"{name}: a rotation of CAs is under way. End it first: deploys/rotate_ca.py goes on with it."
        for name, each in found.items()
        if each
    ]


@once
def under_way() -> Rotation | None:
    """The rotation that is to be begun or gone on with, if any. Raises InputError with all that forbids one."""
    topology = plan.topology()
    nodes = (*topology.control_planes, *topology.workers)
    everybody = tuple(dict.fromkeys((*nodes, *plan.balancers())))
    left = [node.name for node in everybody if node not in plan.in_run(everybody)]
    plan.refuse(
        [f"{name}: is not in this run, and would trust the old CA alone. Widen --limit to all hosts." for name in left]
    )
    states: dict[str, State] = ask(Authorities, nodes)
    bare = [node.name for node in nodes if rotation.KUBELET_CONF not in states[node.name]["certificates"]]
    plan.refuse([f"{name}: is no node of a cluster, having no {rotation.KUBELET_CONF}." for name in bare])
    held = {node.name: found for node in topology.control_planes if (found := rotation.pairs(states[node.name]))}
    if held:
        return _continued(states, held)
    return _fresh(nodes, states)


def _continued(states: dict[str, State], held: dict[str, rotation.Pairs]) -> Rotation:
    first, *others = held
    strangers = [name for name in others if held[name] != held[first]]
    phases = {name: rotation.phase(state, held[first]) for name, state in states.items()}
    plan.refuse(
        [
            f"{', '.join(strangers)}: {rotation.ROTATION} holds other CAs than on {first}. Remove that of the host "
            "whose new CA no node trusts yet, then run again."
        ]
        if strangers
        else rotation.mixed(phases)
    )
    known = {name: each or 0 for name, each in phases.items()}
    for each, words in {0: "as before", **PHASES}.items():
        if names := [name for name, at in known.items() if at == each]:
            logger.info("A rotation of CAs is under way; phase %s (%s): %s", each, words, ", ".join(names))
    return Rotation(fresh=False, phases=known, serving=_serving(states, held[first]["ca"].new))


def _fresh(nodes: tuple[Node, ...], states: dict[str, State]) -> Rotation | None:
    topology = plan.topology()
    found = [
        line
        for node in nodes
        for line in rotation.problems(node.name, states[node.name], node in topology.control_planes)
    ]
    plan.refuse(found or rotation.disagreements(states))
    first = states[topology.first_control_plane.name]
    pems = [first["certificates"][f"{PKI}/{name}.crt"][0] for name in rotation.AUTHORITIES]
    within, before = plan.settings().certificate_warning_days, _made_before()
    if not rotation.due(pems, before, within, datetime.now(UTC)):
        words = f"and none was made before {before:%Y-%m-%d %H:%M} UTC" if before else (
            "so nothing is done. To replace them all the same, say of what age: --data made_before=2026-01-31, a date "
            "or time in UTC"
        )  # fmt: skip
        logger.info("No CA ends within %s days, %s", within, words)
        return None
    plan.refuse(_sick())
    for each, words in PHASES.items():
        logger.info("The CAs are to be replaced; phase %s: %s", each, words)
    return Rotation(fresh=True, phases=dict.fromkeys(states, 0), serving=_serving(states, None))


def _serving(states: dict[str, State], new: str | None) -> bool:
    """Whether kubelets serve by certificates of the cluster's CA that are not of the new one."""
    pems = [pem for state in states.values() for pem in state["certificates"].get(ROTATED, [])]
    return any(new is None or not rotation.signed(pem, new) for pem in pems)


def _made_before() -> datetime | None:
    said = plan.option("made_before")
    if said is None:
        return None
    try:
        return rotation.moment(said)
    except ValueError:
        raise plan.InputError(
            f"made_before: must be a date or time in UTC, not {said!r}, such as --data made_before=2026-01-31 or "
            "--data made_before=2026-01-31T12:00:00Z."
        ) from None


def _sick() -> list[str]:
    """Why a rotation is not begun: nodes that are not Ready, API servers and members of etcd that do not answer."""
    topology = plan.topology()
    wanted = [node.name for node in topology.control_planes]
    members = inventory.get_host(wanted[0]).get_fact(Members)
    found = [f"{line}. Mend the cluster before its CAs are replaced." for line in etcd_unhealthy(members, wanted)]
    for name, state in ask(ClusterConfig, topology.control_planes).items():
        if state["state"] != "initialised":
            found.append(f"{name}: its API server does not answer as initialised. Mend it before CAs are replaced.")
        elif name == wanted[0]:
            ready = {each for each, node in state["nodes"].items() if node["ready"]}
            every = {node.name for node in (*topology.control_planes, *topology.workers)} | set(state["nodes"])
            found += [f"node {each} is not Ready. Mend it before CAs are replaced." for each in sorted(every - ready)]
    return found
