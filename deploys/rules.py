"""Rules of a host's firewalls, as the layer `firewall` writes them and preflight looks whether they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.compatibility import parse
from cluster.firewall import KNOWN, POLICIES_SINCE, marked, merged, openings
from cluster.topology import Node
from deploys import plan
from deploys.ask import ask
from facts.file import File, FileState
from facts.firewall import RULES, Firewall, FirewallState

# Path of a file of firewalld's -> its template: of every host, and of nodes alone.
EVERYWHERE = {"/etc/firewalld/policies/kubernetes.xml": "firewalld/kubernetes.xml.j2"}
# A zone before the policy that leads to it.
ON_NODES = {
    "/etc/firewalld/zones/kubernetes-pods.xml": "firewalld/kubernetes-pods.xml.j2",
    "/etc/firewalld/policies/kubernetes-fwd.xml": "firewalld/kubernetes-fwd.xml.j2",
}


class Rules(NamedTuple):
    """A file of a firewall's rules."""

    path: str
    text: str
    mode: str


def firewalld(node: Node) -> list[Rules]:
    """Files of firewalld: what reaches the host, and on nodes what is of pods."""
    files = EVERYWHERE | (ON_NODES if node in nodes() else {})
    return [Rules(path, plan.template(name, **_values(node)), "644") for path, name in files.items()]


def ufw(node: Node, current: File | None) -> list[Rules]:
    """ufw's file of rules that go before people's own, with the project's block in it."""
    block = plan.template("ufw/before.rules.j2", on_node=node in nodes(), **_values(node))
    text = merged((current and current["content"]) or "", marked(block))
    if text is None:
        raise plan.InputError(
            f"{node.name}: {RULES} has no table `filter`, so it is not known where rules belong. Mend that file "
            "(`ufw reset` writes the distribution's), or set host_firewall to `leave`."
        )
    return [Rules(RULES, text, current["mode"] if current else "640")]


def nodes() -> tuple[Node, ...]:
    """Hosts that run pods."""
    return (*plan.topology().control_planes, *plan.topology().workers)


def _values(node: Node) -> dict[str, Any]:
    others = [each for each in nodes() if each != node]
    return {"openings": openings(node, plan.topology(), plan.settings()), "others": others}


def too_old(states: Mapping[str, FirewallState]) -> list[str]:
    """Hosts whose firewalld has no policies, a sentence each."""
    versions = {name: state["version"] or "" for name, state in states.items() if "firewalld" in state["active"]}
    return [
        f"{name}: firewalld {version} has no policies, which came with 0.9. Open there what docs/ports.md names, and "
        "set host_firewall to `leave`."
        for name, version in versions.items()
        if parse(version)[:2] < POLICIES_SINCE
    ]


def pending(asked: Sequence[Node]) -> frozenset[str]:
    """Hosts whose firewalls are yet to be opened, by name; what they filter until then is no finding."""
    if plan.settings().host_firewall != "open":
        return frozenset()
    states: Mapping[str, FirewallState] = ask(Firewall, asked)
    plan.refuse(too_old(states))
    by_kind = {kind: [node for node in asked if kind in states[node.name]["active"]] for kind in KNOWN}
    there = {path: ask(FileState, by_kind["firewalld"], path=path) for path in (*EVERYWHERE, *ON_NODES)}
    there[RULES] = ask(FileState, by_kind["ufw"], path=RULES)
    wanted = [(node.name, each) for node in by_kind["firewalld"] for each in firewalld(node)]
    wanted += [(node.name, each) for node in by_kind["ufw"] for each in ufw(node, there[RULES][node.name])]
    changed = {name for name, each in wanted if (there[each.path][name] or {}).get("content") != each.text}
    return frozenset(changed | {name for name, state in states.items() if state["stale"]})
