"""A backup on real nodes: by the timer's unit and when asked, read by etcd's own program, and restored."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.backup import read
from tests.lab.nodes import CONTROL_PLANES, ROOT, changes, deployed, everywhere, kubectl, pyinfra, ssh
from tests.lab.test_5_interrupted import killed_when

pytestmark = pytest.mark.usefixtures("cluster")
BACKUPS = ROOT / "secrets/lab/backups"
KEPT = "/var/backups/kubernetes"


@pytest.fixture(scope="module")
def taken(cluster: str) -> Iterator[Path]:
    """A backup of the cluster with one ConfigMap, made when there was a second one to come."""
    kubectl("create", "configmap", "before-the-backup", "--from-literal=key=value")
    there = set(BACKUPS.glob("*"))
    output = deployed("etcd_backup", "-y")
    (new,) = set(BACKUPS.glob("*")) - there
    assert f"{new.relative_to(ROOT)} is the backup of" in output
    kubectl("create", "configmap", "after-the-backup")
    yield new


def test_timer_waits_on_every_control_plane_and_its_unit_makes_a_backup() -> None:
    def backed_up(node: str) -> None:
        assert ssh(node, "systemctl is-active etcd-backup.timer; systemctl is-enabled etcd-backup.timer").split() == [
            "active", "enabled",
        ]  # fmt: skip
        ssh(node, "systemctl start etcd-backup.service")
        (name,) = ssh(node, "ls /var/backups/kubernetes").split()
        files = ssh(node, f"ls -A /var/backups/kubernetes/{name}").split()
        assert files == ["kubeadm-config.yaml", "manifest.json", "pki.tar", "snapshot.db"]
        manifest = json.loads(ssh(node, f"cat /var/backups/kubernetes/{name}/manifest.json"))
        assert (manifest["member"], manifest["cluster_name"]) == (node, "lab")

    everywhere(backed_up, CONTROL_PLANES)
    said = deployed("verify", "-y")
    assert said.count("1 backups, the newest of") == 3
    assert said.count("; a timer, next at") == said.count("; last run: success at") == 3
    assert changes(deployed("backup_timer", "-y")) == {}


def test_backup_is_fetched_whole_and_for_its_owner_alone(taken: Path) -> None:
    manifest = read(taken)
    assert {stat.S_IMODE(path.stat().st_mode) for path in taken.iterdir()} == {0o600}
    assert stat.S_IMODE(taken.stat().st_mode) == 0o700
    told = json.loads(ssh("cp1", f"etcdutl snapshot status /var/backups/kubernetes/{taken.name}/snapshot.db -w json"))
    assert (told["revision"], told["totalKey"], told["hash"]) == (manifest.revision, manifest.keys, manifest.hash)
    assert manifest.live_keys > 100
    modes = ssh("cp1", f"stat -c %a /var/backups/kubernetes /var/backups/kubernetes/{taken.name}/*").split()
    assert modes == ["700", "600", "600", "600", "600"]
    for node in CONTROL_PLANES:
        assert ssh(node, "find /tmp -name 'tmp.*' -o -name 'pyinfra-*' | wc -l").strip() == "0"


def test_a_run_that_is_killed_leaves_nothing_in_the_way_of_the_next(taken: Path) -> None:
    begun = f"until test -d {KEPT}/.partial.*; do sleep 0.01; done"
    killed_when("etcd_backup", "cp1", f"timeout 20 sh -c '{begun}'")
    there = set(BACKUPS.glob("2*"))
    deployed("etcd_backup", "-y")
    (new,) = set(BACKUPS.glob("2*")) - there
    assert read(new).member == "cp1"
    assert ssh("cp1", f"ls -d {KEPT}/.partial.* || true").strip() == ""


def test_running_cluster_is_not_restored_over_unless_it_is_said_and_then_is_as_it_was(taken: Path) -> None:
    refused = pyinfra("etcd_restore", "-y", "--data", f"backup={taken}")
    assert refused.returncode != 0
    assert "etcd runs there and has a quorum" in refused.stdout, refused.stdout[-4000:]
    said = ("--data", f"backup={taken}", "--data", "replace_running=lab")
    planned = changes(deployed("etcd_restore", "--dry", *said))
    assert changes(deployed("etcd_restore", "-y", *said)) == planned != {}
    assert "value" in kubectl("get", "configmap", "before-the-backup", "-o", "jsonpath={.data.key}")
    assert kubectl("get", "configmap", "after-the-backup", "--ignore-not-found") == ""
    everywhere(lambda node: ssh(node, "test -d /var/lib/etcd/before-*/member && ! ls -d /var/lib/etcd/restore-*"),
               CONTROL_PLANES)  # fmt: skip
    # It ends with verify: pods, DNS for a Service made just now, every path.
    assert changes(deployed("cluster", "-y")) == {}
