"""Several facts in one command, each as it is alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Hosts, Machine, answer
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host, ctx_inventory

from cluster.topology import Node
from deploys.ask import Questions
from facts.checksum import Checksums
from facts.file import FileState
from facts.kernel import Sysctl
from facts.kubeadm import KubeadmNode
from facts.swap import Swap
from facts.time import TimeSynchronized
from facts.together import NEXT, Question, Together

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
QUESTIONS = (
    Question(FileState, {"path": "/etc/it's $HOME.conf"}),
    Question(TimeSynchronized),
    Question(KubeadmNode),
    Question(Checksums, {"paths": ()}),
    Question(Swap),
    Question(FileState, {"path": "/etc/none"}),
)


def test_each_fact_is_what_it_is_alone(machine: Machine) -> None:
    machine.file("/etc/it's $HOME.conf", "one\n\n")
    machine.file("/etc/fstab", "/dev/vda2 none swap sw 0 0\n")
    machine.file("/etc/kubernetes/kubelet.conf", "a kubeconfig\n")
    (machine.root / "proc").mkdir()
    machine.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n")
    together = Together()
    done = machine.sh(together.command(QUESTIONS))
    assert done.returncode == 0, done.stderr
    found = together.process(done.stdout.splitlines())
    assert found == tuple(machine.ask(each.kind, **each.arguments) for each in QUESTIONS)
    assert found[0]["content"] == "one\n\n" and found[-1] is None


def test_a_fact_that_fails_is_named_and_nothing_else_is_shown(machine: Machine) -> None:
    machine.program("stat", "echo no such disk >&2; exit 4")
    machine.file("/etc/hosts", "")
    done = machine.sh(Together().command((Question(Swap), Question(FileState, {"path": "/etc/hosts"}))))
    assert done.returncode == 4 and done.stdout == ""
    assert done.stderr.endswith("no such disk\ncould not load fact: facts.file.FileState (exit status 4)\n")


def test_where_it_fails_pyinfra_names_the_facts_alone() -> None:
    assert repr(QUESTIONS[:2]) == "(FileState, TimeSynchronized)"


def test_no_answer_is_the_default_of_each() -> None:
    together = Together()
    together.command((Question(Swap), Question(TimeSynchronized)))
    assert together.process(["", NEXT, "yes", NEXT]) == (answer(Swap, []), True)


def test_hosts_are_asked_once_for_all(hosts: Make) -> None:
    sysctl = {"w1": {"keys": ("a",)}, "w2": {"keys": ("b",)}}
    told = {"w1": ["yes", NEXT, "a=1", NEXT], "w2": ["no", NEXT, "b=2", NEXT], "lb1": ["", NEXT]}
    known = hosts({name: {"set -- ": lines} for name, lines in told.items()})
    questions = Questions()
    nodes = [Node(name, None) for name in ("w1", "w2", "lb1")]  # type: ignore[arg-type]
    synchronized, live = questions.ask(TimeSynchronized, nodes), questions.ask_each(Sysctl, sysctl)
    with ctx_inventory.use(known.inventory), ctx_host.use(known.inventory.get_host("w1")):
        questions.answer()
    assert synchronized == {"w1": True, "w2": False, "lb1": None}
    assert live == {"w1": {"a": "1"}, "w2": {"b": "2"}}
    assert sorted(name for name, _ in known.ran) == ["lb1", "w1", "w2"]


def test_a_host_that_fails_stops_the_run(hosts: Make) -> None:
    known = hosts({"w1": {}})
    questions = Questions()
    questions.ask(TimeSynchronized, [Node("w1", None)])  # type: ignore[arg-type]
    with ctx_host.use(known.inventory.get_host("w1")), pytest.raises(PyinfraError):
        questions.answer()
