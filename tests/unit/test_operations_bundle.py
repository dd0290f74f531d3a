"""Pieces of a bundle on their way to a node, programs and images made of them. All states are hand-written."""

from __future__ import annotations

import hashlib
import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api import FileUploadCommand, OperationError

from cluster.lock import File, Image
from cluster.pieces import NODE_DIRECTORY
from facts.checksum import Checksums
from facts.containerd import Images
from operations import bundle, containerd

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
TEXTS = {"bin/kubeadm": "kubeadm", "bin/a b": "odd", "cni/bridge": "text of a bridge"}
FILES = [
    File(path=path, size=len(text), sha256=hashlib.sha256(text.encode()).hexdigest(), name=path, version="v1")
    for path, text in TEXTS.items()
]
SUMS = "".join(f"{file.sha256}  {file.path}\n" for file in FILES)
ON_NODE = tuple(f"{NODE_DIRECTORY}/{file.path}" for file in FILES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle's directory with those files."""
    for path, text in TEXTS.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_text(text)
    return tmp_path / "source"


def having(files: list[File]) -> dict[str, Any]:
    asked = Checksums().command(ON_NODE)
    return {asked: [f"{file.sha256} *{NODE_DIRECTORY}/{file.path}" for file in files]}


def unpack(machine: Machine, packed: Path, size: int = 10, sums: str = SUMS) -> Any:
    """Run the script over an archive that was uploaded."""
    uploaded = machine.file("/run/uploaded", packed.read_bytes())
    return machine.sh(bundle.unpack_script(shlex.quote(str(uploaded)), NODE_DIRECTORY, size), stdin=sums)


def left(machine: Machine) -> dict[str, str]:
    """Every file under /run and beside the node's directory, with its text."""
    roots = (machine.path("/run"), machine.path(NODE_DIRECTORY).parent)
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(machine.root)): path.read_text() for path in files}


def test_pieces_that_are_there_are_not_carried(hosts: Make, source: Path) -> None:
    done = hosts({"cp1": having(FILES)})
    assert done.plan(bundle.pieces, source=str(source), files=FILES) == []
    assert done.execute(bundle.pieces, source=str(source), files=FILES) == []
    assert done.noops == ["3 pieces of the bundle are there"] * 2


def test_pieces_are_announced_while_planning(hosts: Make) -> None:
    bare = hosts({"cp1": having([])})
    assert bare.plan(bundle.pieces, source="none", files=FILES) == [Command("# 3 pieces")]
    assert bare.said == ["Will carry 3 of 3 pieces, 0 MB"]


@pytest.mark.parametrize("there", [[], FILES[:1], FILES[1:]], ids=["bare", "some", "others"])
def test_pieces_that_are_lacking_are_carried_in_one_archive(hosts: Make, source: Path, there: list[File]) -> None:
    lacking = [file for file in FILES if file not in there]
    upload, unpacked = hosts({"cp1": having(there)}).execute(bundle.pieces, source=str(source), files=FILES)
    assert isinstance(upload, FileUploadCommand)
    assert upload.connector_arguments == {"_sudo": False}
    with tarfile.open(upload.src) as tar:
        assert tar.getnames() == [file.path for file in lacking]
    assert upload.dest in unpacked.text
    assert unpacked.stdin == "".join(f"{file.sha256}  {file.path}\n" for file in lacking)


def test_a_piece_that_was_changed_on_the_node_is_carried_again(hosts: Make, source: Path) -> None:
    changed = FILES[0].model_copy(update={"sha256": "0" * 64})
    _, unpacked = hosts({"cp1": having([changed, *FILES[1:]])}).execute(bundle.pieces, source=str(source), files=FILES)
    assert unpacked.stdin == f"{FILES[0].sha256}  bin/kubeadm\n"


def test_hosts_that_lack_the_same_pieces_share_an_archive(source: Path) -> None:
    assert bundle.archive(source, FILES) == bundle.archive(source, FILES)
    assert bundle.archive(source, FILES) != bundle.archive(source, FILES[:1])


def test_unpacking_puts_every_piece_in_its_place(machine: Machine, source: Path) -> None:
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "old")
    machine.file(f"{NODE_DIRECTORY}/bin/other", "kept")
    done = unpack(machine, bundle.archive(source, FILES))
    assert (done.returncode, done.stderr) == (0, "")
    assert left(machine) == {
        f"{NODE_DIRECTORY[1:]}/{path}": text for path, text in {**TEXTS, "bin/other": "kept"}.items()
    }


def test_unpacking_a_corrupted_piece_fails_and_leaves_nothing_behind(machine: Machine, source: Path) -> None:
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "old")
    corrupted = bundle.archive(source, FILES).read_bytes().replace(b"text of a bridge", b"text of a brIdge")
    done = unpack(machine, machine.file("packed.tar", corrupted))
    assert done.returncode != 0
    assert "cni/bridge: FAILED" in done.stdout
    assert left(machine) == {f"{NODE_DIRECTORY[1:]}/bin/kubeadm": "old"}


def test_unpacking_a_cut_archive_fails_and_leaves_nothing_behind(machine: Machine, source: Path) -> None:
    whole = bundle.archive(source, FILES).read_bytes()
    done = unpack(machine, machine.file("packed.tar", whole[:1800]))
    assert done.returncode != 0
    assert left(machine) == {}


def test_unpacking_fails_when_a_piece_is_missing(machine: Machine, source: Path) -> None:
    done = unpack(machine, bundle.archive(source, FILES[:2]))
    assert done.returncode != 0
    assert "cni/bridge" in done.stderr
    assert left(machine) == {}


def test_unpacking_without_room_fails_before_anything_is_written(machine: Machine, source: Path) -> None:
    machine.program("df", "printf 'Filesystem 1024-blocks Used Available\\n/dev/sda1 9 9 2000 90%% /\\n'")
    done = unpack(machine, bundle.archive(source, FILES), size=2048 * 1024)
    assert done.returncode == 1
    assert done.stderr == f"{machine.path(NODE_DIRECTORY)}: 2000 KiB free, 2048 needed. Make room and run again.\n"
    assert left(machine) == {}


def test_unpacking_fails_when_a_piece_cannot_get_to_its_place(machine: Machine, source: Path) -> None:
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm/in/the/way")
    assert unpack(machine, bundle.archive(source, FILES)).returncode != 0


PROGRAMS = {"/usr/bin/kubeadm": FILES[0], "/opt/cni/bin/bridge": FILES[2]}


def with_programs(hosts: Make, rows: dict[str, str]) -> Hosts:
    return hosts({"cp1": {Checksums().command(tuple(PROGRAMS)): [f"{sum_} *{dest}" for dest, sum_ in rows.items()]}})


def test_programs_on_a_bare_host_are_all_installed(hosts: Make) -> None:
    bare = with_programs(hosts, {})
    planned = bare.plan(bundle.programs, wanted=PROGRAMS)
    assert [command.text.split()[-1] for command in planned] == list(PROGRAMS)
    assert bare.said == [
        "Will install /usr/bin/kubeadm (bin/kubeadm v1)",
        "Will install /opt/cni/bin/bridge (cni/bridge v1)",
    ]
    assert bare.execute(bundle.programs, wanted=PROGRAMS) == planned
    assert bare.noops == []


def test_programs_of_the_bundles_versions_need_nothing(hosts: Make) -> None:
    done = with_programs(hosts, {dest: file.sha256 for dest, file in PROGRAMS.items()})
    assert done.execute(bundle.programs, wanted=PROGRAMS) == []
    assert done.noops == ["2 programs are of the bundle's versions"]


def test_a_program_that_differs_is_replaced_alone_while_the_old_one_runs(hosts: Make, machine: Machine) -> None:
    drifted = with_programs(hosts, {"/usr/bin/kubeadm": "0" * 64, "/opt/cni/bin/bridge": FILES[2].sha256})
    (command,) = drifted.plan(bundle.programs, wanted=PROGRAMS)
    assert drifted.said == ["Will replace /usr/bin/kubeadm (bin/kubeadm v1)"]
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "new")
    target = machine.file("/usr/bin/kubeadm", "old")
    with target.open() as running:
        assert machine.sh(command.text).returncode == 0
        assert running.read() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o7777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


BASE = digest("b")
IMAGES = [
    Image(name="registry.k8s.io/pause:3.10.2", digest=digest("1"), size=10, blobs=(digest("1"), BASE)),
    Image(name="registry.k8s.io/etcd:3.6.8-0", digest=digest("2"), size=20, blobs=(digest("2"), BASE)),
]
SIZES = {digest("1"): 101, digest("2"): 102}
LISTED = Images().command()


def with_images(hosts: Make, *output: str) -> Hosts:
    return hosts({"cp1": {LISTED: list(output)}})


def test_images_on_a_bare_host_are_planned_before_there_is_a_containerd(hosts: Make) -> None:
    bare = with_images(hosts, "absent")
    assert bare.plan(containerd.images, wanted=IMAGES, sizes=SIZES) == [
        Command(containerd.import_script(IMAGES, 600), containerd.index(IMAGES, SIZES))
    ]
    assert bare.said[0] == "Will import registry.k8s.io/pause:3.10.2 (sha256:111111111111, 0 MB)"


@pytest.mark.parametrize("state", ["absent", "unreachable"])
def test_images_cannot_be_imported_without_a_containerd(hosts: Make, state: str) -> None:
    with pytest.raises(OperationError, match=rf"^cp1: containerd is {state}, so no image can be imported\. Look at"):
        with_images(hosts, state).execute(containerd.images, wanted=IMAGES, sizes=SIZES)


def test_images_that_are_loaded_are_not_imported(hosts: Make) -> None:
    done = with_images(hosts, "running", *(f"{image.name} {image.digest}" for image in IMAGES))
    assert done.execute(containerd.images, wanted=IMAGES, sizes=SIZES) == []
    assert done.noops == ["2 images are loaded"]


def test_images_that_are_missing_or_of_another_digest_are_imported_alone(hosts: Make) -> None:
    drifted = with_images(hosts, "running", f"{IMAGES[0].name} {digest('9')}", f"{IMAGES[1].name} {IMAGES[1].digest}")
    (command,) = drifted.execute(containerd.images, wanted=IMAGES, sizes=SIZES)
    assert [row["digest"] for row in json.loads(command.stdin)["manifests"]] == [digest("1")]
    assert digest("2")[7:] not in command.text


def test_import_streams_a_layout_of_these_images_into_kubelets_namespace(machine: Machine) -> None:
    for blob in (digest("1"), digest("2"), digest("3"), BASE):
        machine.file(f"{NODE_DIRECTORY}/images/blobs/{blob.replace(':', '/')}", blob)
    machine.program("ctr", f'test "$*" = "-n k8s.io images import -" && cat > {machine.root}/imported.tar')
    script = containerd.import_script(IMAGES, 60)
    done = machine.sh(f"TMPDIR={machine.root}/run; export TMPDIR; {script}", stdin=containerd.index(IMAGES, SIZES))
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(machine.path("imported.tar")) as tar:
        blobs = sorted(f"blobs/{blob.replace(':', '/')}" for blob in (digest("1"), digest("2"), BASE))
        assert tar.getnames() == ["oci-layout", "index.json", *blobs]
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["schemaVersion"] == 2
    assert [(row["annotations"]["io.containerd.image.name"], row["size"]) for row in index["manifests"]] == [
        ("registry.k8s.io/pause:3.10.2", 101),
        ("registry.k8s.io/etcd:3.6.8-0", 102),
    ]
    assert list(machine.path("/run").iterdir()) == []


def test_import_that_containerd_refuses_fails_and_leaves_nothing(machine: Machine) -> None:
    machine.file(f"{NODE_DIRECTORY}/images/x")
    machine.program("ctr", "cat >/dev/null; echo 'content digest not found' >&2; exit 1")
    script = containerd.import_script(IMAGES, 60)
    done = machine.sh(f"TMPDIR={machine.root}/run; export TMPDIR; {script}", stdin="{}")
    assert done.returncode == 1
    assert "content digest not found" in done.stderr
    assert list(machine.path("/run").iterdir()) == []
