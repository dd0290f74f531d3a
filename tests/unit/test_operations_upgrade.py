"""The shell that waits for an upgraded node, run for real."""

from __future__ import annotations

import pytest
from harness import Machine

from operations.upgrade import wait_for

# The clock goes on while somebody sleeps, and waits for an answer.
CLOCK = "n=$(cat {root}/now 2>/dev/null || echo 1000)"
PASSES = "echo $((n + {seconds})) > {root}/now"
# `kubectl get node`, then `kubectl get pods`, each time that they are asked.
KUBECTL = """\
n=$(cat {root}/asked 2>/dev/null || echo 0); echo $((n + 1)) > {root}/asked
case "$*" in *"get node"*) echo 'v1.36.2 {node}';; *) for pod in {pods}; do echo "$pod-cp1 True"; done;; esac
"""
ALL = "etcd kube-apiserver kube-controller-manager kube-scheduler"


def slept(machine: Machine) -> None:
    """Have a clock that moves by what is slept alone."""
    clock = CLOCK.format(root=machine.root)
    machine.program("date", f"{clock}; echo $n")
    machine.program("sleep", f"{clock}; {PASSES.format(root=machine.root, seconds='$1')}")


def asked(machine: Machine) -> int:
    return int(machine.path("asked").read_text())


@pytest.mark.parametrize(
    ("node", "pods", "control_plane", "code"),
    [
        ("True", ALL, True, 0),
        ("True", f"of-a-user {ALL}", True, 0),
        ("True", "", False, 0),
        ("False", ALL, True, 1),
        ("True", "etcd kube-apiserver kube-controller-manager", True, 1),
        ("Unknown", "", False, 1),
    ],
)
def test_a_node_and_its_static_pods_must_be_ready(
    machine: Machine, node: str, pods: str, control_plane: bool, code: int
) -> None:
    slept(machine)
    machine.program("kubectl", KUBECTL.format(root=machine.root, node=node, pods=pods or "''"))
    ran = machine.sh(wait_for("cp1", "v1.36.2", control_plane, seconds=6))
    assert ran.returncode == code, ran.stderr
    assert asked(machine) == (2 if code == 0 else 8)
    assert code == 0 or ran.stderr.startswith("cp1 is not Ready with a kubelet v1.36.2 after 6 s:\nv1.36.2 ")
    assert code == 0 or ran.stderr.endswith("then run again.\n")


def test_a_static_pod_that_is_not_there_for_a_moment_is_waited_for(machine: Machine) -> None:
    machine.program("sleep", f"rm -f {machine.root}/lacks")
    machine.file("/lacks", "")
    text = KUBECTL.format(root=machine.root, node="True", pods="$pods")
    few = ALL.removesuffix(" kube-scheduler")
    machine.program("kubectl", f'pods="{ALL}"; test -e {machine.root}/lacks && pods="{few}"\n{text}')
    assert machine.sh(wait_for("cp1", "v1.36.2", control_plane=True, seconds=6)).returncode == 0
    assert asked(machine) == 4


def test_an_api_that_does_not_answer_makes_it_wait_no_longer(machine: Machine) -> None:
    slept(machine)
    clock = f"{CLOCK} && {PASSES}".format(root=machine.root, seconds=30)
    machine.program("kubectl", f"{clock}\necho 'Unable to connect to the server: i/o timeout' >&2; exit 1")
    ran = machine.sh(wait_for("cp1", "v1.36.2", control_plane=True, seconds=300))
    assert ran.returncode == 1
    assert "i/o timeout" in ran.stderr
    assert 300 <= int(machine.path("now").read_text()) - 1000 < 300 + 2 * 30 + 2
