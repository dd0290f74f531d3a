"""Pieces of a bundle on their way to a node, and programs made of them. All states are hand-written."""

from __future__ import annotations

import hashlib
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api import FileUploadCommand
from pyinfra.context import ctx_host

from cluster.lock import File
from cluster.pieces import NODE_DIRECTORY
from facts.checksum import Checksums
from operations import bundle

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
    """A bundle's directory with those files, which only their owner may read."""
    for path, text in TEXTS.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_text(text)
        (tmp_path / "source" / path).chmod(0o600)
    return tmp_path / "source"


def having(files: list[File]) -> dict[str, Any]:
    asked = Checksums().command(ON_NODE)
    return {asked: [f"{file.sha256} *{NODE_DIRECTORY}/{file.path}" for file in files]}


def sized(*sizes: int) -> list[File]:
    """Files of so many bytes each, in name only."""
    return [
        File(path=str(number), size=size, sha256="0" * 64, name="", version="") for number, size in enumerate(sizes)
    ]


def packed(source: Path, files: list[File]) -> bytes:
    with bundle.archive(source, files) as archive:
        return archive.read_bytes()


def carry(done: Hosts, source: Path) -> tuple[Command, list[tuple[list[str], str]]]:
    """Have it executed: the command before all, and for each archive the pieces in it and the sums that they must
    have. Each archive is read when it is sent."""
    ctx_host.set(next(iter(done.inventory)))
    done.state.is_executing = True
    commands = bundle.carry._inner(source=str(source), files=FILES)
    first = next(commands)
    room = Command(first.get_raw_value(), first.connector_arguments.get("_stdin"))
    batches = []
    for upload in commands:
        assert isinstance(upload, FileUploadCommand)
        assert upload.connector_arguments == {"_sudo": False}
        with tarfile.open(str(upload.src)) as tar:
            names = tar.getnames()
        unpack = next(commands)
        assert unpack.get_raw_value() == bundle.unpack_script(shlex.quote(upload.dest), NODE_DIRECTORY)
        batches.append((names, unpack.connector_arguments["_stdin"]))
    return room, batches


def unpack(machine: Machine, archive: bytes, sums: str = SUMS) -> Any:
    """Run the script over an archive that was uploaded."""
    uploaded = machine.file("/run/uploaded", archive)
    return machine.sh(bundle.unpack_script(shlex.quote(str(uploaded)), NODE_DIRECTORY), stdin=sums)


def left(machine: Machine) -> dict[str, str]:
    """Every file under /run and beside the node's directory, with its text."""
    roots = (machine.path("/run"), machine.path(NODE_DIRECTORY).parent)
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(machine.root)): path.read_text() for path in files}


def test_pieces_that_are_there_are_not_carried(hosts: Make, source: Path) -> None:
    done = hosts({"cp1": having(FILES)})
    assert done.plan(bundle.carry, source=str(source), files=FILES) == []
    assert done.execute(bundle.carry, source=str(source), files=FILES) == []
    assert done.noops == ["3 pieces of the bundle are there"] * 2


def test_pieces_are_announced_while_planning(hosts: Make) -> None:
    bare = hosts({"cp1": having([])})
    assert bare.plan(bundle.carry, source="none", files=FILES) == [Command("# 3 pieces")]
    assert bare.announced == ["carry 3 of 3 pieces, 0 MB"]


@pytest.mark.parametrize("there", [[], FILES[:1], FILES[1:]], ids=["bare", "some", "others"])
def test_pieces_that_are_lacking_are_carried_after_a_look_for_room(
    hosts: Make, source: Path, there: list[File]
) -> None:
    lacking = [file for file in FILES if file not in there]
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in lacking)
    room, batches = carry(hosts({"cp1": having(there)}), source)
    assert room == Command(bundle.room_script(NODE_DIRECTORY, sum(file.size for file in lacking)))
    assert batches == [([file.path for file in lacking], sums)]


def test_pieces_come_in_batches_each_with_its_own_sums(
    hosts: Make, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "BATCH", 12)
    bare = hosts({"cp1": having([])})
    _, batches = carry(bare, source)
    lines = SUMS.splitlines(keepends=True)
    assert batches == [(["bin/kubeadm", "bin/a b"], "".join(lines[:2])), (["cni/bridge"], lines[2])]
    assert bare.said == ["0 of 0 MB are here, and checked"]


def test_room_is_looked_for_for_what_will_follow_too(hosts: Make, source: Path) -> None:
    first, there, lacking = FILES
    later = Checksums().command(ON_NODE[1:])
    told = hosts({"cp1": {Checksums().command(ON_NODE[:1]): [], later: [f"{there.sha256} *{ON_NODE[1]}"]}})
    ctx_host.set(next(iter(told.inventory)))
    told.state.is_executing = True
    room = next(bundle.carry._inner(source=str(source), files=[first], later=[there, lacking]))
    assert room.get_raw_value() == bundle.room_script(NODE_DIRECTORY, first.size + lacking.size)


def test_a_host_is_not_asked_for_no_pieces(hosts: Make, source: Path) -> None:
    silent = hosts({"cp1": {}})
    assert silent.plan(bundle.carry, source=str(source), files=[]) == []
    assert silent.execute(bundle.carry, source=str(source), files=[]) == []
    assert silent.ran == []


def test_a_piece_that_was_changed_on_the_node_is_carried_again(hosts: Make, source: Path) -> None:
    changed = FILES[0].model_copy(update={"sha256": "0" * 64})
    _, batches = carry(hosts({"cp1": having([changed, *FILES[1:]])}), source)
    assert batches == [(["bin/kubeadm"], f"{FILES[0].sha256}  bin/kubeadm\n")]


def test_progress_is_told_now_and_then_and_at_the_end(hosts: Make) -> None:
    told = hosts({"cp1": {}})
    ctx_host.set(next(iter(told.inventory)))
    files = sized(2_000_000, 3_000_000, 5_000_000)
    seldom, often = bundle.Progress(files, every=1e9), bundle.Progress(files, every=0)
    for file in files:
        seldom.add([file])
    assert told.said == ["10 of 10 MB are here, and checked"]
    told.said.clear()
    for file in files:
        often.add([file])
    assert told.said == [f"{done} of 10 MB are here, and checked" for done in (2, 5, 10)]


def test_an_archive_is_gone_once_it_was_sent(source: Path) -> None:
    with bundle.archive(source, FILES) as archive:
        assert archive.stat().st_size > sum(file.size for file in FILES)
    assert not archive.exists()


def test_room_that_there_is_passes_in_silence(machine: Machine) -> None:
    done = machine.sh(bundle.room_script(NODE_DIRECTORY, 1024))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.path(NODE_DIRECTORY).is_dir()


@pytest.mark.parametrize(("free", "code"), [(2047, 1), (2048, 1), (2049, 0)])
def test_room_must_be_more_than_the_pieces_need(machine: Machine, free: int, code: int) -> None:
    machine.program("df", f"printf 'Filesystem 1024-blocks Used Available\\n/dev/sda1 9 9 {free} 90%% /\\n'")
    done = machine.sh(bundle.room_script(NODE_DIRECTORY, 2048 * 1024))
    words = f"{machine.path(NODE_DIRECTORY)}: {free} KiB free, 2048 needed. Make room and run again.\n"
    assert (done.returncode, done.stderr) == (code, words if code else "")


def test_room_where_no_directory_can_be_is_refused(machine: Machine) -> None:
    machine.file(NODE_DIRECTORY, "a file in the way")
    done = machine.sh(bundle.room_script(NODE_DIRECTORY, 1))
    assert done.returncode == 1
    assert f"cannot create directory '{machine.path(NODE_DIRECTORY)}'" in done.stderr


@pytest.mark.parametrize("programs", [[], ["openssl"]])
def test_unpacking_puts_every_piece_in_its_place(machine: Machine, source: Path, programs: list[str]) -> None:
    for program in programs:
        machine.program(program)
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "old")
    machine.file(f"{NODE_DIRECTORY}/bin/other", "kept")
    machine.file(f"{NODE_DIRECTORY}.new/bin/half", "of a run that was killed")
    done = unpack(machine, packed(source, FILES))
    assert (done.returncode, done.stderr) == (0, "")
    assert left(machine) == {
        f"{NODE_DIRECTORY[1:]}/{path}": text for path, text in {**TEXTS, "bin/other": "kept"}.items()
    }


def test_unpacked_pieces_can_be_served_to_everyone_and_are_of_one_date(machine: Machine, source: Path) -> None:
    assert unpack(machine, packed(source, FILES)).returncode == 0
    for file in FILES:
        state = machine.path(f"{NODE_DIRECTORY}/{file.path}").stat()
        assert (state.st_mode & 0o7777, state.st_mtime) == (0o644, bundle.DATE)
        directory = machine.path(f"{NODE_DIRECTORY}/{file.path}").parent
        assert directory.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("programs", [[], ["openssl"]])
def test_unpacking_a_corrupted_piece_fails_and_leaves_nothing_behind(
    machine: Machine, source: Path, programs: list[str]
) -> None:
    for program in programs:
        machine.program(program)
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "old")
    done = unpack(machine, packed(source, FILES).replace(b"text of a bridge", b"text of a brIdge"))
    words = "These pieces are not as bundle.lock says. Run again to carry them anew."
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{FILES[2].sha256}  cni/bridge\n{words}\n"
    assert left(machine) == {f"{NODE_DIRECTORY[1:]}/bin/kubeadm": "old"}


def test_unpacking_a_cut_archive_fails_and_leaves_nothing_behind(machine: Machine, source: Path) -> None:
    done = unpack(machine, packed(source, FILES)[:1800])
    assert done.returncode != 0
    assert left(machine) == {}


def test_unpacking_fails_when_sums_cannot_be_told(machine: Machine, source: Path) -> None:
    machine.program("openssl", "exit 1")
    assert unpack(machine, packed(source, FILES)).returncode == 1
    assert left(machine) == {}


def test_unpacking_fails_when_a_piece_is_missing(machine: Machine, source: Path) -> None:
    done = unpack(machine, packed(source, FILES[:2]))
    assert done.returncode != 0
    assert "cni/bridge" in done.stderr
    assert left(machine) == {}


def test_unpacking_fails_when_a_piece_cannot_get_to_its_place(machine: Machine, source: Path) -> None:
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm/in/the/way")
    assert unpack(machine, packed(source, FILES)).returncode != 0


PROGRAMS = {"/usr/bin/kubeadm": FILES[0], "/opt/cni/bin/bridge": FILES[2]}


def with_programs(hosts: Make, rows: dict[str, str]) -> Hosts:
    return hosts(
        {
            "cp1": {
                Checksums().command(tuple(PROGRAMS), programs=True): [f"{sum_} *{dest}" for dest, sum_ in rows.items()]
            }
        }
    )


def test_programs_on_a_bare_host_are_all_installed(hosts: Make) -> None:
    bare = with_programs(hosts, {})
    planned = bare.plan(bundle.programs, wanted=PROGRAMS)
    assert [command.text.split()[-1] for command in planned] == list(PROGRAMS)
    assert bare.announced == [
        "install /usr/bin/kubeadm (bin/kubeadm v1)",
        "install /opt/cni/bin/bridge (cni/bridge v1)",
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
    assert drifted.announced == ["replace /usr/bin/kubeadm (bin/kubeadm v1)"]
    machine.file(f"{NODE_DIRECTORY}/bin/kubeadm", "new")
    target = machine.file("/usr/bin/kubeadm", "old")
    with target.open() as running:
        assert machine.sh(command.text).returncode == 0
        assert running.read() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o7777 == 0o755
    assert list(target.parent.iterdir()) == [target]
