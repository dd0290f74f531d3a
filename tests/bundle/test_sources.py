"""Which places answer for each host, asked over real connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import servers
from servers import Certificates, Server

from bundle import catalogue, sources
from bundle.catalogue import Catalogue, Source
from bundle.command import BuildError
from bundle.sources import Place, places

URL = "https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubelet"


def wanted(mirrors: dict[str, tuple[str, ...]], order: tuple[Source, ...] = ("upstream", "mirror")) -> Catalogue:
    return catalogue.load().model_copy(update={"mirrors": mirrors, "sources": order})


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said of each host."""
    said = [line.removeprefix("    bundle: ") for line in capsys.readouterr().out.splitlines()]
    return [line for line in said if not line.startswith("asking which")]


@pytest.fixture
def mirror(certificates: Certificates, trusted: Path, tmp_path: Path) -> Iterator[Server]:
    """A second trusted server."""
    with servers.serve(tmp_path, certificates.server) as running:
        yield running


def dead() -> str:
    return f"127.0.0.1:{servers.dead_port()}"


def refusal(address: str) -> str:
    return f"curl: (7) Failed to connect to 127.0.0.1 port {address.partition(':')[2]}"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("dl.k8s.io", "https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubelet"),
        ("files.m.daocloud.io/dl.k8s.io", "https://files.m.daocloud.io/dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubelet"),
        ("https://127.0.0.1:8443/dl.k8s.io/", "https://127.0.0.1:8443/dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubelet"),
        ("http://10.0.0.1", "http://10.0.0.1/release/v1.36.2/bin/linux/amd64/kubelet"),
        ("file:///srv/x", "file:///srv/x/release/v1.36.2/bin/linux/amd64/kubelet"),
    ],
)  # fmt: skip
def test_a_place_stands_in_the_hosts_place(address: str, url: str) -> None:
    assert Place("mirror", address).url(URL) == url


def test_an_upstream_that_answers_is_taken_and_its_mirrors_are_not_asked(
    server: Server, mirror: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    host = server.address
    assert places(wanted({host: (mirror.address,)}), [host]) == {host: [Place("upstream", host)]}
    assert lines(capsys) == [f"{host}: upstream answers"]
    assert [request.path for request in server.requests] == ["/v2/"]
    assert mirror.requests == []


@pytest.mark.parametrize("code", [200, 401, 404, 500])
def test_every_http_status_is_an_answer(server: Server, code: int) -> None:
    server.fault("/v2/", servers.status(code))
    assert places(wanted({}), [server.address]) == {server.address: [Place("upstream", server.address)]}


def test_mirrors_of_an_upstream_that_does_not_answer_are_asked(
    server: Server, mirror: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    host, other = dead(), dead()
    mirrors = (other, f"{mirror.address}/dl.k8s.io", f"https://{server.address}/files")
    assert places(wanted({host: mirrors}), [host]) == {
        host: [Place("mirror", f"{mirror.address}/dl.k8s.io"), Place("mirror", f"https://{server.address}/files")]
    }
    (line,) = lines(capsys)
    assert line.startswith(f"{host}: does not answer ({refusal(host)}")
    assert line.endswith(f"); its mirror {mirror.address}/dl.k8s.io does")
    assert [request.path for request in mirror.requests] == ["/dl.k8s.io/v2/"]


def test_a_host_without_any_answer_has_no_place(trusted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, mirror = dead(), "nowhere.invalid", dead()
    assert places(wanted({one: (mirror,)}), [one, two]) == {one: [], two: []}
    first, second = lines(capsys)
    assert first.startswith(f"{one}: does not answer ({refusal(one)}")
    assert f"; no mirror answers either: {mirror} ({refusal(mirror)}" in first
    assert second == f"{two}: does not answer (curl: (6) Could not resolve host: {two}); it has no mirror"


def test_mirrors_go_first_where_the_sources_say_so(
    server: Server, mirror: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    host = server.address
    order: tuple[Source, ...] = ("directory", "mirror", "upstream", "build")
    assert places(wanted({host: (mirror.address,)}, order), [host]) == {host: [Place("mirror", mirror.address)]}
    assert lines(capsys) == [f"{host}: its mirror {mirror.address} answers"]
    assert server.requests == []
    silent = dead()
    assert places(wanted({host: (silent,)}, order), [host]) == {host: [Place("upstream", host)]}
    (line,) = lines(capsys)
    assert line.startswith(f"{host}: none of its mirrors answers: {silent} ({refusal(silent)}")
    assert line.endswith("); upstream answers")


def test_without_such_sources_nobody_is_asked(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    host = server.address
    assert places(wanted({}, ("directory", "build")), [host]) == {host: []}
    assert lines(capsys) == [f"{host}: neither upstream nor a mirror is a source"]
    assert server.requests == []


def test_all_hosts_are_asked_at_once(certificates: Certificates, trusted: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        both = [stack.enter_context(servers.serve(tmp_path, certificates.server)) for _ in range(2)]
        arrived = []

        def meet(handler: servers._Handler, data: bytes | None) -> None:
            """Answer only once the other is asked too."""
            arrived.append(handler)
            servers.until(lambda: len(arrived) == 2)
            handler.answer(200, b"", {})

        for server in both:
            server.fault("/v2/", meet)
        found = places(wanted({}), [server.address for server in both])
    assert all(found.values())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("expired", "certificate has expired"), ("unknown", "unable to get local issuer certificate")],
)
def test_a_host_that_is_not_trusted_does_not_answer(
    certificates: Certificates, server: Server, kind: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with servers.serve(server.root, getattr(certificates, kind)) as bad:
        assert places(wanted({}), [bad.address]) == {bad.address: []}
    (line,) = lines(capsys)
    assert line == (f"{bad.address}: does not answer (curl: (60) SSL certificate problem: {words}); it has no mirror")


def test_a_line_of_curlrc_switches_no_check_off(certificates: Certificates, server: Server, trusted: Path) -> None:
    (trusted / ".curlrc").write_text("insecure\n")
    with servers.serve(server.root, certificates.unknown) as bad:
        assert places(wanted({}), [bad.address]) == {bad.address: []}


def test_a_directory_can_be_a_mirror(tmp_path: Path, trusted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = dead()
    (tmp_path / "with space").mkdir()
    here, none = (tmp_path / "with space").as_uri(), (tmp_path / "none").as_uri()
    assert places(wanted({host: (none, here)}), [host]) == {host: [Place("mirror", here)]}
    assert lines(capsys)[0].endswith(f"); its mirror {here} does")
    assert places(wanted({host: (none,)}), [host]) == {host: []}
    assert f"; no mirror answers either: {none} (there is no directory {tmp_path}/none)" in lines(capsys)[0]


def test_images_of_docker_io_are_asked_where_they_are(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setitem(sources.REGISTRIES, "docker.io", server.address)
    assert places(wanted({}), ["docker.io"]) == {"docker.io": [Place("upstream", "docker.io")]}
    assert [request.path for request in server.requests] == ["/v2/"]


def test_a_password_in_a_mirrors_address_is_refused_and_not_repeated(trusted: Path) -> None:
    host = dead()
    with pytest.raises(BuildError) as caught:
        places(wanted({host: ("https://me:secret@mirror.example.org/x",)}), [host])
    assert str(caught.value).startswith("mirror.example.org: its address holds a user or password")
    assert "secret" not in str(caught.value)
