"""Plans as data: what is together, what differs, what is shown, and what is no plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.changes import Change, Host, Plan, PlanError, difference, lines, load, step, together

ADDRESSES = {"cp1": "10.0.0.21", "w1": "10.0.0.31", "w10": "10.0.0.32", "w2": "10.0.0.33"}
HOSTS = {name: Host(groups=("worker",), address=address) for name, address in ADDRESSES.items()}


def plan(*steps: Any, **fields: Any) -> Plan:
    about: dict[str, Any] = {
        "kind": "plan", "made": "2026-11-30T00:00:00+00:00", "deploys": ("cluster",), "cluster_name": "test",
        "kubernetes_version": "v1.36.2", "bundle": "", "endpoint": "10.0.0.100:6443", "hosts": HOSTS, "operations": 9,
    }  # fmt: skip
    return Plan(steps=steps, **about | fields)


def write(words: str = "create /etc/x", *diff: str, **more: str) -> tuple[Change, ...]:
    return (Change(words=words, diff=diff, **more),)


def test_hosts_to_which_the_same_is_done_are_together() -> None:
    made = step("Node | Write", {"cp1": write(), "w1": write("modify /etc/x"), "w2": write()})
    assert [group.hosts for group in made.groups] == [("cp1", "w2"), ("w1",)]
    assert made.hosts == ("cp1", "w2", "w1")


def test_hosts_that_differ_by_their_own_name_and_address_alone_are_shown_as_one() -> None:
    changes = {name: write(f"join {name}", f"+{name}={ADDRESSES[name]}", "+peer=10.0.0.21") for name in ("w1", "w10")}
    (group,) = together(step("Workers | Join", changes), HOSTS)
    assert group.hosts == ("w1", "w10")
    assert group.changes == write("join <host>", "+<host>=<address>", "+peer=10.0.0.21")


def test_what_is_another_hosts_is_no_hosts_own() -> None:
    changes = {"w1": write("have w10 and w1-a at 10.0.0.310"), "w2": write("have w10 and w1-a at 10.0.0.310")}
    (group,) = together(step("Node | Names", changes), HOSTS)
    assert group.changes == write("have w10 and w1-a at 10.0.0.310")


def test_what_names_every_host_in_the_same_words_is_shown_once() -> None:
    changes = dict.fromkeys(HOSTS, write("create /etc/hosts", *(f"+{ADDRESSES[name]} {name}" for name in HOSTS)))
    (group,) = together(step("Node | Hosts", changes), HOSTS)
    assert (group.hosts, group.changes) == (tuple(HOSTS), changes["w1"])


def test_fifty_alike_hosts_are_one_line_and_their_difference_is_shown_once() -> None:
    hosts = {f"n{number}": Host(groups=("worker",), address=f"10.1.0.{number}") for number in range(1, 51)}
    shown = list(
        lines(plan(step("Node | Write", {name: write("create /etc/x", "+a") for name in hosts}), hosts=hosts), True)
    )
    assert shown == ["Node | Write", "  [n1 ... n50 (50 hosts)] create /etc/x", "    +a"]


def test_an_effect_and_what_is_not_known_are_said() -> None:
    made = step("Workers | Join", {"w1": write("join w1", effect="takes pods", later="the hash is known later")})
    assert list(lines(plan(made), False)) == ["Workers | Join", "  [w1] join w1: takes pods (the hash is known later)"]
    assert plan(made).unknown == 1


def test_plans_that_agree_have_no_difference() -> None:
    one, other = plan(step("A", {"w1": write("create", "+a")})), plan(step("A", {"w1": write("create", "+a")}))
    assert difference(one, other) == []


def test_of_what_could_not_be_known_the_words_alone_must_agree() -> None:
    before = plan(step("A", {"w1": write("create /etc/x", later="the CA is made later")}))
    assert difference(before, plan(step("A", {"w1": write("create /etc/x", "+known now")}), kind="result")) == []
    assert difference(before, plan(step("A", {"w1": write("modify /etc/x")}), kind="result")) != []


def test_operations_of_one_name_are_all_compared() -> None:
    first, second = step("A", {"w1": write("create /etc/x")}), step("A", {"w1": write("create /etc/y")})
    assert plan(first, second).rows() == {("A", "w1"): (*write("create /etc/x"), *write("create /etc/y"))}
    assert difference(plan(first, second), plan(second)) != []


def test_each_difference_names_host_operation_and_what_differs() -> None:
    before = plan(step("A", {"w1": write("create", "+a"), "w2": write()}), step("B", {"w1": write()}))
    after = plan(
        step("A", {"w1": write("create", "+b")}), step("C", {"w1": write("remove")}), kind="result", made="later"
    )
    found = difference(before, after)
    assert found[0] == "w1: A: create in the plan, and create in the result"
    assert found[4:6] == ["  -+a", "  ++b"]
    assert "w2: A: only in the plan of 2026-11-30T00:00:00+00:00: create /etc/x" in found
    assert "w1: B: only in the plan of 2026-11-30T00:00:00+00:00: create /etc/x" in found
    assert "w1: C: only in the result of later: remove" in found


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = plan(step("A", {"w1": write("create", "+a", effect="restarts x", later="y")}))
    path = tmp_path / "plan.json"
    path.write_text(made.model_dump_json(by_alias=True))
    assert load(path) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "is not a plan of this version: "),
        ('{"schema": 2}', "is not a plan of this version: schema: "),
    ],
)
def test_a_file_that_is_no_plan_is_named_with_what_is_wrong(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PlanError, match=words) as raised:
        load(path)
    assert str(path) in str(raised.value)
