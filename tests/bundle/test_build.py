"""Whole builds from real servers: what a bundle holds, what the same lock gives again, and builds that fail or end."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import archives
import pytest
import servers
from archives import tree
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from servers import until
from sites import (
    CRICTL,
    KUBEADM,
    KUBELET,
    KUBERNETES,
    PAUSE,
    RELEASE,
    SERVER,
    Site,
    World,
    built,
    keypair,
    packed,
    site,
    undisturbed,
    world,
)

from bundle import cache, oci
from bundle.command import BuildError
from bundle.signature import LOCK
from bundle.verify import BundleError, read_lock, verify

__all__ = ["built", "site", "undisturbed", "world"]  # fixtures


def beside(site: Site) -> set[str]:
    """What lies where the bundle does; the file that builds lock stays."""
    return {path.name for path in site.output.parent.glob("*") if path.name != ".bundle.building"}


def refused(site: Site, update: bool = False) -> str:
    """The error of a build, which must leave what was there as it was."""
    before, there = tree(site.output), beside(site)
    with pytest.raises(BuildError) as caught:
        site.build(update)
    assert tree(site.output) == before
    assert beside(site) == there
    return str(caught.value)


def modes(directory: Path) -> set[tuple[str, str]]:
    """The first step of each file's path, and the file's mode."""
    return {
        (path.relative_to(directory).parts[0], oct(stat.S_IMODE(path.stat().st_mode)))
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_bundle_is_whole_and_its_lock_says_what_is_in_it(site: Site) -> None:
    lock = site.build()
    assert verify(site.output) == []
    assert read_lock(site.output) == lock
    assert beside(site) == {"bundle"}
    assert (lock.platform, lock.kubernetes_version, lock.extras) == ("linux/amd64", "v1.36.2", ())
    assert lock.components == {
        "cni-plugins": "v1.9.1", "coredns": "v1.14.2", "crictl": "v1.36.0", "etcd": "v3.6.8", "kubernetes": "v1.36.2",
    }  # fmt: skip
    assert lock.package_sets == {RELEASE: {"base": ("app",), "runtime": ("containerd",)}}
    assert [(row.name, row.version) for row in lock.packages] == [
        ("app", "1.0"), ("containerd", "2.2.1"), ("libc", "2.36-9"),
    ]  # fmt: skip
    origins = {image.name: image.origin for image in lock.images}
    static = next(row for row in oci.images(site.world.directory / "pause"))["digest"]
    assert origins == {SERVER: site.images.digest("kube-apiserver:v1.36.2"), PAUSE: static}
    files = {file.path: (file.name, file.version, file.source, file.licence) for file in lock.files}
    upstream, plugins = "https://files.test/release/v1.36.2/bin/linux/amd64", "cni-plugins-linux-amd64-v1.9.1.tgz"
    assert {path: row for path, row in files.items() if path.startswith(("bin/", "cni/"))} == {
        "bin/crictl": ("crictl", "v1.36.0", f"https:/{CRICTL}#crictl", "Apache-2.0"),
        "bin/kubeadm": ("kubeadm", "v1.36.2", f"{upstream}/kubeadm", "Apache-2.0"),
        "bin/kubelet": ("kubelet", "v1.36.2", f"{upstream}/kubelet", "Apache-2.0"),
        "cni/bridge": ("bridge", "v1.9.1", f"https://files.test/{plugins}#bridge", "MIT"),
        "cni/loopback": ("loopback", "v1.9.1", f"https://files.test/{plugins}#loopback", "MIT"),
    }
    blobs = {row[:3] for path, row in files.items() if path.startswith("images/blobs/")}
    assert blobs == {
        ("images.test/kube-apiserver", "v1.36.2", f"docker://{SERVER}"),
        ("static.test/pause", "3.10.2", f"docker://{PAUSE}"),
    }
    assert files[f"packages/{RELEASE}/app_1.0_amd64.deb"][:2] == ("app", "1.0")
    assert files["bundle.cdx.json"][:2] == ("SBOM", "-")


def test_the_sbom_is_valid_and_names_programs_images_and_packages(built: Site) -> None:
    text = (built.output / "bundle.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    names = {row["name"] for row in json.loads(text)["components"]}
    assert {"kubelet", "bridge", "images.test/kube-apiserver", "static.test/pause", "containerd"} <= names


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_programs_may_be_run_and_everything_be_read_whatever_the_builder_keeps_to_himself(
    site: Site, umask: int
) -> None:
    before = os.umask(umask)
    try:
        site.build()
    finally:
        os.umask(before)
    others = ("images", "packages", "bundle.cdx.json", LOCK)
    assert modes(site.output) == {("bin", "0o755"), ("cni", "0o755"), *((name, "0o644") for name in others)}


def test_the_same_lock_gives_the_same_bytes_from_another_mirror_whatever_is_new(
    built: Site, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.open(tmp_path / "other") as other:
        monkeypatch.setattr(cache, "ROOT", other.cache)
        other.image(SERVER, b"what the tag is now", "kube-apiserver:v1.36.2")
        other.package("app", "2.0", "Depends: libc")
        other.output.mkdir(parents=True)
        (other.output / LOCK).write_bytes((built.output / LOCK).read_bytes())
        other.build()
        assert tree(other.output) == tree(built.output)
        newest = other.build(update=True)
        assert [row.version for row in newest.packages if row.name == "app"] == ["2.0"]
        assert newest.images[0].origin == other.images.digest("kube-apiserver:v1.36.2")
        assert newest.images[0].origin != read_lock(built.output).images[0].origin


def change_program(site: Site) -> None:
    site.publish(KUBELET, b"another kubelet")


def change_archive(site: Site) -> None:
    site.publish(CRICTL, packed({"crictl": b"another crictl"}))


def change_image(site: Site) -> None:
    site.images.delete("kube-apiserver", site.images.digest("kube-apiserver:v1.36.2"))
    site.image(SERVER, b"another server", "kube-apiserver:v1.36.2")


def change_package(site: Site) -> None:
    site.package("app", "1.0", "Depends: libc", text="another app")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            change_program,
            r"/kubelet: has sha256 \w{64}, and must have \w{64}\. Nothing of it .* said by bundle\.lock\.",
        ),
        (
            change_archive,
            r"#crictl: has sha256 \w+, and bundle\.lock says \w+\. Upstream has another archive there now",
        ),
        (
            change_image,
            r"for images\.test/kube-apiserver:v1\.36\.2, and not sha256:\w+, which bundle\.lock has: its tag",
        ),
        (
            change_package,
            r"^packages of debian-12: what was fetched is not what bundle\.lock has: app_1\.0_amd64\.deb\.",
        ),
    ],
)
def test_other_bytes_than_the_locks_are_refused_until_an_update_locks_them(
    built: Site, change: Callable[[Site], None], words: str
) -> None:
    locked = read_lock(built.output)
    change(built)
    built.forget()
    assert re.search(words, refused(built))
    assert built.build(update=True) != locked
    assert verify(built.output) == []
    updated = tree(built.output)
    built.build()
    assert tree(built.output) == updated


Document = dict[str, Any]


def edited(site: Site, edit: Callable[[Document], None]) -> None:
    """Change a lock by hand."""
    document = json.loads((site.output / LOCK).read_text())
    edit(document)
    (site.output / LOCK).write_text(json.dumps(document))


def row(document: Document, path: str) -> Document:
    return next(file for file in document["files"] if file["path"] == path)


NONE = "0" * 64


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda it: row(it, "bin/kubelet").update(sha256=NONE), rf"/kubelet: has sha256 \w+, and must have {NONE}\."),
        (lambda it: row(it, "cni/bridge").update(sha256=NONE), rf"#bridge: has .* and bundle\.lock says {NONE}\."),
        (lambda it: it["images"][0].update(origin=f"sha256:{NONE}"), rf"and not sha256:{NONE}, which bundle\.lock has"),
        (
            lambda it: row(it, f"packages/{RELEASE}/app_1.0_amd64.deb").update(sha256=NONE),
            r"what was fetched is not what bundle\.lock has: app_1\.0_amd64\.deb",
        ),
        (
            lambda it: it["packages"][0].update(file="packages/none.deb"),
            r"bundle\.lock: the package app is in packages/none\.deb, which is none of the files\. Its lock says what",
        ),
        (
            lambda it: row(it, f"images/blobs/{it['images'][0]['digest'].replace(':', '/')}").update(sha256=NONE),
            rf"has the digest sha256:{NONE}, which is not its name.*put back the right one, or remove ",
        ),
        (lambda it: it.update(sealed=True), r"(?s)cannot be read as a lock of format 2: .*sealed.*put back the right "),
        (lambda it: it.update(format=3), r"(?s)cannot be read as a lock of format 2: .*format.*put back the right one"),
    ],
    ids=["program", "archive", "origin", "package", "no such package", "blob", "unknown name", "format"],
)
def test_a_lock_that_was_edited_by_hand_stops_the_build(
    built: Site, edit: Callable[[Document], None], words: str
) -> None:
    edited(built, edit)
    assert re.search(words, refused(built))


def test_a_lock_that_is_no_json_stops_the_build(built: Site) -> None:
    (built.output / LOCK).write_text("not JSON\n")
    words = (
        r"(?s)bundle\.lock: cannot be read as a lock of format 2: .*JSON.*put back the right one, or remove .*bundle "
    )
    assert re.search(words, refused(built))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"components": {"etcd": {"version": "v3.5.9"}}},
            r"etcd v3\.5\.9 is below 3\.6\.0, the least for Kubernetes 1\.36: .*; take 3\.6.*, or Kubernetes 1\.30\.",
        ),
        (
            {"kubernetes_version": "v1.25.0", "components": {"etcd": {"version": "v3.7.0"}}},
            r"etcd v3\.7\.0 is too new for Kubernetes 1\.25, .*; take 3\.6 or earlier, or Kubernetes 1\.34\.",
        ),
        (
            {"kubernetes_version": "v1.99.0"},
            r"^Kubernetes 1\.99 cannot be bundled: bundle/versions\.yaml has 1\.21 to 1\.36\. Take v1\.36\.\d+\.$",
        ),
        ({"kubernetes_version": "latest"}, r"^'latest' is no version: .* Correct it in bundle\.yaml\."),
    ],
)
def test_versions_that_cannot_go_together_are_refused_before_anything_is_asked_for(
    built: Site, more: dict[str, Any], words: str
) -> None:
    built.configure(**more)
    built.forget()
    assert re.search(words, refused(built))
    assert (built.files.requests, built.packages.asked) == ([], [])
    assert not built.cache.exists()


def test_a_runtime_that_is_too_old_is_refused_before_any_image_is_asked_for(site: Site) -> None:
    (site.directory / "packages" / "containerd_2.2.1_amd64.deb").unlink()
    site.package("containerd", "1.5.0")
    said = refused(site)
    assert "\n  - containerd 1.5.0 is below 1.6.15, the least for Kubernetes 1.36: " in said
    assert "; take 1.6.15 or later, or Kubernetes 1.25." in said
    assert beside(site) == set()
    assert not [request for request in site.files.requests if request.path.startswith("/v2/pause")]


def test_an_image_that_kubeadm_lists_and_nobody_has_is_named(built: Site) -> None:
    built.publish(f"{KUBERNETES}/kubeadm", f"{KUBEADM}echo images.test/nothing:1\n".encode())
    said = refused(built, update=True)
    assert said.startswith("images.test/nothing:1 cannot be had:\n  - ")
    assert "/nothing:1 is not there. Check the reference in bundle.yaml." in said


@pytest.mark.parametrize(
    ("own", "etcd", "coredns"),
    [({}, "v3.6.9", "v1.14.1"), ({"components": {"etcd": {"version": "v3.6.7"}}}, "v3.6.7", "v1.14.1")],
    ids=["nothing", "etcd"],
)
def test_what_kubeadm_lists_is_what_the_bundle_has_unless_the_site_names_it(
    built: Site, own: dict[str, Any], etcd: str, coredns: str
) -> None:
    images = ("images.test/etcd:3.6.9-0", "images.test/coredns/coredns:v1.14.1")
    listed = "".join(f"echo {image}\n" for image in images)
    built.publish(f"{KUBERNETES}/kubeadm", f"{KUBEADM}{listed}".encode())
    for image in images:
        built.image(image, b"a program", image.partition("/")[2])
    built.configure(**own)
    lock = built.build(update=True)
    assert (lock.components["etcd"], lock.components["coredns"]) == (etcd, coredns)
    assert set(images) < {image.name for image in lock.images}


def test_an_image_that_is_for_another_architecture_is_named(built: Site) -> None:
    built.image(SERVER, b"for arm", "kube-apiserver:v1.36.2", "linux/arm64")
    said = refused(built, update=True)
    assert f"{SERVER} is not for linux/amd64; it is for linux/arm64. Ask its maker for one that is." in said


def test_a_kubeadm_of_another_version_than_the_bundle_stops_it(built: Site) -> None:
    built.publish(f"{KUBERNETES}/kubeadm", b"#!/bin/sh\necho this version is not supported >&2\nexit 1\n")
    assert "--kubernetes-version v1.36.2` exited with 1:\nthis version is not supported" in refused(built, update=True)


def test_a_registry_that_fails_on_the_way_is_gone_on_with_and_nothing_is_fetched_twice(site: Site) -> None:
    layer = next(path for path in (site.files.root / "v2/pause/blobs").iterdir() if b"rootfs" not in path.read_bytes())
    path = f"/v2/pause/blobs/{layer.name}"
    site.files.fault(path, servers.status(503), times=100)
    assert refused(site).startswith(f"{PAUSE} cannot be had:\n  - ")
    assert site.files.ranges(path)
    made = {each: each.stat().st_ino for each in site.cache.iterdir()}
    site.files.requests.clear()
    site.files.fault(path, servers.status(503), times=0)
    site.build()
    assert {each: each.stat().st_ino for each in made} == made
    fetched = {request.path for request in site.files.requests if not request.path.endswith((".sha256", "SUMS"))}
    assert {each for each in fetched if each.startswith("/files.test")} == {"/files.test/v2/"}
    assert path in fetched


def test_packages_that_one_mirror_has_no_longer_are_had_from_the_next(built: Site, world: World) -> None:
    before = tree(built.output)
    (built.directory / "packages" / "app_1.0_amd64.deb").unlink()
    built.package("app", "2.0", "Depends: libc")
    built.forget()
    with archives.serve(world.directory / "packages") as old:
        built.configure(mirrors={**built.mirrors, "packages.test": [built.packages.url, old.url]})
        built.build()
    assert tree(built.output) == before
    assert built.packages.asked and old.asked


def test_an_archive_without_a_mirror_is_named_when_only_mirrors_are_asked(site: Site) -> None:
    site.configure(mirrors={**site.mirrors, "packages.test": []})
    words = "packages of debian-12: `sources` has not `upstream`, and `mirrors` nothing for their archives. Add either."
    assert refused(site) == words


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a build with everything that it has started, wherever it is by then."""
    with process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def hold(go: threading.Event) -> servers.Fault:
    """Answer rightly, but not before the event."""

    def fault(handler: Any, data: bytes | None) -> None:
        go.wait()
        handler.serve(data)

    return fault


def stop_at(site: Site, point: str) -> None:
    """Start a build in a process, and kill it once it has come to a point."""
    functions = {
        "laid out": "bundle.sbom.text",
        "to be signed": "bundle.signature.sign",
        "to be renamed": "pathlib.Path.rename",
    }
    blobs = [f"/v2/pause/blobs/{path.name}" for path in (site.files.root / "v2/pause/blobs").iterdir()]
    paths = {"program": [KUBELET], "archive": [CRICTL], "packages": blobs, "image": blobs}.get(point, [])
    for path in paths:
        site.files.fault(path, servers.stall(100), times=1)
    with killed(site.start(stop=functions.get(point, ""))) as process:
        if point in functions:
            assert process.stdout is not None
            lines = iter(process.stdout)
            assert "stopped\n" in lines, "the build has ended before"
            assert (site.output.parent / "bundle.new").exists()
        elif point == "packages":
            until(lambda: bool(site.packages.asked))
        else:
            until(lambda: any(site.files.ranges(path) for path in paths))
    for path in paths:
        site.files.fault(path, servers.no_ranges, times=0)


@pytest.mark.parametrize("point", ["program", "archive", "packages", "image", "laid out"])
def test_a_build_that_is_killed_is_gone_on_with_and_gives_the_same_bytes(
    site: Site, undisturbed: Path, point: str
) -> None:
    stop_at(site, point)
    assert not site.output.exists()
    site.build()
    assert verify(site.output) == []
    assert beside(site) == {"bundle"}
    assert tree(site.output) == tree(undisturbed / "dist/bundle")


@pytest.mark.parametrize("point", ["program", "image", "laid out", "to be signed"])
def test_the_old_bundle_is_whole_when_a_build_is_killed(built: Site, point: str, tmp_path: Path) -> None:
    key = keypair(tmp_path / "key")
    (tmp_path / "site.conf").write_text("more than the old bundle has")
    built.configure(extra_files=[str(tmp_path / "site.conf")], signing_key=str(key))
    before = tree(built.output)
    built.forget()
    stop_at(built, point)
    assert tree(built.output) == before
    assert built.build().extras == ("files/site.conf",)
    assert verify(built.output, key.with_suffix(".pub")) == []
    assert beside(built) == {"bundle"}


def test_the_old_bundle_stays_in_its_place_until_the_new_one_is_whole(built: Site, tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text("more than the old bundle has")
    built.configure(extra_files=[str(tmp_path / "site.conf")])
    before = tree(built.output)
    stop_at(built, "to be renamed")  # nothing else is when all is in the cache
    assert tree(built.output) == before
    assert verify(built.output.with_name("bundle.new")) == []


def test_a_build_that_was_killed_between_both_renames_has_its_old_bundle_and_lock_back(built: Site) -> None:
    before = tree(built.output)
    built.output.rename(built.output.with_name("bundle.old"))
    built.output.with_name("bundle.new").mkdir()
    (built.output.with_name("bundle.new") / "half").touch()
    built.package("app", "2.0", "Depends: libc")  # what a build without the old lock would take
    built.forget()
    built.build()
    assert tree(built.output) == before
    assert beside(built) == {"bundle"}


def test_a_second_build_in_a_folder_is_refused_while_the_first_goes_on(site: Site) -> None:
    go = threading.Event()
    site.files.fault(KUBELET, hold(go), times=1)
    with site.start() as process:
        try:
            until(lambda: bool(site.files.ranges(KUBELET)))
            words = (
                f"{site.output}: another build is at work here. Wait until it has ended; what both need is made once."
            )
            assert refused(site) == words
        finally:
            go.set()
        said = process.communicate()[0]
    assert process.returncode == 0, said
    assert verify(site.output) == []


def test_builds_in_two_folders_share_a_cache_and_give_the_same_bytes(site: Site, undisturbed: Path) -> None:
    go, both = threading.Event(), [site.directory / name / "bundle" for name in ("one", "two")]
    path = f"{KUBELET}.sha256"
    site.files.fault(path, hold(go), times=2)
    with site.start(output=both[0]) as one, site.start(output=both[1]) as two:
        try:
            until(lambda: len(site.files.ranges(path)) == 2)
        finally:
            go.set()
        said = [process.communicate()[0] for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), "\n".join(said)
    assert site.files.ranges(KUBELET) == [""]
    assert tree(both[0]) == tree(both[1]) == tree(undisturbed / "dist/bundle")


SMALL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2/dist"
cp -r "$2/old" "$2/dist/bundle"
left="$2/dist" old="$2/old"
shift 2
set +e
"$@"
echo "ended with $?"
diff -r "$old" "$left/bundle" && echo untouched
ls -A "$left"
"""


@pytest.mark.parametrize("free", [100_000, 340_000], ids=["programs do not fit", "images do not fit"])
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(built: Site, free: int) -> None:
    built.output.rename(built.directory / "old")
    used = sum(path.stat().st_size // 4096 * 4096 + 4096 for path in (built.directory / "old").rglob("*"))
    # In a mount namespace of its own, with which the disk is gone: https://man7.org/linux/man-pages/man1/unshare.1.html
    words = ("unshare", "--mount", "sh", "-ec", SMALL_DISK, "sh", str(used + free), built.directory)
    with built.start(*words) as process:
        said = process.communicate()[0]
    error = f"BuildError: {built.output}: cannot be written: [Errno 28] No space left on device"
    assert error in said
    assert ". What there was is as it was; mend that, then build again.\n" in said
    assert said.endswith("ended with 1\nuntouched\n.bundle.building\nbundle\n")
    assert str(built.directory) not in Path("/proc/self/mounts").read_text()


def test_a_folder_that_cannot_be_written_is_named(site: Site) -> None:
    site.output.parent.write_text("a file")
    words = rf"^{site.output.parent}/\.bundle\.building: cannot be written: .*\. Build where you may write\.$"
    with pytest.raises(BuildError, match=words):
        site.build()


def test_a_bundle_is_signed_by_the_key_of_the_site(
    built: Site, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = keypair(tmp_path / "key"), keypair(tmp_path / "other")
    built.configure(signing_key=str(key))
    built.build()
    assert verify(built.output, key.with_suffix(".pub")) == []
    with pytest.raises(BundleError, match=r"bundle\.lock\.sig: was made by another key, SHA256:"):
        verify(built.output, other.with_suffix(".pub"))
    signed = tree(built.output)
    built.build()
    assert tree(built.output) == signed
    built.configure()
    capsys.readouterr()
    built.build()
    assert tree(built.output) == tree(undisturbed / "dist/bundle")
    assert "bundle: the bundle was signed; it is another now: sign it again with" in capsys.readouterr().out


def missing(path: Path) -> None:
    path.unlink()


def no_key(path: Path) -> None:
    path.write_text("no key")


def seen_by_all(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            missing,
            r"key: cannot be read as a key to sign the bundle with: No such file or directory\. Name a private key",
        ),
        (no_key, r"key: ssh-keygen could not sign bundle\.lock with it and exited with \d+; its words are above\."),
        (seen_by_all, r"key: ssh-keygen could not sign bundle\.lock .* A key must be readable by you alone"),
    ],
)
def test_a_key_that_cannot_sign_leaves_the_old_bundle(
    built: Site, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    key = keypair(tmp_path / "key")
    spoil(key)
    built.configure(signing_key=str(key))
    assert re.search(words, refused(built))
