"""Manifests applied and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine, recorded
from pyinfra.api.operation import OperationMeta

from facts.kubernetes import Manifest
from operations import kubernetes

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
MANIFEST = "/etc/kubernetes/addons/flannel.yaml"
APPLY = Command(
    "kubectl --kubeconfig /etc/kubernetes/admin.conf apply --server-side --force-conflicts "
    f"--field-manager=pyinfra-kubeadm -f {MANIFEST}"
)


@pytest.mark.parametrize(
    ("live", "written", "yields"),
    [
        (recorded("Manifest.cluster"), False, False),
        (["1"], False, True),
        (["absent"], False, True),
        (recorded("Manifest.cluster"), True, True),
    ],
    ids=["done", "drifted", "bare", "file-changes"],
)
def test_manifest_is_applied_and_waited_for_when_it_differs(
    hosts: Make, live: list[str], written: bool, yields: bool
) -> None:
    ran = hosts({"cp1": {Manifest().command(MANIFEST): live}})
    arguments = {
        "path": MANIFEST,
        "written_by": OperationMeta("file", written),
        "wait_for": "rollout status -n x daemonset/y",
    }
    for run in (ran.plan, ran.execute):
        yielded = run(kubernetes.apply, seconds=9, **arguments)
        assert yielded[:1] == ([APPLY] if yields else [])
        assert ["rollout status -n x daemonset/y --timeout=9s" in command.text for command in yielded[1:]] == (
            [True] if yields else []
        )
    assert ran.noops == ([] if yields else [f"{MANIFEST} is what the cluster has"] * 2)


def test_manifest_that_does_not_roll_out_fails_with_pods_and_events(hosts: Make, machine: Machine) -> None:
    _, wait = hosts({"cp1": {}}).plan(
        kubernetes.apply,
        path=MANIFEST,
        written_by=OperationMeta("file", True),
        wait_for="rollout status -n x daemonset/y",
    )
    machine.program("kubectl", 'case "$*" in *rollout*) exit 1;; *"get pods"*) echo PODS;; *) echo EVENTS;; esac')
    done = machine.sh(wait.text)
    assert (done.returncode, done.stderr) == (1, "PODS\nEVENTS\n")
