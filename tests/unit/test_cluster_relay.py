"""Which part of the bundle goes to which host in which step."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from cluster import relay
from cluster.lock import File
from cluster.topology import Node

FIRST, SECOND, THIRD, OTHER = (Node(f"n{number}", IPv4Address(f"10.0.0.{number}")) for number in range(1, 5))


def file(path: str, size: int) -> File:
    return File(path=path, size=size, sha256="0" * 64, name="", version="")


def sized(*sizes: int) -> list[File]:
    return [file(str(number), size) for number, size in enumerate(sizes)]


PACKAGES = [file("packages/debian-12/a.deb", 9), file("packages/debian-12/b.deb", 1)]
BIN, *BLOBS = file("bin/kubelet", 5), file("images/blobs/1", 2), file("images/blobs/2", 4), file("images/blobs/3", 1)
FILES = [BIN, *BLOBS[:2], *PACKAGES, BLOBS[2]]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([10], [[10]]),
        ([4, 6], [[4, 6]]),
        ([4, 7, 3], [[4], [7, 3]]),
        ([3, 25, 3], [[3], [25], [3]]),
        ([25, 25], [[25], [25]]),
        ([0, 10, 0], [[0, 10, 0]]),
    ],
)
def test_files_are_cut_into_batches_in_their_order(sizes: list[int], groups: list[list[int]]) -> None:
    files = sized(*sizes)
    found = relay.batches(files, 10)
    assert [[file.size for file in batch] for batch in found] == groups
    assert [file for batch in found for file in batch] == files


def test_packages_are_the_first_part_and_the_rest_comes_in_smaller_and_smaller_ones() -> None:
    assert relay.parts(FILES, 3) == [PACKAGES, [BIN], [BLOBS[1], BLOBS[0]], BLOBS[2:]]
    assert [sum(file.size for file in part) for part in relay.parts(sized(*[1] * 21), 6)] == [0, 6, 5, 4, 3, 2, 1]


def test_a_file_as_large_as_several_parts_is_one_part_in_their_place() -> None:
    large, *small = sized(15, 1, 1, 1, 1, 1, 1)
    assert relay.parts([*small, large], 6) == [[], [large], small[:3], small[3:5], small[5:]]


def test_files_of_no_bytes_are_carried_too() -> None:
    assert relay.parts(sized(0, 0), 2) == [[], sized(0, 0)]
    none, *others = sized(0, 3, 7, 3)
    assert relay.parts([none, *others], 3)[-1][-1] == none


def test_a_bundle_of_any_size_is_cut_into_as_few_parts() -> None:
    for size in (1, 1_000_000, 10_000_000_000):
        assert len(relay.parts(sized(*[size] * 600))) == 1 + relay.PARTS


def test_a_bundle_of_packages_alone_is_one_part() -> None:
    assert relay.parts(PACKAGES) == [PACKAGES]


@pytest.mark.parametrize(
    ("servers", "late"),
    [
        ([FIRST, SECOND, THIRD], {FIRST: 0, SECOND: 1, THIRD: 1, OTHER: 2}),
        ([SECOND, FIRST], {SECOND: 0, FIRST: 1, OTHER: 2}),
        ([FIRST], {FIRST: 0, OTHER: 1}),
    ],
)
def test_a_host_gets_each_part_some_steps_after_the_first_server(servers: list[Node], late: dict[Node, int]) -> None:
    parts = relay.parts(FILES)
    for node, steps in late.items():
        schedule = relay.schedule(FILES, FILES, node, servers)
        assert schedule == [*[[]] * steps, *parts, *[[]] * (max(late.values()) - steps)]


def test_a_host_gets_of_each_part_what_it_wants() -> None:
    wanted = [BLOBS[1], PACKAGES[0]]
    schedule = relay.schedule(FILES, wanted, OTHER, [FIRST])
    assert [file for part in schedule for file in part] == [PACKAGES[0], BLOBS[1]]
    assert len(schedule) == len(relay.schedule(FILES, FILES, FIRST, [FIRST]))
