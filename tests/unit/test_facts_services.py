"""Facts of containerd and etcd. Output of odd machines is hand-written."""

from __future__ import annotations

import json

import pytest
from harness import Machine, answer, recorded

from facts.containerd import Images
from facts.etcd import Leader, Members
from facts.service import Unit

# What `ctr images ls` prints, heads and all.
CTR = """\
REF                                  TYPE                                       DIGEST         SIZE     PLATFORMS LABELS
registry.k8s.io/pause:3.10.2         application/vnd.oci.image.manifest.v1+json sha256:854febc 313.0KiB linux/amd64 -
"""
MEMBERS, HEALTH = recorded("Members.cluster")[1:]
KEY = "/etc/kubernetes/pki/etcd/healthcheck-client.key"


def test_images_of_a_recorded_node() -> None:
    found = answer(Images, recorded("Images.cluster"))
    assert found["state"] == "running"
    assert len(found["images"]) == 10
    assert found["images"]["registry.k8s.io/pause:3.10.2"] == (
        "sha256:854febcc7a07c2c3579c5c62826bb9fcd0b3ba68579cb4d38c9491dbfac79adc"
    )


def test_images_are_absent_without_containerd(machine: Machine) -> None:
    assert machine.ask(Images) == {"state": "absent", "images": {}}


def test_images_are_unreachable_when_containerd_does_not_answer(machine: Machine) -> None:
    machine.program("ctr", "echo 'dial unix /run/containerd/containerd.sock: no such file' >&2; exit 1")
    assert machine.ask(Images) == {"state": "unreachable", "images": {}}


def test_images_are_unreachable_when_containerd_hangs(machine: Machine) -> None:
    machine.program("ctr", "exec sleep 30")
    command = Images().command().replace("timeout 20", "timeout 0.2")
    done = machine.sh(command)
    assert (done.returncode, done.stdout) == (0, "unreachable\n")


def test_images_are_those_of_kubelets_namespace(machine: Machine) -> None:
    machine.program("ctr", f'test "$*" = "-n k8s.io images ls" && cat <<"E"\n{CTR}E')
    assert machine.ask(Images) == {"state": "running", "images": {"registry.k8s.io/pause:3.10.2": "sha256:854febc"}}


def test_images_of_an_empty_containerd_are_none(machine: Machine) -> None:
    machine.program("ctr", "echo 'REF TYPE DIGEST SIZE PLATFORMS LABELS'")
    assert machine.ask(Images) == {"state": "running", "images": {}}


def test_images_refuse_an_answer_that_is_none_of_the_three() -> None:
    with pytest.raises(ValueError, match="not an answer of this fact: 'Last login: Tue'"):
        answer(Images, ["Last login: Tue", "running"])


def test_members_of_a_recorded_cluster_of_etcd_3_5_are_healthy() -> None:
    found = answer(Members, recorded("Members.etcd-3.5.7"))["members"]
    assert {member["name"]: member["healthy"] for member in found} == dict.fromkeys(("cp1", "cp2", "cp3"), True)


def test_members_of_a_recorded_cluster() -> None:
    assert answer(Members, recorded("Members.cluster")) == {
        "state": "running",
        "members": [
            {
                "id": identity,
                "name": name,
                "learner": False,
                "peer_urls": [f"https://{address}:2380"],
                "healthy": True,
            }
            for identity, name, address in (
                ("7cc38a2eb9f67154", "cp1", "10.88.0.21"),
                ("ab364b3bac85a9aa", "cp2", "10.88.0.22"),
                ("e1a1e2184c53bee1", "cp3", "10.88.0.23"),
            )
        ],
    }


def test_member_that_does_not_answer_is_not_healthy() -> None:
    health = json.loads(HEALTH)
    health[1] = {"endpoint": health[1]["endpoint"], "health": False, "took": "5s", "error": "context deadline exceeded"}
    found = answer(Members, ["running", MEMBERS, json.dumps(health)])
    assert {member["name"]: member["healthy"] for member in found["members"]} == {
        "cp1": True,
        "cp2": True,
        "cp3": False,
    }


def test_member_is_healthy_when_all_of_its_addresses_answer() -> None:
    urls = ["https://10.88.0.21:2379", "https://10.88.0.99:2379"]
    listing = json.dumps({"members": [{"ID": "a1", "name": "cp1", "clientURLs": urls}]})
    health = [{"endpoint": urls[0], "health": True}, {"endpoint": urls[1], "health": False}]
    assert answer(Members, ["running", listing, json.dumps(health)])["members"][0]["healthy"] is False


def test_member_that_has_not_started_is_a_learner_of_unknown_health() -> None:
    listing = {"members": [{"ID": "a1", "peerURLs": ["https://10.88.0.24:2380"], "isLearner": True}]}
    assert answer(Members, ["running", json.dumps(listing), HEALTH])["members"] == [
        {"id": "a1", "name": "", "learner": True, "peer_urls": ["https://10.88.0.24:2380"], "healthy": None}
    ]


def test_member_ids_are_hexadecimal_from_any_etcdctl() -> None:
    listing = {"members": [{"ID": 0x7CC38A2EB9F67154, "name": "cp1"}]}
    assert answer(Members, ["running", json.dumps(listing)])["members"][0]["id"] == "7cc38a2eb9f67154"


def test_members_are_absent_without_etcd(machine: Machine) -> None:
    assert machine.ask(Members) == {"state": "absent", "members": []}


def test_members_are_absent_with_a_key_but_no_etcdctl(machine: Machine) -> None:
    machine.file(KEY)
    assert machine.ask(Members) == {"state": "absent", "members": []}


def test_members_are_absent_with_etcdctl_but_no_key(machine: Machine) -> None:
    machine.program("etcdctl", "exit 1")
    assert machine.ask(Members) == {"state": "absent", "members": []}


def test_members_are_unreachable_when_etcd_does_not_answer(machine: Machine) -> None:
    machine.file(KEY)
    machine.program("etcdctl", "echo 'context deadline exceeded' >&2; exit 1")
    assert machine.ask(Members) == {"state": "unreachable", "members": []}


@pytest.mark.parametrize(
    ("status", "known"),
    [
        ("printf '\"Leader\" : 15803648178628663679\\n'", "known"),
        ('printf \'"Leader" : 0\\n"Errors" : [etcdserver: no leader]\\n\'', "unknown"),
        ("exit 1", "unknown"),
        # An election ends while it is asked.
        ("test -e elected && echo '\"Leader\" : 9' || { touch elected; echo '\"Leader\" : 0'; }", "known"),
    ],
)
def test_member_whose_cluster_is_slow_still_knows_its_leader(machine: Machine, status: str, known: str) -> None:
    machine.program("sleep", "exit 0")
    machine.program("etcdctl", f'case "$*" in *"endpoint status"*) {status};; *) exit 1;; esac')
    machine.file("/etc/kubernetes/pki/etcd/healthcheck-client.key")
    assert machine.ask(Leader) == "absent"
    machine.file("/etc/kubernetes/manifests/etcd.yaml")
    assert machine.ask(Leader) == known


def test_members_are_listed_even_when_health_cannot_be_had(machine: Machine) -> None:
    machine.file(KEY)
    machine.program("etcdctl", f"case \"$*\" in *'member list'*) echo '{MEMBERS}';; *) exit 1;; esac")
    found = machine.ask(Members)
    assert found["state"] == "running"
    assert [(member["name"], member["healthy"]) for member in found["members"]] == [
        ("cp1", None),
        ("cp2", None),
        ("cp3", None),
    ]


def test_members_and_their_health_are_asked_for(machine: Machine) -> None:
    machine.file(KEY)
    unwell = HEALTH.replace("true", "false", 1)
    answers = f"*'member list -w json --hex') echo '{MEMBERS}';; *'endpoint health --cluster -w json') echo '{unwell}'"
    machine.program("etcdctl", f'case "$*" in {answers}; exit 1;; esac')
    found = machine.ask(Members)
    assert [member["healthy"] for member in found["members"]] == [False, True, True]


def test_a_systemd_before_251_says_its_times_in_words() -> None:
    """What 249 of Ubuntu 22.04 printed, and the change of a file before and after that."""
    shown = ["LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"]
    shown.append("ActiveEnterTimestamp=Mon 2026-11-30 07:09:35 UTC")
    found = Unit().process([*shown, "changed=1796022573.8426790000"])
    assert found == {"load": "loaded", "active": "active", "enabled": "enabled", "stale": False}
    assert Unit().process([*shown, "changed=1796022576.1"])["stale"] is True
