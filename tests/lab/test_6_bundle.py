"""The bundle on its way to bare nodes, cut and damaged; then a cluster whose images come from the bundle's servers."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

from bundle.verify import read_lock
from cluster.pieces import NODE_DIRECTORY
from lab import lab
from tests.lab.nodes import (
    BUNDLE,
    KUBERNETES_NODES,
    LOAD_BALANCERS,
    ROOT,
    changes,
    deployed,
    kubectl,
    pyinfra,
    pyinfra_command,
    ssh,
)

REGISTRY = ("--data", "image_delivery=registry")
PAUSE = "registry.k8s.io/pause:3.10.2"
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "late", "namespace": "default"},
    "spec": {
        "nodeName": "w1",
        "containers": [
            {
                "name": "late",
                "image": AGNHOST,
                "imagePullPolicy": "IfNotPresent",
                "args": ["pause"],
            }
        ],
    },
}


def carried(node: str) -> int:
    """Bytes of the bundle that a node has, whole and checked."""
    return int(ssh(node, f"du -sb {NODE_DIRECTORY} 2>/dev/null || echo 0").split()[0])


@pytest.fixture(scope="module")
def fresh(bundle: str) -> None:
    """Nodes on which nothing has ever been done, once more."""
    lab.down()
    lab.up(bundle=str(BUNDLE))


@pytest.fixture(scope="module")
def pulling(fresh: None) -> str:
    """A cluster on them whose nodes pull their images; the words of the run that made it."""
    return deployed("cluster", "-y", *REGISTRY)


def test_the_bundle_was_built_from_servers_that_stand_for_upstream(bundle: str) -> None:
    assert "kubernetes v1.36.2: from its mirror https://127.0.0.1:" in bundle
    assert "made here" not in bundle and "built from source" not in bundle
    built = {file.path: file.sha256 for file in read_lock(ROOT / "dist/bundle").files if file.path.startswith("bin/")}
    mirrored = {file.path: file for file in read_lock(BUNDLE).files if file.path.startswith("bin/")}
    assert {path: file.sha256 for path, file in mirrored.items()} == built
    assert mirrored["bin/kubeadm"].source == "https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubeadm"
    assert all(image.origin for image in read_lock(BUNDLE).images)


def test_a_transfer_that_was_cut_goes_on_where_it_was(fresh: None) -> None:
    """The run is killed when a part of the bundle has come; the next one carries the rest and no more."""
    whole = sum(file.size for file in read_lock(BUNDLE).files)
    with subprocess.Popen(
        pyinfra_command("distribute", "-y", *REGISTRY), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        limit = time.monotonic() + 120
        while (before := carried("lb1")) < whole // 5:
            assert time.monotonic() < limit and process.poll() is None, f"{before} bytes are on lb1"
            time.sleep(0.1)
        process.kill()
    before = carried("lb1")
    assert before < whole
    plan = deployed("distribute", "--dry", "--limit", "lb1", *REGISTRY)
    left = re.search(r"carry \d+ of \d+ pieces, (\d+) MB", plan)
    assert left and int(left[1]) <= (whole - before) / 1e6 + 1
    deployed("distribute", "-y", *REGISTRY)
    assert changes(deployed("distribute", "-y", *REGISTRY)) == {}


def test_nodes_have_no_images_of_their_own_and_pull_them(pulling: str) -> None:
    for node in KUBERNETES_NODES:
        assert ssh(node, f"ls {NODE_DIRECTORY}/images 2>/dev/null || true") == ""
        assert "PullImage" in ssh(node, "journalctl -u containerd --no-pager -o cat")
    digests = {image.name: image.digest for image in read_lock(BUNDLE).images}
    for node in KUBERNETES_NODES:
        rows = json.loads(ssh(node, "crictl images -o json"))["images"]
        found = {tag: row["repoDigests"][0].partition("@")[2] for row in rows for tag in row["repoTags"]}
        assert found and {name: digests[name] for name in found} == found


def test_a_second_run_changes_nothing(pulling: str) -> None:
    assert changes(deployed("cluster", "--dry", *REGISTRY)) == {}
    assert changes(deployed("cluster", "-y", *REGISTRY)) == {}


def test_a_server_that_is_down_is_replaced_by_the_other(pulling: str) -> None:
    for stopped in LOAD_BALANCERS:
        ssh(stopped, "systemctl stop bundle-server")
        try:
            ssh("w1", f"crictl rmi {PAUSE} >/dev/null; timeout 60 crictl pull {PAUSE}")
        finally:
            ssh(stopped, "systemctl start bundle-server")


def test_an_image_that_the_bundle_lacks_is_asked_of_nobody_else(pulling: str) -> None:
    said = ssh("w1", "timeout 60 crictl pull docker.io/library/nginx:1 2>&1; echo ended with $?", check=False)
    assert "not found" in said and "ended with 1" in said
    hosts = set(re.findall(r'host="?([0-9a-z.:]+)', ssh("w1", "journalctl -u containerd --no-pager -o cat")))
    assert hosts <= {"10.88.0.11:5443", "10.88.0.12:5443"}


def test_strangers_are_refused(pulling: str) -> None:
    """A machine at an address that is not in the inventory, although it is in the same network."""
    ssh("w1", "ip addr add 10.88.0.77/24 dev eth0")
    try:
        asked = "curl -s -o /dev/null -w '%{{http_code}}' --cacert /etc/containerd/certs.d/bundle-servers.crt {} {}"
        url = "https://10.88.0.11:5443/pieces/bin/crictl"
        assert ssh("w1", asked.format("", url)) == "200"
        assert ssh("w1", asked.format("--interface 10.88.0.77", url)) == "403"
    finally:
        ssh("w1", "ip addr del 10.88.0.77/24 dev eth0")


def test_pieces_that_a_server_has_damaged_are_not_taken(pulling: str) -> None:
    """Damage on one server: a node goes on to the other. On both: it stops, says which piece, and keeps what it had."""
    piece = f"{NODE_DIRECTORY}/bin/kubectl"
    good = ssh("w1", f"sha256sum < {piece}")
    ssh("w1", f"rm {piece}")
    flip = f"printf X | dd of={piece} bs=1 seek=4096 conv=notrunc status=none"
    for server in LOAD_BALANCERS:
        ssh(server, f"cp -a {piece} /var/tmp/whole && {flip}")
    try:
        done = pyinfra("distribute", "-y", "--limit", "w1", *REGISTRY)
        assert done.returncode != 0
        assert re.search(r"pieces that did not come: 1, such as .*kubectl", done.stdout), done.stdout[-3000:]
        assert ssh("w1", f"ls {piece} 2>/dev/null || true") == ""
        ssh("lb2", f"mv /var/tmp/whole {piece}")
        deployed("distribute", "-y", "--limit", "w1", *REGISTRY)
        assert ssh("w1", f"sha256sum < {piece}") == good
    finally:
        for server in LOAD_BALANCERS:
            ssh(server, f"test ! -e /var/tmp/whole || mv /var/tmp/whole {piece}")


def test_images_can_be_loaded_instead_and_come_back_when_they_are_thrown_away(pulling: str) -> None:
    """The kubelet throws unused images away when a disk is full, the sandbox's among them."""
    deployed("cluster", "-y")
    assert changes(deployed("cluster", "-y")) == {}
    images = " ".join(
        image.name for image in read_lock(BUNDLE).images if "/e2e-" in image.name or "pause" in image.name
    )
    ssh("w1", f"crictl rmi {images}")
    subprocess.run(
        ["ssh", "-F", "/var/lib/pyinfra-kubeadm-lab/ssh_config", "cp1",
         "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -"],
        input=json.dumps(POD), text=True, check=True, timeout=60,
    )  # fmt: skip
    kubectl("wait", "pod/late", "--for=condition=Ready", "--timeout=120s", timeout=130)
    kubectl("delete", "pod/late", "--now")
