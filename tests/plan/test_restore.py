"""A restore of etcd: refused where it would do harm, the same steps on all members, gone on with where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site

CONTROL_PLANES = list(GROUPS["control_plane"])
CA = b"the cluster's CA\n"
PROXY = b"-----BEGIN CERTIFICATE-----\nNEW\n-----END CERTIFICATE-----\n"
PKI = {
    # In the middle of a rotation of CAs.
    "pki/front-proxy-ca.crt": PROXY + PROXY.replace(b"NEW", b"OLD"), "pki/rotation/old/ca.crt": b"an old CA\n",
    "pki/ca.crt": CA, "pki/ca.key": b"the CA's key\n", "pki/sa.key": b"a key\n", "pki/etcd/ca.key": b"a key\n",
    "pki/apiserver.crt": b"cp1's own\n", "encryption.yaml": b"keys\n", "pki/own.p12": b"\xff\x00",
}  # fmt: skip
STEPS = ("Make the new data beside the old", "Stop the static pods", "Set the old data aside",
         "Run etcd with the backup's data", "Run the API server", "Run the controllers",
         "Remove the copy of the snapshot")  # fmt: skip


def make_backup(directory: Path, **said: Any) -> Path:
    """A backup of the cluster of these tests; `said` is laid over its manifest."""
    directory.mkdir()
    body = b"\0" * 1024
    (directory / "snapshot.db").write_bytes(body + hashlib.sha256(body).digest())
    with tarfile.open(directory / "pki.tar", "w") as tar:
        for name, text in PKI.items():
            entry = tarfile.TarInfo(f"etc/kubernetes/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    (directory / "kubeadm-config.yaml").write_text("kubernetesVersion: v1.36.2\n")
    manifest = {
        "cluster_name": "test", "kubernetes_version": "v1.36.2", "etcd_version": "3.6.8", "member": "cp1",
        "time": "2026-11-25T02:12:00Z", "revision": 4711, "keys": 900, "live_keys": 800, "hash": 1,
        "ca_cert_hash": f"sha256:{hashlib.sha256(CA).hexdigest()}", "encrypted": False,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()},
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest | said))
    return directory


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return make_backup(tmp_path / "backup")


@pytest.fixture
def cluster(deployed: Deployed, tmp_path: Path) -> Site:
    """Machines that have a cluster, of one test's own."""
    return deployed.site.copy(tmp_path / "site")


@pytest.fixture
def lost(cluster: Site) -> Site:
    """A cluster whose etcd has no quorum; of two members the data is gone."""
    with cluster.state() as state:
        for name in CONTROL_PLANES:
            state["nodes"][name]["quorum_lost"] = True
        for name in CONTROL_PLANES[1:]:
            del state["nodes"][name]["files"]["/var/lib/etcd/member"]
    return cluster


def restore(site: Site, backup: Path, *flags: str) -> Run:
    return site.run(*(flags or ("-y",)), "--data", f"backup={backup}", layer="etcd_restore")


def paths(site: Site, name: str) -> set[str]:
    with site.state() as state:
        return {path for path in state["nodes"][name]["files"] if path.startswith("/var/lib/etcd/")}


def test_dry_run_says_every_step_and_changes_nothing(lost: Site, backup: Path) -> None:
    run = restore(lost, backup, "--dry")
    assert run.code == 0, run.words
    assert not run.changes
    assert "The backup is of 2026-11-25T02:12:00Z by cp1: 800 keys at revision 4711" in run.words
    for words in (
        "check it by etcdutl, and make the new data of <host> there", "move the manifests of etcd, kube-apiserver",
        "set the data in /var/lib/etcd/member aside, as /var/lib/etcd/before-", "see that it has the backup's 800 keys",
        "run kube-apiserver and wait until it is ready", "restart the kubelet", "the old data stays in",
    ):  # fmt: skip
        assert words in run.words


def test_each_step_is_done_on_all_members_before_the_next_and_old_data_stays(lost: Site, backup: Path) -> None:
    plan, run = restore(lost, backup, "--dry"), restore(lost, backup)
    assert run.code == 0, run.words
    assert plan.differs(run) == []
    by_step = [[each for each in run.changes if each["operation"].endswith(f"| {step}")] for step in STEPS]
    assert [{each["host"] for each in records} for records in by_step] == [{*CONTROL_PLANES}] * len(STEPS)
    for before, after in pairwise(by_step):
        assert max(each["ended"] for each in before) < min(each["began"] for each in after)
    kubelets = {each["host"] for each in run.like("systemctl restart kubelet.service", "change")}
    assert kubelets == {*CONTROL_PLANES, *GROUPS["worker"]}
    (name,) = {path.split("/")[4] for path in paths(lost, "cp1") if "before-" in path}
    assert paths(lost, "cp1") == {f"/var/lib/etcd/{name}", f"/var/lib/etcd/{name}/member", "/var/lib/etcd/member"}
    assert paths(lost, "cp3") == {f"/var/lib/etcd/{name}", "/var/lib/etcd/member"}
    with lost.state() as state:
        texts = {state["nodes"][each]["files"]["/var/lib/etcd/member"]["text"] for each in CONTROL_PLANES}
    assert texts == {
        f"restored by {name.removeprefix('before-')} with "
        "cp1=https://10.0.0.21:2380,cp3=https://10.0.0.23:2380,cp2=https://10.0.0.22:2380"
    }
    after = lost.run("-y")
    assert after.code == 0, after.words
    assert not after.changes


@pytest.mark.parametrize(
    "step",
    [
        "mkdir -p /var/lib/etcd/restore-",
        "etcdutl snapshot restore snapshot.db",
        "crictl pods -q",
        "mkdir -p /var/lib/etcd/before-",
        "endpoint health .*--count-only",
        r"mv -f \S+/kube-apiserver.yaml",
        "rm -rf /var/lib/etcd/restore-",
    ],
)
def test_restore_that_stopped_on_one_member_is_gone_on_with(lost: Site, backup: Path, step: str) -> None:
    lost.break_command("cp2", step, "the power failed")
    assert restore(lost, backup).code != 0
    lost.mend("cp2")
    run = restore(lost, backup)
    assert run.code == 0, run.words
    for name in CONTROL_PLANES:
        befores = [path for path in paths(lost, name) if re.fullmatch("/var/lib/etcd/before-[^/]+", path)]
        assert len(befores) == 1, "the old data was set aside more than once"
        assert not [path for path in paths(lost, name) if "restore-" in path]
    with lost.state() as state:
        assert "restored by" not in json.dumps(
            [file for path, file in state["nodes"]["cp1"]["files"].items() if "before-" in path]
        )
    assert lost.run("-y").changes == []


def test_restore_that_had_only_to_be_tidied_up_says_that_it_restores_nothing(lost: Site, backup: Path) -> None:
    said = "nothing is restored anew: only what is left of it is removed. To restore it once more, run this again"
    lost.break_command("cp2", "endpoint health .*--count-only", "the power failed")
    assert restore(lost, backup).code != 0
    lost.mend("cp2")
    lost.break_command("cp2", "rm -rf /var/lib/etcd/restore-", "the power failed")
    run = restore(lost, backup)
    assert run.code != 0
    assert said not in run.words
    lost.mend("cp2")
    run = restore(lost, backup)
    assert run.code == 0, run.words
    assert said in run.words
    assert re.search(r"remove /var/lib/etcd/restore-\S+ on cp2 first", run.words)


def test_restore_is_refused_while_members_have_a_quorum_unless_it_is_said(cluster: Site, backup: Path) -> None:
    run = restore(cluster, backup)
    assert run.code != 0 and not run.changes
    assert "etcd runs there and has a quorum, and what was written since the backup would be lost" in run.words
    assert "--data replace_running=test" in run.words
    assert not restore(cluster, backup, "-y", "--data", "replace_running=another").changes
    said = restore(cluster, backup, "-y", "--data", "replace_running=test")
    assert said.code == 0, said.words
    assert len(said.like("crictl pods -q", "change")) == 3


def test_slow_members_are_not_taken_for_dead_ones(cluster: Site, backup: Path) -> None:
    with cluster.state() as state:
        for name in CONTROL_PLANES:
            state["nodes"][name]["slow_disk"] = True
        state["nodes"]["cp2"]["quorum_lost"] = True
    run = restore(cluster, backup)
    assert run.code != 0 and not run.changes
    assert "cp1, cp3: etcd runs there and has a quorum" in run.words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cluster_name": "other"}, "the backup is of the cluster other, and this inventory's is test"),
        ({"ca_cert_hash": "sha256:00"}, "holds another CA than the backup's (sha256:00)"),
        ({"etcd_version": "3.7.0"}, "the backup is of etcd 3.7.0, and etcd 3.6.8 would have to read it"),
        ({"etcd_version": "3.4.13"}, "the backup is of etcd 3.4.13, which etcd 3.6.8 does not read"),
        ({"kubernetes_version": "v1.37.0"}, "the backup is of Kubernetes v1.37.0, and the settings ask for v1.36.2"),
        ({"revision": "many"}, "manifest.json does not describe a backup (revision: "),
        ({"files": {}}, "is damaged: no snapshot.db is in it; no pki.tar is in it"),
    ],
)
def test_backup_that_is_not_for_this_cluster_is_refused(
    lost: Site, tmp_path: Path, said: dict[str, Any], words: str
) -> None:
    run = restore(lost, make_backup(tmp_path / "bad", **said))
    assert run.code != 0 and not run.changes
    assert words in run.words


def test_damaged_backup_is_refused(lost: Site, backup: Path, tmp_path: Path) -> None:
    snapshot = backup / "snapshot.db"
    damaged = snapshot.read_bytes().replace(b"\0", b"\1", 1)
    snapshot.write_bytes(damaged)
    run = restore(lost, backup)
    assert run.code != 0 and not run.changes
    assert "snapshot.db is damaged: its sha256 is not the one that was written with it" in run.words
    # Also with a manifest that agrees.
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"]["snapshot.db"] = hashlib.sha256(damaged).hexdigest()
    (backup / "manifest.json").write_text(json.dumps(manifest))
    again = restore(lost, backup)
    assert again.code != 0 and not again.changes
    assert "the snapshot does not end in its own sha256" in again.words
    assert f"{tmp_path / 'none'} is not a backup" in restore(lost, tmp_path / "none").words
    assert "no backup is named" in lost.run("-y", layer="etcd_restore").words


def test_restore_wants_every_control_plane_and_room_for_its_data(lost: Site, backup: Path) -> None:
    run = restore(lost, backup, "-y", "--limit", "cp1", "--limit", "cp2")
    assert run.code != 0 and not run.changes
    assert "cp3: not in this run, and a member that is left out would go on as another cluster" in run.words
    with lost.state() as state:
        state["nodes"]["cp3"]["room_mib"] = 100
    full = restore(lost, backup)
    assert full.code != 0 and not full.changes
    assert "cp3: there is room for 100 MiB in /var/lib/etcd, 128 are needed beside the old data" in full.words


def test_restore_of_another_backup_that_was_begun_is_not_mixed_with(lost: Site, backup: Path, tmp_path: Path) -> None:
    lost.break_command("cp2", "crictl pods -q", "the power failed")
    restore(lost, backup)
    lost.mend("cp2")
    run = restore(lost, make_backup(tmp_path / "other", revision=4712))
    assert run.code != 0 and not run.changes
    assert "cp1: a restore of another backup was begun there" in run.words


def test_first_control_plane_is_made_anew_with_the_backups_pki_and_others_join_it(site: Site, backup: Path) -> None:
    run = restore(site, backup)
    assert run.code == 0, run.words
    with site.state() as state:
        files = state["nodes"]["cp1"]["files"]
        others = {name for name in CONTROL_PLANES if "/etc/kubernetes/pki/sa.key" in state["nodes"][name]["files"]}
        nodes = set(state["cluster"]["nodes"])
    assert files["/etc/kubernetes/pki/ca.key"] | {"changed": 0} == {
        "text": "the CA's key\n", "mode": "600", "owner": "root:root", "changed": 0,
    }  # fmt: skip
    assert files["/etc/kubernetes/encryption.yaml"]["mode"] == "600"
    assert files["/etc/kubernetes/pki/front-proxy-ca.crt"]["text"] == PROXY.decode()
    assert "/etc/kubernetes/pki/apiserver.crt" not in files and "/etc/kubernetes/pki/rotation/old/ca.crt" not in files
    assert "cp1=https://10.0.0.21:2380" in files["/var/lib/etcd/member"]["text"]
    assert (others, nodes) == ({"cp1"}, {"cp1"})
    put_back = max(each["ended"] for each in run.changes if "Put back" in each["operation"])
    (init,) = run.like("kubeadm init --skip-token-print", "change")
    assert put_back < init["began"]
    after = site.run("-y")
    assert after.code == 0, after.words
    assert site.run("-y").changes == []


def test_workers_that_are_left_belong_to_the_cluster_of_the_backup_alone(
    cluster: Site, backup: Path, bundle: Path, tmp_path: Path
) -> None:
    """Their control planes are all gone, so only the backup's CA tells whose they are."""
    with make_site(tmp_path / "bare", bundle).state() as bare, cluster.state() as state:
        state["cluster"] = bare["cluster"]
        state["nodes"] |= {name: bare["nodes"][name] for name in CONTROL_PLANES}
    other = make_backup(tmp_path / "other", ca_cert_hash="sha256:" + "0" * 64)
    refused = restore(cluster, other)
    assert refused.code != 0 and not refused.changes
    assert "w1 to w3: it has the CA of another cluster" in refused.words
    for flags, words in (("--data", f"backup={backup}"), "backup: there is no such setting"), ((), "has a cluster"):
        elsewhere = cluster.run("-y", *flags)
        assert elsewhere.code != 0 and not elsewhere.changes
        assert words in elsewhere.words
    run = restore(cluster, backup)
    assert run.code == 0, run.words
    again = cluster.run("-y")
    assert again.code == 0, again.words
    assert cluster.run("-y").changes == []
