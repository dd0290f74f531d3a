"""What hosts' certificates are, asked once in a run, and the table of them.

It is apart from the deploys, for pyinfra executes a deploy's file anew for every host.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from pyinfra import host, inventory, logger

from cluster import certificates, expiry, users
from cluster.certificates import BUNDLE_SERVER, CA, HAPROXY_CA, State, Work, work
from cluster.expiry import Findings, Row
from cluster.kubeadm import api_server_names
from cluster.topology import Node
from deploys import plan
from deploys.ask import ask, ask_each
from facts.certificate import RENEWAL, Certificates
from facts.timer import Timer, TimerState
from operations import remote, timer
from operations.certificates import Question, refusal
from operations.once import once

# What the table calls the control machine.
HERE = "(here)"


def question(node: Node) -> Question:
    """The arguments of the fact `Certificates` for a host."""
    topology = plan.topology()
    control_plane = node in topology.control_planes
    bundle_port = plan.settings().bundle_port if node in plan.bundle_servers() else None
    kubelet = control_plane or node in topology.workers
    ports = certificates.ports(node, control_plane, kubelet, bundle_port)
    return Question(ports=ports, files=(HAPROXY_CA, BUNDLE_SERVER))


@once
def _states(names: tuple[str, ...]) -> dict[str, State]:
    found: dict[str, State] = ask_each(Certificates, {name: {**question(plan.node_of(name))} for name in names})
    return found


def _bare(node: Node, state: State) -> bool:
    """Whether a host that is to be a node is none yet."""
    return node not in plan.topology().load_balancers and CA not in state["files"]


def _kept() -> State | None:
    """The administrator's kubeconfig on this machine, which no timer of a host renews; None where there is none."""
    path = Path(plan.settings().secrets_dir) / plan.settings().cluster_name / "admin.conf"
    if not path.exists():
        return None
    try:
        pem = users.certificate(path.read_text()).public_bytes(Encoding.PEM).decode()
    except ValueError:
        pem = None
    return expiry.copy(str(path), pem, int(time.time()))


def _timers(asked: Iterable[Node]) -> list[str]:
    """Say how the last renewals by timers have ended; what is wrong with them, in words."""
    topology, wanted = plan.topology(), plan.settings().certificate_renewal_schedule is not None
    states: dict[str, TimerState] = ask(Timer, [n for n in asked if n in topology.control_planes], timer=RENEWAL)
    found = []
    for name, state in states.items():
        if wanted or state["timer"] != "absent":
            logger.info(f"{name}: renewal: {timer.words(state)}")
        if problem := timer.problem(state, RENEWAL, "renewal"):
            found.append(f"{name}: {problem}. Mend that, then run deploys/renew_certificates.py.")
        elif wanted and state["timer"] == "absent":
            found.append(f"{name}: has no {RENEWAL}.timer. deploys/certificate_timer.py makes it.")
    return found


@once
def findings() -> Findings:
    """What is wrong with certificates of the hosts of this run; the table is shown once, whichever host comes first."""
    settings, topology = plan.settings(), plan.topology()
    asked = [node for node in topology.nodes if host.state.is_host_in_limit(inventory.get_host(node.name))]
    states = _states(tuple(node.name for node in asked))
    rows: list[Row] = []
    errors: list[str] = []
    warnings: list[str] = []
    for node in asked:
        state, port = states[node.name], str(settings.bundle_port)
        if _bare(node, state):
            errors.append(f"{node.name}: is no node of a cluster, having no {CA}. Run deploys/cluster.py first.")
            continue
        wanted = api_server_names(settings, topology, node) if node in topology.control_planes else None
        found = expiry.judge(
            node.name, state, settings.certificate_warning_days, settings.certificate_critical_days, wanted, port
        )
        rows += expiry.rows(node.name, state, port)
        errors += found.errors
        warnings += found.warnings
    if kept := _kept():
        found = expiry.judge(HERE, kept, settings.certificate_warning_days, settings.certificate_critical_days)
        rows += expiry.rows(HERE, kept)
        errors += found.errors
        warnings += found.warnings
    for line in expiry.table(rows):
        logger.info(line)
    warnings += _timers(asked)
    for line in warnings:
        logger.warning(f"Warning: {line}")
    counts = f"{len(errors) or 'no'} errors, {len(warnings) or 'no'} warnings"
    logger.info(f"Certificates: {len(rows)} on {len(asked)} hosts: {counts}")
    return Findings(tuple(errors), tuple(warnings))


@dataclass(frozen=True)
class Renewal:
    """What is to be renewed: of each control plane, in which order, `within` how many days, and whether all are
    `together` without a quorum."""

    order: tuple[Node, ...]
    works: dict[str, Work]
    within: int
    together: bool


@once
def renewal() -> Renewal:
    """What is to be renewed of control planes that can be reached, `--limit` or not. Raises InputError."""
    settings, topology = plan.settings(), plan.topology()
    within = plan.option("renew_within")
    within = settings.certificate_warning_days if within is None else within
    if isinstance(within, bool) or not isinstance(within, int) or within < 0:
        raise plan.InputError(
            f"renew_within: must be a number of days, not {within!r}, such as --data renew_within=60."
        )
    known = tuple(remote.reached(topology.control_planes))  # one that is down may have been left out of the run
    states = _states(tuple(node.name for node in known))
    bare = [node.name for node in known if _bare(node, states[node.name])]
    plan.refuse([f"{name}: is no node of a cluster, having no {CA}. Run deploys/cluster.py first." for name in bare])
    works = {node.name: work(states[node.name], within, api_server_names(settings, topology, node)) for node in known}
    # What does not work is mended first, while the others keep the quorum.
    order = tuple(sorted(known, key=lambda node: not certificates.ended(states[node.name])))
    together = certificates.down(states.values(), len(topology.control_planes))
    begun = next((node for node in order if works[node.name].files or works[node.name].stale), None)
    if begun and not together and (found := refusal(topology, begun)):
        plan.refuse([found])
    return Renewal(order, works, within, together)
