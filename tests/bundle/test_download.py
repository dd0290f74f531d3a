"""Downloads from servers that fail in every way: each is made good or ends with a clear error, and none is half."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import servers
from servers import Certificates, Server

from bundle import download
from bundle.command import BuildError
from bundle.download import Outcome, Unavailable, WrongBytes, checksum, fetch, fetch_text

DATA = random.Random(1).randbytes(300_000)
RIGHT = hashlib.sha256(DATA).hexdigest()
OTHER = DATA[::-1]
HALF = 128 * 1024  # curl writes by blocks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts, and a stalled server is given up soon."""
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    monkeypatch.setattr(download, "STALLED", 1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "got" / "kubelet"


@pytest.fixture
def url(server: Server) -> str:
    (server.root / "kubelet").write_bytes(DATA)
    return f"{server.url}/kubelet"


def quiet(text: str) -> None:
    """A report that nobody reads."""


def part(target: Path) -> Path:
    return target.with_name("kubelet.part")


def left(target: Path) -> list[str]:
    """Names of what lies where the file was to be."""
    return sorted(os.listdir(target.parent)) if target.parent.exists() else []


def test_a_file_is_downloaded_and_nothing_else_is_left(url: str, target: Path) -> None:
    said: list[str] = []
    fetch(url, target, RIGHT, said.append)
    assert target.read_bytes() == DATA
    assert left(target) == ["kubelet"]
    assert said[0] == "0.0 MB"


def test_a_file_that_is_there_is_not_asked_for_again(url: str, server: Server, target: Path) -> None:
    fetch(url, target, RIGHT, quiet)
    fetch(url, target, RIGHT, quiet)
    assert len(server.requests) == 1


def test_a_damaged_file_in_its_place_is_downloaded_anew(url: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA


def test_a_cut_is_resumed_where_it_was(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.cut(1000), times=1)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", "bytes=1000-"]


def test_a_server_that_cuts_every_time_is_asked_for_the_rest_until_it_is_whole(
    url: str, server: Server, target: Path
) -> None:
    server.fault("/kubelet", servers.cut(50_000))
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", *(f"bytes={done}-" for done in range(50_000, 300_000, 50_000))]


def test_a_server_that_sends_nothing_more_is_given_up_and_what_came_is_kept(
    url: str, server: Server, target: Path
) -> None:
    part(target).parent.mkdir()
    part(target).write_bytes(DATA[:1000])
    server.fault("/kubelet", servers.cut(0))
    with pytest.raises(Unavailable) as caught:
        fetch(url, target, RIGHT, quiet)
    words = (
        f"{url}: cannot be downloaded (curl: (18) transfer closed with 299000 bytes remaining to read). "
        "If there is a proxy, set https_proxy; else name a mirror of its host in bundle.yaml (`mirrors`). "
        "What came so far is kept for the next build."
    )
    assert str(caught.value) == words
    assert server.ranges("/kubelet") == ["bytes=1000-"] * 3
    assert left(target) == ["kubelet.part"]
    server.mend()
    fetch(url, target, RIGHT, quiet)
    assert server.ranges("/kubelet")[3:] == ["bytes=1000-"]
    assert target.read_bytes() == DATA


def test_a_stall_is_noticed_and_resumed(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.stall(1000), times=1)
    said: list[str] = []
    fetch(url, target, RIGHT, said.append)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", "bytes=1000-"]
    assert "0.0 of 0.3 MB" in said
    assert any("Operation too slow" in text and text.endswith("; trying again") for text in said)


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_passing_error_of_the_server_is_tried_again(url: str, server: Server, target: Path, code: int) -> None:
    server.fault("/kubelet", servers.status(code), times=2)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA


def test_an_error_of_the_server_that_lasts_ends_the_download(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.status(500))
    with pytest.raises(Unavailable, match=r"/kubelet: cannot be downloaded \(curl: \(22\) .* error: 500\)"):
        fetch(url, target, RIGHT, quiet)
    assert len(server.requests) == 3
    assert left(target) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, r"is not there \(curl: \(22\) .* 404\)\. Check the version and platform in bundle\.yaml\.$"),
        (
            403,
            r"cannot be downloaded \(curl: \(22\) .* 403\)\. If it wants a user and password, put them into ~/\.netrc",
        ),
    ],
)
def test_a_refusal_is_not_tried_again(url: str, server: Server, target: Path, code: int, words: str) -> None:
    server.fault("/kubelet", servers.status(code))
    with pytest.raises(Unavailable, match=words):
        fetch(url, target, RIGHT, quiet)
    assert len(server.requests) == 1
    assert left(target) == []


def test_wrong_bytes_are_refused_and_not_kept(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.wrong_bytes(OTHER))
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(WrongBytes) as caught:
        fetch(url, target, RIGHT, quiet)
    assert str(caught.value) == f"{url}: has sha256 {found}, and must have {RIGHT}. Nothing of it was kept."
    assert len(server.requests) == 1
    assert left(target) == []


def test_a_piece_of_another_file_is_found_out_and_the_file_is_fetched_once_more(
    url: str, server: Server, target: Path
) -> None:
    part(target).parent.mkdir()
    part(target).write_bytes(OTHER[:1000])
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["bytes=1000-", ""]


def test_wrong_bytes_that_also_break_off_are_not_asked_for_endlessly(url: str, server: Server, target: Path) -> None:
    (server.root / "kubelet").write_bytes(OTHER)
    server.fault("/kubelet", servers.cut(200_000))
    with pytest.raises(WrongBytes, match=f"must have {RIGHT}"):
        fetch(url, target, RIGHT, quiet)
    assert server.ranges("/kubelet") == ["", "bytes=200000-", "", "bytes=200000-"]
    assert left(target) == []


@pytest.mark.parametrize(
    ("lying", "asked"),
    [(DATA, ["bytes=300000-"]), (DATA + b"more", ["bytes=300004-", ""])],
    ids=["whole", "too-long"],
)
def test_a_piece_that_the_server_has_nothing_to_add_to_is_judged_by_its_bytes(
    url: str, server: Server, target: Path, lying: bytes, asked: list[str]
) -> None:
    part(target).parent.mkdir()
    part(target).write_bytes(lying)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == asked


def test_a_server_that_cannot_resume_is_asked_for_the_whole(url: str, server: Server, target: Path) -> None:
    part(target).parent.mkdir()
    part(target).write_bytes(DATA[:1000])
    server.fault("/kubelet", servers.no_ranges)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["bytes=1000-", ""]


@pytest.mark.parametrize("sha256", [RIGHT, None], ids=["checksum", "no-checksum"])
def test_a_file_shorter_than_the_server_says_is_not_whole(
    url: str, server: Server, target: Path, sha256: str | None
) -> None:
    server.fault("/kubelet", servers.wrong_length(400_000))
    with pytest.raises(BuildError, match=r"100000 bytes remaining to read|must have"):
        fetch(url, target, sha256, quiet)
    assert not target.exists()


def test_a_file_longer_than_the_server_says_is_not_right(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.wrong_length(200_000))
    with pytest.raises(WrongBytes):
        fetch(url, target, RIGHT, quiet)
    assert left(target) == []


def test_without_a_checksum_a_file_of_no_known_length_is_refused(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.no_length(1000))
    with pytest.raises(Unavailable, match=r"1000 bytes came, and the server said nothing of how long it is"):
        fetch(url, target, None, quiet)
    assert left(target) == []


def test_with_a_checksum_no_length_is_needed(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.no_length(300_000))
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA


def test_without_a_checksum_a_cut_is_begun_anew(url: str, server: Server, target: Path) -> None:
    part(target).parent.mkdir()
    part(target).write_bytes(b"of an earlier version")
    server.fault("/kubelet", servers.cut(1000), times=1)
    fetch(url, target, None, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", ""]


def test_without_a_checksum_nothing_is_left_of_a_download_that_failed(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.cut(1000))
    with pytest.raises(Unavailable, match="299000 bytes remaining"):
        fetch(url, target, None, quiet)
    assert left(target) == []


def test_brackets_in_an_address_are_no_pattern(server: Server, target: Path) -> None:
    (server.root / "kubelet[1-2]{a,b}").write_bytes(DATA)
    fetch(f"{server.url}/kubelet[1-2]{{a,b}}", target, RIGHT, quiet)
    assert target.read_bytes() == DATA


def test_a_redirect_is_followed(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.redirect(f"{server.url}/release"))
    (server.root / "release").write_bytes(DATA)
    server.fault("/release", servers.cut(1000), times=1)
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/release") == ["", "bytes=1000-"]


def test_a_redirect_to_plain_http_is_not_followed(url: str, server: Server, target: Path) -> None:
    with servers.serve(server.root, None) as plain:
        server.fault("/kubelet", servers.redirect(f"{plain.url}/kubelet"))
        with pytest.raises(Unavailable, match=r'"http".*It leads to an address without TLS, which is not followed'):
            fetch(url, target, RIGHT, quiet)
        assert plain.requests == []
    assert left(target) == []


def test_plain_http_is_used_where_the_address_says_so(url: str, server: Server, target: Path) -> None:
    with servers.serve(server.root, None) as plain:
        plain.fault("/kubelet", servers.redirect("/release"))
        (server.root / "release").write_bytes(DATA)
        fetch(f"{plain.url}/kubelet", target, RIGHT, quiet)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("kind", "words"),
    [("expired", "certificate has expired"), ("unknown", "unable to get local issuer certificate")],
)
def test_a_server_that_is_not_trusted_gives_nothing(
    certificates: Certificates, url: str, server: Server, target: Path, kind: str, words: str
) -> None:
    with (
        servers.serve(server.root, getattr(certificates, kind)) as bad,
        pytest.raises(Unavailable, match=rf"\(60\) .*{words}\)\. .* name a file with that CA in CURL_CA_BUNDLE\.$"),
    ):
        fetch(f"{bad.url}/kubelet", target, RIGHT, quiet)
    assert bad.requests == []
    assert left(target) == []


def test_a_line_of_curlrc_switches_no_check_off(
    certificates: Certificates, server: Server, url: str, target: Path, trusted: Path
) -> None:
    (trusted / ".curlrc").write_text("insecure\n")
    with (
        servers.serve(server.root, certificates.unknown) as bad,
        pytest.raises(Unavailable, match="unable to get local issuer certificate"),
    ):
        fetch(f"{bad.url}/kubelet", target, RIGHT, quiet)


def test_a_password_is_taken_from_netrc(url: str, server: Server, target: Path, trusted: Path) -> None:
    (trusted / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    fetch(url, target, RIGHT, quiet)
    assert [request.authorization for request in server.requests] == ["Basic bWU6c2VjcmV0"]


def test_a_password_in_the_address_is_refused_and_not_repeated(target: Path) -> None:
    with pytest.raises(BuildError) as caught:
        fetch("https://me:secret@files.example.org/kubelet", target, RIGHT, quiet)
    assert str(caught.value).startswith("files.example.org: its address holds a user or password")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_with_what_to_do(target: Path, trusted: Path) -> None:
    port = servers.dead_port()
    with pytest.raises(Unavailable, match=rf"curl: \(7\) Failed to connect to 127\.0\.0\.1 port {port}.*https_proxy"):
        fetch(f"https://127.0.0.1:{port}/kubelet", target, RIGHT, quiet)


def test_the_proxy_of_the_environment_is_used(
    url: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = servers.dead_port()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(Unavailable, match=rf"Failed to connect to 127\.0\.0\.1 port {port}"):
        fetch(url, target, RIGHT, quiet)
    assert server.requests == []


@pytest.mark.parametrize("sha256", [RIGHT, None], ids=["checksum", "no-checksum"])
def test_a_file_of_this_machine_is_copied(tmp_path: Path, target: Path, sha256: str | None) -> None:
    (tmp_path / "a [1] b").write_bytes(DATA)
    fetch((tmp_path / "a [1] b").as_uri(), target, sha256, quiet)
    assert target.read_bytes() == DATA
    with pytest.raises(Unavailable, match=r"/none: is not there \(curl: \(37\)"):
        fetch((tmp_path / "none").as_uri(), target, sha256 and "0" * 64, quiet)


def test_other_kinds_of_address_are_refused(target: Path) -> None:
    with pytest.raises(BuildError, match=r"^ftp://x/y: is no address that files are fetched from"):
        fetch("ftp://x/y", target, RIGHT, quiet)


def test_a_machine_without_curl_is_told(url: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildError, match=r"^curl, .* is not installed"):
        fetch(url, target, RIGHT, quiet)


def killed(url: str, target: Path, whom: Callable[[int], None]) -> None:
    """Download in a process group of its own that is killed once some bytes are there; the server stalls there."""
    code = f"from bundle.download import fetch; from pathlib import Path; fetch({url!r}, Path({str(target)!r}), "
    code += f"{RIGHT!r}, print)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL)
    servers.until(lambda: part(target).exists() and part(target).stat().st_size == HALF)
    whom(process.pid)
    process.wait()


def test_a_build_that_was_killed_is_continued(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.stall(HALF), times=1)
    killed(url, target, lambda pid: os.killpg(pid, signal.SIGKILL))
    assert left(target) == ["kubelet.part"]
    fetch(url, target, RIGHT, quiet)
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", f"bytes={HALF}-"]


def test_a_curl_that_outlives_its_build_is_waited_for(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.stall(HALF), times=1)
    killed(url, target, lambda pid: os.kill(pid, signal.SIGKILL))
    said: list[str] = []

    def report(text: str) -> None:
        said.append(text)
        server.over.set()  # the stalled connection ends, and its curl with it

    fetch(url, target, RIGHT, report)
    assert said[0] == "waiting for another build that is downloading it"
    assert target.read_bytes() == DATA
    assert server.ranges("/kubelet") == ["", f"bytes={HALF}-"]


@pytest.mark.parametrize(
    ("sha256", "asked"),
    [(RIGHT, ["", f"bytes={HALF}-"]), (None, ["", "", "", ""])],
    ids=["checksum", "no-checksum"],
)
def test_builds_at_once_download_a_file_one_after_the_other(
    url: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None, asked: list[str]
) -> None:
    monkeypatch.setattr(download, "STALLED", 60)
    server.fault("/kubelet", servers.stall(HALF), times=1)
    waiting = threading.Semaphore(0)

    def report(text: str) -> None:
        if text == "waiting for another build that is downloading it":
            waiting.release()

    with ThreadPoolExecutor() as pool:
        builds = [pool.submit(fetch, url, target, sha256, report) for _ in range(3)]
        for _ in range(2):
            assert waiting.acquire(timeout=30)
        server.over.set()  # the first is cut, and goes on
        for build in builds:
            build.result()
    assert target.read_bytes() == DATA
    assert left(target) == ["kubelet"]
    assert server.ranges("/kubelet") == asked, "with a checksum, the others take what the first has made"


def test_an_interrupted_download_leaves_no_curl_behind(url: str, server: Server, target: Path) -> None:
    server.fault("/kubelet", servers.stall(HALF), times=1)

    def interrupt(text: str) -> None:
        if text.startswith("0.1 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, target, RIGHT, interrupt)
    said: list[str] = []
    fetch(url, target, RIGHT, said.append)
    assert not any(text.startswith("waiting") for text in said)
    assert server.ranges("/kubelet") == ["", f"bytes={HALF}-"]


@pytest.mark.parametrize("code", [23, -9], ids=["disk", "signal"])
def test_a_fault_of_this_machine_is_not_the_places(code: int) -> None:
    said = "curl: (23) Failure writing output to destination"
    found = download.error("https://x/y", Outcome(code, said), Path("/cache/y.part"))
    assert not isinstance(found, Unavailable)
    words = {
        23: f"/cache/y.part: cannot be written: {said}. Make room there, or set XDG_CACHE_HOME.",
        -9: "https://x/y: curl was ended by signal 9. Run the build again.",
    }
    assert str(found) == words[code]


def test_a_small_file_is_read_as_text(server: Server, url: str) -> None:
    (server.root / "sums").write_text("text\n")
    assert fetch_text(f"{server.url}/sums") == "text\n"


A, B = "a" * 64, "b" * 64
CHARTS = """\
apiVersion: v1
entries:
  x:
  - {name: x, version: 2.0.0, digest: %s, urls: [y.tgz]}
  - name: x
    version: 1.0.0
    digest: %s
    urls:
    - https://charts.test/x.tgz
"""


@pytest.mark.parametrize(
    "text",
    [
        A, f"{A}\n", f" {A.upper()} \r\n", f"{A}  x.tgz", f"{A} *x.tgz\n", f"{B}  y.tgz\n{A}  x.tgz\n",
        f"{A}  ./x.tgz\r\n", f"{A}  dist/linux/x.tgz\n{B}  x.tgz.asc\n", f"SHA256 (x.tgz) = {A}\nSHA256 (y) = {B}\n",
        f"{A}  x.tgz\n{A}  x.tgz\n", CHARTS % (B, A),
    ],
)  # fmt: skip
def test_a_checksum_is_read_in_every_form(text: str) -> None:
    assert checksum(text, "x.tgz") == A


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", "no"),
        ("<html>Please log in</html>", "no"),
        (f"{A}  y.tgz\n", "no"),
        (f"{A}  x.tgz.asc\n", "no"),
        (f"{A[1:]}  x.tgz\n", "no"),
        (f"MD5 (x.tgz) = {A}\n", "no"),
        (f"{A}  a/x.tgz\n{B}  b/x.tgz\n", "2"),
        (CHARTS % (B, A[1:]), "no"),
        (CHARTS.replace("x.tgz", "y.tgz") % (B, A), "no"),
        ("entries:\n  x: {y: z}\n", "no"),
        ("entries:\n- [\n", "no"),
        ("entries:\n", "no"),
    ],
)
def test_a_checksum_that_is_not_clear_is_none(text: str, number: str) -> None:
    with pytest.raises(Unavailable, match=rf"^the checksums hold {number} sha256 of x\.tgz\."):
        checksum(text, "x.tgz")
