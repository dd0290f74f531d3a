"""The order in which a whole deploy changes bare machines, planned beforehand or not."""

from __future__ import annotations

import re
from itertools import groupby, pairwise

import pytest
from runs import GROUPS, Deployed, Record, Run

LOAD_BALANCERS, CONTROL_PLANES, WORKERS = (list(members) for members in GROUPS.values())
FIRST, *OTHERS = CONTROL_PLANES
NODES = {*CONTROL_PLANES, *WORKERS}
# Each layer of deploys/cluster.py that changes something, and the hosts it changes.
LAYERS = {
    "Distribute": {*LOAD_BALANCERS, *NODES},
    "Node": {*LOAD_BALANCERS, *NODES},
    "Runtime": NODES,
    "Images": NODES,
    "Packages": NODES,
    "Load balancers": {FIRST, *LOAD_BALANCERS},
    "Control planes": {*CONTROL_PLANES},
    "Workers": {*WORKERS},
    "Pod network": {FIRST},
    "Add-ons": {FIRST},
    "Backup timer": {*CONTROL_PLANES},
}


@pytest.fixture(params=["deployed", "confirmed"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Deployed = request.getfixturevalue(request.param)
    return found.run


def layer(record: Record) -> str:
    return record["operation"].split(" | ")[1]


def hosts(records: list[Record]) -> list[str]:
    return [each["host"] for each in records]


def ends(records: list[Record]) -> int:
    return max(each["ended"] for each in records)


def begins(records: list[Record]) -> int:
    return min(each["began"] for each in records)


def test_a_layer_is_whole_on_all_its_hosts_before_the_next_begins(run: Run) -> None:
    parts = [(name, list(records)) for name, records in groupby(run.changes, layer)]
    assert [(name, set(hosts(records))) for name, records in parts] == list(LAYERS.items())
    for (_, before), (after, records) in pairwise(parts):
        assert ends(before) < begins(records), f"{after} begins before all hosts are ready for it"


def first_of(records: list[Record]) -> dict[str, Record]:
    """Each host's first, in the order of their beginnings."""
    found: dict[str, Record] = {}
    for each in records:
        found.setdefault(each["host"], each)
    return found


def steps(records: list[Record]) -> dict[str, list[Record]]:
    """By the operation that they are a part of."""
    return {operation: list(found) for operation, found in groupby(records, lambda each: each["operation"])}


def test_the_bundle_leaves_the_control_machine_once_and_goes_from_server_to_server(run: Run) -> None:
    carried, fetched = run.like("upload /", "change"), run.like("apt-helper", "change")
    served = {each["host"]: each for each in run.like("systemctl restart bundle-server.service", "change")}
    one, two = LOAD_BALANCERS
    begun = first_of(fetched)
    assert set(hosts(carried)) == {one}
    assert set(begun) == {two, *NODES}
    assert ends(carried[:1]) < served[one]["began"] < served[one]["ended"] < begun[two]["began"]
    assert begun[two]["ended"] < served[two]["began"] < served[two]["ended"]
    assert all(served[two]["ended"] < begun[name]["began"] for name in NODES)


def test_what_a_server_has_is_handed_on_while_the_next_part_comes(run: Run) -> None:
    carried, fetched = steps(run.like("upload /", "change")), steps(run.like("apt-helper", "change"))
    both = [operation for operation in carried if operation in fetched]
    assert both == list(carried)[1:]
    for operation in both:
        assert begins(carried[operation]) < ends(fetched[operation])
        assert begins(fetched[operation]) < ends(carried[operation])
    assert [set(hosts(records)) for records in fetched.values()][-1] <= NODES


def test_nodes_fetch_together_and_begin_with_different_servers(run: Run) -> None:
    fetched = first_of([each for each in run.like("apt-helper", "change") if each["host"] in NODES]).values()
    assert max(each["began"] for each in fetched) < min(each["ended"] for each in fetched)
    asked = {each["host"]: re.findall(r"10\.0\.0\.1(\d):5443", each["command"])[:2] for each in fetched}
    one, two = ["1", "2"], ["2", "1"]
    assert asked == {"cp1": one, "cp3": two, "cp2": one, "w1": two, "w2": one, "w3": two}


def test_both_load_balancers_serve_before_init(run: Run) -> None:
    (init,) = run.like("kubeadm init --", "change")
    for unit in ("haproxy.service", "keepalived.service"):
        started = run.like(f"systemctl restart {unit}", "change")
        assert sorted(hosts(started)) == LOAD_BALANCERS
        assert ends(started) < init["began"]


def test_init_runs_once_and_answers_before_any_join(run: Run) -> None:
    (init,) = run.like("kubeadm init --", "change")
    # By itself, then through the load balancers.
    asked = [each for each in run.like("/readyz", "read") if "curl" in each["command"]]
    answered, balanced = (each for each in asked if each["host"] == FIRST)
    assert "https://10.0.0.21:6443/readyz" in answered["command"]
    assert "https://10.0.0.100:6443/readyz" in balanced["command"]
    assert init["host"] == FIRST
    assert init["ended"] < answered["began"] < answered["ended"] < balanced["began"]
    assert balanced["ended"] < begins(run.like("kubeadm join", "change"))


def test_control_planes_join_one_at_a_time_in_the_order_of_the_inventory(run: Run) -> None:
    joins = [each for each in run.like("kubeadm join", "change") if each["host"] in CONTROL_PLANES]
    answered = [each for each in run.like("/readyz", "read") if each["host"] in OTHERS]
    assert hosts(joins) == hosts(answered) == OTHERS
    moments = [moment for join, answer in zip(joins, answered, strict=True) for moment in
               (join["began"], join["ended"], answer["began"], answer["ended"])]  # fmt: skip
    assert moments == sorted(moments)


def test_workers_join_together_after_all_control_planes(run: Run) -> None:
    joins = [each for each in run.like("kubeadm join", "change") if each["host"] in WORKERS]
    assert sorted(hosts(joins)) == WORKERS
    assert max(each["began"] for each in joins) < min(each["ended"] for each in joins)
    assert begins(joins) > ends([each for each in run.like("/readyz", "read") if each["host"] in OTHERS])


def test_the_cluster_is_looked_at_last(run: Run) -> None:
    probes = run.like("agnhost connect", "probe")
    assert set(hosts(probes)) == {FIRST}
    assert begins(probes) > ends(run.changes)


def test_every_node_is_in_the_cluster_and_the_kubeconfig_is_kept(deployed: Deployed) -> None:
    with deployed.site.state() as state:
        roles = dict.fromkeys(CONTROL_PLANES, "control-plane") | dict.fromkeys(WORKERS, "worker")
        assert state["cluster"]["nodes"] == roles
        admin = state["nodes"][FIRST]["files"]["/etc/kubernetes/admin.conf"]["text"]
    kept = deployed.site.directory / "secrets" / "test" / "admin.conf"
    assert kept.read_text() == admin
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_webserver_is_installed_for_the_bundle_alone(deployed: Deployed) -> None:
    with deployed.site.state() as state:
        for name, node in state["nodes"].items():
            assert ("nginx" in node["packages"]) == (name in LOAD_BALANCERS)
            assert not node["units"].get("nginx.service", {}).get("active")
