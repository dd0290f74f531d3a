"""What looks wrong with a cluster by what its hosts have said; pure functions of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster import certificates, expiry
from cluster.eviction import Amount
from cluster.findings import Finding
from cluster.preflight.seen import Clock
from cluster.preflight.time import apart
from facts.certificate import RENEWAL
from operations import timer
from operations.interview import PATIENCE, Answer, Seen
from operations.verify import backends_down, etcd_unhealthy, nodes_not_ready, pods_not_running

# What HAProxy found when it asked a server (https://docs.haproxy.org/2.6/management.html#9.1, check_status).
CHECKS = {
    "L4CON": "nobody listens there, or the host is not reached",
    "L4TOUT": "the host does not answer",
    "L6RSP": "its certificate is not accepted",
    "L6TOUT": "it does not end its TLS handshake",
    "L7STS": "its API server says that it is not ready",
    "L7RSP": "what answers is no API server",
    "L7TOUT": "its API server takes too long to answer",
    "SOCKERR": "HAProxy has no socket left",
}
# Shares of a file system, and MiB of a large one.
FULL, FEW_INODES, ENOUGH = 0.02, 0.05, 1024
# A container that has been started again so often, last within these seconds, goes round in a loop.
OFTEN, LATELY = 5, 600
MOST = 10


@dataclass(frozen=True)
class Case:
    """What a diagnosis goes by: hosts by name, in the inventory's order, and what the settings want of them."""

    cluster: str
    # Hosts that this run was to ask and that did not answer; those that it was not to ask.
    unreachable: tuple[str, ...]
    not_asked: tuple[str, ...]
    control_planes: tuple[str, ...]
    nodes: tuple[str, ...]
    balancers: tuple[str, ...]
    vips: tuple[str, ...]
    endpoint: str
    warning_days: int
    critical_days: int
    bundle_port: str
    # What each host is to keep free on its disks; of nodes the kubelet evicts pods below.
    kept: Mapping[str, Amount]
    # What is wrong with settings, inventory or bundle.
    input: tuple[str, ...] = ()


def findings(seen: Seen, case: Case) -> list[Finding]:
    """Everything that looks wrong but for what logs say."""
    parts = (
        _input,
        _hosts,
        _clocks,
        _disks,
        _certificates,
        _renewal,
        _units,
        _runtimes,
        _etcd,
        _api,
        _balancing,
        _cluster,
    )
    return [finding for part in parts for finding in part(seen, case)]


def words(seen: Seen, name: str) -> str:
    """A host in a few words."""
    if name not in seen.answers:
        return "does not answer"
    versions, rows = seen.fact(name, "NodeVersions"), seen.fact(name, "FileSystems") or []
    told = [f"kubelet {versions['running'] or 'does not run'}"] if versions else []
    if rows:
        least = min(rows, key=lambda row: row["free_mib"])
        told.append(f"least room: {least['free_mib']} MiB on {least['mount']}")
    system = seen.of(name, "system.txt")
    load = re.search(r"load average.*", system.text) if system else None
    return ", ".join([*told, *([load[0]] if load else [])]) or "said nothing"


def _input(seen: Seen, case: Case) -> Iterator[Finding]:
    for line in case.input:
        yield Finding("input", (), " ".join(line.split()))


def _lost(answers: Sequence[Answer]) -> bool:
    return sum(bool(answer.error) and not answer.text for answer in answers) >= PATIENCE


def _hosts(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in case.unreachable:
        yield Finding("host-unreachable", (name,), "does not answer")
    for name, answers in seen.answers.items():
        problems = [answer for answer in answers if answer.problem]
        if name and _lost(answers):
            yield Finding("host-silent", (name,), f"{problems[0].question.file}: {problems[0].problem}")
            continue
        for answer in problems:
            yield Finding("unanswered", (name,) if name else (), f"{answer.question.file}: {answer.problem}")


def _clocks(seen: Seen, case: Case) -> Iterator[Finding]:
    clocks = {}
    for name in seen.answers:
        answer = seen.of(name, "facts/Time.txt")
        if answer and answer.fact:
            middle, uncertain = (answer.asked + answer.answered) / 2, (answer.answered - answer.asked) / 2
            clocks[name] = Clock(offset=answer.fact - middle, uncertainty=uncertain)
    yield from apart(clocks)


def _disks(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in seen.answers:
        rows = {row["mount"]: row for row in seen.fact(name, "FileSystems") or ()}
        for mount, row in rows.items():
            free, size = row["free_mib"], row["size_mib"]
            what = f"{free} of {size} MiB free on the file system of {mount}"
            if size and free < min(FULL * size, ENOUGH):
                yield Finding("disk-full", (name,), what)
            elif size and name in case.kept and free < case.kept[name].of(size):
                yield Finding("disk-filling", (name,), what)
            if row["inodes"] and row["inodes_free"] < FEW_INODES * row["inodes"]:
                what = f"{row['inodes_free']} of {row['inodes']} inodes free on the file system of {mount}"
                yield Finding("disk-filling" if row["inodes_free"] else "disk-full", (name,), what)


def _bare(seen: Seen, case: Case, name: str) -> bool:
    """Whether a host that is to be a node is none."""
    state = seen.fact(name, "Certificates")
    return name in case.nodes and state is not None and certificates.CA not in state["files"]


def _certificates(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in seen.answers:
        state = seen.fact(name, "Certificates")
        if state is None:
            continue
        if _bare(seen, case, name):
            yield Finding("no-node", (name,), f"there is no {certificates.CA}")
            continue
        for row in expiry.rows(name, state, case.bundle_port):
            file = state["files"].get(row.certificate)
            if file and row.days is None:
                yield Finding("certificate-ended", (name,), f"{row.certificate}: no certificate can be read there")
            elif file and not file["paired"]:
                yield Finding("certificate-ended", (name,), f"{row.certificate}: its key is that of another")
            elif row.days is not None and row.days < case.critical_days:
                what = "has ended" if row.days < 0 else f"{row.days} days left"
                yield Finding(
                    "certificate-ended" if row.days < 0 else "certificate-ending", (name,), f"{row.certificate}: {what}"
                )
            elif row.days is not None and row.days < case.warning_days:
                yield Finding("certificate-ending", (name,), f"{row.certificate}: {row.days} days left")
            if file and row.use == "no":
                yield Finding("certificate-not-served", (name,), f"{row.certificate} is not the one in use")


def _renewal(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in case.control_planes:
        state = seen.fact(name, "Timer")
        if state and (what := timer.problem(state, RENEWAL, "renewal")):
            yield Finding("renewal-failed", (name,), what)


def units(answer: Answer | None) -> dict[str, dict[str, str]]:
    """Properties of units by name, from `systemctl show` of several."""
    blocks = re.split(r"\n\s*\n", answer.text) if answer else []
    rows = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    return {row["Id"]: row for row in rows if "Id" in row}


def _active(seen: Seen, name: str, unit: str) -> bool:
    """Whether a unit runs, as far as is known."""
    row = units(seen.of(name, "units.txt")).get(unit)
    return row is None or row.get("ActiveState") == "active"


def _units(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in seen.answers:
        if _bare(seen, case, name):
            continue
        known = units(seen.of(name, "units.txt"))
        for unit, row in known.items():
            if row.get("LoadState") == "not-found":
                yield Finding("unit-down", (name,), f"{unit} is not installed")
            elif row.get("ActiveState") != "active":
                again = f", started again {row['NRestarts']} times" if row.get("NRestarts", "0") != "0" else ""
                result = f", result {row['Result']}" if row.get("Result", "success") != "success" else ""
                state = f"{row.get('ActiveState')} ({row.get('SubState')})"
                yield Finding("unit-down", (name,), f"{unit} is {state}{result}{again}")
        failed = seen.of(name, "failed.txt")
        for line in failed.text.splitlines() if failed else ():
            if line.strip() and line.split()[0] not in known:
                yield Finding("unit-failed", (name,), f"{line.split()[0]} has failed")


def _runtimes(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in seen.answers:
        state = seen.fact(name, "Runtime")
        if not state or _bare(seen, case, name):
            continue
        if state["state"] == "unreachable":
            yield Finding("runtime-away", (name,), f"the container runtime does not answer: {state['error']}")
        drivers = state["cgroup_driver"], state["kubelet_driver"]
        if all(drivers) and drivers[0] != drivers[1]:
            yield Finding("cgroup-driver", (name,), f"the runtime has {drivers[0]}, the kubelet {drivers[1]}")


def _etcd(seen: Seen, case: Case) -> Iterator[Finding]:
    asked = [name for name in case.control_planes if seen.fact(name, "Members") and not _bare(seen, case, name)]
    states = {name: seen.fact(name, "Members") for name in asked}
    running = [name for name in asked if states[name]["state"] == "running"]
    if asked and not running:
        yield Finding("etcd-away", tuple(asked), "no member of etcd answers with a quorum")
    for line in etcd_unhealthy(states[running[0]], list(case.control_planes)) if running else ():
        yield Finding("etcd-unhealthy", (), line)
    alarms, leaderless = set(), set()
    for name in asked:
        alarm, status = seen.of(name, "etcd-alarms.txt"), seen.of(name, "etcd-status.json")
        alarms |= set(re.findall(r"memberID:\S+ alarm:(\w+)", alarm.text)) if alarm else set()
        for row in _json(status, []):
            if not row.get("Status", {}).get("leader"):
                leaderless.add(row.get("Endpoint", "?"))
    for kind in sorted(alarms - {"NONE"}):
        yield Finding("etcd-nospace" if kind == "NOSPACE" else "etcd-alarm", (), f"etcd has the alarm {kind}")
    for endpoint in sorted(leaderless):
        yield Finding("etcd-leaderless", (), f"the member at {endpoint} knows no leader")


def _json(answer: Answer | None, default: Any) -> Any:
    try:
        return json.loads(answer.text) if answer and answer.text.strip() else default
    except ValueError:  # cut, or an error's words
        return default


def _api(seen: Seen, case: Case) -> Iterator[Finding]:
    asked = [name for name in case.control_planes if seen.of(name, "readyz.txt") and not _bare(seen, case, name)]
    answers = {name: seen.of(name, "readyz.txt") for name in asked}
    down = {name: answer for name, answer in answers.items() if answer and answer.status != 0}
    if asked and len(down) == len(asked):
        yield Finding("api-away", tuple(asked), "no API server answers as ready")
    for name, answer in down.items():
        lines = [line for line in answer.text.splitlines() if line.strip()]
        # kubectl tells all checks in one line, with the newlines written out.
        bad = re.findall(r"\[-\][^\\\n]+", answer.text) or lines[-1:]
        yield Finding("api-down", (name,), f"/readyz: {'; '.join(bad) or answer.problem or 'no answer'}"[:400])
    for name in asked:
        through = seen.of(name, "endpoint.txt")
        if through and through.status != 0:
            why = through.text.strip().splitlines()[-1:] or [through.problem or "no answer"]
            yield Finding("endpoint-away", (name,), f"https://{case.endpoint}/readyz: {why[0][:300]}")


def _balancing(seen: Seen, case: Case) -> Iterator[Finding]:
    for name in case.balancers:
        state = seen.fact(name, "Backends")
        if not state or not _active(seen, name, "haproxy.service"):
            continue
        rows = {server: row for backend in state["servers"].values() for server, row in backend.items()}
        for line in backends_down(name, state, len(case.control_planes)):
            said = line.removeprefix(f"{name}: ")
            checks = [row["check"] for server, row in rows.items() if f" server {server} " in said]
            code = checks[0].strip("* ").split("/")[0] if checks else ""
            yield Finding("backend-down", (name,), f"{said} ({code}: {CHECKS[code]})" if code in CHECKS else said)
    for vip in case.vips:
        states = {name: seen.fact(name, f"Vrrp-{vip}") for name in case.balancers}
        holders = [name for name, state in states.items() if state and state["holds_vip"]]
        unknown = [name for name, state in states.items() if state is None]
        if len(holders) > 1:
            yield Finding("vip-split", tuple(holders), f"{vip} is on {len(holders)} hosts at once")
        elif not holders and len(unknown) < len(case.balancers) and not set(unknown) & set(case.not_asked):
            beyond = f"; {', '.join(unknown)} could not be asked" if unknown else ""
            yield Finding("vip-missing", (), f"{vip} is on no host that was asked{beyond}")


def _cluster(seen: Seen, case: Case) -> Iterator[Finding]:
    nodes, pods = _json(seen.of("", "nodes.json"), None), _json(seen.of("", "pods.json"), None)
    if nodes:
        for line in nodes_not_ready(nodes, list(case.nodes)):
            yield Finding("node-not-ready", (), line)
    if pods:
        lines = pods_not_running(pods)
        for line in lines[:MOST]:
            yield Finding("pods-not-running", (), line)
        if len(lines) > MOST:
            yield Finding("pods-not-running", (), f"{len(lines) - MOST} more pods do not run")
        now = seen.of("", "pods.json")
        yield from _loops(pods, now.answered if now else 0)


def _loops(pods: Mapping[str, Any], now: float) -> Iterator[Finding]:
    for pod in pods["items"]:
        for each in pod["status"].get("containerStatuses", []):
            ended = each.get("lastState", {}).get("terminated") or {}
            if not ended.get("finishedAt"):
                continue
            ago = now - datetime.fromisoformat(ended["finishedAt"]).timestamp()
            killed = ended.get("reason") == "OOMKilled"
            if ago < LATELY and (killed or each.get("restartCount", 0) >= OFTEN):
                name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                why = f"{ended.get('reason', 'it ended')}, exit code {ended.get('exitCode')}"
                yield Finding(
                    "restart-loop",
                    (),
                    f"{name}, {each['name']}: started again {each['restartCount']} times, last after {why}",
                )
