"""A diagnosis of pretended clusters: well, with hosts down, without an API, and full of secrets."""

from __future__ import annotations

import base64
import re
import stat
import tarfile
from pathlib import Path

import pytest
from runs import GROUPS, Deployed, Run, Site

HOSTS = [name for members in GROUPS.values() for name in members]
KEY = "MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{KEY}\nAwEHoUQDQgAEPR3tU2Fta9ktY\n-----END EC PRIVATE KEY-----"
# Every kind of secret, and what of it must not be in an archive.
PLANTED = {
    PEM: KEY,
    f"{KEY}\nAwEHoUQDQgAEPR3tU2Fta9ktY\n-----END EC PRIVATE KEY-----": KEY,
    f"client-key-data: {base64.b64encode(PEM.encode()).decode()}": base64.b64encode(PEM.encode()).decode()[40:],
    "kubeadm join 10.0.0.100:6443 --token abcdef.0123456789abcdef": "0123456789abcdef",
    "a token 012345.fedcba9876543210, said in passing": "fedcba9876543210",
    f"[upload-certs] Using certificate key:\n{'5a' * 32}": "5a5a5a5a",
    f"certificateKey: {'5b' * 32}": "5b5b5b5b",
    "    auth_pass swordfish": "swordfish",
    "stats auth admin:opensesame": "opensesame",
    '[host."https://r.example.org".header]\n  authorization = "Basic dTpwYXNzMQ=="': "dTpwYXNzMQ",
    '{"auths":{"r.example.org":{"auth":"dTpwYXNzMg=="}}}': "dTpwYXNzMg",
    "kind: Secret\ndata:\n  word: bWVsbG9u\ntype: Opaque": "bWVsbG9u",
    '{"kind":"Secret","stringData":{"word":"friend"}}': "friend",
    'Environment="HTTP_PROXY=http://u:hush@proxy" \\\n  "MORE=whisper"': "whisper",
    "kind: EncryptionConfiguration\nkeys:\n- name: key1\n  secret: c2VjcmV0IGlzIHNlY3VyZQ==": "c2VjcmV0IGlz",
    "https://user:letmein@proxy.example.org:3128": "letmein",
    "    env:\n    - name: DB_URL\n      value: hunter2\n    image: x": "hunter2",
    "apiServer:\n  extraEnvs:\n  - value: |-\n      correct horse\n      battery\n    name: DB_PASSWORD": "battery",
    '{"env":[{"name":"DB_PASSWORD","value":"trustno1"}]}': "trustno1",
    '{"last-applied":"{\\"extraEnvs\\":[{\\"value\\":\\"ilovelinux\\",\\"name\\":\\"A\\"}]}"}': "ilovelinux",
    '{"ClusterConfiguration":"apiServer:\\n  extraEnvs:\\n  - name: A\\n    value: 0xdeadbeef\\n"}': "0xdeadbeef",
    "container &Container{Env:[]EnvVar{EnvVar{Name:A,Value:tr0ub4dor,ValueFrom:nil,},},} start failed": "tr0ub4dor",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6.eyJpc3MiOiJrdWJlcm5ldGVz.c2lnbmF0dXJl": "eyJpc3MiOiJrdWJlcm5ldGVz",
}


@pytest.fixture
def site(deployed: Deployed, tmp_path: Path) -> Site:
    """A cluster of a test's own."""
    return deployed.site.copy(tmp_path / "site")


def archive(site: Site) -> dict[str, str]:
    """The files of the only archive, by path below its top."""
    (path,) = site.directory.rglob("diagnosis-*")
    assert re.fullmatch(r"diagnosis-test-\d{8}T\d{6}Z\.tar\.gz", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as tar:
        return {each.name.partition("/")[2]: file.read().decode() for each in tar if (file := tar.extractfile(each))}


def diagnosed(site: Site, *flags: str, code: int = 0) -> tuple[Run, dict[str, str]]:
    run = site.run("-y", *flags, layer="diagnose")
    assert run.code == code, run.words
    assert run.changes == []
    return run, archive(site)


def test_of_a_cluster_that_is_well_nothing_is_found(site: Site) -> None:
    run, files = diagnosed(site)
    assert "Nothing looks wrong." in files["report.md"], files["report.md"]
    assert "no errors, no warnings; nothing looks wrong" in run.words
    assert re.search(r"Written: \S+/secrets/test/diagnoses/diagnosis-test-\S+\.tar\.gz", run.words)
    assert next(iter(files)) == "report.md"
    assert all(f"hosts/{name}/system.txt" in files for name in HOSTS)
    for name in ("hosts/cp1/etcd.txt", "hosts/w1/journal/kubelet.log", "hosts/lb1/haproxy.txt", "cluster/events.txt"):
        assert name in files
    # What pods are made of may hold secrets of their owners.
    assert "cluster/pods.json" not in files
    assert run.made == set()


def test_a_dry_run_says_what_would_be_asked_and_asks_nothing(site: Site) -> None:
    run = site.run("--dry", layer="diagnose")
    assert run.code == 0, run.words
    assert re.search(r"cp1 to cp3: asked for .*, system.txt, .*, etcd.txt", run.words)
    assert "Logs of the last 1h; the archive comes into" in run.words
    assert [each for each in run.log if "gzip" in each["command"]] == []
    assert list(site.directory.rglob("diagnosis-*")) == []


def test_hosts_that_are_down_are_findings_and_the_others_are_asked(site: Site) -> None:
    with site.state() as state:
        for name in ("cp3", "w2", "lb1"):
            state["nodes"][name]["dead"] = True
    # pyinfra's exit code says that hosts were not reached.
    run, files = diagnosed(site, code=1)
    page = files["report.md"]
    assert "- **error** cp3, lb1, w2: does not answer" in page
    assert "node w2 is not Ready (Kubelet stopped posting node status.)" in page
    assert "etcd member cp3 is not healthy" in page
    assert page.index("does not answer") < page.index("node w2 is not Ready")
    assert "error: cp3, lb1, w2: does not answer" in run.words
    assert not [name for name in files if name.startswith("hosts/cp3/")]


def test_without_an_api_server_hosts_are_asked_all_the_same(site: Site) -> None:
    with site.state() as state:
        for name in GROUPS["control_plane"]:
            node = state["nodes"][name]
            node["pods"] = {key: pod for key, pod in node["pods"].items() if "kube-apiserver" not in pod}
        state["nodes"]["w1"]["units"]["kubelet.service"]["active"] = False
        state["nodes"]["w3"]["full"] = True
    _, files = diagnosed(site)
    page = files["report.md"]
    assert "cp1 to cp3: no API server answers as ready" in page
    assert "w1: kubelet.service is inactive (dead)" in page
    assert "w3: 1000 of 100000 MiB free on the file system of /" in page
    assert not [name for name in files if name.startswith("cluster/")]


def test_no_secret_that_lies_on_hosts_is_in_the_archive_or_in_what_is_said(site: Site) -> None:
    with site.state() as state:
        for name in HOSTS:
            state["nodes"][name]["planted"] = "\n---\n".join(PLANTED)
    run, files = diagnosed(site)
    assert "[removed]" in files["hosts/w1/journal/kubelet.log"]
    for secret in PLANTED.values():
        found = [name for name, text in files.items() if secret in text]
        assert found == [], secret
        assert secret not in run.words
    assert "/api/v1/secrets" not in str(run.log)
    assert not re.search(r"kubectl [^;]*\bsecrets?\b", " ".join(each["command"] for each in run.log))


def test_a_limit_is_kept_and_a_wrong_since_refused(site: Site) -> None:
    run = site.run("-y", "--data", "since=yesterday", layer="diagnose")
    assert run.code == 1
    assert "since: must be a number with s, min, h or d, not 'yesterday'" in run.words
    _, files = diagnosed(site, "--limit", "w1", "--limit", "lb2", "--data", "since=30min")
    assert "Not asked, for this run was limited: cp1 to cp3, lb1, w2, w3." in files["report.md"]
    # lb1 may have the virtual IP.
    assert "Nothing looks wrong." in files["report.md"], files["report.md"]


def test_a_bundle_that_is_gone_does_not_end_it(site: Site, tmp_path: Path) -> None:
    path = site.directory / "inventory.py"
    text = path.read_text()
    path.write_text(re.sub(r"'bundle_dir': '[^']*'", f"'bundle_dir': '{tmp_path}/none'", text))
    _, files = diagnosed(site)
    assert "none/bundle.lock: there is no bundle here" in files["report.md"], files["report.md"]
