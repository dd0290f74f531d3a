"""Add-ons applied and waited for. Live objects are hand-written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api.operation import OperationMeta

from facts.kubernetes import Addons, Manifest, MetricsCertificate, kubectl
from operations import addons, workload

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
PATH, CONTEXT = "/etc/kubernetes/addons.d/shop.yaml", "/etc/kubernetes/addons.d/shop.context"


def item(kind: str, spec: dict[str, Any] | None = None, generation: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "n", "generation": generation}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}, "status": status}


def condition(name: str, status: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": name, "status": status, "message": message}]}


WELL = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}


@pytest.mark.parametrize(
    ("live", "words"),
    [
        (item("ConfigMap"), []),
        (item("Deployment", {"replicas": 2}, **WELL), []),
        (item("Deployment", {"replicas": 0}, observedGeneration=1), []),
        (item("Deployment", {"replicas": 2}, generation=2, **WELL), ["Deployment n/x has not been looked at"]),
        (item("Deployment", {"replicas": 2}, **{**WELL, "updatedReplicas": 1}), ["Deployment n/x has 1 of 2 pods"]),
        (item("Deployment", {"replicas": 2}, **{**WELL, "replicas": 3}), ["Deployment n/x has old pods"]),
        (item("Deployment", {}), ["Deployment n/x has 0 of 1 pods"]),
        (item("StatefulSet", {"replicas": 2}, **WELL), []),
        (item("StatefulSet", {"replicas": 2}, **{**WELL, "readyReplicas": 1}), ["StatefulSet n/x has 1 of 2 pods"]),
        (
            item(
                "StatefulSet", {"replicas": 2, "updateStrategy": {"type": "OnDelete"}}, **{**WELL, "updatedReplicas": 0}
            ),
            [],
        ),
        (
            item(
                "DaemonSet", observedGeneration=1, desiredNumberScheduled=3, numberAvailable=3, updatedNumberScheduled=1
            ),
            ["DaemonSet n/x has 1 of 3 pods"],
        ),
        (item("DaemonSet", observedGeneration=1, desiredNumberScheduled=0), []),
        (item("Job", succeeded=1), []),
        (item("Job", {"completions": 2}, succeeded=1), ["Job n/x has not completed"]),
        (item("APIService", **condition("Available", "True")), []),
        (
            item("APIService", **condition("Available", "False", "no endpoints")),
            ["APIService n/x is not Available: no endpoints"],
        ),
        (item("CustomResourceDefinition"), ["CustomResourceDefinition n/x is not Established: it says nothing"]),
    ],
)
def test_what_does_not_work_yet_is_said_in_words(live: dict[str, Any], words: list[str]) -> None:
    assert addons.unfinished([live]) == words


def test_a_manifest_that_the_cluster_has_is_left_alone(hosts: Make) -> None:
    ran = hosts({"cp1": {Manifest().command(PATH, CONTEXT): ["0"]}})
    arguments = {"path": PATH, "context": CONTEXT, "written_by": OperationMeta("file", False)}
    assert ran.plan(addons.applied, **arguments) == ran.execute(addons.applied, **arguments) == []
    assert ran.noops == [f"{PATH} is what the cluster has"] * 2


@pytest.mark.parametrize(("state", "written"), [("1", False), ("absent", False), ("0", True)])
def test_a_manifest_that_differs_is_planned_to_be_applied(hosts: Make, state: str, written: bool) -> None:
    ran = hosts({"cp1": {Manifest().command(PATH, CONTEXT): [state]}})
    arguments = {"path": PATH, "context": CONTEXT, "written_by": OperationMeta("file", written)}
    assert ran.plan(addons.applied, **arguments) == [Command(addons.apply_script(PATH, CONTEXT))]
    assert ran.noops == []


def waited(hosts: Make, monkeypatch: pytest.MonkeyPatch, *looks: list[dict[str, Any]]) -> list[Any]:
    """What is yielded after the manifest was applied, when the objects are one after another as these."""
    left = list(looks)
    monkeypatch.setattr(addons, "live", lambda *_: left.pop(0) if len(left) > 1 else left[0])
    monkeypatch.setattr(workload.gevent, "sleep", lambda _: None)
    ran = hosts({"cp1": {Manifest().command(PATH): ["absent"]}})
    return ran.execute(addons.applied, path=PATH, written_by=OperationMeta("file", True), seconds=10)[1:]


def test_it_is_waited_for_until_all_of_it_works(hosts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    unready = [item("Deployment", {"replicas": 2})]
    assert waited(hosts, monkeypatch, unready, unready, [item("Deployment", {"replicas": 2}, **WELL)]) == []


def test_what_does_not_work_in_time_fails_with_what_it_is_and_pods_and_events(
    hosts: Make, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (failure,) = waited(hosts, monkeypatch, [item("Deployment", {"replicas": 2})])
    pods = 'echo "n a 1/1 Running 0"; echo "n b 0/1 Pending 0"'
    machine.program("kubectl", f'case "$*" in *"get pods"*) {pods};; *) echo EVENTS;; esac')
    done = machine.sh(failure.text)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{machine.root}{PATH} was applied, and after 10 s not all of it works:",
        "  - Deployment n/x has 0 of 2 pods",
        "Pods that do not run, and what happened last (the next run waits again):",
        "n b 0/1 Pending 0",
        "EVENTS",
    ]


def test_what_a_manifest_itself_brings_is_waited_for_and_other_refusals_end_at_once(machine: Machine) -> None:
    machine.program("sleep", "echo slept >> slept")
    machine.program(
        "kubectl",
        'n=$(cat tries 2>/dev/null || echo 0); echo $((n+1)) > tries; test "$n" -ge 2 && exit 0; '
        "echo 'error: resource mapping not found: no matches for kind \"Thing\"' >&2; exit 1",
    )
    assert machine.sh(addons.apply_script(PATH, "")).returncode == 0
    assert machine.path("tries").read_text() == "3\n"
    machine.program("kubectl", "echo 'The Service is invalid' >&2; exit 1")
    done = machine.sh(addons.apply_script(PATH, ""))
    assert (done.returncode, done.stderr) == (1, "The Service is invalid\n")


def test_a_kind_that_never_comes_ends_the_waiting(machine: Machine) -> None:
    machine.program("sleep", ":")
    machine.program("kubectl", "echo x >> tries; echo 'no matches for kind \"Thing\"' >&2; exit 1")
    done = machine.sh(addons.apply_script(PATH, ""))
    assert (done.returncode, done.stderr) == (1, 'no matches for kind "Thing"\n')
    assert machine.path("tries").read_text().count("x") == addons.TRIES


def test_objects_without_a_namespace_are_in_that_of_the_context(machine: Machine) -> None:
    machine.program("kubectl", 'echo "$KUBECONFIG $*"')
    files = f"{machine.root}{CONTEXT}:{machine.root}/etc/kubernetes/admin.conf"
    assert machine.sh(f"{kubectl(CONTEXT)} get pods").stdout == f"{files} get pods\n"


def test_add_ons_that_were_applied_from_here_are_named(machine: Machine) -> None:
    directory = "/etc/kubernetes/addons.d"
    assert machine.ask(Addons, directory=directory) == []
    for name in ("coredns.yaml", "shop.yaml", "shop.context"):
        machine.file(f"{directory}/{name}")
    assert machine.ask(Addons, directory=directory) == ["coredns", "shop"]


@pytest.mark.parametrize(("state", "made"), [("valid", False), ("ending", True), ("other", True), ("absent", True)])
def test_metrics_servers_certificate_is_made_once_and_before_it_ends(hosts: Make, state: str, made: bool) -> None:
    ran = hosts({"cp1": {MetricsCertificate().command(): [state]}})
    for run in (ran.plan, ran.execute):
        assert run(addons.metrics_certificate) == ([Command(addons.certificate_script())] if made else [])


def test_the_key_of_metrics_server_is_gone_from_the_machine_when_it_is_in_the_cluster(machine: Machine) -> None:
    machine.program("openssl")
    machine.program("kubectl", 'case "$*" in *create*) cat "${10}" "${12}";; *) cat >> applied;; esac')
    done = machine.sh(addons.certificate_script())
    assert done.returncode == 0, done.stderr
    assert list(machine.path("/run").iterdir()) == []
    text = machine.path("applied").read_text()
    assert "PRIVATE KEY" in text
    assert "caBundle: LS0t" in text
