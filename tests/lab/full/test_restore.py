"""etcd loses its quorum, then all its machines: restored each time with every key of an encrypted backup."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import lab, layout
from tests.lab.full.api import Api, Watcher
from tests.lab.nodes import BUNDLE, CONTROL_PLANES, ROOT, changes, deployed, everywhere, kubectl, pyinfra, ssh
from tests.lab.test_4_survival import wait_for
from tests.lab.test_5_interrupted import killed_when

BACKUPS = ROOT / "secrets/lab/backups"
KEYS = [f"key-{number:04}" for number in range(5000)]
LATER = [f"later-{number:03}" for number in range(300)]
WORKLOAD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "workload", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "workload"}},
        "template": {
            "metadata": {"labels": {"app": "workload"}},
            "spec": {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.2"}]},
        },
    },
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the certificate beside it, to which backups are encrypted."""
    path = tmp_path_factory.mktemp("key") / "backup.key"
    make = ("openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=backup", "-days", "1")
    subprocess.run([*make, "-keyout", path, "-out", path.with_suffix(".pem")], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def encrypted(key: Path) -> tuple[str, str]:
    return ("--data", f"backup_certificate={key.with_suffix('.pem')}")


@pytest.fixture(scope="module")
def api(bundle: str, encrypted: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    deployed("cluster", "-y", *encrypted)
    yield Api(ROOT / "secrets/lab/admin.conf", tmp_path_factory.mktemp("api"))
    lab.down()


@pytest.fixture(scope="module")
def backup(api: Api, encrypted: tuple[str, str]) -> Path:
    """Of a cluster with 5,000 keys and a workload; written after it are others, and some of its keys are removed."""
    api.write(KEYS)
    ssh("cp1", f"echo '{json.dumps(WORKLOAD)}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")
    kubectl("rollout", "status", "deployment/workload", "--timeout=120s", timeout=130)
    deployed("etcd_backup", "-y", *encrypted)
    taken = max(BACKUPS.glob("*"))
    assert {path.suffix for path in taken.iterdir()} == {".cms", ".json"}
    api.write(LATER)
    api.remove(KEYS[:100])
    return taken


@pytest.fixture
def watcher(api: Api, backup: Path) -> Iterator[Watcher]:
    watching = Watcher(api)
    watching.start()
    wait_for(lambda: watching.lists > 0, "the first list")
    yield watching
    watching.over.set()
    watching.join()


def workload_runs(replicas: int) -> None:
    kubectl("scale", "deployment/workload", f"--replicas={replicas}")
    kubectl("rollout", "status", "deployment/workload", "--timeout=180s", timeout=200)


def test_quorum_that_is_lost_is_restored_with_every_key_though_the_run_is_killed(
    api: Api, backup: Path, key: Path, encrypted: tuple[str, str], watcher: Watcher
) -> None:
    def destroy(node: str) -> None:
        # With an empty directory the one that joined last would join again as the member that it was.
        ssh(node, "rm -rf /var/lib/etcd/member; echo broken > /var/lib/etcd/member")
        ssh(node, "crictl stop -t 0 $(crictl ps -q --name '^etcd$')")

    everywhere(destroy, CONTROL_PLANES[1:])
    with pytest.raises(OSError):
        api.ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "nobody-takes-this"}})
    refused = pyinfra("etcd_restore", "-y", *encrypted, "--data", f"backup={backup}")
    assert refused.returncode != 0 and "backup_key" in refused.stdout, refused.stdout[-3000:]
    said = (*encrypted, "--data", f"backup={backup}", "--data", f"backup_key={key}")
    planned = changes(deployed("etcd_restore", "--dry", *said))
    killed_when("etcd_restore", "cp2", "test -e /etc/kubernetes/manifests.restore/etcd.yaml", flags=said)
    assert "gone on with" in deployed("etcd_restore", "-y", *said)
    assert planned["etcd restore | Set the old data aside"] == 3
    assert api.written() == {name: name for name in KEYS}
    api.write(["after-the-restore"])
    wait_for(lambda: "after-the-restore" in watcher.names, "the watch to go on", limit=120)
    assert watcher.names == {*KEYS, "after-the-restore"}
    assert watcher.lists > 1, "it was told that what it knew is too old, and listed again"
    workload_runs(4)
    assert changes(deployed("cluster", "-y", *encrypted)) == {}


def test_cluster_whose_control_planes_are_all_gone_comes_back_from_the_files_alone(
    api: Api, backup: Path, key: Path, encrypted: tuple[str, str], watcher: Watcher
) -> None:
    for node in CONTROL_PLANES:
        lab.replace(node)
    deployed("etcd_restore", "-y", *encrypted, "--data", f"backup={backup}", "--data", f"backup_key={key}")
    deployed("cluster", "-y", *encrypted)
    assert api.written() == {name: name for name in KEYS}
    api.write(["after-all-was-gone"])
    wait_for(lambda: watcher.names == {*KEYS, "after-all-was-gone"}, "the watch to go on", limit=120)
    workload_runs(3)
    assert changes(deployed("cluster", "-y", *encrypted)) == {}
