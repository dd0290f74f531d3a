"""What a site adds to a bundle: it stays, nothing else changes, and what cannot be added leaves the bundle alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import registry
from archives import flip, tree
from sites import PAUSE, SERVER, Site, built, keypair, noise, site, undisturbed, world

from bundle import assemble, catalogue, extras, oci
from bundle.command import BuildError
from bundle.packing import LICENCE
from bundle.signature import LOCK, SIGNATURE, sign
from bundle.verify import BundleError, read_lock, verify
from cluster.lock import Lock

__all__ = ["built", "site", "undisturbed", "world"]  # fixtures
APP = "images.test/team/app:1.0"


def add_image(to: Site, what: str, name: str = "") -> Lock:
    return extras.add_image(to.output, catalogue.load(to.config), what, name)


def add_file(to: Site, path: Path) -> Lock:
    return extras.add_file(to.output, catalogue.load(to.config), path)


def written(path: Path, text: str = "a text") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def refused(to: Site, add: Callable[[], object]) -> str:
    """The error of an addition, which must leave the bundle as it was."""
    before = tree(to.output)
    with pytest.raises((BuildError, BundleError)) as caught:
        add()
    assert tree(to.output) == before
    assert {path.name for path in to.output.parent.iterdir()} == {"bundle", ".bundle.building"}
    return str(caught.value)


def layout(directory: Path, name: str, data: bytes, licence: str = "") -> Path:
    """An image of one file; with a licence, one whose label says it."""
    made = oci.Layout(directory)
    layer = made.layer({"/app": written(directory.with_name("app"), data.decode())})
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Labels": {LICENCE: licence} if licence else {}},
        "rootfs": {"type": "layers", "diff_ids": [layer[1]]},
    }  # fmt: skip
    made.add(name, "linux/amd64", json.dumps(config).encode(), [layer])
    made.finish()
    return directory


def saved(path: Path, name: str, data: bytes, tag: str = "") -> Path:
    """An archive of an image, as `docker save` makes one; without a tag its image has no name."""
    made = layout(path.with_name("layout"), name, data)
    plain = registry.plain(made, name, path.with_name("plain"))
    registry.skopeo("copy", "--quiet", plain, f"docker-archive:{path}{':' if tag else ''}{tag}")
    return path


def image(lock: Lock, name: str) -> tuple[str | None, str, str]:
    """An image's origin, and what is said of its manifest."""
    found = next(each for each in lock.images if each.name == name)
    file = next(each for each in lock.files if each.path == f"images/blobs/{found.digest.replace(':', '/')}")
    return found.origin, file.source, file.licence


def test_an_image_is_added_by_its_reference_and_stays(built: Site, tmp_path: Path) -> None:
    built.images.push(layout(tmp_path / "layout", APP, b"the app", "MIT"), APP, "team/app:1.0")
    origin = built.images.digest("team/app:1.0")
    lock = add_image(built, APP)
    assert verify(built.output) == []
    assert lock == read_lock(built.output)
    assert lock.extras == (APP,)
    assert image(lock, APP) == (origin, f"docker://{APP}", "MIT")
    added = tree(built.output)
    built.images.delete("team/app", origin)
    built.forget()
    built.build()
    assert tree(built.output) == added
    built.build(update=True)
    assert tree(built.output) == added


def test_an_image_is_added_from_an_archive_and_stays(built: Site, tmp_path: Path) -> None:
    path = saved(tmp_path / "app.tar", "example.org/app:1", b"the app", "example.org/app:1")
    lock = add_image(built, str(path))
    assert verify(built.output) == []
    assert lock.extras == ("example.org/app:1",)
    origin, source, _ = image(lock, "example.org/app:1")
    assert origin is None
    assert re.fullmatch(r"archive:app\.tar#sha256:\w{64}", source)
    added = tree(built.output)
    path.unlink()
    built.forget()
    built.build()
    assert tree(built.output) == added


def test_an_archive_without_a_name_is_added_under_the_one_that_is_given(built: Site, tmp_path: Path) -> None:
    path = saved(tmp_path / "app.tar", "example.org/app:1", b"the app")
    assert "has no name. Give it one, such as registry.example.org/app:1.0" in refused(
        built, lambda: add_image(built, str(path))
    )
    assert add_image(built, str(path), "example.org/mine:2").extras == ("example.org/mine:2",)
    assert verify(built.output) == []


def test_a_file_is_added_and_stays(built: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "site.conf")
    path.chmod(0o600)
    lock = add_file(built, path)
    assert verify(built.output) == []
    assert lock.extras == ("files/site.conf",)
    file = next(each for each in lock.files if each.path == "files/site.conf")
    assert (file.name, file.version, file.source, file.licence) == ("site.conf", "-", "file:site.conf", "")
    assert (built.output / "files/site.conf").stat().st_mode & 0o777 == 0o644
    added = tree(built.output)
    assert added["files/site.conf"] == b"a text"
    path.unlink()
    built.forget()
    built.build()
    assert tree(built.output) == added
    built.build(update=True)
    assert tree(built.output) == added


def test_nothing_but_what_is_added_changes(built: Site, tmp_path: Path) -> None:
    before = tree(built.output)
    add_file(built, written(tmp_path / "site.conf"))
    built.image(APP, b"the app", "team/app:1.0")
    add_image(built, APP)
    after = tree(built.output)
    described = {LOCK, "bundle.cdx.json", "images/index.json"}
    assert {path for path in before if after.get(path) != before[path]} == described
    new = {path for path in after.keys() - before.keys() if not path.startswith("images/blobs/")}
    assert new == {"files/site.conf"}


def test_a_blob_that_the_cluster_has_as_well_stays_under_its_name(built: Site) -> None:
    before = {file.path: file for file in read_lock(built.output).files}
    made = registry.layout(built.directory / "same", {APP: {"/kube-apiserver": noise("server", 50_000)}})
    built.images.push(made, APP, "team/app:1.0")
    lock = add_image(built, APP)
    assert {each.name for each in lock.images} == {SERVER, PAUSE, APP}
    blobs = {file.path: file for file in lock.files if file.path.startswith("images/blobs/")}
    assert blobs == {path: file for path, file in before.items() if path in blobs}
    added = tree(built.output)
    built.build()
    assert tree(built.output) == added


def test_adding_the_same_again_changes_nothing(built: Site, tmp_path: Path) -> None:
    built.image(APP, b"the app", "team/app:1.0")
    path = written(tmp_path / "site.conf")
    add_image(built, APP)
    lock = add_file(built, path)
    added = tree(built.output)
    add_image(built, APP)
    assert add_file(built, path) == lock
    assert tree(built.output) == added


def test_what_is_added_under_a_name_again_takes_its_place(built: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "site.conf")
    built.image(APP, b"the app", "team/app:1.0")
    add_file(built, path)
    first = add_image(built, APP)
    written(path, "another text")
    built.image(APP, b"another app", "team/app:1.0")
    add_file(built, path)
    lock = add_image(built, APP)
    assert verify(built.output) == []
    assert (lock.extras, len(lock.files)) == (first.extras, len(first.files))
    assert (built.output / "files/site.conf").read_text() == "another text"
    assert image(lock, APP)[0] == built.images.digest("team/app:1.0") != image(first, APP)[0]


def test_files_of_the_old_bundle_are_never_written_to(built: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "site.conf")
    built.image(APP, b"the app", "team/app:1.0")
    add_file(built, path)
    add_image(built, APP)
    old = shutil.copytree(built.output, built.directory / "old", copy_function=os.link)
    before = tree(old)
    add_file(built, written(path, "another text"))
    built.image(APP, b"another app", "team/app:1.0")
    add_image(built, APP)
    built.build()
    assert tree(old) == before
    assert verify(old) == []
    assert tree(built.output) != before


def test_the_name_of_an_image_that_the_cluster_needs_is_refused(built: Site, tmp_path: Path) -> None:
    words = f"{SERVER}: the bundle has an image of this name, which the cluster itself needs. Give yours another name."
    assert refused(built, lambda: add_image(built, SERVER)) == words
    path = saved(tmp_path / "app.tar", "example.org/app:1", b"the app")
    assert refused(built, lambda: add_image(built, str(path), SERVER)) == words


def test_an_image_that_the_catalogue_has_by_now_is_the_sites_own_no_longer(built: Site) -> None:
    built.image(APP, b"the app", "team/app:1.0")
    add_image(built, APP)
    built.configure(extra_images=[APP])
    lock = built.build()
    assert verify(built.output) == []
    assert lock.extras == ()
    assert [each.name for each in lock.images].count(APP) == 1


@pytest.mark.parametrize(
    ("what", "name", "words"),
    [
        ("images.test/nothing:1", "", r"^images\.test/nothing:1 cannot be had:\n(.|\n)*/nothing:1 is not there\."),
        (
            "Not A Name",
            "",
            r"^'Not A Name' is no reference of an image\. It must be like registry\.k8s\.io/pause:3\.10",
        ),
        (
            APP,
            "example.org/app:1",
            r"^images\.test/team/app:1\.0: is no file, and only the image of a file can be named",
        ),
    ],
)
def test_an_image_that_cannot_be_had_leaves_the_bundle_alone(built: Site, what: str, name: str, words: str) -> None:
    assert re.search(words, refused(built, lambda: add_image(built, what, name)))


def test_an_image_for_another_platform_than_the_bundles_is_refused(built: Site) -> None:
    built.image(APP, b"for arm", "team/app:1.0", "linux/arm64")
    built.configure(platform="linux/arm64")
    words = f"{APP} is not for linux/amd64; it is for linux/arm64."
    assert words in refused(built, lambda: add_image(built, APP))


def test_an_archive_that_leads_out_of_itself_is_refused(built: Site, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    words = r"evil\.tar: is refused, for its member '\.\./escaped' leads out by `\.\.`\. Nothing of it was used\."
    assert re.search(words, refused(built, lambda: add_image(built, str(tmp_path / "evil.tar"))))


@pytest.mark.parametrize("kind", ["link", "directory", "missing", "pipe"])
def test_only_a_file_is_added(built: Site, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "link":
        path.symlink_to(written(tmp_path / "site.conf"))
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    words = f"{path}: is no file that could be added. Name a file; a directory goes in as an archive."
    assert refused(built, lambda: add_file(built, path)) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("-rf", "files/-rf: must have no step that begins with `-`, which programs take for an option"),
        ("two\nlines", r"files/two\nlines: must have no control characters, no invisible ones and no backslash"),
        ("\x1b[2J", r"files/\x1b[2J: must have no control characters, no invisible ones and no backslash"),
        ("back\\slash", "files/back\\slash: must have no control characters, no invisible ones and no backslash"),
        ("gnp\u202e.exe", r"files/gnp\u202e.exe: must have no control characters, no invisible ones and no backslash"),
        ("no text \udcff", r"files/no text \udcff: "),
    ],
)
def test_a_name_that_a_lock_does_not_take_is_refused(built: Site, tmp_path: Path, name: str, words: str) -> None:
    said = refused(built, lambda: add_file(built, written(tmp_path / name)))
    assert said.startswith(f"A bundle cannot have such files: {words}")
    assert said.endswith(". Give them other names.")
    assert said.isprintable()


def test_names_that_differ_in_case_alone_are_refused(built: Site, tmp_path: Path) -> None:
    add_file(built, written(tmp_path / "site.conf"))
    words = (
        "A bundle cannot have such files: files/Site.conf and files/site.conf differ in case alone. Give them other "
    )
    assert refused(built, lambda: add_file(built, written(tmp_path / "Site.conf"))).startswith(words)


def test_a_file_that_is_named_like_the_lock_stays_as_others_do(built: Site, tmp_path: Path) -> None:
    add_file(built, written(tmp_path / LOCK, "a text of the site's"))
    add_file(built, written(tmp_path / "site.conf"))
    built.build()
    assert verify(built.output) == []
    assert (built.output / "files" / LOCK).read_text() == "a text of the site's"


def test_nothing_is_added_to_a_damaged_bundle(built: Site, tmp_path: Path) -> None:
    flip(built.output / "bin/kubelet")
    said = refused(built, lambda: add_file(built, written(tmp_path / "site.conf")))
    assert said.startswith("The bundle is not whole, and nothing was added:\n")
    assert f"{built.output}/bin/kubelet: sha256 is " in said


def test_nothing_is_added_where_there_is_no_bundle(site: Site, tmp_path: Path) -> None:
    words = r"bundle\.lock: there is no bundle here\. Build it with `python3 tasks\.py bundle build`"
    with pytest.raises(BundleError, match=words):
        add_file(site, written(tmp_path / "site.conf"))
    with pytest.raises(BundleError, match=words):
        add_image(site, APP)
    assert not site.output.exists()


def test_nothing_is_added_while_another_build_is_at_work(built: Site, tmp_path: Path) -> None:
    with assemble.alone(built.output):
        said = refused(built, lambda: add_file(built, written(tmp_path / "site.conf")))
    assert said.startswith(f"{built.output}: another build is at work here.")


def test_a_bundle_is_put_back_that_a_build_which_was_killed_has_set_aside(built: Site, tmp_path: Path) -> None:
    built.output.rename(built.output.with_name("bundle.old"))
    assert add_file(built, written(tmp_path / "site.conf")).extras == ("files/site.conf",)
    assert verify(built.output) == []
    assert {path.name for path in built.output.parent.iterdir()} == {"bundle", ".bundle.building"}


def test_a_signature_is_dropped_and_that_is_said(
    built: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(built.output, keypair(tmp_path / "key"))
    add_file(built, written(tmp_path / "site.conf"))
    assert not (built.output / SIGNATURE).exists()
    words = "bundle: the bundle was signed; it is another now: sign it again with `python3 tasks.py bundle sign`"
    assert words in capsys.readouterr().out


def test_a_bundle_is_signed_again_by_the_key_of_the_site(
    built: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = keypair(tmp_path / "key")
    sign(built.output, key)
    built.configure(signing_key=str(key))
    add_file(built, written(tmp_path / "site.conf"))
    assert verify(built.output, key.with_suffix(".pub")) == []
    assert "sign it again" not in capsys.readouterr().out


def test_files_of_the_sites_file_go_in_with_the_build_and_are_read_anew(built: Site, tmp_path: Path) -> None:
    path = written(tmp_path / "site.conf")
    built.configure(extra_files=[str(path)])
    assert built.build().extras == ("files/site.conf",)
    written(path, "another text")
    built.build()
    assert verify(built.output) == []
    assert (built.output / "files/site.conf").read_text() == "another text"


def test_two_files_of_one_name_are_refused(built: Site, tmp_path: Path) -> None:
    paths = [written(tmp_path / name / "site.conf") for name in ("one", "two")]
    built.configure(extra_files=[str(path) for path in paths])
    assert refused(built, built.build) == (
        "Several files are named site.conf, and files/ has one of a name. Rename them."
    )


@pytest.mark.parametrize("what", ["file", "image", "index", "nothing"])
def test_what_was_added_and_is_damaged_stops_the_build_until_it_is_taken_out(
    built: Site, tmp_path: Path, what: str
) -> None:
    built.image(APP, b"the app", "team/app:1.0")
    add_file(built, written(tmp_path / "site.conf"))
    lock = add_image(built, APP)
    manifest = next(each.digest for each in lock.images if each.name == APP).replace(":", "/")
    part = {"image": f"images/blobs/{manifest}", "index": "images/index.json"}.get(what, "files/site.conf")
    name = APP if part.startswith("images/") else part
    flip(built.output / part)
    if what == "nothing":
        (built.output / part).unlink()
    assert refused(built, built.build) == (
        f"{built.output / part}: is of {name}, which was added to the bundle, and is not as it was then. Put it back, "
        f"or take {name} out of `extras` in {built.output / LOCK} to do without it."
    )
    document = json.loads((built.output / LOCK).read_text())
    document["extras"].remove(name)
    (built.output / LOCK).write_text(json.dumps(document))
    assert built.build().extras == tuple(each for each in lock.extras if each != name)
    assert verify(built.output) == []
