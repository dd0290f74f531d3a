"""Facts of versions. Answers with `recorded` are of real nodes; the others are written by hand."""

from __future__ import annotations

import pytest
from harness import answer, recorded

from facts.upgrade import Nodes, NodeVersions, RemovedApis

SERVER = "registry.k8s.io/kube-apiserver:v1.35.6"


def test_a_control_plane_has_images_of_static_pods_and_a_kubelet() -> None:
    found = answer(NodeVersions, recorded("NodeVersions.cluster-cp1"))
    assert found["running"] == "v1.35.6"
    assert list(found["images"]) == ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"]
    assert (found["images"]["kube-apiserver"], found["images"]["etcd"]) == (SERVER, "registry.k8s.io/etcd:3.6.6-0")


def test_a_container_beside_the_api_server_is_not_taken_for_it() -> None:
    lines = [f"image kube-apiserver {SERVER}", "image kube-apiserver example.org/kms-plugin:v0.8.0"]
    for order in (lines, lines[::-1]):
        assert answer(NodeVersions, order)["images"] == {"kube-apiserver": SERVER}


def test_a_worker_has_a_kubelet_alone_and_a_bare_host_nothing() -> None:
    assert answer(NodeVersions, recorded("NodeVersions.cluster-w1")) == {"images": {}, "running": "v1.35.6"}
    assert answer(NodeVersions, []) == NodeVersions.default() == {"images": {}, "running": None}


def test_nodes_say_their_versions_and_that_nothing_was_begun() -> None:
    found = answer(Nodes, recorded("Nodes.cluster-cp1"))
    well = {"version": "v1.35.6", "ready": True, "cordoned": False, "mark": None}
    assert found == dict.fromkeys(("cp1", "cp2", "cp3", "w1"), well)


def test_a_node_that_is_being_upgraded_says_how_it_was_before() -> None:
    lines = ["w1 v1.35.6 Unknown cordoned schedulable", "w2 v1.35.6 True cordoned ", ""]
    assert answer(Nodes, lines) == {
        "w1": {"version": "v1.35.6", "ready": False, "cordoned": True, "mark": "schedulable"},
        "w2": {"version": "v1.35.6", "ready": True, "cordoned": True, "mark": None},
    }


@pytest.mark.parametrize(
    ("group", "name"),
    [("batch", "batch/v1beta1/cronjobs"), ("", "v1beta1/cronjobs")],
)
def test_what_is_asked_for_is_named_with_the_release_that_removes_it(group: str, name: str) -> None:
    line = (
        f'apiserver_requested_deprecated_apis{{group="{group}",removed_release="1.25",resource="cronjobs",'
        'subresource="",version="v1beta1"} 1'
    )
    assert answer(RemovedApis, [line]) == {name: "1.25"}
