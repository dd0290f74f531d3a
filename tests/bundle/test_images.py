"""Images from a real registry, from archives and from recipes, put together in one layout."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import registry
import servers
from registry import Registry
from servers import Certificates, Server

from bundle import cache, catalogue, images, oci, packing, skopeo
from bundle.catalogue import Catalogue, Component, Module, Recipe, Source
from bundle.command import BuildError
from bundle.components import Program
from bundle.download import WrongBytes
from bundle.packing import Image
from bundle.sources import Place

PAUSE, APP, PROXY = "registry.test/pause:3.10", "registry.test/team/app:1.0", "registry.test/kube-proxy:v1.0.0"
BASE = {"/lib/base": b"what both stand on" * 500}
PROGRAMS: dict[str, dict[str, bytes]] = {
    PAUSE: {**BASE, "/pause": b"the pause" * 300},
    APP: {**BASE, "/app": bytes(range(256)) * 2000},
}
Read = dict[str, bytes]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a skopeo that does not wait before it tries again."""
    monkeypatch.setattr(cache, "ROOT", tmp_path / "cache")
    monkeypatch.setattr(skopeo, "RETRIES", 0)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Path:
    """The data of a registry that has both images, and beside it `pushed`, the layout that they came from."""
    directory = tmp_path_factory.mktemp("filled")
    with registry.run(directory / "registry", certificates) as started:
        pushed(started, registry.layout(directory / "pushed", PROGRAMS))
    return directory / "registry"


@pytest.fixture
def running(tmp_path: Path, filled: Path, certificates: Certificates, trusted: Path) -> Iterator[Registry]:
    """A registry that has both images."""
    shutil.copytree(filled, tmp_path / "registry")
    with registry.run(tmp_path / "registry", certificates) as started:
        yield started


@pytest.fixture
def pushed_layout(filled: Path) -> Path:
    """The layout that the registry's images came from."""
    return filled.with_name("pushed")


def pushed(to: Registry, layout: Path, *flags: str) -> None:
    """Push every image of a layout to where its reference says, but on this registry."""
    for row in oci.images(layout):
        to.push(layout, row["name"], row["name"].partition("/")[2], *flags)


@dataclass
class Site:
    """What a build knows beside the registry."""

    sources: tuple[Source, ...] = ("directory", "upstream", "mirror", "build")
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    directory: str = ""
    platform: str = "linux/amd64"
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    found: Mapping[str, list[Place]] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    programs: Callable[[Collection[str]], Mapping[str, Program]] = lambda wanted: {}
    base: Callable[[], Path] = Path
    manifests: tuple[str, ...] = ()

    @property
    def catalogue(self) -> Catalogue:
        kubernetes = Component(
            version="v1.0.0",
            licence="Apache-2.0",
            build=(Module(module="k8s", packages={name: f"k8s/{name}" for name in ("kubeadm", "kube-proxy")}),),
        )
        update = {
            "platform": self.platform,
            "sources": self.sources,
            "mirrors": self.mirrors,
            "directory": self.directory,
            "components": {"kubernetes": kubernetes},
            "recipes": self.recipes,
            "manifests": self.manifests,
        }
        return catalogue.load().model_copy(update=update)

    def build(self, *names: str) -> tuple[Path, dict[str, Image]]:
        """The layout of images, and what each of them is."""
        layout, made = images.layout(self.catalogue, names, self.programs, self.base, self.found, self.pins)
        return layout, {image.reference: image for image in made}


def mirrored(to: Registry | Server, **more: Any) -> Site:
    """A site whose upstream does not answer, and whose mirror does."""
    return Site(
        mirrors={"registry.test": (to.address,)}, found={"registry.test": [Place("mirror", to.address)]}, **more
    )


def files(layout: Path, name: str) -> Read:
    """The files of an image in a layout, layer over layer."""
    (image,) = [row for row in oci.images(layout) if row["name"] == name]
    manifest = json.loads(oci.blob(layout, image["digest"]).read_text())
    found: Read = {}
    for layer in manifest["layers"]:
        assert layer["mediaType"] == oci.LAYER
        tar = io.BytesIO()
        oci.unpack(oci.blob(layout, layer["digest"]), tar)
        tar.seek(0)
        with tarfile.open(fileobj=tar) as archive:
            for member in archive:
                if content := archive.extractfile(member):
                    found[f"/{member.name}"] = content.read()
    return found


def content(directory: Path) -> Read:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_images_of_a_mirror_become_one_layout_with_shared_blobs(running: Registry) -> None:
    layout, made = mirrored(running).build(PAUSE, APP)
    rows = {row["name"]: row for row in oci.images(layout)}
    assert {name: files(layout, name) for name in rows} == PROGRAMS
    assert len(set(rows[PAUSE]["blobs"]) & set(rows[APP]["blobs"])) == 1
    blobs = list((layout / "blobs/sha256").iterdir())
    assert {f"sha256:{path.name}" for path in blobs} == {blob for row in rows.values() for blob in row["blobs"]}
    assert all(path.name == hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs)
    assert (made[PAUSE].origin, made[PAUSE].source) == (running.digest("pause:3.10"), f"docker://{PAUSE}")


def test_other_tools_read_the_layout_by_full_references(running: Registry) -> None:
    layout, _ = mirrored(running).build(PAUSE, APP)
    assert json.loads(registry.skopeo("inspect", f"oci:{layout}:{APP}"))["Architecture"] == "amd64"
    running.push(layout, APP, "again/app:2")  # skopeo reads every blob, and the registry checks it
    assert running.digest("again/app:2") == next(row["digest"] for row in oci.images(layout) if row["name"] == APP)


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_packed_by_gzip_keeps_its_config_and_so_its_id(running: Registry, tmp_path: Path, form: str) -> None:
    # New bytes each time: skopeo remembers which packed blob a registry at this address once had for the same layer.
    programs = {"/pause": os.urandom(1000)}
    plain = registry.plain(registry.layout(tmp_path / "made", {PAUSE: programs}), PAUSE, tmp_path / "plain")
    registry.skopeo("copy", "--quiet", "--format", form, plain, f"docker://{running.address}/pause:{form}")
    manifest = json.loads(registry.skopeo("inspect", "--raw", f"docker://{running.address}/pause:{form}"))
    assert all(layer["mediaType"].endswith("gzip") for layer in manifest["layers"])
    layout, _ = mirrored(running).build(f"registry.test/pause:{form}")
    assert files(layout, f"registry.test/pause:{form}") == programs
    assert oci.images(layout)[0]["blobs"][1] == manifest["config"]["digest"]


def test_a_layer_that_is_packed_by_zstd_already_is_taken_as_it_is(running: Registry, tmp_path: Path) -> None:
    programs = {"/pause": os.urandom(1000) + bytes(100_000)}
    plain = registry.plain(registry.layout(tmp_path / "made", {PAUSE: programs}), PAUSE, tmp_path / "plain")
    flags = ("--format", "oci", "--dest-compress-format", "zstd", "--dest-compress-level", "1")
    registry.skopeo("copy", "--quiet", *flags, plain, f"docker://{running.address}/pause:fast")
    manifest = json.loads(registry.skopeo("inspect", "--raw", f"docker://{running.address}/pause:fast"))
    layout, _ = mirrored(running).build("registry.test/pause:fast")
    assert oci.images(layout)[0]["blobs"][2:] == [layer["digest"] for layer in manifest["layers"]]
    assert files(layout, "registry.test/pause:fast") == programs


def test_the_same_origin_gives_the_same_bytes_in_an_empty_cache(
    running: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content(mirrored(running).build(PAUSE, APP)[0])
    monkeypatch.setattr(cache, "ROOT", tmp_path / "other")
    assert content(mirrored(running).build(PAUSE, APP)[0]) == first


def test_an_image_is_fetched_from_upstream_when_that_answers(
    running: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{running.address}/pause:3.10"
    layout, made = Site(found={running.address: [Place("upstream", running.address)]}).build(name)
    assert files(layout, name) == PROGRAMS[PAUSE]
    assert made[name].source == f"docker://{name}"
    assert f"{name}: from {running.address}\n" in capsys.readouterr().out


def test_a_build_says_why_a_mirror_was_taken(running: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    mirrored(running).build(PAUSE)
    words = f"{PAUSE}: from its mirror {running.address}, for registry.test does not answer\n"
    assert words in capsys.readouterr().out


def test_a_registry_that_nobody_has_asked_is_asked(running: Registry) -> None:
    name = f"{running.address}/pause:3.10"
    assert files(Site().build(name)[0], name) == PROGRAMS[PAUSE]


def test_a_reference_by_digest_is_taken_by_it(running: Registry) -> None:
    digest = running.digest("pause:3.10")
    name = f"registry.test/pause@{digest}"
    layout, made = mirrored(running).build(f"registry.test/pause:other@{digest}")
    assert files(layout, name) == PROGRAMS[PAUSE]
    assert made[name].origin == digest


def test_a_moved_tag_does_not_move_a_pinned_image(running: Registry, tmp_path: Path) -> None:
    origin = running.digest("pause:3.10")
    pushed(running, registry.layout(tmp_path / "moved", {PAUSE: {"/pause": b"another pause"}}))
    assert running.digest("pause:3.10") != origin
    layout, made = mirrored(running, pins={f"docker://{PAUSE}": origin}).build(PAUSE)
    assert files(layout, PAUSE) == PROGRAMS[PAUSE]
    assert made[PAUSE].origin == origin
    assert files(mirrored(running).build(PAUSE)[0], PAUSE) == {"/pause": b"another pause"}


def test_a_place_that_has_another_image_than_the_pinned_one_ends_the_build(running: Registry, tmp_path: Path) -> None:
    origin = running.digest("pause:3.10")
    running.delete("pause", origin)
    pushed(running, registry.layout(tmp_path / "moved", {PAUSE: {"/pause": b"another pause"}}))
    site = mirrored(running, pins={f"docker://{PAUSE}": origin})
    site.found = {"registry.test": [*site.found["registry.test"], Place("mirror", "never.test")]}
    with pytest.raises(WrongBytes) as caught:
        site.build(PAUSE)
    assert str(caught.value) == (
        f"{running.address} has {running.digest('pause:3.10')} for {PAUSE}, and not {origin}, which bundle.lock has: "
        "its tag was moved and the old image removed, or it was tampered with. Compare with what the project itself "
        "publishes before anything else. `python3 tasks.py bundle build --update` takes what is there now."
    )


def test_a_pinned_image_in_the_cache_is_had_without_any_registry(running: Registry) -> None:
    origin = running.digest("pause:3.10")
    first, _ = mirrored(running).build(PAUSE)
    running.stop()
    site = Site(found={"registry.test": []}, pins={f"docker://{PAUSE}": origin})
    layout, made = site.build(PAUSE)
    assert content(layout) == content(first)
    assert made[PAUSE].origin == origin


def test_an_index_gives_the_image_of_the_platform_and_is_the_origin(running: Registry, tmp_path: Path) -> None:
    arm = registry.layout(tmp_path / "arm", {PAUSE: {"/pause": b"the pause for arm"}}, "linux/arm64")
    running.push(arm, PAUSE, "pause:arm")
    both = {"linux/amd64": running.digest("pause:3.10"), "linux/arm64": running.digest("pause:arm")}
    index = running.index("pause:both", both)
    name = "registry.test/pause:both"
    for platform, programs in (("linux/amd64", PROGRAMS[PAUSE]), ("linux/arm64", {"/pause": b"the pause for arm"})):
        layout, made = mirrored(running, platform=platform).build(name)
        assert files(layout, name) == programs
        assert made[name].origin == index
    with pytest.raises(BuildError, match=r"both is not for linux/s390x; it is for linux/amd64, linux/arm64\. Ask"):
        mirrored(running, platform="linux/s390x").build(name)


def test_an_image_that_is_for_one_other_platform_is_refused(running: Registry) -> None:
    with pytest.raises(BuildError, match=r"test/pause:3\.10 is not for linux/arm64; it is for linux/amd64\."):
        mirrored(running, platform="linux/arm64").build(PAUSE)


def test_an_index_that_lies_about_a_platform_is_found_out(running: Registry) -> None:
    running.index("pause:lie", {"linux/arm64": running.digest("pause:3.10")})
    with pytest.raises(BuildError, match=r"pause:lie is not for linux/arm64; it is for linux/amd64\."):
        mirrored(running, platform="linux/arm64").build("registry.test/pause:lie")


def test_an_image_that_nobody_has_is_told_with_every_attempt(running: Registry, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        mirrored(running, directory=str(tmp_path)).build("registry.test/nothing:1")
    assert str(caught.value) == (
        "registry.test/nothing:1 cannot be had:\n"
        f"  - no archive in {tmp_path} has it.\n"
        "  - registry.test does not answer.\n"
        f"  - {running.address}/nothing:1 is not there. Check the reference in bundle.yaml.\n"
        "  - the catalogue has no recipe for nothing.\n"
        "A mirror (`mirrors`), or a `directory` with an archive of the image, can be named in bundle.yaml; "
        "docs/bundle.md shows how."
    )


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("expired", "certificate has expired or is not yet valid"),
        ("unknown", "certificate signed by unknown authority"),
    ],
)
def test_a_registry_whose_certificate_is_not_good_is_not_asked_anything(
    running: Registry, certificates: Certificates, which: str, words: str
) -> None:
    running.stop()
    running.pair = getattr(certificates, which)
    running.start()
    with pytest.raises(BuildError, match=rf"x509: {words}.*\. If a .* name a file with that CA in SSL_CERT_FILE"):
        mirrored(running).build(PAUSE)


def test_a_password_is_taken_from_where_skopeo_login_puts_it(
    tmp_path: Path,
    certificates: Certificates,
    trusted: Path,
    pushed_layout: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    with registry.run(tmp_path / "registry", certificates, password=True) as started:
        secrets = {name: base64.b64encode(f"user:{name}".encode()).decode() for name in ("right", "wrong")}
        file.write_text(json.dumps({"auths": {started.address: {"auth": secrets["right"]}}}))
        pushed(started, pushed_layout)
        file.write_text(json.dumps({"auths": {started.address: {"auth": secrets["wrong"]}}}))
        words = (
            r"unauthorized: authentication required\)\. .* run `skopeo login 127\.0\.0\.1:\d+`, .* REGISTRY_AUTH_FILE"
        )
        with pytest.raises(BuildError, match=words) as caught:
            mirrored(started).build(PAUSE)
        assert secrets["wrong"] not in str(caught.value)
        file.write_text(json.dumps({"auths": {started.address: {"auth": secrets["right"]}}}))
        assert files(mirrored(started).build(PAUSE)[0], PAUSE) == PROGRAMS[PAUSE]


def test_a_mirror_without_tls_is_passed_over(running: Registry) -> None:
    site = mirrored(running)
    site.found = {"registry.test": [Place("mirror", "http://127.0.0.1:1"), *site.found["registry.test"]]}
    assert files(site.build(PAUSE)[0], PAUSE) == PROGRAMS[PAUSE]
    site.found = {"registry.test": [Place("mirror", "http://127.0.0.1:1")]}
    with pytest.raises(BuildError, match=r"http://127\.0\.0\.1:1 is no registry with TLS\."):
        site.build(APP)


def test_a_build_that_was_cut_short_goes_on_with_the_next_image(running: Registry, pushed_layout: Path) -> None:
    """The registry stops after the first image, and comes back without that one."""
    first = "registry.test/a-first:1"
    running.push(pushed_layout, PAUSE, "a-first:1")
    site = mirrored(running, pins={f"docker://{first}": running.digest("a-first:1")})
    origin = skopeo.origin_of

    def stopping(*words: Any) -> str:
        running.stop()
        return origin(*words)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(BuildError, match="connection refused"):
        patch.setattr(skopeo, "origin_of", stopping)
        site.build(first, APP)
    running.start()
    running.delete("a-first", running.digest("a-first:1"))
    layout, _ = site.build(first, APP)
    assert (files(layout, first), files(layout, APP)) == (PROGRAMS[PAUSE], PROGRAMS[APP])


def test_a_machine_without_skopeo_is_told(running: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"^skopeo, which images are fetched with, is not installed\. Install it\.$"):
        mirrored(running, sources=("mirror",)).build(PAUSE)


def test_a_skopeo_without_a_policy_is_not_taken_for_a_broken_registry(
    running: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/skopeo"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("skopeo")} --policy {tmp_path}/none "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    with pytest.raises(
        BuildError, match=r"(?s)^skopeo cannot fetch .*trust policy.* no such file or directory\. Install"
    ):
        mirrored(running).build(PAUSE)


@pytest.fixture
def served(server: Server, pushed_layout: Path) -> tuple[Server, str]:
    """A registry made of files that has the app, and the path of its larger layer."""
    manifest = registry.publish(server, pushed_layout, APP, "team/app", "1.0")
    return server, f"/v2/team/app/blobs/{manifest['layers'][1]['digest']}"


def blobs_asked_for(server: Server) -> list[str]:
    """The digest of each blob that was asked for."""
    return [path.rpartition("/")[2] for path in (each.path for each in server.requests) if "/blobs/" in path]


def test_a_layer_that_is_cut_is_fetched_again_and_no_other(
    served: tuple[Server, str], pushed_layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, blob = served
    monkeypatch.setattr(skopeo, "RETRIES", 1)
    server.fault(blob, servers.cut(100), times=1)
    assert files(mirrored(server).build(APP)[0], APP) == PROGRAMS[APP]
    asked = blobs_asked_for(server)
    _, _, base, own = next(row for row in oci.images(pushed_layout) if row["name"] == APP)["blobs"]
    assert (asked.count(base), asked.count(own)) == (1, 2)


def test_a_layer_that_images_share_is_fetched_once(served: tuple[Server, str], pushed_layout: Path) -> None:
    server, _ = served
    registry.publish(server, pushed_layout, PAUSE, "pause", "3.10")
    layout, _ = mirrored(server).build(APP, PAUSE)
    assert {name: files(layout, name) for name in (APP, PAUSE)} == PROGRAMS
    base = oci.images(pushed_layout)[0]["blobs"][2]
    assert blobs_asked_for(server).count(base) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (servers.cut(100), "unexpected EOF"),
        (servers.status(500), "500"),
        (servers.status(404), "404"),
        (servers.stall(100), "nothing came for 0.3 seconds"),
    ],
    ids=["cut", "500", "404", "stalled"],
)
def test_a_blob_that_does_not_come_is_told_and_leaves_nothing(
    served: tuple[Server, str], kept: Path, monkeypatch: pytest.MonkeyPatch, fault: servers.Fault, words: str
) -> None:
    server, blob = served
    monkeypatch.setattr(skopeo, "STALLED", 0.3)
    server.fault(blob, fault)
    with pytest.raises(BuildError, match=rf"app@sha256:\w+ cannot be fetched \(.*{words}.*\)\. If there is a proxy"):
        mirrored(server).build(APP)
    assert list(kept.iterdir()) == []
    server.fault(blob, fault, times=0)
    assert files(mirrored(server).build(APP)[0], APP) == PROGRAMS[APP]


def test_other_bytes_under_a_digest_end_the_build(served: tuple[Server, str], kept: Path) -> None:
    server, blob = served
    server.fault(blob, servers.wrong_bytes(b"other bytes"))
    with pytest.raises(WrongBytes, match=r"Digest did not match, expected sha256:\w+, got sha256:\w+\. Nothing of"):
        mirrored(server).build(APP)
    assert list(kept.iterdir()) == []


def test_another_config_under_a_digest_ends_the_build(served: tuple[Server, str], pushed_layout: Path) -> None:
    server, _ = served
    config = next(row for row in oci.images(pushed_layout) if row["name"] == APP)["blobs"][1]
    server.fault(f"/v2/team/app/blobs/{config}", servers.wrong_bytes(b'{"os": "linux", "architecture": "amd64"}'))
    with pytest.raises(WrongBytes, match=rf"{config}.*Nothing of it was kept"):
        mirrored(server).build(APP)


def test_another_manifest_under_a_digest_ends_the_build(served: tuple[Server, str]) -> None:
    server, _ = served
    origin = skopeo.origin_of(images.references.parse(APP), Place("mirror", server.address))
    other = servers.status(200)
    server.fault(f"/v2/team/app/manifests/{origin}", other)
    with pytest.raises(WrongBytes, match=rf"app@{origin}: came with digest sha256:\w+, and must have {origin}\."):
        mirrored(server).build(APP)


def test_a_page_in_a_manifests_place_is_no_image(served: tuple[Server, str]) -> None:
    server, _ = served
    server.fault("/v2/team/app/manifests/1.0", servers.status(200))
    with pytest.raises(BuildError, match=r"app:1\.0 at 127\.0\.0\.1:\d+ has no manifest that can be read\."):
        mirrored(server).build(APP)


# Archives.


def docker_archive(path: Path, layout: Path, *names: str) -> Path:
    """An archive as `docker save` before Docker 25 and podman write it; here by skopeo, with one image at a time."""
    more = [f"--additional-tag={name}" for name in names[1:]]
    plain = registry.plain(layout, names[0], path.with_suffix(".plain"))
    registry.skopeo("copy", "--quiet", *more, plain, f"docker-archive:{path}:{names[0]}")
    return path


def oci_archive(path: Path, layout: Path) -> Path:
    """A tar archive of a whole layout."""
    subprocess.run(["tar", "-C", layout, "-cf", path, "."], check=True)
    return path


def test_an_archive_in_the_directory_is_taken_before_a_registry(tmp_path: Path, pushed_layout: Path) -> None:
    (tmp_path / "at-hand").mkdir()
    docker_archive(tmp_path / "at-hand/pause.tar", pushed_layout, PAUSE)
    oci_archive(tmp_path / "at-hand/other.tar", registry.layout(tmp_path / "other", {APP: PROGRAMS[APP]}))
    (tmp_path / "at-hand/notes.txt").write_text("no archive")
    tar_of(tmp_path / "at-hand/programs.tar", {"kubeadm": b"no image"})
    layout, made = Site(directory=str(tmp_path / "at-hand")).build(PAUSE, APP)
    assert (files(layout, PAUSE), files(layout, APP)) == (PROGRAMS[PAUSE], PROGRAMS[APP])
    image_id = {row["name"]: row["blobs"][1] for row in oci.images(pushed_layout)}
    assert {name: (image.origin, image.source) for name, image in made.items()} == {
        PAUSE: (None, f"archive:pause.tar#{image_id[PAUSE]}"),
        APP: (None, f"archive:other.tar#{image_id[APP]}"),
    }


def test_an_archive_and_a_registry_give_the_same_layout(running: Registry, tmp_path: Path, pushed_layout: Path) -> None:
    docker_archive(tmp_path / "pause.tar", pushed_layout, PAUSE)
    registered = mirrored(running).build(PAUSE)[0]
    assert content(Site(directory=str(tmp_path)).build(PAUSE)[0]) == content(registered)


def test_an_archive_for_another_platform_is_passed_over(running: Registry, tmp_path: Path) -> None:
    arm = registry.layout(tmp_path / "arm", {PAUSE: {"/pause": b"the pause for arm"}}, "linux/arm64")
    oci_archive(tmp_path / "pause.tar", arm)
    layout, made = mirrored(running, directory=str(tmp_path)).build(PAUSE)
    assert files(layout, PAUSE) == PROGRAMS[PAUSE]
    assert made[PAUSE].origin == running.digest("pause:3.10")


def test_two_archives_with_different_images_of_one_name_are_refused(tmp_path: Path, pushed_layout: Path) -> None:
    docker_archive(tmp_path / "a.tar", pushed_layout, PAUSE)
    docker_archive(tmp_path / "b.tar", registry.layout(tmp_path / "other", {PAUSE: {"/pause": b"x"}}), PAUSE)
    with pytest.raises(BuildError, match=r"^registry\.test/pause:3\.10: a\.tar and b\.tar have different images of"):
        Site(directory=str(tmp_path)).build(PAUSE)


def test_all_images_of_an_archive_are_taken_under_their_names(tmp_path: Path, pushed_layout: Path) -> None:
    taken = images.take_archive(oci_archive(tmp_path / "all.tar", pushed_layout), "linux/amd64")
    assert [image.reference for image in taken] == [PAUSE, APP]
    taken = images.take_archive(docker_archive(tmp_path / "two.tar", pushed_layout, PAUSE, "pause:new"), "linux/amd64")
    assert [image.reference for image in taken] == [PAUSE, "docker.io/library/pause:new"]
    assert {name: files(packing.together(taken), name) for name in (PAUSE, "docker.io/library/pause:new")} == {
        PAUSE: PROGRAMS[PAUSE], "docker.io/library/pause:new": PROGRAMS[PAUSE],
    }  # fmt: skip


def modern(path: Path, layout: Path, names: list[str] | None, config: bytes = b"") -> Path:
    """An archive as `docker save` writes it since Docker 25: a layout with manifest.json, layers not packed."""
    image = oci.images(layout)[0]
    manifest = json.loads(oci.blob(layout, image["digest"]).read_text())
    config = config or oci.blob(layout, manifest["config"]["digest"]).read_bytes()
    members = {f"blobs/sha256/{hashlib.sha256(config).hexdigest()}": config}
    row = {"Config": next(iter(members)), "RepoTags": names, "Layers": []}
    for layer in manifest["layers"]:
        tar = io.BytesIO()
        oci.unpack(oci.blob(layout, layer["digest"]), tar)
        row["Layers"].append(f"blobs/sha256/{hashlib.sha256(tar.getvalue()).hexdigest()}")
        members[row["Layers"][-1]] = tar.getvalue()
    return tar_of(path, {**members, "manifest.json": json.dumps([row]).encode()})


def tar_of(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """A tar archive of files, or of members as they are given."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def test_an_archive_of_a_present_docker_is_taken(tmp_path: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    (taken,) = images.take_archive(modern(tmp_path / "app.tar", layout, [APP]), "linux/amd64")
    assert files(taken.layout, APP) == PROGRAMS[APP]
    packed = tmp_path / "app.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "app.tar").read_bytes()))
    (again,) = images.take_archive(packed, "linux/amd64")
    assert again.layout == taken.layout


def test_an_image_without_a_name_needs_one(tmp_path: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    path = modern(tmp_path / "app.tar", layout, None)
    image_id = oci.images(layout)[0]["blobs"][1]
    with pytest.raises(BuildError) as caught:
        images.take_archive(path, "linux/amd64")
    assert str(caught.value) == (
        f"{path}: image {image_id} has no name. Give it one, such as registry.example.org/app:1.0, or save it by its "
        "name (`docker save NAME:TAG`), not by its ID."
    )
    (taken,) = images.take_archive(path, "linux/amd64", "team/app:2")
    assert (taken.reference, taken.source) == ("docker.io/team/app:2", f"archive:app.tar#{image_id}")


def test_one_name_is_not_given_to_several_images(tmp_path: Path, pushed_layout: Path) -> None:
    path = oci_archive(tmp_path / "all.tar", pushed_layout)
    with pytest.raises(BuildError, match=r"all\.tar: has 2 images, which cannot all be named team/app:2\."):
        images.take_archive(path, "linux/amd64", "team/app:2")


def test_an_archive_for_another_platform_is_refused(tmp_path: Path, pushed_layout: Path) -> None:
    path = docker_archive(tmp_path / "pause.tar", pushed_layout, PAUSE)
    with pytest.raises(BuildError, match=r"^registry\.test/pause:3\.10 in pause\.tar is not for linux/arm64; it is"):
        images.take_archive(path, "linux/arm64")


def member(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (tarfile.TarInfo("/etc/cron.d/x"), "has an absolute path"),
        (tarfile.TarInfo("a/../../x"), r"leads out by `\.\.`"),
        (member("x", tarfile.SYMTYPE, "/etc/passwd"), "is a link to '/etc/passwd'"),
        (member("a/x", tarfile.SYMTYPE, "../../etc/passwd"), "is a link to '../../etc/passwd'"),
        (member("x", tarfile.SYMTYPE, "y"), "is a link to 'y'"),
        (member("../x", tarfile.SYMTYPE, "manifest.json"), r"leads out by `\.\.`"),
        (member("x", tarfile.LNKTYPE, "manifest.json"), "is a link to 'manifest.json'"),
        (member("x", tarfile.CHRTYPE), "is neither a file nor a directory"),
        (member("x", tarfile.FIFOTYPE), "is neither a file nor a directory"),
    ],
    ids=["absolute", "up", "link", "link-up", "dangling", "link-named-up", "hard-link", "device", "pipe"],
)
def test_an_archive_with_a_member_that_could_lead_elsewhere_is_refused_whole(
    tmp_path: Path, entry: tarfile.TarInfo, problem: str
) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    path = modern(tmp_path / "app.tar", layout, [APP])
    with tarfile.open(path, "a") as archive:
        archive.addfile(entry)
    with pytest.raises(BuildError, match=rf"app\.tar: is refused, for its member .* {problem}\. Nothing of it was"):
        images.take_archive(path, "linux/amd64")


def test_a_layer_that_is_not_the_configs_is_refused_and_not_kept(tmp_path: Path, kept: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    config = json.loads(oci.blob(layout, oci.images(layout)[0]["blobs"][1]).read_text())
    other = f"sha256:{'0' * 64}"
    config["rootfs"]["diff_ids"][1] = other
    path = modern(tmp_path / "app.tar", layout, [APP], json.dumps(config).encode())
    with pytest.raises(BuildError, match=rf"app:1\.0: a layer of it has digest sha256:\w+, and {other} by its"):
        images.take_archive(path, "linux/amd64")
    config["rootfs"]["diff_ids"].pop()
    path = modern(tmp_path / "app.tar", layout, [APP], json.dumps(config).encode())
    with pytest.raises(BuildError, match=r"app:1\.0: has 2 layers, and 1 by its config\."):
        images.take_archive(path, "linux/amd64")
    assert [path.name.rpartition("-")[0] for path in kept.iterdir()] == ["image-layer"]  # the good one


def test_a_blob_of_an_archive_that_is_another_is_found(tmp_path: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    digest = oci.images(layout)[0]["digest"]
    oci.blob(layout, digest).write_bytes(oci.blob(layout, digest).read_bytes() + b"\n")
    with pytest.raises(BuildError, match=rf"all\.tar: is damaged: ValueError: {digest} is sha256:\w+\. Get or make it"):
        images.take_archive(oci_archive(tmp_path / "all.tar", layout), "linux/amd64")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no archive at all", r"cannot be read as a tar archive: .*\. It must be one of `docker save`"),
        (b"", r"cannot be read as a tar archive: .*\. It must be one of `docker save`"),
    ],
    ids=["text", "empty"],
)
def test_a_file_that_is_no_archive_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "app.tar").write_bytes(data)
    with pytest.raises(BuildError, match=words):
        images.take_archive(tmp_path / "app.tar", "linux/amd64")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"kubeadm": b"x"}, r"is no archive of images\. It must be one of `docker save`"),
        ({"manifest.json": b"{"}, r"is damaged: JSONDecodeError: .*\. Get or make it again\."),
        ({"manifest.json": b"[{}]"}, r"is damaged: KeyError: 'Config'\."),
        ({"manifest.json": b'[{"Config": "x", "Layers": []}]'}, r"is damaged: KeyError: 'x'\."),
        ({"manifest.json": b'["x"]'}, r"is damaged: AttributeError: "),
        ({"index.json": b"{}"}, r"is damaged: KeyError: 'manifests'\."),
    ],
    ids=["other", "cut", "no-config", "lacking", "text", "no-manifests"],
)
def test_an_archive_without_images_is_told(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(BuildError, match=words):
        images.take_archive(tar_of(tmp_path / "app.tar", members), "linux/amd64")


def test_a_cut_archive_is_told(tmp_path: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    path = modern(tmp_path / "app.tar", layout, [APP])
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(BuildError, match=r"app\.tar: (cannot be read as a tar archive|is no archive of images)"):
        images.take_archive(path, "linux/amd64")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    layout = registry.layout(tmp_path / "one", {APP: PROGRAMS[APP]})
    path = modern(tmp_path / "app.tar", layout, [APP])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(kept / "layer-0"))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    words = rf"^{kept}/layer-0: No space left on device\. Make room there, or set XDG_CACHE_HOME to another place\.$"
    with pytest.raises(BuildError, match=words):
        images.take_archive(path, "linux/amd64")


# Images made here.

RECIPES = {
    "kube-proxy": Recipe(files={"/usr/local/bin/kube-proxy": "kube-proxy"}, base=True),
    "app": Recipe(files={"/app": "kube-proxy"}, entrypoint=("/app",), user="1"),
}


@dataclass
class Workshop:
    """Gives programs and the base, and remembers what it was asked for."""

    directory: Path
    asked: list[list[str]] = field(default_factory=list)

    def programs(self, wanted: Collection[str]) -> dict[str, Program]:
        self.asked.append(sorted(wanted))
        found = {}
        for name in wanted:
            path = self.directory / name
            path.write_bytes(f"the {name}".encode())
            path.chmod(0o755)
            found[name] = Program(path, "v1.0.0", f"go:k8s/{name}@v1.0.0 go1.26", "Apache-2.0")
        return found

    def base(self) -> Path:
        root = self.directory / "image-base-test-1" / "root"
        (root / "sbin").mkdir(parents=True, exist_ok=True)
        (root / "sbin/nft").write_text("the nft")
        return root


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "workshop").mkdir()
    return Workshop(tmp_path / "workshop")


def test_an_image_is_made_here_when_nobody_has_it(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(
        found={"registry.test": []}, recipes=RECIPES, programs=workshop.programs, base=workshop.base
    )  # fmt: skip
    layout, made = site.build(PROXY, APP)
    assert files(layout, PROXY) == {"/sbin/nft": b"the nft", "/usr/local/bin/kube-proxy": b"the kube-proxy"}
    assert files(layout, APP) == {"/app": b"the kube-proxy"}
    assert made[PROXY] == Image(
        PROXY, made[PROXY].layout, None, "recipe:kube-proxy go:k8s/kube-proxy@v1.0.0 go1.26, image-base-test-1",
        "Apache-2.0",
    )  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    reasons = "registry.test does not answer; no mirror of registry.test answers"
    assert f"{PROXY}: made here, for {reasons}" in said


def test_programs_are_asked_for_only_when_a_recipe_needs_them(running: Registry, workshop: Workshop) -> None:
    site = mirrored(running, recipes=RECIPES, programs=workshop.programs, base=workshop.base)
    site.build(APP)
    assert workshop.asked == []
    site.build(APP, PROXY)
    assert workshop.asked == [["kube-proxy"]]


def test_images_made_here_are_the_same_bytes_again(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(found={"registry.test": []}, recipes=RECIPES, programs=workshop.programs, base=workshop.base)
    first = content(site.build(PROXY, APP)[0])
    monkeypatch.setattr(cache, "ROOT", tmp_path / "other")
    os.utime(workshop.directory / "kube-proxy", (0, 0))
    assert content(site.build(PROXY, APP)[0]) == first


def test_an_image_of_another_version_than_the_programs_is_not_made(workshop: Workshop) -> None:
    site = Site(sources=("build",), recipes=RECIPES, programs=workshop.programs, base=workshop.base)
    with pytest.raises(BuildError, match=r"v1\.0\.1 cannot be had:\n  - the catalogue builds kube-proxy v1\.0\.0\."):
        site.build("registry.test/kube-proxy:v1.0.1")
    assert workshop.asked == []


def test_programs_that_cannot_be_had_are_told(workshop: Workshop) -> None:
    def failing(wanted: Collection[str]) -> dict[str, Program]:
        raise BuildError("no Go here")

    site = Site(sources=("build",), recipes=RECIPES, programs=failing, base=workshop.base)
    with pytest.raises(BuildError, match=r"cannot be had:\n  - it cannot be made here \(no Go here\)\."):
        site.build(APP)


def test_an_earlier_programs_other_bytes_end_the_build(workshop: Workshop) -> None:
    def failing(wanted: Collection[str]) -> dict[str, Program]:
        raise WrongBytes("other bytes than bundle.lock says")

    site = Site(sources=("build",), recipes=RECIPES, programs=failing, base=workshop.base)
    with pytest.raises(WrongBytes, match=r"^other bytes than bundle\.lock says$"):
        site.build(APP)


def test_a_damaged_image_in_the_cache_is_found(running: Registry, kept: Path) -> None:
    _, made = mirrored(running).build(PAUSE)
    blob = oci.blob(made[PAUSE].layout, oci.images(made[PAUSE].layout)[0]["blobs"][2])
    blob.write_bytes(b"damaged")
    with pytest.raises(BuildError) as caught:
        mirrored(running).build(PAUSE, APP)
    assert f"not sha256:{blob.name}: it was damaged or changed. Remove {kept}/image* and build again." in str(
        caught.value
    )


def test_a_licence_is_that_of_the_label_else_of_the_component(
    running: Registry, tmp_path: Path, pushed_layout: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"the labelled")
    labelled = oci.Layout(tmp_path / "labelled")
    layer = labelled.layer({"/app": program})
    config = {
        "os": "linux", "architecture": "amd64", "config": {"Labels": {"org.opencontainers.image.licenses": "MIT"}},
        "rootfs": {"type": "layers", "diff_ids": [layer[1]]},
    }  # fmt: skip
    labelled.add("registry.test/labelled:1", "linux/amd64", json.dumps(config).encode(), [layer])
    labelled.finish()
    pushed(running, labelled.directory)
    running.push(pushed_layout, PAUSE, "kube-proxy:v1.0.0")
    site = mirrored(running, recipes=RECIPES)
    _, made = site.build("registry.test/labelled:1", PROXY, PAUSE)
    licences = [made[name].licence for name in ("registry.test/labelled:1", PROXY, PAUSE)]
    assert licences == ["MIT", "Apache-2.0", ""]


# Calico's operator, pretended: it prints a reference of each kind that its own source has.

OPERATOR = "registry.test/tigera/operator:v1.36.0"
LISTED = """\
registry.test/calico/cni:v3.29.0
registry.test/calico/cni:v3.29.0-fips
registry.test/calico/cni-windows:v3.29.0
registry.test/tigera/cnx-node:v3.20.0
registry.test/tigera/operator:v1.36.0
"""
SCRIPT = f'#!/bin/sh\ntest "$*" = --print-images=list || exit 1\ntest -z "$HOME" || exit 2\ncat <<END\n{LISTED}END\n'


@pytest.fixture
def with_calico(running: Registry, tmp_path: Path) -> Registry:
    """The registry, with an operator whose program prints a list, and an image that it lists at two places."""
    cni = {"/cni": b"the cni"}
    made = {OPERATOR: {"/usr/bin/operator": SCRIPT.encode()}, "registry.test/calico/cni:v3.29.0": cni}
    pushed(running, registry.layout(tmp_path / "calico", {**made, "registry.test/mine/my-cni:v3.29.0": cni}))
    return running


def test_calicos_operator_brings_the_images_that_it_will_ask_for(with_calico: Registry) -> None:
    layout, made = mirrored(with_calico).build(OPERATOR, PAUSE)
    assert sorted(made) == ["registry.test/calico/cni:v3.29.0", PAUSE, OPERATOR]
    assert files(layout, "registry.test/calico/cni:v3.29.0") == {"/cni": b"the cni"}


def test_an_installation_may_have_calicos_images_elsewhere(with_calico: Registry, tmp_path: Path) -> None:
    path = tmp_path / "installation.yaml"
    path.write_text(
        "apiVersion: operator.tigera.io/v1\nkind: Installation\nmetadata: {name: default}\n"
        "spec: {registry: registry.test/, imagePath: mine, imagePrefix: my-}\n"
    )
    _, made = mirrored(with_calico, manifests=(str(path),)).build(OPERATOR)
    assert sorted(made) == ["registry.test/mine/my-cni:v3.29.0", OPERATOR]


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        (
            {"/usr/bin/operator": b"#!/bin/sh\necho no flag >&2; exit 2\n"},
            r"does not list its images here: .*no flag",
        ),
        ({"/usr/bin/operator": b"#!/bin/sh\necho quay.io/tigera/cnx-node:v1\n"}, r"lists no image of Calico: quay\.io"),
        ({"/usr/bin/operator": b"\x7fELF of another machine"}, r"does not list its images here: .*Exec format error"),
        ({"/usr/bin/manager": b"#!/bin/sh\n"}, r"operator:v1\.36\.0 has no program named operator\."),
    ],
    ids=["fails", "nothing", "foreign", "absent"],
)
def test_an_operator_that_does_not_list_images_is_told(
    running: Registry, tmp_path: Path, programs: dict[str, bytes], words: str
) -> None:
    pushed(running, registry.layout(tmp_path / "calico", {OPERATOR: programs}))
    with pytest.raises(BuildError, match=rf"(?s){words}.* Name Calico's images under `extra_images` in bundle\.yaml\."):
        mirrored(running).build(OPERATOR)
