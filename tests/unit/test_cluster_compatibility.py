"""The matrix of versions: what its data says, what is refused, and that what a refusal names instead can work."""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.compatibility import Limit, Minor, kubeadm_api, load, markdown, mode_refusal, parse, refusals, warnings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
MINORS = [f"1.{minor}" for minor in range(20, 37)]
LIMITS = [(name, limit) for name, component in load().components.items() for limit in component.limits]
INSTEAD = re.compile(r"; take (?P<release>\S+) or (?:later|earlier)(?:, or Kubernetes (?P<minor>\S+))?\.$")
CRI_V1 = (
    "from 1.26 on the kubelet speaks CRI v1 alone, which containerd 1.5 does not serve, and containerd supports "
    "Kubernetes 1.26 and later from 1.6.15 on"
)
# The table of the guide's section 2.1: Kubernetes, containerd, Docker, Calico, what is refused, what is warned of.
GUIDE = [
    (
        *("v1.27.4", "1.6.4", "-", "v3.26.1"),
        f"containerd 1.6.4 is below 1.6.15, the least for Kubernetes 1.27: {CRI_V1}; "
        "take 1.6.15 or later, or Kubernetes 1.25.",
        "",
    ),
    (
        *("v1.26.7", "1.6.4", "-", "v3.26.1"),
        f"containerd 1.6.4 is below 1.6.15, the least for Kubernetes 1.26: {CRI_V1}; "
        "take 1.6.15 or later, or Kubernetes 1.25.",
        "",
    ),
    (
        *("v1.25.4", "1.6.4", "-", "v3.22.4"),
        "Calico v3.22.4 is below 3.23, the least for Kubernetes 1.25: up to 3.22 its manifests hold a "
        "PodDisruptionBudget of policy/v1beta1, an API that Kubernetes 1.25 removed; "
        "take 3.23 or later, or Kubernetes 1.24.",
        "",
    ),
    (
        *("v1.24.8", "1.6.4", "-", "v3.22.4"),
        "",
        "Calico v3.22.4 may work with Kubernetes 1.24, but its maintainers test 3.24, 3.25, 3.26.",
    ),
    ("v1.23.9", "1.6.4", "20.10.20", "v3.22.4", "", ""),
    (
        *("v1.22.12", "1.6.4", "20.10.20", "v3.22.4"),
        "",
        "containerd 1.6.4 may work with Kubernetes 1.22, but containerd's maintainers recommend 1.5.5 or later "
        "patches.",
    ),
    (
        *("v1.21.14", "1.6.4", "20.10.20", "v3.22.4"),
        "",
        "containerd 1.6.4 may work with Kubernetes 1.21, but containerd's maintainers recommend 1.5.0 or later "
        "patches.",
    ),
]


def before(version: str) -> str:
    """A version just below one."""
    major, minor, patch = parse(version)
    if patch:
        return f"{major}.{minor}.{patch - 1}"
    return f"{major}.{minor - 1}.999" if minor else f"{major - 1}.999"


def probes(name: str) -> set[str]:
    """Versions of a component on both sides of everything that the matrix says of it."""
    component = load().components[name]
    named = {entry.rstrip("+") for minor in load().minors.values() for entry in minor.listed.get(name, ())}
    named |= {limit.at_least or limit.below for limit in component.limits + component.cautions}
    return named | {before(version) for version in named} | {"0.1", "99.0"}


def minors_of(limit: Limit) -> list[str]:
    return [each for each in MINORS if parse(limit.first or each) <= parse(each) <= parse(limit.last or each)]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.36.2", (1, 36, 2)),
        ("1.6.20~ds1-1+deb12u1", (1, 6, 20)),
        ("3.6.8-0", (3, 6, 8)),
        ("1:2.2.7-1", (2, 2, 7)),
        ("3.10", (3, 10, 0)),
        ("2", (2, 0, 0)),
        ("v2.0.0-rc.1", (2, 0, 0)),
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("5.14.0-427.el9.x86_64", (5, 14, 0)),
        ("6.6.87.2-generic", (6, 6, 87)),
    ],
)
def test_a_version_is_its_first_three_numbers(text: str, version: tuple[int, int, int]) -> None:
    assert parse(text) == version


@pytest.mark.parametrize("text", ["", "latest", "v", "1.", "1..2", "1.6x", "1.6 ", "1.6.4\n", "-1.6", "1.6,4"])
def test_what_is_no_version_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no version: one begins with numbers")):
        parse(text)


def test_the_matrix_has_every_minor_from_1_20_to_1_36_in_order() -> None:
    assert list(load().minors) == MINORS


def test_the_matrix_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().components["etcd"].limits[0].at_least = "1.0"


def test_every_column_component_and_limit_names_sources_and_every_column_is_described() -> None:
    matrix = load()
    sourced = [*matrix.columns.values(), *matrix.components.values(), *(limit for _, limit in LIMITS)]
    sourced += [limit for each in matrix.components.values() for limit in each.cautions]
    assert all(url.startswith("https://") for each in sourced for url in each.sources)
    assert [*matrix.columns, "listed"] == list(Minor.model_fields)
    assert {name for minor in matrix.minors.values() for name in minor.listed} == set(matrix.components)


def test_a_limit_is_a_floor_or_a_ceiling_with_a_release_below_it() -> None:
    cautions = [limit for component in load().components.values() for limit in component.cautions]
    for limit in [*(limit for _, limit in LIMITS), *cautions]:
        assert bool(limit.at_least) != bool(limit.below)
        assert bool(limit.take) == bool(limit.below)
        assert not limit.take or parse(limit.take) < parse(limit.below)
        assert minors_of(limit)


@pytest.mark.parametrize(("minor", "name"), list(product(MINORS, load().components)))
def test_what_upstream_names_is_neither_refused_nor_warned_of(minor: str, name: str) -> None:
    for entry in load().minors[minor].listed.get(name, ()):
        versions = {name: entry.rstrip("+")}
        assert refusals(f"v{minor}.0", versions) + warnings(f"v{minor}.0", versions) == []


@pytest.mark.parametrize(("name", "limit"), LIMITS, ids=[f"{n}-{e.kubernetes}-{e.release}" for n, e in LIMITS])
def test_a_limit_refuses_at_its_edge_for_each_of_its_minors_and_not_beside_it(name: str, limit: Limit) -> None:
    component = load().components[name]
    edge = limit.at_least or limit.below
    good, bad = (edge, before(edge)) if limit.at_least else (before(edge), edge)
    for minor in minors_of(limit):
        assert refusals(f"v{minor}.9", {name: good}) == []
        (said,) = refusals(f"v{minor}.9", {name: bad})
        bound = (
            f"is below {edge}, the least for Kubernetes {minor}: "
            if limit.at_least
            else f"is too new for Kubernetes {minor}, which needs one before {edge}: "
        )
        assert said.startswith(f"{component.name} {bad} {bound}{limit.why}; take ")
    others = [each for each in component.limits if each != limit]
    for minor in set(MINORS) - {each for other in (limit, *others) for each in minors_of(other)}:
        assert refusals(f"v{minor}.9", {name: bad}) == []


@pytest.mark.parametrize("name", load().components)
def test_what_a_refusal_names_instead_is_not_refused_and_the_minor_is_the_nearest(name: str) -> None:
    for minor, version in product(MINORS, sorted(probes(name))):
        for said in refusals(f"v{minor}.0", {name: version}):
            found = INSTEAD.search(said)
            assert found, said
            assert refusals(f"v{minor}.0", {name: found["release"]}) == []
            at = MINORS.index(minor)
            towards = MINORS[:at][::-1] if " is below " in said else MINORS[at + 1 :]
            fit = [each for each in towards if not refusals(f"v{each}.0", {name: version})]
            assert found["minor"] == (fit[0] if fit else None), said


def test_something_is_refused_in_the_test_above() -> None:
    assert {name for name, _ in LIMITS} == {
        name
        for name in load().components
        for minor, version in product(MINORS, probes(name))
        if refusals(minor, {name: version})
    }


@pytest.mark.parametrize(
    ("kubernetes", "versions", "said"),
    [
        (
            "v1.22.17",
            {"containerd": "2.0.0"},
            "containerd 2.0.0 is too new for Kubernetes 1.22, which needs one before 2.0: up to 1.22 the kubelet "
            "speaks CRI v1alpha2 alone, which containerd 2.0 removed; take 1.7 or earlier, or Kubernetes 1.23.",
        ),
        (
            "v1.20.15",
            {"calico": "v3.26.0"},
            "Calico v3.26.0 is too new for Kubernetes 1.20, which needs one before 3.23: from 3.23 on its manifests "
            "hold a PodDisruptionBudget of policy/v1, an API that Kubernetes has from 1.21 on, and of 3.26 and later "
            "its maintainers say that they will not work on 1.20 or below; take 3.22 or earlier, or Kubernetes 1.21.",
        ),
        (
            "v1.36.2",
            {"etcd": "3.5.24-0"},
            "etcd 3.5.24-0 is below 3.6.0, the least for Kubernetes 1.36: kubeadm starts etcd with "
            "--watch-progress-notify-interval and a feature gate, which etcd has from 3.6.0 on; "
            "take 3.6.0 or later, or Kubernetes 1.35.",
        ),
        (
            "v1.33.1",
            {"kernel": "3.10.0-1160.el7.x86_64"},
            "Linux 3.10.0-1160.el7.x86_64 is below 4.19, the least for Kubernetes 1.33: kubeadm's SystemVerification "
            "takes no older kernel; take 4.19 or later, or Kubernetes 1.31.",
        ),
        (
            "v1.20.1",
            {"kernel": "2.6.32"},
            "Linux 2.6.32 is below 3.10, the least for Kubernetes 1.20: kubeadm's SystemVerification takes no older "
            "kernel; take 3.10 or later.",
        ),
    ],
)
def test_a_refusal_says_what_and_why_and_the_nearest_of_both(
    kubernetes: str, versions: dict[str, str], said: str
) -> None:
    assert refusals(kubernetes, versions) == [said]
    assert warnings(kubernetes, versions) == []


@pytest.mark.parametrize(
    ("kubernetes", "containerd", "docker", "calico", "refused", "warned"), GUIDE, ids=[row[0] for row in GUIDE]
)
def test_the_guides_combinations(
    kubernetes: str, containerd: str, docker: str, calico: str, refused: str, warned: str
) -> None:
    versions = {"containerd": containerd, "calico": calico}
    assert refusals(kubernetes, versions) == ([refused] if refused else [])
    assert warnings(kubernetes, versions) == ([warned] if warned else [])
    (row,) = [each for each in load().guide if each.kubernetes == kubernetes]
    assert (row.versions, row.docker) == (versions, docker)
    assert bool(row.instead) == bool(refused)
    assert not refused or refusals(kubernetes, {**versions, **row.instead}) == []
    assert not refused or warnings(kubernetes, {**versions, **row.instead}) == []


def test_the_guide_has_docker_where_the_kubelet_can_use_it() -> None:
    assert len(load().guide) == len(GUIDE)
    for row in load().guide:
        minor = row.kubernetes.removeprefix("v").rsplit(".", 1)[0]
        assert (row.docker != "-") == load().minors[minor].dockershim


def test_what_the_lab_runs_works_and_containerd_is_warned_of() -> None:
    versions = {
        "containerd": "1.6.20~ds1-1+deb12u1",
        "etcd": "v3.6.8",
        "coredns": "v1.14.2",
        "pause": "3.10.2",
        "cri-tools": "v1.36.0",
    }
    assert refusals("v1.36.2", versions) == []
    assert warnings("v1.36.2", versions) == [
        "containerd 1.6.20~ds1-1+deb12u1 may work with Kubernetes 1.36, but containerd's maintainers recommend 2.2.0, "
        "2.3.0 or later patches.",
        "containerd 1.6.20~ds1-1+deb12u1 may work with Kubernetes 1.36, but kubeadm warns that the runtime has no "
        "RuntimeConfig, without which the kubelet falls back to its own cgroupDriver; Kubernetes 1.37 removes the "
        "fallback.",
    ]


@pytest.mark.parametrize(
    ("minor", "versions", "count"),
    [
        ("1.34", {"containerd": "1.7.28"}, 0),
        ("1.34", {"containerd": "1.7.30-1"}, 0),
        ("1.34", {"containerd": "1.7.27"}, 1),  # too early in its line
        ("1.34", {"containerd": "2.2.0"}, 1),  # a line that is not named
        ("1.34", {"kernel": "5.15.0-1053-aws"}, 0),
        ("1.34", {"kernel": "5.14.0-427.el9.x86_64"}, 1),  # no line of long-term support
        ("1.34", {"kernel": "7.0.1"}, 0),
        ("1.20", {"kernel": "7.0.1"}, 0),  # nothing is known, nothing is said
        ("1.30", {"cri-o": "1.30.4"}, 0),
        ("1.30", {"cri-o": "1.29.0"}, 1),
        ("1.30", {"cri-tools": "v1.31.0"}, 1),
        ("1.30", {"cri-tools": "v1.23.0"}, 2),  # another minor, and another CRI
        ("1.31", {"etcd": "3.5.16"}, 0),  # tags move from patch to patch
        ("1.31", {"etcd": "3.6.0", "coredns": "1.10.1", "pause": "3.9"}, 3),
        ("1.25", {"calico": "v3.23.5"}, 2),  # not tested, and its operator's manifest has what is gone
    ],
)
def test_a_warning_is_of_what_upstream_does_not_name(minor: str, versions: dict[str, str], count: int) -> None:
    assert refusals(minor, versions) == []
    said = warnings(minor, versions)
    assert len(said) == count
    assert all(f"may work with Kubernetes {minor}, but " in each for each in said)


def test_each_component_is_judged_by_itself_and_all_refusals_are_given() -> None:
    said = refusals("v1.36.0", {"calico": "3.21.0", "containerd": "1.5.18", "pause": "3.2", "etcd": "3.4.13"})
    assert [each.split(" is ")[0] for each in said] == ["Calico 3.21.0", "containerd 1.5.18", "etcd 3.4.13"]
    assert refusals("v1.36.0", {}) == warnings("v1.36.0", {}) == []


@pytest.mark.parametrize(("minor", "nearest"), [("1.19", "1.20"), ("0.9", "1.20"), ("1.37", "1.36"), ("2.0", "1.36")])
def test_a_minor_that_is_not_in_the_matrix_is_refused_with_the_nearest(minor: str, nearest: str) -> None:
    said = f"Kubernetes {minor} is not in the compatibility matrix, which has 1.20 to 1.36; take Kubernetes {nearest}."
    assert refusals(f"v{minor}.4", {"containerd": "0.1"}) == [said]
    assert warnings(f"v{minor}.4", {"containerd": "0.1"}) == []
    assert refusals(f"v{nearest}.0", {}) == []
    with pytest.raises(LookupError, match=re.escape(said)):
        kubeadm_api(f"v{minor}.4")


@pytest.mark.parametrize("judge", [refusals, warnings])
@pytest.mark.parametrize("kubernetes", ["v1.36.2", "v1.9.0"])
def test_an_unknown_component_and_what_is_no_version_are_errors(judge: object, kubernetes: str) -> None:
    assert callable(judge)
    known = "containerd, cri-o, calico, cilium, etcd, coredns, pause, cri-tools, kernel"
    with pytest.raises(LookupError, match=f"has no component 'docker'; it has {known}"):
        judge(kubernetes, {"containerd": "1.7.28", "docker": "20.10.20"})
    with pytest.raises(ValueError, match="'latest' is no version"):
        judge(kubernetes, {"coredns": "latest"})
    with pytest.raises(ValueError, match="'stable' is no version"):
        judge("stable", {"coredns": "v1.14.2"})


@pytest.mark.parametrize("minor", MINORS)
def test_kubeadm_gets_the_newest_api_that_it_reads(minor: str) -> None:
    number = int(minor.split(".")[1])
    reads = {
        "v1beta1": number <= 21,
        "v1beta2": number <= 26,
        "v1beta3": number >= 22,
        "v1beta4": number >= 31,
    }
    assert load().minors[minor].kubeadm == tuple(version for version, can in reads.items() if can)
    newest = "v1beta2" if number <= 21 else "v1beta3" if number <= 30 else "v1beta4"
    assert kubeadm_api(f"v{minor}.3") == f"kubeadm.k8s.io/{newest}"


def test_kubelets_may_be_two_minors_older_and_three_from_1_25_on() -> None:
    for minor, row in load().minors.items():
        number, oldest = int(minor.split(".")[1]), int(row.oldest_kubelet.split(".")[1])
        served = [kubelet for kubelet in range(18, number + 1) if number - kubelet <= (3 if kubelet >= 25 else 2)]
        assert oldest == min(served)
        assert int(row.oldest_kubelet_of_kubeadm.split(".")[1]) == number - (3 if number >= 29 else 1)


def test_cgroup_v1_must_be_asked_for_from_1_35_on() -> None:
    states = [row.cgroup_v1 for row in load().minors.values()]
    assert [minor for minor, row in load().minors.items() if row.cgroup_v1 == "opt-in"] == ["1.35", "1.36"]
    assert [b for a, b in pairwise(states) if a != b] == ["maintenance", "opt-in"]


def test_docker_goes_with_the_kubelet_up_to_1_23() -> None:
    assert [minor for minor, row in load().minors.items() if row.dockershim] == ["1.20", "1.21", "1.22", "1.23"]


def test_kube_proxy_has_nftables_without_a_gate_from_1_31_on() -> None:
    modes = {minor: row.kube_proxy_modes for minor, row in load().minors.items()}
    assert [minor for minor, each in modes.items() if "nftables" in each] == MINORS[MINORS.index("1.31") :]
    assert all({"iptables", "ipvs"} <= set(each) for each in modes.values())
    assert mode_refusal("v1.31.0", "nftables") == mode_refusal("v1.36.2", "ipvs") == mode_refusal("v1.99.0", "x") == ""
    assert mode_refusal("v1.30.14", "nftables") == (
        "kube-proxy of Kubernetes 1.30 has no mode nftables without a feature gate; take iptables or ipvs, or "
        "Kubernetes 1.31 or later."
    )


def test_the_document_is_of_this_matrix() -> None:
    assert DOCUMENT.read_text() == markdown(), "write it anew with what cluster.compatibility.markdown() gives"


def test_the_document_has_a_row_of_every_minor_limit_and_combination() -> None:
    text = markdown()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cautions = [limit for component in load().components.values() for limit in component.cautions]
    heads = 3 * 2
    assert len(rows) == heads + len(MINORS) + len(LIMITS) + len(cautions) + len(GUIDE)
    assert {row.count(" | ") for row in rows[: 2 + len(MINORS)]} == {len(load().components) + len(load().columns)}
    assert all(row[4] in text for row in GUIDE)
