"""The benchmarks' own parts: what is read from pyinfra's words, archives, the stand-in of a next release, the table."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import bundle, common, stages, wire
from bench.common import Row
from bundle import assemble, oci, sbom, signature
from bundle.compare import difference
from bundle.verify import read_lock, verify

PROXY, PAUSE = "registry.k8s.io/kube-proxy:v1.36.2", "registry.k8s.io/pause:3.10.2"


def row(ours: float, theirs: float, most: float | None = None, least: float | None = None) -> Row:
    return Row("images", ours, "docker save", theirs, "MB", most, least)


def test_seconds_of_operations_are_from_one_announcement_to_the_next() -> None:
    operations = common.Operations()
    for now, line in enumerate(
        (
            "--> Connecting to hosts...\n",
            "--> Starting operation: Distribute | Carry the bundle\n",
            "    [lb1] 312 of 594 MB are here, and checked\n",
            "--> Starting operation: Distribute | Install nginx\n",
            "--> Starting operation: Distribute | Carry the bundle\n",
            "\n",
            "--> Results:\n",
            "    Grand total\n",
        )
    ):
        operations.line(line, float(now * now))
    assert operations.seconds == {"Distribute | Carry the bundle": 8.0 + 20.0, "Distribute | Install nginx": 7.0}


def test_a_stage_adds_up_its_layers_and_what_installs_packages() -> None:
    stage = stages.Stage("deploy", operations={
        "Cluster | Distribute | Carry the bundle": 20.0, "Cluster | Distribute | Install nginx": 2.0,
        "Cluster | Runtime | Install containerd and what kubelet calls": 3.0, "Cluster | Runtime | Run containerd": 1.0,
    })  # fmt: skip
    assert stage.layers == {"Distribute": 22.0, "Runtime": 4.0}
    assert stage.installs == 5.0


def test_a_command_is_shown_and_timed(capfd: pytest.CaptureFixture[str]) -> None:
    script = "print('--> Starting operation: A'); print('--> Results:')"
    seconds, operations = common.timed("a run", [sys.executable, "-c", script])
    assert seconds > operations["A"] >= 0
    assert "==> a run\n--> Starting operation: A\n--> Results:\n" in capfd.readouterr().out


def test_a_command_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="error: a run failed with 3; its words are above"):
        common.timed("a run", [sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(
    ("measured", "goal", "met"),
    [
        (row(60, 100, most=0.6), "at most 0.6", "yes"),
        (row(61, 100, most=0.6), "at most 0.6", "no"),
        (row(80, 100, least=0.8), "at least 0.8", "yes"),
        (row(79, 100, least=0.8), "at least 0.8", "no"),
        (row(79, 100), "", ""),
    ],
)
def test_a_goal_is_for_the_ratio(measured: Row, goal: str, met: str) -> None:
    assert (measured.goal, measured.met) == (goal, met)


def test_the_report_has_a_line_for_each_figure_and_says_where_it_is_from() -> None:
    text = bundle.report([row(189.64, 345.2, most=0.6), row(2, 1)], "python3 bench/bundle.py --engines")
    assert "| images | 189.6 MB | docker save | 345.2 MB | 0.55 | at most 0.6 | yes |\n" in text
    assert "| images | 2.0 MB | docker save | 1.0 MB | 2.00 | none | - |\n" in text
    assert re.search(
        rf"^`python3 bench/bundle.py --engines` on \d{{4}}-\d\d-\d\d: {re.escape(common.machine())}", text, re.M
    )


def test_every_way_has_its_turn_in_each_round_and_the_median_counts() -> None:
    turns: list[str] = []

    def way(name: str, seconds: list[float]) -> float:
        turns.append(name)
        return seconds.pop()

    ours, theirs = [9.0, 1.0, 2.0], [5.0, 5.0, 1.0]
    assert wire.rounds({"a": lambda: way("a", ours), "b": lambda: way("b", theirs)}) == {"a": 2.0, "b": 5.0}
    assert turns == ["a", "b"] * 3


def docker_archive(path: Path, name: str, files: Mapping[str, bytes]) -> Path:
    rows = [{"Config": "c.json", "RepoTags": [name], "Layers": [each for each in files if each.endswith(".tar")]}]
    with tarfile.open(path, "w") as archive:
        for member, data in {**files, "manifest.json": json.dumps(rows).encode(), "repositories": b"{}"}.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_joined_archives_have_shared_layers_once_and_all_images(tmp_path: Path) -> None:
    first = docker_archive(tmp_path / "0.tar", PROXY, {"base.tar": b"base", "proxy.tar": b"proxy"})
    second = docker_archive(tmp_path / "1.tar", PAUSE, {"base.tar": b"base", "pause.tar": b"pause"})
    bundle.join([first, second], tmp_path / "whole.tar")
    with tarfile.open(tmp_path / "whole.tar") as whole:
        assert whole.getnames() == ["base.tar", "proxy.tar", "pause.tar", "manifest.json"]
        data = {name: content.read() for name in whole.getnames() if (content := whole.extractfile(name))}
    assert (data["base.tar"], data["proxy.tar"], data["pause.tar"]) == (b"base", b"proxy", b"pause")
    assert [image["RepoTags"] for image in json.loads(data["manifest.json"])] == [[PROXY], [PAUSE]]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle with three programs, pause, and kube-proxy that stands on another layer."""
    directory = tmp_path / "bundle"
    for path in (*wire.PROGRAMS, "bin/crictl"):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(path.encode() * 100)
    layout = oci.Layout(directory / "images")
    layers = {name: layout.layer({f"/{name}": directory / "bin" / name}) for name in ("crictl", "kubelet")}
    layout.image(PROXY, "linux/amd64", [layers["crictl"], layers["kubelet"]], [], "")
    layout.image(PAUSE, "linux/amd64", [layers["crictl"]], [], "")
    layout.finish()
    contents = assemble.Contents("linux/amd64", "v1.36.2", {}, {}, {}, {})
    (directory / signature.LOCK).write_text(assemble.described(directory, contents).model_dump_json())
    assert verify(directory) == []
    return directory


def test_the_stand_in_of_a_next_release_is_a_whole_bundle_that_differs_where_kubernetes_does(
    made: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    target = tmp_path / "next"
    new, old = wire.next_release(made, target), read_lock(made)
    assert verify(target) == [] and new == read_lock(target)
    assert {path: path.read_bytes() for path in before} == before
    comparison = difference(old, new)
    replaced = {file.path: file.size for _, file in comparison.changed if file.path.startswith("bin/")}
    assert replaced == {path: len(path) * 100 for path in wire.PROGRAMS}
    assert [change.name for change in comparison.images] == ["registry.k8s.io/kube-proxy"]
    proxies = [next(image for image in lock.images if image.name == PROXY) for lock in (old, new)]
    assert [first == second for first, second in zip(proxies[0].blobs, proxies[1].blobs, strict=True)] == [
        False, False, True, False,  # manifest, config, the shared layer, its own
    ]  # fmt: skip
    assert (target / "bin/crictl").stat().st_ino == (made / "bin/crictl").stat().st_ino


def test_what_a_next_release_carries_is_counted_by_role(made: Path, tmp_path: Path) -> None:
    old, new = read_lock(made), wire.next_release(made, tmp_path / "next")
    carried = difference(old, new).carried
    beside_pieces = sum(file.size for file in new.files if file.path in ("images/index.json", sbom.NAME))
    assert wire.part_carried(old, new, ["control_plane"]) == carried - beside_pieces
    assert wire.part_carried(old, new, ["load_balancer"]) == 0


def test_what_is_sent_over_plain_tcp_is_written_whole(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    data, target = bytes(range(256)) * 20_000, tmp_path / "received"
    words = ["perl", "-e", wire.RECEIVE, "127.0.0.1", str(port), str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None and receiver.stdout.readline() == b"ready\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sender:
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(1) == b""
            assert target.read_bytes() == data
    assert receiver.returncode == 0


def test_blobs_lie_where_a_registry_looks_for_them(tmp_path: Path) -> None:
    blobs, digest = tmp_path / "blobs", hashlib.sha256(b"layer").hexdigest()
    blobs.mkdir()
    (blobs / digest).write_bytes(b"layer")
    subprocess.run(["sh", "-c", wire.storage_script(str(blobs), str(tmp_path / "data"))], check=True)
    root = tmp_path / "data/docker/registry/v2"
    assert (root / f"blobs/sha256/{digest[:2]}/{digest}/data").read_bytes() == b"layer"
    assert (root / f"repositories/bundle/_layers/sha256/{digest}/link").read_text() == f"sha256:{digest}"
