"""Images written into one OCI layout: shared blobs, and the same bytes from the same files.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Descriptor = dict[str, Any]


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is written."""

    def __init__(self, target: BinaryIO | gzip.GzipFile) -> None:
        self.target, self.sha256, self.size = target, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self.target.write(data)
        return len(data)


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs = directory / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.manifests: list[Descriptor] = []

    def layer(self, files: Mapping[str, Path], tree: Path | None = None) -> tuple[Descriptor, str]:
        """A layer of files (path in the image -> file here), or of a whole tree; with its uncompressed digest."""
        beside = self.blobs / "beside"
        with beside.open("wb") as raw:
            packed = _Hashed(raw)
            with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0, compresslevel=6) as zipped:
                plain = _Hashed(zipped)
                with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                    for path, name in _entries(files, tree):
                        _add(archive, path, name)
        digest = packed.sha256.hexdigest()
        beside.rename(self.blobs / digest)
        descriptor = {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": packed.size}
        return descriptor, f"sha256:{plain.sha256.hexdigest()}"

    def image(
        self, name: str, platform: str, layers: Sequence[tuple[Descriptor, str]], entrypoint: Sequence[str], user: str
    ) -> None:
        """Add an image of these layers under its full reference."""
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
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self._json(CONFIG, config),
            "layers": [descriptor for descriptor, _ in layers],
        }  # fmt: skip
        described = self._json(MANIFEST, manifest)
        described["platform"] = {"architecture": architecture, "os": system}
        # containerd reads the first, skopeo and others the second.
        described["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        self.manifests.append(described)

    def finish(self) -> None:
        """Write the index, last: a layout without one is no layout."""
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        manifests = sorted(self.manifests, key=lambda row: row["annotations"]["io.containerd.image.name"])
        (self.directory / "index.json").write_text(json.dumps({**index, "manifests": manifests}, indent=1))

    def _json(self, media_type: str, document: object) -> Descriptor:
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


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


def images(directory: Path) -> list[dict[str, Any]]:
    """Name, digest, size and blobs of each image of a layout."""
    index = json.loads((directory / "index.json").read_text())
    found = []
    for row in index["manifests"]:
        manifest = json.loads((directory / "blobs" / row["digest"].replace(":", "/")).read_text())
        blobs = [manifest["config"], *manifest["layers"]]
        found.append(
            {
                "name": row["annotations"]["io.containerd.image.name"],
                "digest": row["digest"],
                "size": row["size"] + sum(blob["size"] for blob in blobs),
                "blobs": [row["digest"], *(blob["digest"] for blob in blobs)],
            }
        )
    return found
