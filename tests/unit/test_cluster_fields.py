"""fields.tsv: well formed, right about what is known, and what is said of values by it."""

from __future__ import annotations

from typing import Any

import pytest

from bundle import versions
from cluster import compatibility, fields, owned
from cluster.compatibility import parse

ROWS = [line.split("\t") for line in fields.PATH.read_text().splitlines() if not line.startswith("#")]
MINORS = [minor for minor in compatibility.load().minors if parse(minor) >= parse("1.21")]


def test_every_row_has_a_kind_a_path_a_type_and_minors_and_stands_in_its_place() -> None:
    assert len(ROWS) > 390
    for kind, path, of, first, last in ROWS:
        assert kind in fields.KINDS
        assert of in fields.TYPES
        assert first in MINORS
        assert last in ("", *MINORS[:-1])
        assert not last or parse(first) <= parse(last)
        assert ".".join(fields.Field(kind, (path,), of, first, last).path) == path
    assert sorted(ROWS, key=lambda row: (fields.KINDS.index(row[0]), row[1:])) == ROWS
    assert len(ROWS) == len(fields.load())


def test_no_field_is_two_things_in_one_minor() -> None:
    for minor in MINORS:
        paths = [(field.kind, field.path) for field in fields.load() if field.within(minor)]
        assert len(set(paths)) == len(paths)
        within = {(kind, path[:length]) for kind, path in paths for length in range(1, len(path))}
        assert within & set(paths) == set()


def test_fields_are_known_of_the_minors_of_the_matrix_and_of_the_releases() -> None:
    assert list(versions.load().minors) == MINORS
    for minor, row in versions.load().minors.items():
        assert row.kubernetes.startswith(f"v{minor}.")
        assert all(version.startswith(f"v0.{minor[2:]}.") for version in row.require.values())
    assert versions.load().minors["1.31"].module("k8s.io/kube-proxy") == "v0.31.11"
    assert versions.load().minors["1.31"].module("k8s.io/kubelet") == "v0.31.14"


# As the release notes and the reference of Kubernetes have them.
@pytest.mark.parametrize(
    ("kind", "path", "of", "first", "last"),
    [
        ("KubeletConfiguration", "failCgroupV1", "bool", "1.31", ""),
        ("KubeletConfiguration", "maxPods", "int32", "1.21", ""),
        ("KubeletConfiguration", "evictionHard{}", "string", "1.21", ""),
        ("KubeletConfiguration", "containerRuntimeEndpoint", "string", "1.27", ""),
        ("KubeletConfiguration", "memorySwap.swapBehavior", "string", "1.22", ""),
        ("KubeletConfiguration", "streamingConnectionIdleTimeout", "duration", "1.21", ""),
        ("KubeletConfiguration", "registerWithTaints[].key", "string", "1.23", ""),
        ("KubeletConfiguration", "staticPodURLHeader{}[]", "string", "1.21", ""),
        ("KubeProxyConfiguration", "nftables.syncPeriod", "duration", "1.29", ""),
        ("InitConfiguration", "nodeRegistration.imagePullPolicy", "string", "1.22", ""),
        ("InitConfiguration", "nodeRegistration.kubeletExtraArgs{}", "string", "1.21", "1.30"),
        ("InitConfiguration", "nodeRegistration.kubeletExtraArgs[].value", "string", "1.31", ""),
        ("JoinConfiguration", "discovery.timeout", "duration", "1.21", "1.30"),
        ("JoinConfiguration", "timeouts.discovery", "duration", "1.31", ""),
        ("ClusterConfiguration", "apiServer.timeoutForControlPlane", "duration", "1.21", "1.30"),
        ("ClusterConfiguration", "dns.type", "string", "1.21", "1.21"),
        ("ClusterConfiguration", "useHyperKubeImage", "bool", "1.21", "1.21"),
        ("ClusterConfiguration", "certificateValidityPeriod", "duration", "1.31", ""),
        ("ClusterConfiguration", "proxy.disabled", "bool", "1.31", ""),
    ],
)
def test_known_fields_came_and_went_with_these_minors(kind: str, path: str, of: str, first: str, last: str) -> None:
    assert [row for row in ROWS if row[:2] == [kind, path]] == [[kind, path, of, first, last]]


@pytest.mark.parametrize("kind", fields.KINDS)
def test_fields_that_the_deploy_decides_are_fields(kind: str) -> None:
    known = {field.path[:length] for field in fields.load() if field.kind == kind for length in range(9)}
    for path in owned.OWNED[kind]:
        before, _, argument = path.partition("xtraArgs.")
        assert tuple(f"{before}xtraArgs".split(".") if argument else path.split(".")) in known, path


def said(document: Any, kind: str = "KubeletConfiguration", minor: str = "1.36") -> list[tuple[str, str]]:
    return list(fields.problems(kind, document, minor))


@pytest.mark.parametrize(
    ("field", "good", "bad", "words"),
    [
        ("clusterDomain", ["a", ""], [5, True, ["a"]], "must be a string, not "),
        ("failSwapOn", [True, False, None], ["true", 1], "must be true or false, not "),
        ("maxPods", [0, 110, -1], ["many", "110", 1.5, True, 2**31], "must be a whole number of 32 bits, not "),
        ("memoryThrottlingFactor", [0.9, 1], ["0.9", True], "must be a number, not "),
        (
            "syncFrequency",
            ["1m", "1h2m3.5s", "0", "100ms"],
            ["1 m", "1d", 60, ""],
            'must be a duration such as "1h30m"',
        ),
        ("evictionHard", [{"memory.available": "5%"}, {}], ["5%", {"a": 5}], "must be "),
        ("clusterDNS", [["10.0.0.10"], []], ["10.0.0.10", [10]], "must be "),
        ("logging", [{"flushFrequency": "5s"}, {"flushFrequency": 5}], [{"flushFrequency": "5"}], "must be a duration"),
        (
            "reservedMemory",
            [[{"numaNode": 0, "limits": {"memory": "1Gi"}}], [{"limits": {"memory": 5}}]],
            [[{"limits": {"memory": "much"}}], {"numaNode": 0}],
            "must be ",
        ),
    ],
)
def test_values_are_judged_by_their_type(field: str, good: list[Any], bad: list[Any], words: str) -> None:
    for value in good:
        assert said({field: value}) == [], value
    for value in bad:
        ((path, found),) = said({field: value})
        assert path.startswith(field)
        assert found.startswith(words), found


def test_problems_name_the_whole_path_and_all_are_found() -> None:
    document = {"registerWithTaints": [{"key": "a"}, {"kee": "b"}], "maxPods": "x", "logging": {"options": 5}}
    assert said(document) == [
        ("registerWithTaints[1].kee", "KubeletConfiguration has no such field; did you mean key?"),
        ("maxPods", "must be a whole number of 32 bits, not 'x'"),
        ("logging.options", "must be names and values, not 5"),
    ]


def test_field_of_other_minors_is_refused_with_them() -> None:
    assert said({"failCgroupV1": True}, minor="1.30") == [
        ("failCgroupV1", "KubeletConfiguration has no such field in 1.30: Kubernetes has it from 1.31")
    ]
    assert said({"failCgroupV1": True}, minor="1.31") == []
    assert said({"dns": {"type": "CoreDNS"}}, "ClusterConfiguration", "1.27") == [
        ("dns.type", "ClusterConfiguration has no such field in 1.27: Kubernetes had it up to 1.21")
    ]


def test_minors_before_the_first_are_not_known_and_later_ones_are_taken_for_the_newest() -> None:
    assert fields.absent("1.21") == fields.absent("1.36") == ""
    assert fields.absent("1.9").startswith("The fields of Kubernetes 1.9's configuration are not known here, only from")
