"""`rotate_ca` replaces CAs in phases, one node at a time, says so before, and goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import GROUPS, Deployed, Run, Site, make_site
from test_restore import make_backup

from cluster.backup import read
from cluster.certificates import CA, HAPROXY_CA, KINDS, KUBELET_CLIENT, PKI, ROTATED
from cluster.rotation import AUTHORITIES, signed
from facts.kubelet import CONFIG

PLANES, WORKERS = list(GROUPS["control_plane"]), list(GROUPS["worker"])
NODES = [*PLANES, *WORKERS]
OLD = ("--data", "made_before=2026-11-25T12:00:00Z")


@pytest.fixture(scope="module")
def looked(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A deployed cluster whose certificates have been made, and looked at."""
    site = deployed.site.copy(tmp_path_factory.mktemp("rotation") / "site")
    for layer in ("certificates", "rotate_ca"):
        run = site.run("-y", layer=layer)
        assert run.code == 0, run.words
    return site


@pytest.fixture
def site(looked: Site, tmp_path: Path) -> Site:
    """The same, of a test's own."""
    return looked.copy(tmp_path / "site")


@pytest.fixture(scope="module")
def rotated(looked: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Run, Run]:
    """The same, rotated: the dry run and the run."""
    site = looked.copy(tmp_path_factory.mktemp("rotated") / "site")
    dry = site.run("--dry", "--json", *OLD, layer="rotate_ca")
    return site, dry, site.run("-y", *OLD, layer="rotate_ca")


def made(run: Run) -> set[tuple[str, str]]:
    return {(host, name.partition(" | ")[2]) for host, name in run.made}


def planned(run: Run) -> set[tuple[str, str]]:
    return {(host, name.partition(" | ")[2]) for host, name in run.planned}


def rotate(site: Site, *flags: str) -> Run:
    return site.run("-y", *OLD, *flags, layer="rotate_ca")


def trusted(state: dict[str, Any], host: str) -> list[str]:
    """Names of what a node trusts, such as ["old", "new"]."""
    names = {state["cluster"]["authorities"][each]["ca"]: each for each in ("old", "new")}
    return [names[pem] for pem in state["nodes"][host]["authorities"]["certificates"][CA]]


def is_rotated(site: Site) -> None:
    """Assert that nothing of the old CAs is left anywhere, and everything is of the new ones."""
    with site.state() as state:
        new = state["cluster"]["authorities"]["new"]
        for host in NODES:
            own, files = state["nodes"][host]["authorities"], state["nodes"][host]["certificates"]["files"]
            assert {tuple(pems) for path, pems in own["certificates"].items() if path.endswith(".conf")} == {
                (new["ca"],)
            }
            assert own["certificates"][CA] == [new["ca"]]
            assert signed(files[KUBELET_CLIENT]["pem"], new["ca"])
        for host in PLANES:
            own, files = state["nodes"][host]["authorities"], state["nodes"][host]["certificates"]["files"]
            assert [own["certificates"][f"{PKI}/{name}.crt"] for name in AUTHORITIES] == [[new[n]] for n in AUTHORITIES]
            assert all(signed(files[kind.path]["pem"], new["ca"]) for kind in KINDS if kind.path in files)
            assert (own["signs"], own["signing"], own["rotation"]) == ("new", CA, False)
            assert state["nodes"][host]["certificates"]["ports"]["6443"] == files[f"{PKI}/apiserver.crt"]["pem"]
        assert state["cluster"]["told"] == [new["ca"]]
        for host in GROUPS["load_balancer"]:
            assert state["nodes"][host]["files"][HAPROXY_CA]["text"] == new["ca"]
        kept = state["nodes"][PLANES[0]]["files"]["/etc/kubernetes/admin.conf"]["text"]
    assert (site.directory / "secrets" / "test" / "admin.conf").read_text() == kept


def test_nothing_is_done_while_no_ca_ends_and_none_is_called_old(site: Site) -> None:
    run = site.run("-y", layer="rotate_ca")
    assert (run.code, run.changes) == (0, []), run.words
    assert "No CA ends within 30 days, so nothing is done" in run.words
    assert "--data made_before=2026-01-31" in run.words


def test_all_three_cas_are_replaced_everywhere_as_was_said_before(rotated: tuple[Site, Run, Run]) -> None:
    site, dry, run = rotated
    assert run.code == 0, run.words
    is_rotated(site)
    assert dry.differs(run) == []
    assert dry.changes == []
    for words in ("phase 1: both CAs are trusted", "phase 2: certificates are", "phase 3: the old CA is trusted no"):
        assert words in dry.words


def test_a_backup_is_taken_before_the_first_change(rotated: tuple[Site, Run, Run]) -> None:
    _, _, run = rotated
    assert "sh -s -- asked" in run.changes[0]["command"]


def test_a_backup_of_the_new_cas_is_taken_before_the_old_ones_are_forgotten(rotated: tuple[Site, Run, Run]) -> None:
    site, _, run = rotated
    _, last = run.like("sh -s -- asked", "change")
    assert max(each["ended"] for each in run.like("crictl rmp -f", "change")) < last["began"]
    assert last["ended"] < min(each["began"] for each in run.like("mv -T /etc/kubernetes/pki/rotation", "change"))
    _, newest = sorted((site.directory / "secrets/test/backups").glob("2*"))
    with site.state() as state:
        new = state["cluster"]["authorities"]["new"]["ca"]
    assert read(newest).ca_cert_hash == f"sha256:{hashlib.sha256(new.encode()).hexdigest()}"


def test_no_two_nodes_are_worked_on_at_once_and_phases_do_not_mix(rotated: tuple[Site, Run, Run]) -> None:
    """That no node is two phases ahead of another the machines themselves refuse."""
    _, _, run = rotated
    restarts = [each for each in run.changes if "crictl rmp" in each["command"] or "put()" in each["command"]]
    spans = [(each["began"], each["ended"]) for each in restarts]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    hosts = [each["host"] for each in restarts if "crictl rmp" in each["command"]]
    order = [host for at, host in enumerate(hosts) if at == 0 or hosts[at - 1] != host]
    assert order == PLANES * 3


def test_pods_of_the_project_are_begun_anew_once_and_nobody_elses(rotated: tuple[Site, Run, Run]) -> None:
    site, _, run = rotated
    patched = [each["command"] for each in run.like("rollout", "read")]
    assert len(patched) == 3
    with site.state() as state:
        assert sorted(name.split()[0] for name in state["cluster"]["marks of CAs"]) == [
            "kube-flannel", "kube-system", "kube-system",
        ]  # fmt: skip


def test_the_second_time_nothing_changes(rotated: tuple[Site, Run, Run], tmp_path: Path) -> None:
    site = rotated[0].copy(tmp_path / "site")
    again = rotate(site)
    assert (again.code, made(again)) == (0, set()), again.words
    assert again.changes == []
    for layer in ("renew_certificates", "rotate_ca"):
        assert made(site.run("-y", layer=layer)) == set()


@pytest.mark.parametrize("cut", ["copy", "trust", "worker", "pods", "renewal", "kubelet", "drop", "backup", "end"])
def test_one_that_was_cut_off_goes_on_where_the_nodes_are(site: Site, cut: str) -> None:
    host, command, flags = {
        "copy": ("cp2", r"/tar && tar -C", ()),
        "trust": ("cp3", "rmp -f", ()),
        "worker": ("w2", "put 644", ()),
        "pods": ("cp1", "patch -n", ()),
        "renewal": ("cp3", r"renew\(\)", ()),
        "kubelet": ("w1", "CertificateSigningRequest", ()),
        "drop": ("cp2", "rmp -f", ("2",)),
        "backup": ("cp1", "sh -s -- asked", ("2",)),
        "end": ("cp2", "mv -T /etc/kubernetes/pki/rotation", ()),
    }[cut]
    for through in flags:
        assert rotate(site, "--data", f"through={through}").code == 0
    run = rotate(site.break_command(host, command, "cut off"))
    assert run.code == 1
    site.mend(host)
    with site.state() as state:
        new = dict(state["cluster"]["authorities"]["new"])
    dry = site.run("--dry", "--json", layer="rotate_ca")
    assert re.search(r"A rotation of CAs is under way; phase \d \(.*\): .*", dry.words)
    again = site.run("-y", layer="rotate_ca")
    assert again.code == 0, again.words
    assert planned(dry)
    assert dry.differs(again) == []
    is_rotated(site)
    with site.state() as state:
        assert state["cluster"]["authorities"]["new"] == new
    (backup,) = again.like("sh -s -- asked", "change")
    assert not [each for each in again.changes if "crictl rmp" in each["command"] and each["ended"] > backup["began"]]
    assert made(rotate(site)) == set()


def test_it_ends_after_the_phase_that_is_named(site: Site) -> None:
    run = rotate(site, "--data", "through=1")
    assert run.code == 0, run.words
    with site.state() as state:
        assert {tuple(trusted(state, host)) for host in NODES} == {("old", "new")}
    again = rotate(site, "--data", "through=1")
    assert (again.code, made(again)) == (0, set()), again.words
    assert "phase 1 (both CAs are trusted): cp1, cp3, cp2, w1, w2, w3" in again.words
    assert not again.like("sh -s -- asked", "change")
    assert rotate(site).code == 0
    is_rotated(site)


def test_a_backup_from_before_is_restored_in_the_middle_and_the_rotation_goes_on(site: Site, tmp_path: Path) -> None:
    assert rotate(site, "--data", "through=2").code == 0
    with site.state() as state:
        cas = state["cluster"]["authorities"]
        for name in PLANES:
            state["nodes"][name]["quorum_lost"] = True
    old = make_backup(tmp_path / "old", ca_cert_hash=f"sha256:{hashlib.sha256(cas['old']['ca'].encode()).hexdigest()}")
    run = site.run("-y", "--data", f"backup={old}", layer="etcd_restore")
    assert run.code == 0, run.words
    assert (
        "A rotation of CAs is under way, of which the backup may know nothing. Then run deploys/rotate_ca" in run.words
    )
    with site.state() as state:
        # As etcd has it from then.
        state["cluster"]["told"], state["cluster"]["marks of CAs"] = [cas["old"]["ca"]], {}
    dry = site.run("--dry", "--json", layer="rotate_ca")
    again = site.run("-y", layer="rotate_ca")
    assert again.code == 0, again.words
    assert dry.differs(again) == []
    is_rotated(site)
    with site.state() as state:
        assert len(state["cluster"]["marks of CAs"]) == 3
    refused = site.run("-y", "--data", f"backup={old}", layer="etcd_restore")
    assert (refused.code, refused.changes) == (1, [])
    assert "holds another CA than the backup's" in refused.words


def test_kubelets_that_serve_by_the_clusters_ca_get_certificates_of_the_new_one(site: Site) -> None:
    with site.state() as state:
        for host in NODES:
            files = state["nodes"][host]["files"]
            files[CONFIG]["text"] += "serverTLSBootstrap: true\n"
            files[ROTATED] = {"text": "signed\n", "mode": "600", "owner": "root:root", "changed": 1}
    dry, run = site.run("--dry", "--json", *OLD, layer="rotate_ca"), rotate(site)
    assert run.code == 0, run.words
    assert (PLANES[0], "Phase 2: approve serving certificates of kubelets") in planned(dry)
    assert dry.differs(run) == []
    assert made(rotate(site)) == set()
    with site.state() as state:
        new = state["cluster"]["authorities"]["new"]["ca"]
        assert all(signed(state["nodes"][host]["authorities"]["serving"][1], new) for host in NODES)


REFUSED = {
    "a CA whose key is elsewhere": f"cp3: there is no {PKI}/etcd/ca.key, so the CA is kept elsewhere",
    "a bundle of somebody's": f"w2: {CA} has 2 certificates, and no rotation of this project is under way there.",
    "another cluster's node": f"w2: {CA} is another than that of cp1, though no rotation is under way.",
    "another signer": "cp2: /etc/kubernetes/manifests/kube-controller-manager.yaml signs by /etc/own.crt, not by",
    "nodes without a network": "node cp1 is not Ready. Mend it before CAs are replaced.",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_cluster_that_is_not_as_it_should_be_is_refused(site: Site, what: str) -> None:
    with site.state() as state:
        nodes = state["nodes"]
        strange = nodes["w1"]["certificates"]["files"][CA]["pem"]
        if what == "a CA whose key is elsewhere":
            nodes["cp3"]["authorities"]["keyless"] = ["etcd/ca"]
        elif what == "a bundle of somebody's":
            nodes["w2"]["authorities"]["certificates"][CA].append(strange)
        elif what == "another cluster's node":
            nodes["w2"]["authorities"]["certificates"][CA] = [strange]
        elif what == "another signer":
            nodes["cp2"]["authorities"]["signing"] = "/etc/own.crt"
        else:
            state["cluster"]["applied"] = {}
    run = rotate(site)
    assert run.code == 1
    assert REFUSED[what] in run.words
    assert run.changes == []


def test_a_state_that_no_run_leaves_is_refused(site: Site) -> None:
    assert rotate(site, "--data", "through=2").code == 0
    with site.state() as state:
        state["nodes"]["w2"]["authorities"]["certificates"][CA] = [state["cluster"]["authorities"]["old"]["ca"]]
    run = rotate(site)
    assert (run.code, run.changes) == (1, [])
    assert "w2: still as before phase 1, while others are in phase 2, so it cannot know them." in run.words
    with site.state() as state:
        state["nodes"]["w2"]["authorities"]["certificates"][CA] = [
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
        ]
    run = rotate(site)
    assert "w2: its CAs are neither the old ones, nor the new ones, nor both." in run.words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data", "made_before=soon"), "made_before: must be a date or time in UTC, not 'soon'"),
        (("--data", "through=4"), "through: must be a phase, 1, 2 or 3, not 4"),
        (("--limit", "cp1"), "cp3: is not in this run, and would trust the old CA alone. Widen --limit to all hosts."),
    ],
)
def test_what_cannot_be_asked_is_refused(site: Site, flags: tuple[str, ...], words: str) -> None:
    run = site.run("-y", *flags, layer="rotate_ca")
    assert (run.code, run.changes) == (1, [])
    assert words in run.words


def test_hosts_that_are_no_nodes_yet_are_refused(tmp_path: Path, bundle: Path) -> None:
    run = make_site(tmp_path / "bare", bundle).run("-y", layer="rotate_ca")
    assert run.code == 1
    assert "cp1: is no node of a cluster, having no /etc/kubernetes/kubelet.conf." in run.words
