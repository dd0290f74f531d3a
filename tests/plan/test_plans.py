"""Plans that are kept, required and compared, what was done, and drift told by an exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, Deployed, Site, make_site
from test_dry_run import DRIFT, drift

from cluster.changes import difference, load
from cluster.plan_page import page


@pytest.fixture
def cluster(deployed: Deployed, tmp_path: Path) -> Site:
    return deployed.site.copy(tmp_path / "site")


def drifted(site: Site) -> Site:
    with site.state() as state:
        drift(state["nodes"], state["clock"] + 1000)
    return site


def test_a_required_plan_that_still_holds_is_carried_out(cluster: Site, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    drifted(cluster).run("--dry", "--data", f"plan_out={kept}")
    again = tmp_path / "again.json"
    run = cluster.run("-y", "--data", f"plan_in={kept}", "--data", f"plan_out={again}")
    assert run.code == 0, run.words
    assert run.result and run.result.steps and difference(load(kept), run.result) == []
    assert load(again).kind == "plan" and difference(load(kept), load(again)) == []


def test_hosts_that_no_longer_match_the_required_plan_are_left_as_they_are(cluster: Site, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    drifted(cluster).run("--dry", "--data", f"plan_out={kept}")
    with cluster.state() as state:
        state["nodes"]["w2"]["swap"] = []
        state["nodes"]["w1"]["swap"] = ["/dev/vdb1"]
    run = cluster.run("-y", "--data", f"plan_in={kept}")
    assert run.code == 1
    assert run.changes == []
    assert "w2: Cluster | Node | Turn swap off, now and at boot: only in the plan of" in run.words
    assert "w1: Cluster | Node | Turn swap off, now and at boot: only in the plan of" in run.words
    assert "does not hold any more" in run.words


def test_a_plan_of_several_deploys_is_one_and_binds_all_of_them(cluster: Site, tmp_path: Path) -> None:
    both, kept = ("node", "deploys/runtime.py"), tmp_path / "kept.json"
    plan = drifted(cluster).run(both[1], "--dry", layer=both[0])
    (cluster.directory / "plan_out.json").rename(kept)
    run = cluster.run(both[1], "-y", "--data", f"plan_in={kept}", layer=both[0])
    assert run.code == 0, run.words
    assert plan.plan and plan.plan.deploys == ("node", "runtime")
    assert {operation.partition(" | ")[0] for operation, _ in plan.plan.rows()} == {"Node", "Runtime"}
    assert plan.differs(run) == []


def test_a_plan_of_another_deploy_or_no_plan_at_all_is_refused(cluster: Site, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    cluster.run("--dry", "--data", f"plan_out={kept}", layer="node")
    run = cluster.run("-y", "--data", f"plan_in={kept}")
    assert (run.code, run.changes) == (1, [])
    assert "deploys: ('node',) in " in run.words
    run = cluster.run("-y", "--data", f"plan_in={tmp_path / 'none.json'}")
    assert (run.code, run.changes) == (1, [])
    assert "none.json: No such file or directory" in run.words


def test_a_file_that_cannot_be_written_is_said_before_anything_is_done(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = site.run("-y", "--data", f"result_out={tmp_path / 'file' / 'deeper' / 'result.json'}", layer="node")
    assert (run.code, run.changes) == (1, [])
    assert "result.json cannot be written: Not a directory" in run.words


def test_a_kept_plan_and_its_page_are_their_owners_alone_and_have_no_secret(
    cluster: Site, tmp_path: Path, bundle: Path
) -> None:
    bare = make_site(tmp_path / "bare", bundle)
    run = bare.run("--dry")
    assert run.plan and run.plan.unknown
    for path in (bare.directory / "plan_out.json", bare.directory / "plan_out.html"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert f"{path}" in run.words
        for words in ("PRIVATE KEY", "client-key-data", "bootstrapTokens", "certificateKey"):
            assert words not in path.read_text()
    assert page(run.plan) == (bare.directory / "plan_out.html").read_text()


def test_a_run_that_stops_keeps_what_it_had_done(site: Site) -> None:
    site.break_command("w1", "modprobe", "no such module")
    run = site.run("-y", layer="node")
    assert run.code == 1
    assert run.result
    assert page(run.result) == (site.directory / "result_out.html").read_text()
    done = {operation for operation, _ in run.result.rows()}
    assert "Node | Turn swap off, now and at boot" in done
    assert ("Node | Load kernel modules", "w1") not in run.result.rows()


def test_a_plan_without_hosts_that_failed_while_it_was_made_is_not_kept(site: Site) -> None:
    site.break_command("w1", "proc/swaps", "cut off")
    run = site.run("--dry", answers="y\n", layer="node")
    assert (run.code, run.plan) == (1, None), run.words
    assert "is not kept: w1 failed while it was made" in run.words


def test_the_task_keeps_a_plan_and_ends_as_its_dry_run_does(site: Site, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    done = task(site, kept)
    assert done.returncode == 0, done.stdout
    assert f"the plan: {kept}" in done.stdout and f"its page: {tmp_path / 'kept.html'}" in done.stdout
    assert page(load(kept)) == (tmp_path / "kept.html").read_text()
    before = kept.read_bytes()
    site.break_command("w1", "proc/swaps", "cut off")
    done = task(site, kept)
    assert (done.returncode, kept.read_bytes()) == (1, before), done.stdout
    assert "the plan: " not in done.stdout


def task(site: Site, kept: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "tasks.py", "plan", "--deploy", "node", "--output", str(kept)]
    return subprocess.run(
        [*words, "--inventory", str(site.directory / "inventory.py")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_drift_is_told_by_the_exit_status_and_nothing_is_changed(cluster: Site) -> None:
    again = cluster.run("-y", layer="drift")
    assert (again.code, again.changes) == (0, []), again.words
    assert "No differences from what is described" in again.words
    found = drifted(cluster).run("-y", layer="drift")
    assert (found.code, found.changes) == (2, []), found.words
    with cluster.state() as state:
        assert state["nodes"]["w2"]["swap"] == ["/dev/vda2"]
    for host, operation in DRIFT:
        assert operation in found.words, f"{host}: {operation}"
    cluster.break_command("w1", "proc/swaps", "cut off")
    unknown = cluster.run("-y", layer="drift")
    assert (unknown.code, unknown.changes) == (1, []), unknown.words
