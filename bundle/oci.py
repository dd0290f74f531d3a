"""Images written into one OCI layout: shared blobs, layers packed by zstd, the same bytes from the same files.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from bundle.command import BuildError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Threads do not change what comes out, but --single-thread would. The window of level 19 is 8 MB, the most that every
# decoder has to take (RFC 8878, section 3.1.1.1.2). https://github.com/facebook/zstd/blob/v1.5.4/programs/zstd.1.md
PACK = ("zstd", "-19", "-T0", "-q", "--stdout")
# Whatever it is packed by, or not at all: what zstd does not know, it passes through (--force with --stdout).
UNPACK = ("zstd", "-d", "--force", "-q", "--stdout")
# containerd reads the first, skopeo and others the second.
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

Descriptor = dict[str, Any]
Layer = tuple[Descriptor, str]  # a packed layer, and the digest of what it unpacks to
Progress = Callable[[int, int], object]  # is told how many bytes are packed, and of how many


@dataclass(frozen=True)
class Content:
    """An image as it came from elsewhere: its config as it stood there, and files of its layers, packed or not."""

    config: bytes
    layers: tuple[Path, ...]


def _silently(done: int, of: int) -> None:
    """Tell nobody how far it is."""


class _Counted(io.RawIOBase):
    """A file that is counted and hashed as it is written, or nothing but that."""

    def __init__(self, target: IO[bytes] | None, progress: Callable[[int], object] = lambda _: None) -> None:
        self.target, self.progress, self.sha256, self.size = target, progress, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        before, self.size = self.size, self.size + len(data)
        if self.target is not None:
            self.target.write(data)
        if before >> 20 != self.size >> 20:  # a megabyte more
            self.progress(self.size)
        return len(data)


def pack(write: Callable[[IO[bytes]], object], target: Path, progress: Progress = _silently) -> Layer:
    """Make a layer's file of what `write` writes, which is called twice. Raises BuildError."""
    first = _Counted(None)
    write(cast(IO[bytes], first))
    # With its size in it, a small layer takes little memory to unpack.
    command = (*PACK, f"--stream-size={first.size}")
    with target.open("wb") as packed, _zstd(command, stdin=subprocess.PIPE, stdout=packed) as process:
        assert process.stdin is not None
        plain = _Counted(process.stdin, lambda done: progress(done, first.size))
        with contextlib.suppress(BrokenPipeError):  # zstd has ended; it says why
            write(cast(IO[bytes], plain))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return describe(target, LAYER), f"sha256:{plain.sha256.hexdigest()}"


def is_zstd(layer: Path) -> bool:
    """Whether a layer's file is packed by zstd (RFC 8878, section 3.1.1)."""
    with layer.open("rb") as content:
        return content.read(4) == b"\x28\xb5\x2f\xfd"


def unpack(layer: Path, target: IO[bytes] | None) -> str:
    """Write a layer's file as a tar archive, if anywhere; its digest. Raises BuildError when it is damaged."""
    with _zstd((*UNPACK, str(layer)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        plain = _Counted(target)
        shutil.copyfileobj(process.stdout, cast(IO[bytes], plain), 1 << 20)
    return f"sha256:{plain.sha256.hexdigest()}"


@contextlib.contextmanager
def _zstd(command: Sequence[str], **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run zstd beside the caller. Raises BuildError when it fails, in its own words."""
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, **pipes)
    except FileNotFoundError:
        raise BuildError("zstd, which images are packed with, is not installed. Install it.") from None
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise BuildError(f"`{' '.join(command)}` exited with {process.returncode}:\n{said}")


def describe(blob: Path, media_type: str) -> Descriptor:
    """What a manifest says of a blob."""
    return {"mediaType": media_type, "digest": digest_of(blob), "size": blob.stat().st_size}


def digest_of(blob: Path) -> str:
    """The digest of a file."""
    with blob.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def platform_of(config: Mapping[str, Any]) -> str:
    """The platform that an image's config says: linux/amd64, linux/arm/v7."""
    return "/".join(str(config[key]) for key in ("os", "architecture", "variant") if config.get(key))


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs = directory / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.manifests: list[Descriptor] = []

    def layer(self, files: Mapping[str, Path], tree: Path | None = None, progress: Progress = _silently) -> Layer:
        """A layer of files (path in the image -> file here), or of a whole tree."""
        beside = self.blobs / "beside"
        layer = pack(lambda target: write_tar(target, files, tree), beside, progress)
        beside.rename(self._blob(layer[0]["digest"]))
        return layer

    def take(self, blob: Path, digest: str) -> None:
        """Put a blob from elsewhere into the layout, linked where it can be. Raises BuildError when it is another."""
        if (found := digest_of(blob)) != digest:
            raise BuildError(f"{blob}: its digest is {found}, not {digest}: it was damaged or changed.")
        target = self._blob(digest)
        if not target.exists():
            try:
                os.link(blob, target)
            except OSError:  # another file system
                shutil.copyfile(blob, target)

    def image(self, name: str, platform: str, layers: Sequence[Layer], entrypoint: Sequence[str], user: str) -> None:
        """Add an image of these layers, made here, under its full reference."""
        system, architecture = platform.split("/")
        settings: dict[str, Any] = {"Env": [f"PATH={PATH}"], "WorkingDir": "/"}
        if entrypoint:
            settings["Entrypoint"] = list(entrypoint)
        if user:
            settings["User"] = user
        config = {
            "architecture": architecture, "os": system, "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [plain for _, plain in layers]},
        }  # fmt: skip
        self.add(name, platform, _json(config), layers)

    def add(self, name: str, platform: str, config: bytes, layers: Sequence[Layer]) -> None:
        """Add an image of a config and layers, whose blobs are in the layout, under its full reference."""
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self._write(CONFIG, config),
            "layers": [descriptor for descriptor, _ in layers],
        }  # fmt: skip
        described = self._write(MANIFEST, _json(manifest))
        system, architecture = platform.split("/")
        described["platform"] = {"architecture": architecture, "os": system}
        described["annotations"] = dict.fromkeys(NAMES, name)
        self.manifests.append(described)

    def include(self, other: Path, names: Collection[str] | None = None) -> None:
        """Add images of another layout, all or those of these names. Raises BuildError when a blob is damaged."""
        wanted = [image for image in images(other) if names is None or image["name"] in names]
        for digest in {digest for image in wanted for digest in image["blobs"]}:
            self.take(blob(other, digest), digest)
        known = {image["name"] for image in wanted}
        self.manifests += [row for row in _index(other) if row["annotations"][NAMES[0]] in known]

    def finish(self) -> None:
        """Write the index, last: a layout without one is no layout."""
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        manifests = sorted(self.manifests, key=lambda row: row["annotations"][NAMES[0]])
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        (self.directory / "index.json").write_text(json.dumps(index, indent=1))

    def _write(self, media_type: str, data: bytes) -> Descriptor:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self._blob(digest).exists():
            self._blob(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def _blob(self, digest: str) -> Path:
        return blob(self.directory, digest)


def blob(directory: Path, digest: str) -> Path:
    """Where a layout has a blob."""
    return directory / "blobs" / digest.replace(":", "/")


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_tar(target: IO[bytes], files: Mapping[str, Path], tree: Path | None = None) -> None:
    """Write files (path in the image -> file here), or a whole tree, as the tar archive of a layer."""
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, name in _entries(files, tree):
            _add(archive, path, name)


def _entries(files: Mapping[str, Path], tree: Path | None) -> list[tuple[Path | None, str]]:
    """Every entry of a layer in order, parents first; a directory that exists nowhere here has no path."""
    found: dict[str, Path | None] = {}
    if tree is not None:
        found.update({str(path.relative_to(tree)): path for path in tree.rglob("*")})
    for name, path in files.items():
        relative = name.lstrip("/")
        parents = list(Path(relative).parents)[:-1]
        found.update({str(parent): None for parent in parents if str(parent) not in found})
        found[relative] = path
    return [(found[name], name) for name in sorted(found)]


def _add(archive: tarfile.TarFile, path: Path | None, name: str) -> None:
    """One entry, owned by root and without a date."""
    entry = tarfile.TarInfo(name)
    if path is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
        return
    status = path.lstat()
    entry.mode = status.st_mode & 0o7777
    if path.is_symlink():
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(entry)
    elif path.is_dir():
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif path.is_file():
        entry.size = status.st_size
        with path.open("rb") as content:
            archive.addfile(entry, content)


def _index(directory: Path) -> list[Descriptor]:
    """What the index of a layout lists."""
    return list(json.loads((directory / "index.json").read_text())["manifests"])


def images(directory: Path) -> list[dict[str, Any]]:
    """Name, digest, size and blobs of each image of a layout."""
    found = []
    for row in _index(directory):
        manifest = json.loads(blob(directory, row["digest"]).read_text())
        blobs = [manifest["config"], *manifest["layers"]]
        found.append(
            {
                "name": row["annotations"][NAMES[0]],
                "digest": row["digest"],
                "size": row["size"] + sum(blob["size"] for blob in blobs),
                "blobs": [row["digest"], *(blob["digest"] for blob in blobs)],
            }
        )
    return found
