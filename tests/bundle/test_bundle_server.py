"""Pieces fetched by a host from those that serve them: real nginx, real apt-helper and curl, and servers that fail."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import nginx
import pytest
import servers

from cluster.lock import File
from operations import bundle, bundle_server

HELPER = "/usr/lib/apt/apt-helper"
RANDOM = random.Random(1)
BIG = "bin/kubelet"
DATA = RANDOM.randbytes(400_000)
OTHER = DATA[::-1]
# What is said of OTHER in DATA's place.
WRONG = {"apt-helper": "Hash Sum mismatch", "curl": f"{BIG}: was thrown away, for its sha256 was not"}
TEXTS = {
    BIG: DATA,
    "cni/bridge": RANDOM.randbytes(70_000),
    "packages/debian-12/keepalived_1.2.2.7-1+b2_amd64.deb": b"a name as apt gives it, with an epoch",
    "packages/debian-12/libc6_2.36-9+deb12u14_amd64.deb": b"libc6",
    "packages/debian-12/runc_1.1.5~rc1-1~bpo12+1_amd64.deb": b"runc",
    "packages/rocky-9/repodata/repomd.xml": b"an index deeper down",
    # Keys of two repositories are often one.
    "packages/rocky-9/key-appstream.asc": b"one key",
    "packages/rocky-9/key-baseos.asc": b"one key",
    # What users add can have any name that a lock takes.
    "bin/empty": b"",
    "bin/a b": b"a space",
    "bin/a%3ab": b"a percent sign",
    "bin/a:b": b"a colon",
    "bin/a'b\"c$(touch harm)`touch harm`;&|<>*?#[x]{1,2}": b"what programs read otherwise",
    "bin/é": b"a letter that is not ASCII",
}


def pieces(*paths: str) -> list[File]:
    """These pieces, or all."""
    chosen = {path: data for path, data in TEXTS.items() if not paths or path in paths}
    return [
        File(path=path, size=len(data), sha256=sha256(data).hexdigest(), name="", version="")
        for path, data in chosen.items()
    ]


def fill(directory: Path, texts: Mapping[str, bytes]) -> Path:
    """A directory of pieces as a host has them."""
    for path, data in texts.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        os.utime(target, (bundle.DATE, bundle.DATE))
    return directory


@dataclass
class Host:
    """A host that fetches: by which tool, where to, and where pieces lie meanwhile."""

    tool: str
    directory: Path

    @property
    def target(self) -> Path:
        return self.directory / "bundle"

    @property
    def incoming(self) -> Path:
        return self.directory / "incoming"

    def part(self, path: str = BIG) -> Path:
        """Where the piece lies until it is whole."""
        return self.incoming / sha256(TEXTS[path]).hexdigest()

    def leave(self, data: bytes) -> None:
        """Have a part of BIG, as a run that was killed would leave it."""
        self.incoming.mkdir(exist_ok=True)
        self.part().write_bytes(data)

    def start(self, urls: Sequence[str], trusted: str, files: Sequence[File], impatient: bool) -> subprocess.Popen[str]:
        script = bundle_server.fetch_script(urls, str(self.target), str(self.incoming))
        for words, here in {
            # A host without apt has curl.
            HELPER: HELPER if self.tool == "apt-helper" else "/none",
            "Retries=2": "Retries=0" if impatient else "Retries=2",
            "--retry 2": "--retry 0" if impatient else "--retry 2",
            "Timeout=20": "Timeout=3" if impatient else "Timeout=20",
            "--speed-time 20": "--speed-time 3" if impatient else "--speed-time 20",
        }.items():
            assert words in script
            script = script.replace(words, here)
        # What a host may have in its environment must not matter.
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        (home / ".curlrc").write_text("insecure\nproxy = http://127.0.0.1:1\n")
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:1")
        # Nor must it that whoever runs these tests may have switched signals off, as nohup does.
        process = subprocess.Popen(
            ["env", "--default-signal", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **proxies}, cwd=home, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(trusted + bundle_server.request(files))
        process.stdin.close()
        process.stdin = None
        return process

    def fetch(
        self, urls: Sequence[str], trusted: str, files: Sequence[File] | None = None, impatient: bool = True
    ) -> tuple[int, str]:
        """Fetch pieces, or all; the exit code and what is said. Impatiently, tools do not try again by themselves."""
        process = self.start(urls, trusted, pieces() if files is None else files, impatient)
        stdout, stderr = process.communicate(timeout=60)
        assert stdout == ""
        return process.returncode, stderr

    def have(self) -> dict[str, bytes]:
        """Every file at the target."""
        found = (path for path in self.target.rglob("*") if path.is_file())
        return {str(path.relative_to(self.target)): path.read_bytes() for path in found}

    def left(self) -> list[str]:
        """Names of what lies beside the target when all is done."""
        return sorted(os.listdir(self.incoming))


@pytest.fixture(params=["apt-helper", "curl"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    (tmp_path / "host").mkdir()
    return Host(request.param, tmp_path / "host")


@pytest.fixture
def lb1(tmp_path: Path) -> Iterator[nginx.Server]:
    """A server that has every piece, in its directory `bundle`."""
    with nginx.serve(tmp_path / "lb1", fill(tmp_path / "lb1-bundle", TEXTS)) as server:
        yield server


@pytest.fixture
def lb2(tmp_path: Path) -> Iterator[nginx.Server]:
    """Another one."""
    with nginx.serve(tmp_path / "lb2", fill(tmp_path / "lb2-bundle", TEXTS)) as server:
        yield server


@pytest.fixture
def broken(tmp_path: Path, certificates: servers.Certificates) -> Iterator[servers.Server]:
    """A server of every piece that can be told to fail."""
    with servers.serve(fill(tmp_path / "broken" / "pieces", TEXTS).parent, certificates.server) as server:
        server.fault("/v2/", servers.status(200))
        yield server


def test_every_piece_arrives_with_its_bytes(host: Host, lb1: nginx.Server) -> None:
    fill(host.target, {BIG: b"of an older bundle", "bin/other": b"of somebody else"})
    assert host.fetch([lb1.url], lb1.certificate) == (0, "")
    assert host.have() == {**TEXTS, "bin/other": b"of somebody else"}
    assert host.left() == []
    assert not list(host.directory.rglob("harm"))
    # What two pieces have in common is asked for once.
    assert [row.status for row in lb1.pieces] == [200] * (len(TEXTS) - 1)
    assert lb1.programs == {{"apt-helper": "Debian APT-HTTP", "curl": "curl"}[host.tool]}


def test_pieces_can_be_read_by_everyone_and_are_of_one_date(host: Host, lb1: nginx.Server) -> None:
    assert host.fetch([lb1.url], lb1.certificate, pieces(BIG)) == (0, "")
    state = (host.target / BIG).stat()
    assert (state.st_mode & 0o7777, state.st_mtime) == (0o644, bundle.DATE)
    assert (host.target / "bin").stat().st_mode & 0o7777 == 0o755


def test_pieces_that_were_fetched_can_be_served_in_turn(host: Host, lb1: nginx.Server, tmp_path: Path) -> None:
    assert host.fetch([lb1.url], lb1.certificate) == (0, "")
    with nginx.serve(tmp_path / "lb2", host.target) as lb2:
        other = Host(host.tool, tmp_path / "other")
        other.directory.mkdir()
        assert other.fetch([lb2.url], lb2.certificate) == (0, "")
    assert other.have() == TEXTS


def test_the_second_server_is_not_asked_for_what_the_first_has_given(
    host: Host, lb1: nginx.Server, lb2: nginx.Server
) -> None:
    assert host.fetch([lb2.url, lb1.url], lb1.certificate + lb2.certificate) == (0, "")
    assert host.have() == TEXTS
    assert lb1.seen == []


def test_a_server_that_is_down_is_passed_over_and_named(host: Host, lb1: nginx.Server) -> None:
    down = f"https://127.0.0.1:{servers.dead_port()}"
    code, said = host.fetch([down, lb1.url], lb1.certificate)
    assert (code, host.have()) == (0, TEXTS)
    assert said.startswith(f"{down}:\n")
    assert {"apt-helper": "(111: Connection refused)", "curl": "Couldn't connect to server"}[host.tool] in said
    # curl is not to wait for it once more for each piece; apt by itself does not.
    assert said.count("curl: (") == (host.tool == "curl")


def test_what_one_server_lacks_the_other_gives(
    host: Host, lb1: nginx.Server, lb2: nginx.Server, tmp_path: Path
) -> None:
    (tmp_path / "lb1-bundle" / BIG).unlink()
    (tmp_path / "lb2-bundle" / "cni/bridge").unlink()
    code, said = host.fetch([lb1.url, lb2.url], lb1.certificate + lb2.certificate)
    assert (code, host.have()) == (0, TEXTS)
    assert said.startswith(f"{lb1.url}:\n")
    assert "404" in said
    assert [row.path for row in lb2.pieces] == [f"/pieces/{BIG}"]


def test_what_one_server_gives_wrong_is_fetched_from_the_other(
    host: Host, lb1: nginx.Server, lb2: nginx.Server, tmp_path: Path
) -> None:
    fill(tmp_path / "lb1-bundle", {BIG: OTHER})
    code, said = host.fetch([lb1.url, lb2.url], lb1.certificate + lb2.certificate, pieces(BIG, "cni/bridge"))
    assert (code, host.have(), host.left()) == (0, {BIG: DATA, "cni/bridge": TEXTS["cni/bridge"]}, [])
    assert WRONG[host.tool] in said
    assert [(row.path, row.range) for row in lb2.pieces] == [(f"/pieces/{BIG}", "")]


def test_what_one_server_has_begun_wrong_is_fetched_anew_from_the_other(
    host: Host, broken: servers.Server, certificates: servers.Certificates, lb1: nginx.Server
) -> None:
    fill(broken.root / "pieces", {BIG: OTHER})
    broken.fault(f"/pieces/{BIG}", servers.cut(100_000))
    code, said = host.fetch([broken.url, lb1.url], certificates.ca.read_text() + lb1.certificate, pieces(BIG))
    assert (code, host.have(), host.left()) == (0, {BIG: DATA}, [])
    assert WRONG[host.tool] in said
    assert [row.status for row in lb1.pieces] == [206, 200]


@pytest.mark.parametrize(
    "fault", [servers.cut(1000), servers.stall(1000), servers.status(503)], ids=["cut", "stall", "503"]
)
def test_a_server_that_fails_in_the_middle_is_followed_by_the_other(
    host: Host, broken: servers.Server, certificates: servers.Certificates, lb1: nginx.Server, fault: servers.Fault
) -> None:
    broken.fault(f"/pieces/{BIG}", fault)
    trusted = certificates.ca.read_text() + lb1.certificate
    code, said = host.fetch([broken.url, lb1.url], trusted, pieces(BIG))
    assert (code, host.have()) == (0, {BIG: DATA})
    assert said.startswith(f"{broken.url}:\n")
    assert [row.status for row in lb1.pieces] in ([200], [206])


def test_the_only_server_is_asked_once_more_for_the_rest_of_what_was_cut(host: Host, lb1: nginx.Server) -> None:
    lb1.stop()
    lb1.start(slowly=True)
    process = host.start([lb1.url], lb1.certificate, pieces(BIG), impatient=True)
    servers.until(lambda: host.part().exists() and host.part().stat().st_size > 50_000)
    lb1.cut()
    process.communicate(timeout=60)
    assert (process.returncode, host.have()) == (0, {BIG: DATA})
    (rest,) = lb1.pieces  # a worker that is killed logs nothing
    assert (rest.status, rest.range) == (206, f"bytes={len(DATA) - rest.sent}-")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_fetch_that_was_killed_leaves_nothing_in_place_and_is_continued(
    host: Host, lb1: nginx.Server, how: signal.Signals
) -> None:
    lb1.stop()
    lb1.start(slowly=True)
    process = host.start([lb1.url], lb1.certificate, pieces(BIG), impatient=False)
    servers.until(lambda: host.part().exists() and host.part().stat().st_size > 50_000)
    os.killpg(process.pid, how)
    process.communicate()
    servers.until(lambda: bool(lb1.pieces))
    assert list(host.have()) == []
    came = host.part().stat().st_size
    lb1.stop()
    lb1.start()
    assert host.fetch([lb1.url], lb1.certificate, pieces(BIG)) == (0, "")
    assert (host.have(), host.left()) == ({BIG: DATA}, [])
    assert lb1.pieces[1:] == [nginx.Seen("127.0.0.1", "GET", f"/pieces/{BIG}", f"bytes={came}-", 206, len(DATA) - came)]


def test_what_one_server_has_begun_another_continues(host: Host, lb1: nginx.Server) -> None:
    host.leave(DATA[:150_000])
    assert host.fetch([lb1.url], lb1.certificate, pieces(BIG)) == (0, "")
    assert host.have() == {BIG: DATA}
    assert [(row.range, row.status, row.sent) for row in lb1.pieces] == [("bytes=150000-", 206, 250_000)]


@pytest.mark.parametrize("data", [OTHER, DATA + b"more"], ids=["wrong", "too-long"])
def test_a_part_that_has_its_size_and_is_not_right_is_thrown_away(host: Host, lb1: nginx.Server, data: bytes) -> None:
    host.leave(data)
    code, said = host.fetch([lb1.url], lb1.certificate, pieces(BIG))
    assert (code, host.have(), host.left()) == (0, {BIG: DATA}, [])
    assert said == f"{BIG}: was thrown away, for its sha256 was not {sha256(DATA).hexdigest()}\n"
    assert [(row.range, row.status) for row in lb1.pieces] == [("", 200)]


def test_a_part_that_turns_out_wrong_when_it_is_whole_is_fetched_anew(host: Host, lb1: nginx.Server) -> None:
    """As a disk may hold it after its power was cut."""
    host.leave(bytes(150_000))
    code, _ = host.fetch([lb1.url], lb1.certificate, pieces(BIG))
    assert (code, host.have(), host.left()) == (0, {BIG: DATA}, [])
    assert [(row.range, row.status) for row in lb1.pieces] == [("bytes=150000-", 206), ("", 200)]


def test_a_piece_that_came_whole_before_is_not_asked_for_again(host: Host, lb1: nginx.Server) -> None:
    host.leave(DATA)
    assert host.fetch([lb1.url], lb1.certificate, pieces(BIG, "cni/bridge")) == (0, "")
    assert host.have() == {BIG: DATA, "cni/bridge": TEXTS["cni/bridge"]}
    assert [row.path for row in lb1.pieces] == ["/pieces/cni/bridge"]


def test_a_piece_that_no_server_has_is_named_and_none_gets_to_its_place(
    host: Host, lb1: nginx.Server, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "lb1-bundle/packages/rocky-9")
    code, said = host.fetch([lb1.url], lb1.certificate)
    assert code == 1
    assert said.startswith(f"{lb1.url}:\n")
    assert "404" in said
    assert said.endswith(
        "pieces that did not come: 2, such as "
        "packages/rocky-9/key-appstream.asc packages/rocky-9/repodata/repomd.xml.\n"
        "Mend what the servers say above and run again; what has come is kept.\n"
    )
    assert host.have() == {}
    fill(tmp_path / "lb1-bundle", TEXTS)
    before = len(lb1.pieces)
    assert host.fetch([lb1.url], lb1.certificate) == (0, "")
    assert host.have() == TEXTS
    assert len(lb1.pieces) - before == 2


@pytest.mark.parametrize("data", [OTHER, DATA + b"more", DATA[:1000]], ids=["other", "more", "fewer"])
def test_wrong_bytes_never_get_to_their_place(host: Host, lb1: nginx.Server, tmp_path: Path, data: bytes) -> None:
    fill(host.target, {BIG: b"of an older bundle"})
    fill(tmp_path / "lb1-bundle", {BIG: data})
    code, said = host.fetch([lb1.url], lb1.certificate, pieces(BIG))
    assert code == 1
    assert f"pieces that did not come: 1, such as {BIG}.\n" in said
    assert host.have() == {BIG: b"of an older bundle"}


def test_a_server_whose_certificate_is_not_in_the_request_is_refused(
    host: Host, lb1: nginx.Server, lb2: nginx.Server
) -> None:
    code, said = host.fetch([lb1.url], lb2.certificate, pieces(BIG))
    assert code == 1
    assert said.startswith(f"{lb1.url}:\n")
    assert "ertificate" in said
    assert (lb1.seen, host.have(), host.part().exists()) == ([], {}, False)


def test_a_server_whose_certificate_is_for_another_address_is_refused(host: Host, tmp_path: Path) -> None:
    with nginx.serve(tmp_path / "lb1", fill(tmp_path / "bundle", TEXTS), certified="127.0.0.9") as lb1:
        code, said = host.fetch([lb1.url], lb1.certificate, pieces(BIG))
        assert code == 1
        assert "ertificate" in said
        assert (lb1.seen, host.have(), host.part().exists()) == ([], {}, False)


def test_no_server_is_trusted_without_a_certificate(host: Host, lb1: nginx.Server) -> None:
    code, _ = host.fetch([lb1.url], "", pieces(BIG))
    assert (code, lb1.seen, host.have()) == (1, [], {})


def test_a_second_run_leaves_the_first_alone(host: Host, lb1: nginx.Server) -> None:
    lb1.stop()
    lb1.start(slowly=True)
    first = host.start([lb1.url], lb1.certificate, pieces(BIG), impatient=False)
    try:
        servers.until(host.part().exists)
        code, said = host.fetch([lb1.url], lb1.certificate, pieces("cni/bridge"))
        assert code == 1
        assert said == f"{host.incoming}: another run still fetches pieces. Run again when it has ended.\n"
        assert first.communicate(timeout=60) == ("", "")
    finally:
        first.kill()
    assert (first.returncode, host.have()) == (0, {BIG: DATA})


def test_a_piece_that_cannot_get_to_its_place_is_an_error_in_the_systems_words(host: Host, lb1: nginx.Server) -> None:
    fill(host.target, {f"{BIG}/in/the/way": b""})
    code, said = host.fetch([lb1.url], lb1.certificate, pieces(BIG))
    assert code == 1
    assert "cannot overwrite directory" in said
