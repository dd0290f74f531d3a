"""Images imported from a node's pieces of the bundle. All states are hand-written."""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api import OperationError

from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from facts.containerd import Images
from operations import containerd

Make = Callable[[dict[str, dict[str, Any]]], Hosts]


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


BASE = digest("b")
PAUSE = Image(name="registry.k8s.io/pause:3.10.2", digest=digest("1"), size=10, blobs=(digest("1"), BASE, BASE))
ETCD = Image(name="registry.k8s.io/etcd:3.6.8-0", digest=digest("2"), size=20, blobs=(digest("2"), BASE))
IMAGES = [PAUSE, ETCD]
SIZES = {digest("1"): 101, digest("2"): 102}
LISTED = Images().command()


def with_images(hosts: Make, *output: str) -> Hosts:
    return hosts({"cp1": {LISTED: list(output)}})


def test_images_on_a_bare_host_are_planned_before_there_is_a_containerd(hosts: Make) -> None:
    bare = with_images(hosts, "absent")
    assert bare.plan(containerd.images, wanted=IMAGES, sizes=SIZES) == [
        Command(containerd.import_script(600), containerd.requests(IMAGES, SIZES))
    ]
    assert bare.announced[0] == "import registry.k8s.io/pause:3.10.2 (sha256:111111111111, 0 MB)"


@pytest.mark.parametrize("state", ["absent", "unreachable"])
def test_images_cannot_be_imported_without_a_containerd(hosts: Make, state: str) -> None:
    with pytest.raises(OperationError, match=rf"^cp1: containerd is {state}, so no image can be imported\. Look at"):
        with_images(hosts, state).execute(containerd.images, wanted=IMAGES, sizes=SIZES)


def test_images_of_a_containerd_that_does_not_answer_now_are_looked_at_later(hosts: Make) -> None:
    stopped = with_images(hosts, "unreachable")
    assert stopped.plan(containerd.images, wanted=IMAGES, sizes=SIZES) == []
    assert stopped.noops == ["containerd does not answer now; the images it has are looked at when this runs"]


def test_images_that_are_loaded_are_not_imported(hosts: Make) -> None:
    done = with_images(hosts, "running", *(f"{image.name} {image.digest}" for image in IMAGES))
    assert done.execute(containerd.images, wanted=IMAGES, sizes=SIZES) == []
    assert done.noops == ["2 images are loaded"]


def test_images_that_are_missing_or_of_another_digest_are_imported_alone(hosts: Make) -> None:
    drifted = with_images(hosts, "running", f"{PAUSE.name} {digest('9')}", f"{ETCD.name} {ETCD.digest}")
    assert drifted.execute(containerd.images, wanted=IMAGES, sizes=SIZES) == [
        Command(containerd.import_script(600), containerd.requests([PAUSE], SIZES))
    ]


def test_a_request_is_a_line_of_an_index_and_the_blobs_each_once() -> None:
    first, second = containerd.requests(IMAGES, SIZES).splitlines()
    index, blobs = first.split("\t")
    assert json.loads(index) == {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest("1"),
                "size": 101,
                "annotations": {"io.containerd.image.name": "registry.k8s.io/pause:3.10.2"},
            }
        ],
    }
    assert blobs.split() == [blob(digest("1")), blob(BASE)]
    assert second.split("\t") == [containerd.index(ETCD, 102), f"{blob(digest('2'))} {blob(BASE)}"]


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine with the blobs of all images, one more, and a containerd that keeps what it is given."""
    for each in (digest("1"), digest("2"), digest("3"), BASE):
        machine.file(f"{NODE_DIRECTORY}/images/{blob(each)}", each)
    machine.path("/imported").mkdir()
    machine.program("ctr", f'test "$*" = "-n k8s.io images import -" && cat > {machine.root}/imported/$$.tar')
    return machine


def run(machine: Machine, requests: str) -> Any:
    """Import, with the machine's /run as the place of temporary files."""
    return machine.sh(f"TMPDIR={machine.root}/run; export TMPDIR; {containerd.import_script(60)}", stdin=requests)


def imported(machine: Machine) -> dict[str, tuple[list[str], int]]:
    """What containerd was given whole: name -> the members of its archive, and the size of its manifest."""
    found = {}
    for path in machine.path("/imported").iterdir():
        with tarfile.open(path) as tar:
            names = tar.getnames()
            (row,) = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
            assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}  # type: ignore[arg-type]
            for name in names[2:]:
                assert tar.extractfile(name).read().decode() == name[6:].replace("/", ":")  # type: ignore[union-attr]
        found[row["annotations"]["io.containerd.image.name"]] = names, row["size"]
    return found


def test_each_image_is_a_layout_of_its_own_streamed_into_kubelets_namespace(node: Machine) -> None:
    done = run(node, containerd.requests(IMAGES, SIZES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert imported(node) == {
        PAUSE.name: (["oci-layout", "index.json", blob(digest("1")), blob(BASE)], 101),
        ETCD.name: (["oci-layout", "index.json", blob(digest("2")), blob(BASE)], 102),
    }
    assert list(node.path("/run").iterdir()) == []


def test_as_many_images_are_imported_at_once_as_there_are_processors(node: Machine) -> None:
    """Each import here ends when two more have begun, as three processors let them."""
    node.program("nproc", "echo 3")
    begun = shlex.quote(str(node.path("/begun")))
    waits = f'until test "$(wc -l < {begun})" -ge 3; do sleep 0.01; done'
    node.program("ctr", f"echo >> {begun}; cat > {node.root}/imported/$$.tar; {waits}")
    images = [PAUSE, ETCD, Image(name="e2e/agnhost:2", digest=digest("3"), size=30, blobs=(digest("3"),))]
    done = run(node, containerd.requests(images, {**SIZES, digest("3"): 103}))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(imported(node)) == {image.name for image in images}


def test_an_image_that_containerd_refuses_fails_the_import_and_leaves_nothing(node: Machine) -> None:
    refuses = "cat > /dev/null; echo 'content digest not found' >&2; exit 1"
    keeps = f"cat $0.given > {node.root}/imported/$$.tar"
    node.program("ctr", f"cat > $0.given; if grep -q pause $0.given; then {refuses}; else {keeps}; fi")
    node.program("nproc", "echo 1")
    done = run(node, containerd.requests(IMAGES, SIZES))
    assert done.returncode != 0
    assert "content digest not found" in done.stderr
    assert set(imported(node)) == {ETCD.name}, "the others are imported all the same"
    assert list(node.path("/run").iterdir()) == []


def test_a_blob_that_is_not_there_fails_the_import_whatever_containerd_says(node: Machine) -> None:
    node.path(f"{NODE_DIRECTORY}/images/{blob(digest('1'))}").unlink()
    node.program("ctr", "cat > /dev/null")
    done = run(node, containerd.requests(IMAGES, SIZES))
    assert done.returncode != 0
    assert f"{blob(digest('1'))}: Cannot stat: No such file or directory" in done.stderr
    assert list(node.path("/run").iterdir()) == []


def test_an_import_that_does_not_end_is_ended(node: Machine) -> None:
    node.program("ctr", "cat > /dev/null; exec sleep 600")
    script = containerd.import_script(60)
    assert "timeout 60 ctr" in script
    done = node.sh(
        f"TMPDIR={node.root}/run; export TMPDIR; {script.replace('timeout 60', 'timeout 0.2')}",
        stdin=containerd.requests([PAUSE], SIZES),
    )
    assert done.returncode != 0
    assert list(node.path("/run").iterdir()) == []


def test_no_images_are_no_import(node: Machine) -> None:
    assert run(node, "").returncode == 0
    assert imported(node) == {}


def test_a_name_that_a_shell_would_take_for_its_own_is_only_a_name(node: Machine, tmp_path: Path) -> None:
    odd = PAUSE.model_copy(update={"name": "e2e/a'b\"$(touch harm)`touch harm`\\ %s:1"})
    done = run(node, containerd.requests([odd], SIZES))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(imported(node)) == {odd.name}
    assert not (tmp_path / "harm").exists()
