"""Where each component's programs come from: real servers as upstream and mirror, and a pretended Go."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import servers
from servers import Certificates, Server

from bundle import cache, catalogue, components, download, gobuild, sources
from bundle.catalogue import Catalogue, Component, Download, Module, Source
from bundle.command import BuildError, run
from bundle.components import Program
from bundle.download import WrongBytes

ORDER: tuple[Source, ...] = ("directory", "upstream", "mirror", "build")
KUBE = ["kubeadm", "kubelet"]
GO = "go1.26.6 linux/amd64"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(members: Mapping[str, bytes]) -> bytes:
    """A .tgz of files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return target.getvalue()


RELEASE = "release/v1/bin/linux/amd64"
TOOLS = packed({"./crictl": b"the crictl", "LICENSE": b"text", "critest-v2/critest": b"the critest"})


def publish(root: Path) -> None:
    """What upstream has: programs as files with a checksum each, and an archive with checksums of all in one file."""
    for program in KUBE:
        path = root / RELEASE / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"the {program}".encode())
        path.with_name(f"{program}.sha256").write_text(sha256(path.read_bytes()))
    (root / "tools").mkdir()
    (root / "tools/tools-v2.tgz").write_bytes(TOOLS)
    (root / "tools/SUMS").write_text(f"{'0' * 64}  other.tgz\n{sha256(TOOLS)}  tools-v2.tgz\n")


def made_of(host: str, order: tuple[Source, ...] = ORDER, directory: str = "", *mirrors: str) -> Catalogue:
    """A small catalogue whose upstream is a server of ours."""
    kubernetes = Component(
        version="v1",
        licence="Apache-2.0",
        download=Download(
            url=f"https://{host}/release/{{version}}/bin/{{os}}/{{arch}}/{{program}}",
            checksum="{url}.sha256",
            programs={"kubeadm": "", "kubelet": ""},
        ),
        build=(Module(module="k8s", packages={name: f"k8s/cmd/{name}" for name in (*KUBE, "kube-proxy")}),),
    )
    tools = Component(
        version="v2",
        licence="MIT",
        download=Download(
            url=f"https://{host}/tools/tools-{{version}}.tgz",
            checksum=f"https://{host}/tools/SUMS",
            programs={"crictl": "crictl", "critest": "critest-{version}/critest"},
        ),
    )
    update = {
        "components": {"kubernetes": kubernetes, "tools": tools},
        "sources": order,
        "directory": directory,
        "mirrors": {host: mirrors},
    }
    return catalogue.load().model_copy(update=update)


@dataclass
class Go:
    """What was built, in place of Go."""

    built: list[str] = field(default_factory=list)
    suffix: str = ""
    error: str = ""


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no pauses."""
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    monkeypatch.setattr(download, "PAUSES", ())
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    pretended = Go()

    def build(go: Path, name: str, module: Module, platform: str) -> Path:
        if pretended.error:
            raise BuildError(pretended.error)
        (tmp_path / "built").mkdir(exist_ok=True)
        for program in module.packages:
            (tmp_path / "built" / program).write_text(f"built {program}{pretended.suffix}")
            pretended.built.append(f"{name} {module.module}@{module.version} {platform}")
        return tmp_path / "built"

    monkeypatch.setattr(gobuild, "build", build)
    monkeypatch.setattr(gobuild, "toolchain", lambda least: Path("go"))
    monkeypatch.setattr(gobuild, "release", lambda go, module: f"go{module.go or '1.26.6'}")
    return pretended


@pytest.fixture
def upstream(server: Server) -> Server:
    publish(server.root)
    return server


@pytest.fixture
def mirror(certificates: Certificates, trusted: Path, tmp_path: Path) -> Iterator[Server]:
    """A second server with the same files."""
    (tmp_path / "mirror").mkdir()
    publish(tmp_path / "mirror")
    with servers.serve(tmp_path / "mirror", certificates.server) as running:
        yield running


@pytest.fixture
def dead(trusted: Path) -> str:
    """An upstream that does not answer."""
    return f"127.0.0.1:{servers.dead_port()}"


def obtain(made: Catalogue, wanted: list[str], pins: Mapping[str, str] | None = None) -> dict[str, Program]:
    found = sources.places(made, components.hosts(made, wanted))
    return components.obtain(made, found, pins or {}, wanted)


def lines(capsys: pytest.CaptureFixture[str], name: str) -> list[str]:
    """Lines that were said of a component."""
    said = [line.removeprefix("    bundle: ") for line in capsys.readouterr().out.splitlines()]
    return [line for line in said if line.startswith(f"{name} ")]


def texts(programs: dict[str, Program]) -> dict[str, str]:
    return {name: program.path.read_text() for name, program in programs.items()}


def pins_of(programs: dict[str, Program]) -> dict[str, str]:
    """What a lock would pin."""
    return {program.source: sha256(program.path.read_bytes()) for program in programs.values()}


def test_programs_are_files_of_upstream(upstream: Server, capsys: pytest.CaptureFixture[str], go: Go) -> None:
    host = upstream.address
    got = obtain(made_of(host), KUBE)
    assert texts(got) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet"}
    assert {(name, each.version, each.source, each.licence) for name, each in got.items()} == {
        (name, "v1", f"https://{host}/{RELEASE}/{name}", "Apache-2.0") for name in KUBE
    }
    assert all(each.path.stat().st_mode & 0o777 == 0o755 for each in got.values())
    assert lines(capsys, "kubernetes") == [f"kubernetes v1: from {host}"]
    assert go.built == []


def test_programs_are_members_of_upstreams_archive(upstream: Server, capsys: pytest.CaptureFixture[str]) -> None:
    got = obtain(made_of(upstream.address), ["crictl", "critest"])
    assert texts(got) == {"crictl": "the crictl", "critest": "the critest"}
    archive = f"https://{upstream.address}/tools/tools-v2.tgz"
    assert {each.source for each in got.values()} == {f"{archive}#crictl", f"{archive}#critest-v2/critest"}
    assert all(each.path.stat().st_mode & 0o777 == 0o755 for each in got.values())
    assert upstream.ranges("/tools/tools-v2.tgz") == [""], "one archive is downloaded once"
    assert lines(capsys, "tools") == [f"tools v2: from {upstream.address}"]


def test_a_silent_upstreams_mirror_is_taken_and_the_source_stays_upstreams(
    dead: str, mirror: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    got = obtain(made_of(dead, ORDER, "", mirror.address), [*KUBE, "crictl"])
    assert texts(got) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet", "crictl": "the crictl"}
    assert got["kubelet"].source == f"https://{dead}/{RELEASE}/kubelet"
    assert got["crictl"].source == f"https://{dead}/tools/tools-v2.tgz#crictl"
    said = capsys.readouterr().out
    assert f"kubernetes v1: from its mirror {mirror.address}, for {dead} does not answer\n" in said
    unchecked = "checked by the mirror's own checksum, for upstream's cannot be asked; bundle.lock pins it\n"
    assert f"https://{mirror.address}/{RELEASE}/kubelet: {unchecked}" in said


def test_without_any_answer_it_is_built(dead: str, go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    got = obtain(made_of(dead), KUBE)
    assert texts(got) == {"kubeadm": "built kubeadm", "kubelet": "built kubelet"}
    assert {each.source for each in got.values()} == {f"go:k8s/cmd/{name}@v1 {GO}" for name in KUBE}
    assert go.built == ["kubeadm k8s@v1 linux/amd64", "kubelet k8s@v1 linux/amd64"]
    assert lines(capsys, "kubernetes") == [f"kubernetes v1: built from source, for {dead} does not answer"]


def test_a_build_of_another_version_is_said_and_kept_as_such(dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_of(dead)
    module = Module(module="old", version="v0.9", packages={"kubelet": "old/kubelet"})
    kubernetes = made.components["kubernetes"].model_copy(update={"build": (module,)})
    got = obtain(made.model_copy(update={"components": {"kubernetes": kubernetes}}), ["kubelet"])
    assert (got["kubelet"].version, got["kubelet"].source) == ("v0.9", f"go:old/kubelet@v0.9 {GO}")
    assert lines(capsys, "kubernetes") == [f"kubernetes v1: built from source as v0.9, for {dead} does not answer"]


def test_a_build_by_a_release_of_go_that_is_named_says_so_in_its_source(dead: str) -> None:
    made = made_of(dead)
    module = Module(module="old", pseudo={"v1": "v0.0.0-20200824191128-ae9734ed278b"}, packages={"kubelet": "old/it"})
    kubernetes = Component(version="v1", licence="MIT", go="1.16.15", build=(module,))
    got = obtain(made.model_copy(update={"components": {"kubernetes": kubernetes}}), ["kubelet"])
    source = "go:old/it@v0.0.0-20200824191128-ae9734ed278b go1.16.15 linux/amd64"
    assert (got["kubelet"].version, got["kubelet"].source) == ("v1", source)


CHART = Component(
    version="v1.2.3",
    licence="MIT",
    download=Download(
        url="https://HOST/charts/shop-{number}.tgz", checksum="https://HOST/charts/index.yaml", programs={"chart": ""}
    ),
    build=(Module(module="example.org/shop", charts={"chart": "install/chart"}),),
)


def with_chart(host: str) -> Catalogue:
    """A catalogue with a chart, which a repository of charts has or else a Go module."""
    download = {
        key: each.replace("HOST", host) for key, each in CHART.model_dump()["download"].items() if key != "programs"
    }
    assert CHART.download is not None
    changed = CHART.model_copy(update={"download": CHART.download.model_copy(update=download)})
    return made_of(host).model_copy(update={"components": {"shop": changed}})


def test_a_chart_is_a_file_of_its_repository_checked_by_the_index(
    upstream: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (upstream.root / "charts").mkdir()
    (upstream.root / "charts/shop-1.2.3.tgz").write_bytes(TOOLS)
    row = f"- {{version: 1.2.3, digest: {sha256(TOOLS)}, urls: [shop-1.2.3.tgz]}}\n"
    (upstream.root / "charts/index.yaml").write_text(f"apiVersion: v1\nentries:\n  shop:\n  {row}")
    found = obtain(with_chart(upstream.address), ["chart"])["chart"]
    assert found.path.read_bytes() == TOOLS
    assert (found.version, found.source) == ("v1.2.3", f"https://{upstream.address}/charts/shop-1.2.3.tgz")
    assert lines(capsys, "shop") == [f"shop v1.2.3: from {upstream.address}"]


def test_without_its_repository_a_chart_is_a_directory_of_its_module(
    dead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source/install/chart").mkdir(parents=True)
    monkeypatch.setattr(gobuild, "source", lambda go, module: tmp_path / "source")
    found = obtain(with_chart(dead), ["chart"])["chart"]
    assert found == Program(
        tmp_path / "source/install/chart", "v1.2.3", "go:example.org/shop/install/chart@v1.2.3", "MIT"
    )
    assert lines(capsys, "shop") == [f"shop v1.2.3: as its Go module has it, for {dead} does not answer"]


def test_a_module_without_the_chart_is_told(dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gobuild, "source", lambda go, module: tmp_path)
    with pytest.raises(BuildError, match=r"example\.org/shop v1\.2\.3 has no install/chart"):
        obtain(with_chart(dead), ["chart"])


def test_a_program_of_c_is_compiled_from_all_files_of_its_directory(
    dead: str, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, code = made_of(dead), tmp_path / "module/pins/src"
    code.mkdir(parents=True)
    (code / "main.c").write_text('#include "word.h"\nint main(void) { return puts(word()) < 0; }\n')
    (code / "word.c").write_text('#include "word.h"\nconst char *word(void) { return "pinned"; }\n')
    (code / "word.h").write_text("#include <stdio.h>\nconst char *word(void);\n")
    monkeypatch.setattr(gobuild, "source", lambda go, module: tmp_path / "module")
    module = Module(module="crio", packages={"crio": "crio/cmd/crio"}, c={"pins": "pins/src"})
    crio = Component(version="v1", licence="MIT", build=(module,))
    got = obtain(made.model_copy(update={"components": {"cri-o": crio}}), ["crio", "pins"])
    assert run(got["pins"].path) == "pinned\n"
    compiler = run("gcc", "-dumpfullversion").strip()
    assert (got["pins"].version, got["pins"].source) == ("v1", f"gcc:crio/pins/src@v1 gcc-{compiler} linux/amd64")
    assert go.built == ["crio crio@v1 linux/amd64"]


def test_a_line_says_why_every_earlier_source_did_not_do(
    dead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain(made_of(dead, ORDER, str(tmp_path), f"127.0.0.1:{servers.dead_port()}"), KUBE)
    assert lines(capsys, "kubernetes") == [
        f"kubernetes v1: built from source, for {tmp_path} has no kubeadm and {dead} does not answer "
        f"and no mirror of {dead} answers"
    ]


def test_the_order_is_the_sites(upstream: Server, mirror: Server, go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    host = upstream.address
    obtain(made_of(host, ("mirror", "upstream"), "", mirror.address), KUBE)
    obtain(made_of(host, ("build", "upstream")), KUBE)
    assert lines(capsys, "kubernetes") == [
        f"kubernetes v1: from its mirror {mirror.address}",
        "kubernetes v1: built from source",
    ]


def test_what_no_download_has_is_built_beside_what_is_downloaded(
    upstream: Server, go: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    got = obtain(made_of(upstream.address), [*KUBE, "kube-proxy"])
    assert texts(got) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet", "kube-proxy": "built kube-proxy"}
    assert go.built == ["kube-proxy k8s@v1 linux/amd64"]
    assert lines(capsys, "kubernetes") == [
        f"kubernetes v1: kubeadm, kubelet from {upstream.address}; "
        "kube-proxy built from source, for the catalogue has no download of it"
    ]


@pytest.mark.parametrize("missing", ["kubelet", "kubelet.sha256"])
def test_what_upstream_has_not_is_asked_of_its_mirror(
    upstream: Server, mirror: Server, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.fault(f"/{RELEASE}/{missing}", servers.status(404))
    got = obtain(made_of(upstream.address, ORDER, "", mirror.address), KUBE)
    assert texts(got) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet"}
    (line,) = lines(capsys, "kubernetes")
    assert line.startswith(f"kubernetes v1: from its mirror {mirror.address}, for https://{upstream.address}/{RELEASE}")
    assert f"{missing}: is not there (curl: (22)" in line
    asked = [request.path for request in mirror.requests]
    assert f"/{RELEASE}/kubelet" in asked
    assert f"/{RELEASE}/kubeadm.sha256" not in asked, "upstream was asked for the checksum"


def test_an_upstream_that_answers_and_leads_to_a_silent_host_is_passed_over(
    upstream: Server, mirror: Server, dead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.fault("/tools/tools-v2.tgz", servers.redirect(f"https://{dead}/tools-v2.tgz"))
    got = obtain(made_of(upstream.address, ORDER, "", mirror.address), ["crictl"])
    assert texts(got) == {"crictl": "the crictl"}
    (line,) = lines(capsys, "tools")
    assert line.startswith(f"tools v2: from its mirror {mirror.address}, for https://{upstream.address}/tools/tools-v2")
    assert "Failed to connect" in line


def test_a_mirror_with_other_bytes_than_upstreams_checksum_ends_the_build(
    upstream: Server, mirror: Server, go: Go
) -> None:
    upstream.fault(f"/{RELEASE}/kubelet", servers.status(404))
    mirror.fault(f"/{RELEASE}/kubelet", servers.wrong_bytes(b"a trojan"))
    with pytest.raises(WrongBytes) as caught:
        obtain(made_of(upstream.address, ORDER, "", mirror.address), KUBE)
    assert str(caught.value) == (
        f"https://{mirror.address}/{RELEASE}/kubelet: has sha256 {sha256(b'a trojan')}, and must have "
        f"{sha256(b'the kubelet')}. Nothing of it was kept. What it must have is said by "
        f"https://{upstream.address}/{RELEASE}/kubelet.sha256. {components.CHANGED}"
    )
    assert go.built == []


def test_a_mirror_that_is_wrong_in_bytes_and_checksum_is_caught_by_the_pin(
    upstream: Server, mirror: Server, dead: str, go: Go, kept: Path
) -> None:
    pin = {f"https://{dead}/{RELEASE}/kubelet": sha256(b"the kubelet")}
    mirror.fault(f"/{RELEASE}/kubelet", servers.wrong_bytes(b"a trojan"))
    mirror.fault(f"/{RELEASE}/kubelet.sha256", servers.wrong_bytes(sha256(b"a trojan").encode()))
    with pytest.raises(WrongBytes, match=rf"must have {sha256(b'the kubelet')}.* is said by bundle\.lock\. "):
        obtain(made_of(dead, ORDER, "", mirror.address), KUBE, pin)
    assert go.built == []
    assert not [path for path in kept.rglob("*") if path.is_file() and path.read_bytes() == b"a trojan"]


def test_an_archive_that_is_wrong_in_bytes_and_checksum_is_caught_by_the_pin(mirror: Server, dead: str) -> None:
    evil = packed({"crictl": b"a trojan", "critest-v2/critest": b"the critest"})
    mirror.fault("/tools/tools-v2.tgz", servers.wrong_bytes(evil))
    mirror.fault("/tools/SUMS", servers.wrong_bytes(f"{sha256(evil)}  tools-v2.tgz\n".encode()))
    source = f"https://{dead}/tools/tools-v2.tgz#crictl"
    with pytest.raises(WrongBytes) as caught:
        obtain(made_of(dead, ORDER, "", mirror.address), ["crictl"], {source: sha256(b"the crictl")})
    assert str(caught.value) == (
        f"{source}: has sha256 {sha256(b'a trojan')}, and bundle.lock says {sha256(b'the crictl')}. "
        "Upstream has another archive there now than it had."
    )


def test_an_archive_that_leads_out_ends_the_build(upstream: Server) -> None:
    evil = packed({"crictl": b"the crictl", "../../etc/cron.d/x": b"x"})
    upstream.fault("/tools/tools-v2.tgz", servers.wrong_bytes(evil))
    upstream.fault("/tools/SUMS", servers.wrong_bytes(f"{sha256(evil)}  tools-v2.tgz\n".encode()))
    with pytest.raises(
        BuildError, match=r"tools-v2\.tgz: is refused, for its member '\.\./\.\./etc/cron\.d/x' leads out"
    ):
        obtain(made_of(upstream.address), ["crictl"])


def test_a_second_build_with_its_lock_asks_for_nothing(upstream: Server, capsys: pytest.CaptureFixture[str]) -> None:
    made, wanted = made_of(upstream.address), [*KUBE, "crictl"]
    first = obtain(made, wanted)
    upstream.requests.clear()
    assert components.obtain(made, {}, pins_of(first), wanted) == first
    assert upstream.requests == []
    assert lines(capsys, "tools")[1:] == ["tools v2: from the cache, as bundle.lock pins it"]


def test_a_second_build_without_a_lock_asks_for_checksums_alone(upstream: Server) -> None:
    made, wanted = made_of(upstream.address), [*KUBE, "crictl"]
    first = obtain(made, wanted)
    upstream.requests.clear()
    assert obtain(made, wanted) == first
    sums = [f"/{RELEASE}/kubeadm.sha256", f"/{RELEASE}/kubelet.sha256", "/tools/SUMS"]
    assert sorted(request.path for request in upstream.requests) == sorted([*sums, "/v2/"])


def test_a_program_that_was_damaged_in_the_cache_is_downloaded_again(upstream: Server) -> None:
    made = made_of(upstream.address)
    first = obtain(made, KUBE)
    pins = pins_of(first)
    first["kubelet"].path.write_text("damaged")
    assert texts(obtain(made, KUBE, pins)) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet"}
    assert len(upstream.ranges(f"/{RELEASE}/kubelet")) == 2


def test_a_build_that_was_cut_off_goes_on_in_the_next(upstream: Server) -> None:
    made = made_of(upstream.address, ("upstream",))
    upstream.fault("/tools/tools-v2.tgz", servers.cut(100), times=1)
    with pytest.raises(BuildError, match="transfer closed with"):
        obtain(made, ["crictl"])
    assert texts(obtain(made, ["crictl"])) == {"crictl": "the crictl"}
    assert upstream.ranges("/tools/tools-v2.tgz") == ["", "bytes=100-"]


@pytest.mark.parametrize("layout", ["flat", "as-upstream"])
def test_files_of_a_directory_are_used(
    dead: str, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "at hand"
    publish(root / dead)
    if layout == "flat":
        for path in [path for path in root.rglob("*") if path.is_file()]:
            path.rename(root / path.name)
    got = obtain(made_of(dead, ORDER, str(root)), [*KUBE, "crictl"])
    assert texts(got) == {"kubeadm": "the kubeadm", "kubelet": "the kubelet", "crictl": "the crictl"}
    assert got["kubelet"].source == f"https://{dead}/{RELEASE}/kubelet"
    said = capsys.readouterr().out
    assert f"kubernetes v1: from {root}\n" in said
    assert "no checksum" not in said


def test_a_directory_that_lacks_a_file_is_passed_over(
    upstream: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kubeadm").write_text("the kubeadm")
    (tmp_path / "kubelet").mkdir()
    obtain(made_of(upstream.address, ORDER, str(tmp_path)), KUBE)
    assert lines(capsys, "kubernetes") == [f"kubernetes v1: from {upstream.address}, for {tmp_path} has no kubelet"]


@pytest.mark.parametrize("beside", [True, False], ids=["checksum-beside", "published-checksum"])
def test_a_file_of_a_directory_that_is_not_as_its_checksum_says_ends_the_build(
    upstream: Server, tmp_path: Path, beside: bool, go: Go
) -> None:
    root = tmp_path / "at hand"
    root.mkdir()
    (root / "kubelet").write_text("another kubelet")
    by = f"https://{upstream.address}/{RELEASE}/kubelet.sha256"
    if beside:
        (root / "kubelet.sha256").write_text(f"{'0' * 64}  kubelet\n")
        by = (root / "kubelet.sha256").as_uri()
    with pytest.raises(WrongBytes) as caught:
        obtain(made_of(upstream.address, ORDER, str(root)), ["kubelet"])
    assert f"has sha256 {sha256(b'another kubelet')}, and must have" in str(caught.value)
    assert f"What it must have is said by {by}." in str(caught.value)
    assert go.built == []


@pytest.mark.parametrize("wanted", ["kubelet", "crictl"])
def test_a_file_of_a_directory_without_any_checksum_is_pinned_from_then_on(
    dead: str, tmp_path: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "at hand"
    publish(root)
    files = {"kubelet": root / "kubelet", "crictl": root / "tools-v2.tgz"}
    (root / RELEASE / "kubelet").rename(files["kubelet"])
    (root / "tools/tools-v2.tgz").rename(files["crictl"])
    made = made_of(dead, ORDER, str(root))
    got = obtain(made, [wanted])
    assert texts(got) == {wanted: f"the {wanted}"}
    said = f"{files[wanted].as_uri()}: there is no checksum to check it by; bundle.lock pins it from now on\n"
    assert said.replace("at hand", "at%20hand") in capsys.readouterr().out
    files["kubelet"].write_text("another kubelet")
    files["crictl"].write_bytes(packed({"crictl": b"another crictl"}))
    got[wanted].path.unlink()
    with pytest.raises(WrongBytes, match=rf"sha256 {sha256(f'another {wanted}'.encode())}.*bundle\.lock"):
        obtain(made, [wanted], pins_of_text(got, wanted))


def pins_of_text(programs: dict[str, Program], name: str) -> dict[str, str]:
    return {programs[name].source: sha256(f"the {name}".encode())}


def test_a_program_that_is_built_anew_with_other_bytes_ends_the_build(dead: str, go: Go) -> None:
    made = made_of(dead)
    pins = pins_of(obtain(made, KUBE))
    assert obtain(made, KUBE, pins).keys() == set(KUBE)
    go.suffix = ", and differently"
    with pytest.raises(WrongBytes) as caught:
        obtain(made, KUBE, pins)
    assert str(caught.value) == (
        f"go:k8s/cmd/kubeadm@v1 {GO}: has sha256 {sha256(b'built kubeadm, and differently')}, "
        f"and bundle.lock says {sha256(b'built kubeadm')}. {components.HOW_BUILT}"
    )


def test_go_is_not_looked_for_when_nothing_is_built(upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(least: str) -> Path:
        raise AssertionError("somebody looks for Go")

    monkeypatch.setattr(gobuild, "toolchain", look)
    assert obtain(made_of(upstream.address), KUBE).keys() == set(KUBE)


def test_every_attempt_is_told_when_none_is_left(dead: str, tmp_path: Path, go: Go) -> None:
    go.error = "go: module lookup failed"
    made = made_of(dead, ORDER, str(tmp_path), f"127.0.0.1:{servers.dead_port()}")
    with pytest.raises(BuildError) as caught:
        obtain(made, [*KUBE, "kube-proxy"])
    assert str(caught.value) == (
        "kubernetes v1: kube-proxy, kubeadm, kubelet cannot be had:\n"
        f"  - {tmp_path} has no kubeadm\n"
        f"  - {dead} does not answer\n"
        f"  - no mirror of {dead} answers\n"
        "  - it cannot be built from source (go: module lookup failed)\n"
        "If there is a proxy, set https_proxy. Else name a mirror (`mirrors`) or a `directory` with the files "
        "in bundle.yaml; docs/bundle.md shows how."
    )


def test_a_program_that_no_source_of_the_site_has_is_told(upstream: Server) -> None:
    with pytest.raises(BuildError, match=r"^kubernetes v1: kube-proxy cannot be had:\n  - no source of the catalogue"):
        obtain(made_of(upstream.address, ("upstream",)), [*KUBE, "kube-proxy"])


def test_a_program_that_the_catalogue_does_not_know_is_refused(dead: str) -> None:
    with pytest.raises(BuildError, match=r"^No component of the catalogue has these programs: ftpd, kubectl\.$"):
        obtain(made_of(dead), ["kubelet", "kubectl", "ftpd"])


def test_a_wrong_name_in_a_url_is_refused() -> None:
    component = Component(version="v1", licence="", download=Download(url="x/{name}", checksum="", programs={"x": ""}))
    with pytest.raises(
        BuildError,
        match=r"^x/\{name\}: may have no braces but \{version\}, \{number\}, \{os\}, \{arch\}, \{program\}\.",
    ):
        components.files_of(component, catalogue.load(), ["x"])


def test_downloads_of_the_catalogue_are_where_upstream_has_them() -> None:
    made = catalogue.load()
    programs = [program for names in made.programs.values() for program in names]
    files = [file for component in made.components.values() for file in components.files_of(component, made, programs)]
    found = {file.source(program): file.checksum for file in files for program in file.programs}
    versions = {name: component.version for name, component in made.components.items()}
    kubernetes = f"https://dl.k8s.io/release/{versions['kubernetes']}/bin/linux/amd64"
    assert found[f"{kubernetes}/kubelet"] == f"{kubernetes}/kubelet.sha256"
    etcd = f"https://github.com/etcd-io/etcd/releases/download/{versions['etcd']}"
    member = f"etcd-{versions['etcd']}-linux-amd64"
    assert found[f"{etcd}/{member}.tar.gz#{member}/etcdctl"] == f"{etcd}/SHA256SUMS"
    plugin = f"https://github.com/flannel-io/cni-plugin/releases/download/{versions['cni-flannel']}"
    archive = f"{plugin}/cni-plugin-flannel-linux-amd64-{versions['cni-flannel']}.tgz"
    assert found[f"{archive}#flannel-amd64"] == f"{archive}.sha256"
    assert len(found) == len(programs)
    assert components.hosts(made, programs) == {"dl.k8s.io", "github.com"}
