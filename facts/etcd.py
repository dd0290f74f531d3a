"""Members of the etcd cluster, as one of them sees it."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict

from pyinfra.api import FactBase

PKI = "/etc/kubernetes/pki/etcd"
ABSENT = f"! test -e {PKI}/healthcheck-client.key || ! command -v etcdctl >/dev/null"
# etcd listens on the loopback address of one family only, that of its peers; its first URL is that.
ETCDCTL = (
    "etcdctl --endpoints=$(sed -n 's/.*--listen-client-urls=\\([^,]*\\).*/\\1/p' /etc/kubernetes/manifests/etcd.yaml) "
    f"--cacert={PKI}/ca.crt --cert={PKI}/healthcheck-client.crt --key={PKI}/healthcheck-client.key"
)


class Member(TypedDict):
    id: str
    name: str
    learner: bool
    peer_urls: list[str]
    healthy: bool | None


class MembersState(TypedDict):
    state: Literal["absent", "unreachable", "running"]
    members: list[Member]


class Members(FactBase[MembersState]):
    """The members that a stacked etcd's member on this node knows, and which of them answer.

    ::

        {"state": "running", "members": [{"id": "8e9e05c52164694d", "name": "cp1", "learner": False,
         "peer_urls": ["https://10.0.0.1:2380"], "healthy": True}]}

    `healthy` is None for a member that was not asked, having no client URL yet.
    """

    @staticmethod
    def default() -> MembersState:
        return MembersState(state="absent", members=[])

    def command(self) -> str:
        return (
            f"if {ABSENT}; then echo absent; "
            f"elif m=$(timeout 10 {ETCDCTL} member list -w json --hex 2>/dev/null); then echo running; "
            f'echo "$m"; timeout 15 {ETCDCTL} endpoint health --cluster -w json 2>/dev/null; '
            "else echo unreachable; fi; true"
        )

    def process(self, output: list[str]) -> MembersState:
        state = output[0].strip()
        if state != "running":
            return MembersState(state="absent" if state == "absent" else "unreachable", members=[])
        members = json.loads(output[1])["members"]
        health = {row["endpoint"]: bool(row["health"]) for row in json.loads(output[2])} if len(output) > 2 else {}
        return MembersState(state="running", members=[self._member(item, health) for item in members])

    @staticmethod
    def _member(item: dict[str, Any], health: dict[str, bool]) -> Member:
        # With --hex etcdctl of 3.5 spells it otherwise (etcdctl/ctlv3/command/printer_json.go, v3.5.7).
        urls = item.get("clientURLs") or item.get("clientURLS") or []
        answers = [health[url] for url in urls if url in health]
        identity = item["ID"]
        return Member(
            id=identity if isinstance(identity, str) else f"{identity:x}",
            name=item.get("name", ""),
            learner=bool(item.get("isLearner", False)),
            peer_urls=list(item.get("peerURLs", [])),
            healthy=all(answers) if answers else None,
        )


LeaderState = Literal["absent", "unknown", "known"]


class Leader(FactBase[LeaderState]):
    """Whether a stacked etcd's member on this node knows a leader, and so has a quorum, however slow its disks are.

    ::

        "known"

    The member answers this by itself, where a list of members waits for the disks of a majority. While a leader is
    elected there is none, so one that knows none is asked again for 10 s. One that was started without a quorum may not
    answer at all, and is "unknown" too.
    """

    @staticmethod
    def default() -> LeaderState:
        return "absent"

    def command(self) -> str:
        return (
            f"if {ABSENT} || ! test -e /etc/kubernetes/manifests/etcd.yaml; then echo absent; "
            "else l=unknown; for i in $(seq 5); do "
            f"s=$(timeout 20 {ETCDCTL} --command-timeout=15s endpoint status -w fields 2>/dev/null) || break; "
            'if echo "$s" | grep -q \'^"Leader" : [1-9]\'; then l=known; break; fi; sleep 2; done; echo $l; fi'
        )

    def process(self, output: list[str]) -> LeaderState:
        said = output[0].strip()
        return "known" if said == "known" else "absent" if said == "absent" else "unknown"
