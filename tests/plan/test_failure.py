"""A failure on one host stops what comes after it on every host, and pyinfra says so by its exit code."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site, together

from facts.hardware import Hardware

# Host, the command that fails there, what it says, and the operation that it is a part of.
FAILURES = {
    "a piece damaged on its way": (
        "lb1",
        r"tar -x(?s:.*)bin/kubelet",
        "These pieces are not as bundle.lock says",
        "Carry the bundle",
    ),
    "no room for the bundle": ("lb2", "df -Pk", "2000 KiB free, 4000 needed", "Carry the bundle, step 2"),
    "a server that cannot serve": ("lb2", "restart bundle-server", "Job for bundle-server failed", "Serve the bundle"),
    "a piece that no server gives": ("w1", "apt-helper(?s:.*)bin/kubelet", "such as bin/kubelet", "Carry the bundle"),
    "packages of a worker": ("w3", "apt-get .* containerd", "E: Sub-process dpkg returned 1", "Install containerd"),
    "containerd of a control plane": ("cp2", "restart containerd", "Job for containerd failed", "Run containerd"),
    "a rejected configuration": ("lb2", "haproxy -c", "[ALERT] config", "Write HAProxy's configuration"),
    "init": ("cp1", "kubeadm init --", "[preflight] Some fatal errors occurred", "Initialise the cluster on cp1"),
    "an API that does not come up": ("cp1", "/readyz", "/readyz did not answer", "Initialise the cluster on cp1"),
    "join of a control plane": ("cp3", "kubeadm join", "error execution phase", "Join control plane cp3"),
    "join of a worker": ("w2", "kubeadm join", "error execution phase", "Join the worker"),
}
# Enter starts the run; "n" is the answer to pyinfra's question whether to go on with the other hosts.
WAYS: dict[str, Callable[[Site], Run]] = {
    "-y": lambda site: site.run("-y"),
    "confirmed": lambda site: site.run(answers="\nn\n"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> dict[str, Future[Run]]:
    """Every failure on bare machines, by every way to start a run."""
    started = {}
    for failure, (host, command, words, _) in FAILURES.items():
        for way, run in WAYS.items():
            site = make_site(tmp_path_factory.mktemp("failure"), bundle).break_command(host, command, words)
            started[f"{failure}, {way}"] = partial(run, site)
    return together(started)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_is_begun_after_a_failure(runs: dict[str, Future[Run]], failure: str, way: str) -> None:
    host, _, words, operation = FAILURES[failure]
    run = runs[f"{failure}, {way}"].result()
    assert run.code == 1
    assert re.search(rf"\[{host}\] +{re.escape(words)}", run.words), run.words[-3000:]
    (failed,) = (each for each in run.log if not each["ok"])
    assert failed["host"] == host
    assert operation in failed["operation"]
    begun = {each["operation"] for each in run.changes if each["began"] > failed["ended"]}
    assert begun <= {failed["operation"]}


@pytest.mark.parametrize(("flags", "answers"), [(["-y"], ""), ([], "n\n"), (["--dry"], "n\n")])
def test_no_step_is_begun_after_a_host_could_not_be_asked(site: Site, flags: list[str], answers: str) -> None:
    site.break_command("w1", "openssl dgst -sha256", "Input/output error")
    run = site.run(*flags, answers=answers)
    assert run.code == 1
    assert re.search(r"\[w1\] +Input/output error", run.words), run.words[-3000:]
    assert "could not load fact: facts.checksum.Checksums" in run.words
    assert [each for each in run.changes if each["host"] == "w1"] == []
    assert all(each["operation"].startswith("Cluster | Distribute | ") for each in run.changes)


def test_preflight_ends_at_the_first_host_that_could_not_be_asked(site: Site) -> None:
    site.break_command("w1", re.escape(Hardware().command()), "Input/output error")
    run = site.run("-y")
    assert run.code == 1
    assert "could not load fact: facts.hardware.Hardware" in run.words
    assert run.changes == []
    # The other hosts' plans wait for the same findings, and do not look for them again.
    assert [each["host"] for each in run.log if not each["ok"]] == ["w1"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("restart containerd", "no control plane has /etc/kubernetes/pki/ca.crt"),
        ("kubeadm init --", "no control plane answers as initialised, so there is nothing to join"),
    ],
)
def test_what_needs_the_failed_host_stops_even_when_told_to_go_on(site: Site, command: str, words: str) -> None:
    site.break_command("cp1", command, "it failed")
    run = site.run(answers="\n" * 9)
    assert run.code == 1
    assert words in run.words
    assert run.like("kubeadm join", "change") == []


def test_a_stop_in_the_middle_is_explained_without_a_traceback(site: Site) -> None:
    run = site.break_command("cp1", "kubeadm init --", "it failed").run(answers="\n" * 9)
    assert "cp3: no control plane answers as initialised, so there is nothing to join. Look at" in run.words
    assert "Traceback" not in run.words


@pytest.mark.parametrize(
    "failure",
    [
        "a piece damaged on its way",
        "a piece that no server gives",
        "containerd of a control plane",
        "join of a control plane",
    ],
)
def test_a_run_after_the_failure_is_mended_does_what_was_left(site: Site, deployed: Deployed, failure: str) -> None:
    host, command, words, _ = FAILURES[failure]
    first = site.break_command(host, command, words).run("-y")
    site.mend(host)
    plan, second = site.run("--dry", "--json"), site.run("-y")
    assert second.code == 0, second.words[-3000:]
    assert plan.differs(second) == []
    assert first.made | second.made == deployed.run.made
    assert not first.made & second.made


def test_a_join_that_was_cut_off_is_cleaned_up_and_done_again(deployed: Deployed, tmp_path: Path) -> None:
    site = deployed.site.copy(tmp_path / "site")
    with site.state() as state:
        del state["cluster"]["nodes"]["w2"]
        del state["nodes"]["w2"]["files"]["/etc/kubernetes/pki/ca.crt"]
    plan, run = site.run("--dry", "--json"), site.run("-y")
    assert run.code == 0, run.words[-3000:]
    assert plan.planned == run.made == {("w2", "Workers | Join the worker")}
    assert plan.differs(run) == []
    (reset,), (join,) = run.like("kubeadm reset", "change"), run.like("kubeadm join", "change")
    assert reset["host"] == join["host"] == "w2"
    assert reset["ended"] < join["began"]
    with site.state() as state:
        assert set(state["cluster"]["nodes"]) == {*GROUPS["control_plane"], *GROUPS["worker"]}
