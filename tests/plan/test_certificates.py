"""Certificates checked, renewed one control plane at a time, and kubeconfigs of people."""

from __future__ import annotations

import base64
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from runs import GROUPS, Deployed, Run, Site, make_site

from cluster.certificates import ADMIN, API_SERVER, KINDS, KUBELET, PKI
from facts.certificate import RENEWAL
from tests.plan.fake_certificates import kubeconfig_of, made

CONTROL_PLANES = list(GROUPS["control_plane"])
PEER = f"{PKI}/etcd/peer.crt"


@pytest.fixture(scope="module")
def looked(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A deployed cluster whose certificates have been made, and looked at."""
    site = deployed.site.copy(tmp_path_factory.mktemp("certificates") / "site")
    run = site.run("-y", layer="certificates")
    assert run.code == 0, run.words
    return site


@pytest.fixture
def site(looked: Site, tmp_path: Path) -> Site:
    """The same, of a test's own."""
    return looked.copy(tmp_path / "site")


def administrators(site: Site) -> Path:
    """Its copy on this machine."""
    return site.directory / "secrets" / "test" / "admin.conf"


def changes(run: Run) -> set[tuple[str, str]]:
    """Changes that a run has made, as host and operation without its deploy's name."""
    found, operation = set(), ""
    for line in run.stderr.splitlines():
        if start := re.fullmatch(r"--> Starting operation: [^|]+ \| (.+?) *", line):
            operation = start[1]
        elif done := re.fullmatch(r" *\[(\S+)\] +Success", line):
            found.add((done[1], operation))
    return found


def planned(run: Run) -> set[tuple[str, str]]:
    return {(host, name.partition(" | ")[2]) for host, name in run.planned}


def now(nodes: dict[str, Any], host: str) -> int:
    return max(each["changed"] for each in nodes[host]["certificates"]["files"].values())


def ending(site: Site, days: float, hosts: list[str], paths: list[str]) -> None:
    """Have certificates end in so many days, on disk and where they are served."""
    with site.state() as state:
        for host in hosts:
            own = state["nodes"][host]["certificates"]
            for path in paths:
                old = own["files"][path]["pem"]
                names = names_of(old)
                pem = made("ending", "kubernetes", days, now(state["nodes"], host), names)
                own["files"][path]["pem"] = pem
                own["ports"] = {port: pem if each == old else each for port, each in own["ports"].items()}


def names_of(pem: str) -> list[str]:
    found = x509.load_pem_x509_certificate(pem.encode())
    try:
        return [str(each.value) for each in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
    except x509.ExtensionNotFound:
        return []


def all_paths(site: Site) -> list[str]:
    with site.state() as state:
        return [kind.path for kind in KINDS if kind.path in state["nodes"]["cp1"]["certificates"]["files"]]


def served(site: Site, host: str) -> bool:
    """Whether every port of a control plane serves what is on its disk."""
    with site.state() as state:
        own = state["nodes"][host]["certificates"]
        return all(own["ports"][kind.port] == own["files"][kind.path]["pem"] for kind in KINDS if kind.port)


def test_a_check_asks_each_host_once_and_shows_every_certificate_and_changes_nothing(site: Site) -> None:
    run = site.run("-y", layer="certificates")
    assert run.code == 0, run.words
    assert run.changes == []
    head, row = r"HOST +CERTIFICATE +SIGNER +DAYS LEFT +IN USE", rf"cp1 +{API_SERVER} +kubernetes +36\d +yes"
    assert len(re.findall(head, run.words)) == len(re.findall(row, run.words)) == 1
    assert re.search(r"cp2 +port 6443 loopback +itself +36\d +yes", run.words)
    assert re.search(rf"w3 +{KUBELET} +itself +36\d +yes", run.words)
    assert re.search(r"lb1 +/etc/bundle-server/server.crt +itself +36\d\d +yes", run.words)
    assert " on 8 hosts: no errors, no warnings" in run.words
    asked = [each for each in run.log if "echo containers" in each["command"]]
    assert sorted(each["host"] for each in asked) == sorted(name for members in GROUPS.values() for name in members)


@pytest.mark.parametrize(
    ("days", "code", "words"),
    [
        (20.5, 0, f"Warning: cp3: {PEER}: ends in 20 days. deploys/renew_certificates.py renews it."),
        (5.5, 1, f"  - cp3: {PEER}: ends in 5 days. deploys/renew_certificates.py renews it."),
        (-2.5, 1, f"  - cp3: {PEER}: has ended, 2 days ago."),
    ],
)
def test_a_certificate_that_ends_is_a_warning_then_an_error(site: Site, days: float, code: int, words: str) -> None:
    ending(site, days, ["cp3"], [PEER])
    run = site.run("-y", layer="certificates")
    assert run.code == code
    assert words in run.words


def test_thresholds_are_told_by_data(site: Site) -> None:
    ending(site, 20.5, ["cp3"], [PEER])
    run = site.run("-y", "--data", "certificate_critical_days=25", layer="certificates")
    assert run.code == 1
    assert f"cp3: {PEER}: ends in 20 days." in run.words


def test_a_port_that_serves_another_certificate_than_the_file_is_an_error(site: Site) -> None:
    with site.state() as state:
        own = state["nodes"]["cp2"]["certificates"]
        own["ports"]["6443"] = made("old", "kubernetes", 3.5, now(state["nodes"], "cp2"))
    run = site.run("-y", layer="certificates")
    assert run.code == 1
    words = (
        "port 6443 serves another, which ends in 3 days. deploys/renew_certificates.py restarts what has the old one."
    )
    assert f"cp2: {API_SERVER}: {words}" in run.words


def test_a_program_that_is_older_than_its_kubeconfig_is_an_error(site: Site) -> None:
    path = "/etc/kubernetes/scheduler.conf"
    with site.state() as state:
        own = state["nodes"]["cp2"]["certificates"]
        own["files"][path]["changed"] = own["started"]["kube-scheduler"] + 1
    run = site.run("-y", layer="certificates")
    assert run.code == 1
    assert f"cp2: {path}: kube-scheduler runs since before this was written." in run.words


@pytest.mark.parametrize("layer", ["certificates", "renew_certificates"])
def test_hosts_that_are_no_nodes_yet_are_refused(tmp_path: Path, bundle: Path, layer: str) -> None:
    run = make_site(tmp_path / "bare", bundle).run("-y", layer=layer)
    assert run.code == 1
    assert (
        "cp1: is no node of a cluster, having no /etc/kubernetes/pki/ca.crt. Run deploys/cluster.py first" in run.words
    )
    assert run.changes == []


def test_nothing_is_renewed_that_has_time_left(site: Site) -> None:
    run = site.run("-y", layer="renew_certificates")
    assert run.code == 0, run.words
    assert run.changes == []
    assert changes(run) == set()


def test_what_ends_is_renewed_one_control_plane_at_a_time_and_once(site: Site) -> None:
    ending(site, 20.5, CONTROL_PLANES, all_paths(site))
    plan, run = site.run("--dry", "--json", layer="renew_certificates"), site.run("-y", layer="renew_certificates")
    assert run.code == 0, run.words
    renewed = {(host, f"Renew certificates of {host}") for host in CONTROL_PLANES}
    restarted = {(host, f"Restart what has other certificates on {host}") for host in CONTROL_PLANES}
    kept = {(CONTROL_PLANES[0], "Keep the administrator's kubeconfig")}
    assert planned(plan) == changes(run) == renewed | restarted | kept
    assert plan.differs(run) == []
    moments = [moment for host in CONTROL_PLANES for moment in (
        min(each["began"] for each in run.changes if each["host"] == host),
        max(each["ended"] for each in run.log if each["host"] == host and "/readyz" in each["command"]),
    )]  # fmt: skip
    assert moments == sorted(moments)
    assert all(served(site, host) for host in CONTROL_PLANES)
    with site.state() as state:
        first = state["nodes"][CONTROL_PLANES[0]]
        admin = first["files"][ADMIN]["text"]
    assert admin == kubeconfig_of(first["certificates"]["files"][ADMIN]["pem"])
    again = site.run("-y", layer="renew_certificates")
    assert changes(again) == set(), again.words
    assert site.run("-y", layer="certificates").code == 0


def test_the_programs_of_a_node_are_restarted_in_order_etcd_first(site: Site) -> None:
    ending(site, 20.5, ["cp3"], all_paths(site))
    run = site.run("-y", layer="renew_certificates")
    stops = re.findall(r"--name '\^([\w-]+)\$'", "\n".join(each["command"] for each in run.like("rmp -f", "change")))
    assert stops == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]


@pytest.mark.parametrize("broken", ["kubeadm", "rmp -f", "endpoint health >/dev/null", "/readyz"])
def test_a_renewal_that_was_cut_off_is_finished_by_the_next_run(site: Site, broken: str) -> None:
    ending(site, 20.5, CONTROL_PLANES, all_paths(site))
    with site.state() as state:
        before = {host: state["nodes"][host]["certificates"]["files"][API_SERVER]["pem"] for host in CONTROL_PLANES}
    first, second, third = CONTROL_PLANES
    run = site.break_command(second, broken, "cut off").run("-y", layer="renew_certificates")
    assert run.code == 1
    with site.state() as state:
        assert state["nodes"][third]["certificates"]["files"][API_SERVER]["pem"] == before[third]
        done = state["nodes"][first]["certificates"]["files"][API_SERVER]["pem"]
    assert served(site, first)
    site.mend(second)
    plan, again = site.run("--dry", "--json", layer="renew_certificates"), site.run("-y", layer="renew_certificates")
    assert again.code == 0, again.words
    assert planned(plan) == changes(again)
    assert plan.differs(again) == []
    assert {host for host, name in changes(again) if name.startswith(("Renew", "Restart"))} == {second, third}
    assert all(served(site, host) for host in CONTROL_PLANES)
    with site.state() as state:
        assert state["nodes"][first]["certificates"]["files"][API_SERVER]["pem"] == done


def test_other_names_are_asked_for_and_the_clusters_configuration_follows(site: Site) -> None:
    text = (site.directory / "inventory.py").read_text()
    (site.directory / "inventory.py").write_text(
        text.replace("'vip':", "'api_cert_extra_sans': ('api.example.org',), 'vip':")
    )
    check = site.run("-y", layer="certificates")
    assert check.code == 0
    # The other is that of group_data/all.py.
    words = "lacks api.example.org and has kubernetes.example.org, which the settings do not ask for."
    assert f"cp1: {API_SERVER} {words} deploys/renew_certificates.py makes it anew." in check.words
    plan, run = site.run("--dry", "--json", layer="renew_certificates"), site.run("-y", layer="renew_certificates")
    assert run.code == 0, run.words
    shared = {(CONTROL_PLANES[0], "Have the cluster's configuration ask for these names")}
    assert shared < planned(plan) == changes(run)
    assert plan.differs(run) == []
    with site.state() as state:
        for host in CONTROL_PLANES:
            assert "api.example.org" in names_of(state["nodes"][host]["certificates"]["ports"]["6443"])
        assert "api.example.org" in yaml.safe_load(state["cluster"]["configuration"])["apiServer"]["certSANs"]
    assert changes(site.run("-y", layer="renew_certificates")) == set()


def test_of_a_cluster_whose_certificates_have_ended_all_is_restarted_before_any_must_answer(site: Site) -> None:
    ending(site, -2.5, CONTROL_PLANES, all_paths(site))
    run = site.run("-y", layer="renew_certificates")
    assert run.code == 0, run.words
    assert all(served(site, host) for host in CONTROL_PLANES)
    assert [each for each in run.log if "endpoint health >/dev/null" in each["command"]] == []


def test_while_a_control_plane_is_down_only_a_cluster_whose_certificates_have_all_ended_is_renewed(site: Site) -> None:
    rest = [each for each in CONTROL_PLANES if each != "cp3"]
    with site.state() as state:
        state["nodes"]["cp3"]["dead"] = True
    assert changes(site.run("-y", "--exclude", "cp3", layer="renew_certificates")) == set()
    ending(site, 20.5, rest, all_paths(site))
    run = site.run("-y", "--exclude", "cp3", layer="renew_certificates")
    assert run.code == 1 and run.changes == []
    assert "its etcd is not restarted while that of cp3 is not healthy" in run.words
    assert "take out a machine that is gone (deploys/remove_node.py)" in run.words
    ending(site, -2.5, rest, all_paths(site))
    run = site.run("-y", "--exclude", "cp3", layer="renew_certificates")
    assert run.code == 0, run.words
    assert all(served(site, host) for host in rest)


def test_the_control_plane_whose_certificates_have_ended_comes_first(site: Site) -> None:
    ending(site, 20.5, CONTROL_PLANES, all_paths(site))
    ending(site, -2.5, [CONTROL_PLANES[2]], all_paths(site))
    run = site.run("-y", layer="renew_certificates")
    assert run.code == 0, run.words
    hosts = [each["host"] for each in run.like("kubeadm", "change")]
    assert hosts == [CONTROL_PLANES[2], *CONTROL_PLANES[:2]]


def test_a_kubelets_own_certificate_is_renewed_on_any_node(site: Site) -> None:
    ending(site, 20.5, ["w2"], [KUBELET])
    plan, run = site.run("--dry", "--json", layer="renew_certificates"), site.run("-y", layer="renew_certificates")
    assert planned(plan) == changes(run) == {("w2", "Renew the kubelet's own certificate")}
    assert plan.plan
    announced = [each.line() for changes in plan.plan.rows().values() for each in changes]
    assert announced == ["renew the kubelet's serving certificate: restarts kubelet"]
    assert plan.differs(run) == []
    assert changes(site.run("-y", layer="renew_certificates")) == set()


@pytest.mark.parametrize("days", ["soon", "true", "-1"])
def test_a_threshold_that_is_no_number_of_days_is_refused(site: Site, days: str) -> None:
    run = site.run("-y", "--data", f"renew_within={days}", layer="renew_certificates")
    assert run.code == 1
    assert "renew_within: must be a number of days" in run.words
    assert run.changes == []


def test_the_administrators_kubeconfig_is_kept_and_its_end_is_said(site: Site) -> None:
    with site.state() as state:
        text = kubeconfig_of(state["nodes"]["cp1"]["certificates"]["files"][ADMIN]["pem"])
        state["nodes"]["cp1"]["files"][ADMIN]["text"] = text
    run = site.run("-y", layer="kubeconfig")
    assert run.code == 0, run.words
    assert administrators(site).read_text() == text
    assert re.search(rf"{administrators(site)}: CN=admin.conf, until \d{{4}}-\d\d-\d\d", run.words)


def test_a_kubeconfig_comes_from_the_first_control_plane_of_the_run(site: Site) -> None:
    administrators(site).unlink()
    with site.state() as state:
        state["nodes"]["cp1"]["dead"] = True
        text = kubeconfig_of(state["nodes"]["cp3"]["certificates"]["files"][ADMIN]["pem"])
        state["nodes"]["cp3"]["files"][ADMIN]["text"] = text
    run = site.run("-y", "--exclude", "cp1", layer="kubeconfig")
    assert run.code == 0, run.words
    assert administrators(site).read_text() == text
    run = site.run("-y", "--limit", "worker", layer="kubeconfig")
    assert run.code == 1
    assert "no control plane is in this run, and a kubeconfig comes from one. Widen --limit." in run.words


def test_the_copy_on_this_machine_is_looked_at_too(site: Site) -> None:
    path = administrators(site)
    path.write_text(kubeconfig_of(made("kubernetes-admin", "kubernetes", 20.5, int(time.time()))))
    run = site.run("-y", layer="certificates")
    assert run.code == 0, run.words
    assert re.search(rf"\(here\) +{path} +kubernetes +20 +-", run.words)
    assert f"Warning: (here): {path}: ends in 20 days. deploys/kubeconfig.py fetches the one that there is" in run.words
    path.write_text("half of i")
    run = site.run("-y", layer="certificates")
    assert run.code == 1 and f"(here): {path}: no certificate can be read there." in run.words
    with site.state() as state:
        text = kubeconfig_of(state["nodes"]["cp1"]["certificates"]["files"][ADMIN]["pem"])
        state["nodes"]["cp1"]["files"][ADMIN]["text"] = text
    assert site.run("-y", layer="kubeconfig").code == 0
    assert "no errors, no warnings" in site.run("-y", layer="certificates").words


def scheduled(site: Site, schedule: str | None) -> None:
    """Have the settings ask for a timer of renewal, or for none."""
    path = site.directory / "inventory.py"
    text = re.sub(r"'certificate_renewal_schedule': [^,]+, ", "", path.read_text())
    path.write_text(text.replace("'time_sync'", f"'certificate_renewal_schedule': {schedule!r}, 'time_sync'"))


def renewals(site: Site) -> dict[str, list[str]]:
    """Files of the timer, by host."""
    with site.state() as state:
        found = {name: [path for path in node["files"] if RENEWAL in path] for name, node in state["nodes"].items()}
        active = {name for name, node in state["nodes"].items() if f"{RENEWAL}.timer" in node["units"]}
    assert active == {name for name, paths in found.items() if paths}
    return {name: sorted(paths) for name, paths in found.items() if paths}


def test_a_timer_of_renewal_is_there_where_it_is_asked_for_and_goes_when_it_is_not(site: Site) -> None:
    assert changes(site.run("-y", layer="certificate_timer")) == set() and renewals(site) == {}
    scheduled(site, "*-*-* 03:30:00")
    check = site.run("-y", layer="certificates")
    assert check.code == 0 and "Warning: cp2: has no certificate-renewal.timer." in check.words
    plan, run = site.run("--dry", "--json", layer="certificate_timer"), site.run("-y", layer="certificate_timer")
    assert run.code == 0, run.words
    assert planned(plan) == changes(run)
    units = [f"/etc/systemd/system/{RENEWAL}.{kind}" for kind in ("service", "timer")]
    assert renewals(site) == {name: [*units, f"/usr/local/sbin/{RENEWAL}"] for name in CONTROL_PLANES}
    with site.state() as state:
        files = {name: state["nodes"][name]["files"] for name in CONTROL_PLANES}
    for name in CONTROL_PLANES:
        program = files[name][f"/usr/local/sbin/{RENEWAL}"]
        assert program["mode"] == "700" and f'advertiseAddress: "{GROUPS["control_plane"][name]}"' in program["text"]
        assert "OnCalendar=*-*-* 03:30:00\n" in files[name][units[1]]["text"]
    assert changes(site.run("-y", layer="certificate_timer")) == set()
    check = site.run("-y", layer="certificates")
    assert check.words.count("renewal: a timer; it has not run since the last boot") == 3
    assert "no errors, no warnings" in check.words
    scheduled(site, None)
    gone = site.run("-y", layer="certificate_timer")
    assert changes(gone) == {(name, "Remove the timer of renewal") for name in CONTROL_PLANES}
    assert renewals(site) == {} and changes(site.run("-y", layer="certificate_timer")) == set()


def test_a_renewal_by_timer_that_has_failed_is_told_by_check_and_diagnosis_until_a_reset(site: Site) -> None:
    scheduled(site, "*-*-* 03:30:00")
    assert site.run("-y", layer="certificate_timer").code == 0
    with site.state() as state:
        state["nodes"]["cp2"]["failed"] = {RENEWAL: "cp2: etcd has a member that is not healthy"}
    words = "the last renewal by timer failed (exit-code): cp2: etcd has a member that is not healthy"
    check = site.run("-y", layer="certificates")
    assert check.code == 0 and f"Warning: cp2: {words}. Mend that, then" in check.words
    assert "cp2: renewal: a timer; last run: exit-code at 2026-11-25 02:00 UTC" in check.words
    run = site.run("-y", layer="diagnose")
    assert words in run.words
    assert site.run("-y", "--data", "reset=test", layer="reset").code == 0
    assert renewals(site) == {}


def user(site: Site, *more: str) -> Run:
    return site.run(
        "-y", *(word for each in ("user=jane@example.org", *more) for word in ("--data", each)), layer="kubeconfig"
    )


def test_a_user_gets_a_kubeconfig_of_its_own_once(site: Site) -> None:
    run = user(site, "groups=dev,ops", "days=7")
    assert run.code == 0, run.words
    kept = site.directory / "secrets" / "test" / "users" / "jane@example.org.conf"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    document = yaml.safe_load(kept.read_text())
    assert document["current-context"] == "jane@example.org@test"
    assert document["clusters"][0]["cluster"]["server"] == "https://10.0.0.100:6443"
    own = document["users"][0]["user"]
    subject = x509.load_pem_x509_certificate(base64.b64decode(own["client-certificate-data"])).subject
    assert subject.rfc4514_string() == "CN=jane@example.org,O=ops,O=dev"
    assert "PRIVATE" in base64.b64decode(own["client-key-data"]).decode()
    assert own["client-key-data"] not in run.words + (site.directory / "log.jsonl").read_text()
    text = kept.read_text()
    again = user(site, "groups=dev,ops", "days=7")
    assert (again.code, again.changes) == (0, []), again.words
    assert kept.read_text() == text
    assert (site.directory / "secrets" / "test" / "admin.conf").exists()


def test_a_kubeconfig_is_merged_into_a_persons_own_which_is_kept_beside(site: Site) -> None:
    own = site.directory / "home" / "config"
    own.parent.mkdir()
    own.write_text("# mine\ncontexts: [{name: other, context: {cluster: other, user: me}}]\ncurrent-context: other\n")
    flags = ("--data", "user=jane", "--data", f"merge={own}")
    dry = site.run("--dry", "--json", *flags, layer="kubeconfig")
    assert dry.code == 0, dry.words
    assert planned(dry) == {("cp1", "Keep a kubeconfig of jane"), ("cp1", f"Have its context in {own}")}
    assert [each.name for each in own.parent.iterdir()] == ["config"]
    run = site.run("-y", *flags, layer="kubeconfig")
    assert run.code == 0, run.words
    document = yaml.safe_load(own.read_text())
    assert [each["name"] for each in document["contexts"]] == ["other", "jane@test"]
    assert document["current-context"] == "other"
    (before,) = own.parent.glob("config.before-*")
    assert before.read_text().startswith("# mine")
    assert {stat.S_IMODE(each.stat().st_mode) for each in own.parent.iterdir()} == {0o600}
    again = site.run("-y", *flags, layer="kubeconfig")
    assert (again.code, again.made) == (0, set()), again.words
    several = f"{own}:{own.with_name('other')}"
    for said in (several, ""):
        refused = site.run("-y", "--data", "user=new", "--data", f"merge={said}", layer="kubeconfig")
        assert refused.code == 1 and f"merge: must be one file, not {said!r}" in refused.words
        assert not (site.directory / "secrets" / "test" / "users" / "new.conf").exists()
    own.write_text("clusters: {")
    refused = site.run("-y", *flags, layer="kubeconfig")
    assert refused.code == 1 and f"{own} is left as it is: it is no kubeconfig" in refused.words


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["groups=system:masters"], "no RBAC takes it away. Name a group of your own"),
        (["days=3650"], "days: must be from 1 to 365, not 3650"),
        (["groups=a b"], "groups: 'a b' is no name of a group"),
    ],
)
def test_a_user_that_cannot_be_is_refused(site: Site, more: list[str], words: str) -> None:
    run = user(site, *more)
    assert run.code == 1
    assert "There can be no such user; nothing was changed on any host:" in run.words
    assert words in run.words
    assert run.changes == []


def test_a_dry_run_makes_no_user(site: Site) -> None:
    run = site.run("--dry", "--json", "--data", "user=jane", layer="kubeconfig")
    assert planned(run) == {("cp1", "Keep a kubeconfig of jane")}
    assert run.changes == []
    assert not (site.directory / "secrets" / "test" / "users").exists()
