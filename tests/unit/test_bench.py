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
import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyinfra.api import Config, Inventory, QuoteString, State, StringCommand
from pyinfra.connectors.util import make_unix_command

from bench import answers, bundle, common, hosts, link, stages, wire
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


def figures(run: str, number: int, seconds: float, trips: dict[str, int], parallel: int = 40) -> hosts.Figures:
    commands = {name: number // 2 for name, number in trips.items()}
    return hosts.Figures(run, number, seconds, 1.5, 85.0, commands, dict.fromkeys(trips, 3), trips, parallel, 4.0)


def test_hosts_of_the_benchmark_are_many_and_none_is_another() -> None:
    groups = hosts.groups(500)
    assert [len(members) for members in groups.values()] == [2, 3, 495]
    members = {name: address for group in groups.values() for name, address in group.items()}
    assert len(members) == len({ip_address(address) for address in members.values()}) == 500
    assert hosts.SETTINGS["vip"] not in members.values()


def test_the_floor_is_all_round_trips_in_rows_or_those_of_one_host() -> None:
    assert hosts.floor([100] * 500, 40) == pytest.approx(0.02 * 100 * 500 / 40)
    assert hosts.floor([100, 100, 900], 40) == pytest.approx(0.02 * 900)


def test_the_report_of_hosts_has_each_run_and_what_a_host_more_costs() -> None:
    few = figures("no-change run", 10, 8.0, {"lb1": 80, "cp1": 150, "w1": 100, "w2": 110})
    many = figures("no-change run", 100, 26.0, {"lb1": 80, "cp1": 150, "w1": 100, "w2": 110})
    text = hosts.report([few, many], "python3 bench/hosts.py", "tc netem", 0.4)
    assert (
        "| no-change run | 10 | 8.0 | 1.5 | 85 | 52.5 | 75 | 3 | 105 | 150 | 40 | 3.0 | 2.7 | no | 4.0 | 2.0 |" in text
    )
    assert "A host more costs a no-change run: 0.200 s and 0.000 CPU seconds between 10 and 100 hosts." in text
    assert "20 ms late, by tc netem" in text


def test_hosts_are_asked_as_many_at_a_time_as_pyinfra_asks_them() -> None:
    for number in (1, 30, 500):
        state = State(Inventory(([f"w{each}" for each in range(number)], {})), Config())
        assert hosts.parallel(number) == state.config.PARALLEL


def kept(*rows: tuple[str, str, str, str, str, int]) -> answers.Answers:
    return answers.Answers([json.dumps(row) for row in rows])


def test_an_answer_is_of_one_host_command_and_standard_input() -> None:
    name = ("w1", "uname -n", "", "w1\n", "", 0)
    known = kept(("w1", "cat", "a", "1\n", "", 0), ("w1", "cat", "b", "", "no\n", 1), name)
    assert known.of("w1", "cat", "a\n") == ("1\n", "", 0)  # with the end of line that pyinfra adds
    assert known.of("w1", "cat", "b\n") == ("", "no\n", 1)
    assert known.takes_input("w1", "cat") and not known.takes_input("w1", "uname -n")
    assert known.of("w1", "cat", "c\n") is known.of("w1", "cat") is known.of("w2", "uname -n") is None


def test_a_clock_tells_the_time_of_now() -> None:
    before = time.time()
    found = kept(("w1", answers.CLOCK, "", "1.0\n", "", 0)).of("w1", answers.CLOCK)
    assert found and before - 1 < float(found[0]) < time.time() + 1


@pytest.mark.parametrize("text", ["uname -n", "echo 'a b' \"$c\"", "x=1; test -e 'it'\"'\"'s'"])
@pytest.mark.parametrize("sudo", [False, True])
def test_a_command_is_found_in_what_ssh_is_given(text: str, sudo: bool) -> None:
    sent = make_unix_command(StringCommand("sh", "-c", QuoteString(text)), _sudo=sudo).get_raw_value()
    assert answers.unwrapped(sent) == answers.unwrapped(make_unix_command(StringCommand(text)).get_raw_value()) == text


def test_the_answers_of_pretended_machines_are_kept(tmp_path: Path) -> None:
    """As an inventory has it; `@fake` is changed for a process, hence another one."""
    script = f"""
from pathlib import Path
from types import SimpleNamespace
from tests.plan.runs import make_bundle, make_site
from tests.plan.fake_nodes import install
from bench.answers import keep
here = Path({str(tmp_path)!r})
make_site(here / "site", make_bundle(here / "bundle"))
install(here / "site")
keep(here / "answers")
from pyinfra.connectors.fake import FakeConnector
for name in ("w1", "cp1"):
    FakeConnector(SimpleNamespace(), SimpleNamespace(name=name, data={{}})).run_shell_command("uname -n")
"""
    subprocess.run([sys.executable, "-c", script], cwd=common.ROOT, check=True)
    known = answers.Answers((tmp_path / "answers").read_text().splitlines())
    assert known.of("w1", "uname -n") == known.of("cp1", "uname -n") == ("debian\n", "", 0)


def test_a_link_sends_late_one_way_alone() -> None:
    (near, ours), (far, theirs) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    for each in (near, far):
        each.setblocking(False)
    ends = (near.fileno(), far.fileno())
    relay = [sys.executable, "-c", f"from bench import link; link.relay{ends}"]
    process = subprocess.Popen(relay, cwd=common.ROOT, pass_fds=ends)
    try:
        begun = time.monotonic()
        ours.send(b"asked")
        assert theirs.recv(99) == b"asked"
        assert time.monotonic() - begun >= link.DELAY
        theirs.send(b"answered")
        assert ours.recv(99) == b"answered"
    finally:
        process.kill()
        process.wait()
