"""What preflight asks hosts, and its report, once in a run.

It is apart from the layer, for pyinfra executes a layer's file anew for every host.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyinfra import host, inventory, logger
from pyinfra.api import Host

from cluster.compatibility import parse
from cluster.findings import Finding, Report, report
from cluster.pieces import NODE_DIRECTORY
from cluster.ports import listening, ways
from cluster.preflight import judge, kernel, machine
from cluster.preflight.seen import Clock, Seen
from cluster.topology import Node
from cluster.upgrade import tag
from deploys import backups, plan, rules
from deploys.ask import Questions, ask, at_once
from facts.cgroup import Cgroup
from facts.disk import FileSystems, SyncWrites
from facts.hardware import Hardware
from facts.keepalived import Vrrp
from facts.kernel import KernelModules
from facts.kubeadm import KubeadmNode
from facts.leftovers import Leftovers
from facts.network import Answers, Listeners, Pings, Reach, RoutesAndNames
from facts.runtime import Installed
from facts.sudo import Sudo
from facts.surroundings import Surroundings
from facts.swap import Swap
from facts.time import Time, TimeSynchronized
from facts.upgrade import NodeVersions, RemovedApis, Versions
from operations.once import once

PATHS = ("/", "/var/lib", NODE_DIRECTORY, machine.CONTAINERD)
MEASURED = (
    (NODE_DIRECTORY, NODE_DIRECTORY),
    (machine.CONTAINERD, f"{machine.CONTAINERD}/io.containerd.content.v1.content"),
)


def gather(asked: tuple[Node, ...]) -> Seen:
    """Facts of these hosts. What a question depends on is asked before it, in one round trip with all that can be."""
    topology, settings = plan.topology(), plan.settings()
    by_host = {node.name: plan.settings(node.name) for node in topology.nodes}
    balancers = [node for node in plan.balancers() if node in asked]
    nodes = [node for node in asked if node in (*topology.control_planes, *topology.workers)]
    vips = [str(each) for each in settings.virtual_ips]
    modules = {node.name: {"names": kernel.modules(by_host[node.name])} for node in nodes}
    ports = {node.name: tuple(listening(node, topology, settings)) for node in asked}
    first, then = Questions(), Questions()
    hardware, kubeadm = first.ask(Hardware, asked), first.ask(KubeadmNode, nodes)
    versions = first.ask(NodeVersions, nodes)
    holding = [first.ask(Vrrp, balancers, vip=vip) for vip in vips]
    file_systems = first.ask(FileSystems, asked, paths=PATHS, measured=MEASURED)
    known_modules = first.ask_each(KernelModules, modules)
    cgroups, swap = first.ask(Cgroup, nodes), first.ask(Swap, nodes)
    names = first.ask(RoutesAndNames, asked, names=tuple(node.name for node in topology.nodes))
    listeners = first.ask_each(Listeners, {name: {"ports": each} for name, each in ports.items() if each})
    reached = first.ask_each(Reach, _targets(asked))
    synchronized = first.ask(TimeSynchronized, asked) if settings.time_sync == "check" else {}
    leftovers, surroundings = first.ask(Leftovers, nodes), first.ask(Surroundings, asked)
    installed = first.ask(Installed, nodes, runtime=settings.container_runtime)
    first.answer()
    plan.seen(hardware)
    holders = tuple(node.name for node in balancers if any(found[node.name]["holds_vip"] for found in holding))
    without_etcd = [node for node in topology.control_planes if node in nodes and not kubeadm[node.name]["etcd_data"]]
    behind = [node for node in nodes if _is_behind(versions[node.name], settings.kubernetes_version)]
    pings, writes = then.ask_each(Pings, _pinged(asked, hardware)), then.ask(SyncWrites, without_etcd)
    removed_apis = then.ask(RemovedApis, behind)
    then.answer()
    return Seen(
        settings=by_host,
        topology=topology,
        lock=plan.lock(),
        asked=asked,
        hardware=hardware,
        file_systems=file_systems,
        modules=known_modules,
        cgroups=cgroups,
        swap=swap,
        names=names,
        listeners=listeners,
        reached=reached,
        pings=pings,
        synchronized=synchronized,
        clocks=at_once([node.name for node in asked], _clock),
        writes=writes,
        kubeadm=kubeadm,
        versions=versions,
        removed_apis=removed_apis,
        leftovers=leftovers,
        installed=installed,
        surroundings=surroundings,
        unopened=rules.pending(asked),
        restored=backups.authority(),
        answers=_answers(balancers, [] if holders else vips),
        vip_holders=holders,
    )


def _is_behind(found: Versions, target: str) -> bool:
    """Whether a control plane's API server is older than the bundle's."""
    server = found["images"].get("kube-apiserver")
    return server is not None and parse(tag(server)) < parse(target)


def _targets(asked: Iterable[Node]) -> dict[str, dict[str, Any]]:
    """What each host must reach by TCP."""
    topology, found = plan.topology(), dict[str, list[str]]()
    if plan.settings().load_balancing == "external":
        for node in (*topology.control_planes, *topology.workers):
            if node in asked:
                found[node.name] = [str(plan.endpoint())]
    for way in ways(topology, plan.settings()):
        if way.source in asked:
            found.setdefault(way.source.name, []).append(str(way.at))
    return {name: {"targets": tuple(targets)} for name, targets in found.items()}


def _pinged(asked: Iterable[Node], hardware: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Whom each host pings at full size: control planes and the next host, enough to find what is different."""
    topology, found = plan.topology(), {}
    for at, node in enumerate(topology.nodes):
        after = topology.nodes[(at + 1) % len(topology.nodes)]
        targets = dict.fromkeys(str(each.address) for each in (*topology.control_planes, after) if each != node)
        rows = hardware[node.name]["addresses"] if node in asked else []
        mtu = next((row["mtu"] for row in rows if row["address"] == str(node.address)), None)
        if targets and mtu:
            found[node.name] = {"addresses": tuple(targets), "mtu": mtu}
    return found


def _clock(each: Host) -> Clock:
    """The truth lies between the times at which the question left and the answer came."""
    before = time.time()
    theirs: float = each.get_fact(Time)
    after = time.time()
    return Clock(offset=theirs - (before + after) / 2, uncertainty=(after - before) / 2)


def _answers(balancers: list[Node], more: list[str]) -> dict[str, dict[str, str | None]]:
    """Who answers the balancing hosts for each other's address and for these."""
    found: dict[str, dict[str, str | None]] = {node.name: {} for node in balancers}
    for address in (*(str(node.address) for node in plan.balancers()), *more):
        others = [node for node in balancers if str(node.address) != address]
        for name, mac in ask(Answers, others, address=address).items():
            found[name][address] = mac
    return found


def _bundle() -> list[Finding]:
    return [Finding("bundle-damaged", (), words.rstrip(".")) for words in plan.damage()]


def _sudo(nodes: Iterable[Node]) -> list[Finding]:
    """Hosts on which sudo would ask for a password; at a terminal pyinfra asks the person there for it."""
    silent = [node for node in nodes if _may_not_ask(inventory.get_host(node.name).data.dict())]
    what = "the SSH user may not sudo without a password"
    return [Finding("sudo", (name,), what) for name, works in ask(Sudo, silent, _sudo=False).items() if not works]


def _may_not_ask(data: dict[str, object]) -> bool:
    return bool(data.get("_sudo")) and not data.get("_sudo_password") and not sys.stdin.isatty()


@once
def findings() -> Report:
    """What was found on all hosts of this run."""
    settings, everybody = plan.settings(), plan.topology().nodes
    asked = tuple(node for node in everybody if host.state.is_host_in_limit(inventory.get_host(node.name)))
    began = datetime.now(UTC).isoformat(timespec="seconds")
    # Where sudo does not work, nothing else is known.
    found = _sudo(asked) or [*_bundle(), *judge(gather(asked))]
    done = Report(
        cluster_name=settings.cluster_name,
        kubernetes_version=settings.kubernetes_version,
        time=began,
        asked=tuple(node.name for node in asked),
        not_asked=tuple(node.name for node in everybody if node not in asked),
        findings=report(found, settings.waived_checks),
    )
    if settings.preflight_json:
        _write(Path(settings.preflight_json), done.model_dump_json(indent=2) + "\n")
    _show(done)
    return done


def _write(path: Path, text: str) -> None:
    """Beside and renamed, so that nobody reads half a report."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text)
        beside.rename(path)
    except OSError as error:
        raise plan.InputError(
            f"preflight_json {path}: cannot be written ({error.strerror}). Name another file."
        ) from None


def _show(done: Report) -> None:
    """What does not stop the run; what does is said when it stops."""
    for line in done.lines("warning"):
        logger.warning(f"Warning: {line}")
    for line in (*done.lines("error", waived=True), *done.lines("warning", waived=True)):
        logger.info(f"Waived: {line}")
    logger.info(done.summary())
