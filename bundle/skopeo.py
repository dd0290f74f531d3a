"""An image as its registry has it, fetched by skopeo and checked by digest all the way down from its reference.

https://github.com/containers/skopeo/blob/v1.9.3/docs/skopeo-copy.1.md. Passwords, proxies and CAs are those that
skopeo finds in its environment. Blobs are copied to one directory, so that images share them; manifest and config are
read by `skopeo inspect --raw`, for `skopeo copy` writes the configs of Docker's images anew, and so changes their IDs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.command import BuildError
from bundle.download import Unavailable, WrongBytes
from bundle.oci import Content, digest_of, platform_of
from bundle.progress import Report
from bundle.references import Reference
from bundle.sources import Place

RETRIES = 3  # skopeo waits 1, 2 and 4 seconds before them
STALLED = 60  # seconds in which nothing comes
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
CHANGED = "Compare with what the project itself publishes before anything else."
MIRROR = "name a mirror of its registry in bundle.yaml (`mirrors`)"
# What skopeo says, and what to do about it; the first that is found in its words.
ADVICE = (
    (
        r"x509|certificate|tls:|HTTP response to HTTPS",
        "If a proxy or mirror has a CA of its own, name a file with that CA in SSL_CERT_FILE; "
        f"if it has expired, ask who runs it, or {MIRROR}.",
    ),
    (
        r"unauthorized|authentication required|denied|invalid username/password",
        "Registries say so of images that do not exist, too. If it wants a user and password, run "
        f"`skopeo login {{host}}`, or name the file that has them in REGISTRY_AUTH_FILE; else {MIRROR}.",
    ),
    (r"toomanyrequests", f"Run `skopeo login {{host}}` with an account of yours, wait, or {MIRROR}."),
    ("", f"If there is a proxy, set https_proxy; else {MIRROR}."),
)
CUT = r"EOF|connection reset|nothing came"  # while a blob comes; skopeo's own retries are not for that
LOCAL = (
    (r"no space left", "Make room there, or set XDG_CACHE_HOME and TMPDIR."),
    (r"trust policy", "Install golang-github-containers-common (Debian) or containers-common, which brings one."),
)


class _Missing(Unavailable):
    """A place has not what it was asked for."""


class _Failed(Exception):
    """skopeo has failed, with these words."""


def origin_of(reference: Reference, place: Place) -> str:
    """The digest that a place has for a reference: the index's, if it is one. Raises Unavailable."""
    raw = _raw(_address(reference, place), place)
    _parsed(raw, f"{reference.name} at {place.address}")
    return _digest(raw)


def pull(reference: Reference, origin: str, place: Place, platform: str, directory: Path, report: Report) -> Content:
    """Fetch an image by its digest at the registry into a directory, which may have blobs of others that it shares.

    Raises BuildError: Unavailable when this place has it not, or not for the platform; WrongBytes when the place has
    something else instead.
    """
    at = _address(reference, place).removesuffix(reference.suffix)
    try:
        top = _parsed(_checked(f"{at}@{origin}", origin, place), reference.name)
    except _Missing as error:
        raise _moved(reference, origin, place) or error from None
    digest = chosen(top, platform, reference.name)
    source = f"{at}@{digest or origin}"
    manifest = _parsed(_checked(source, digest, place), reference.name) if digest else top
    config = _checked(source, manifest["config"]["digest"], place, "--config")
    check_platform(config, platform, reference.name)
    wanted = {str(layer["digest"]): int(layer["size"]) for layer in manifest["layers"]}
    _copy(source, place, directory, _Progress(directory, wanted, report))
    return Content(config, tuple(_layer(directory, layer["digest"], reference.name) for layer in manifest["layers"]))


def _layer(directory: Path, digest: str, what: str) -> Path:
    """The file of a layer that skopeo has brought. Raises BuildError when it is not there, or another."""
    path = _blob(directory, digest)
    if not path.is_file():
        raise Unavailable(f"{what} has a layer, {digest}, that its registry does not give")
    _expect(digest_of(path), digest, f"layer {digest} of {what}")
    return path


def _blob(directory: Path, digest: str) -> Path:
    return directory / "blobs" / digest.replace(":", "/")


def chosen(document: Mapping[str, Any], platform: str, what: str) -> str:
    """The digest of the manifest for a platform in an index; empty if it is no index. Raises Unavailable."""
    if document.get("mediaType") not in INDEXES and "manifests" not in document:
        return ""
    rows = [(platform_of(row.get("platform") or {}), str(row["digest"])) for row in document["manifests"]]
    # One without a variant runs on all of them.
    fitting = sorted(row for row in rows if row[0] == platform or row[0].startswith(f"{platform}/"))
    if not fitting:
        there = sorted({name for name, _ in rows if not name.startswith("unknown")})
        raise _other_platform(what, platform, ", ".join(there) or "none")
    return fitting[0][1]


def _parsed(data: bytes, what: str) -> dict[str, Any]:
    """A manifest or index. Raises Unavailable when it is none, but the page of a proxy, or one of the first format."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise Unavailable(f"{what} has no manifest that can be read", "Ask its maker to push it by a present program.")
    return document


def check_platform(config: bytes, platform: str, what: str) -> None:
    """Raises Unavailable when an image's config says that it is for another platform."""
    found = platform_of(json.loads(config))
    if found != platform and not found.startswith(f"{platform}/"):
        raise _other_platform(what, platform, found or "none")


def _other_platform(what: str, platform: str, found: str) -> Unavailable:
    return Unavailable(f"{what} is not for {platform}; it is for {found}", "Ask its maker for one that is.")


def _moved(reference: Reference, origin: str, place: Place) -> BuildError | None:
    """The error for a place that has the tag and not the digest that it must have."""
    if not reference.tag:
        return None
    try:
        found = origin_of(reference, place)
    except Unavailable:
        return None
    return WrongBytes(
        f"{place.address} has {found} for {reference.name}, and not {origin}, which bundle.lock has: its tag was moved "
        f"and the old image removed, or it was tampered with. {CHANGED} `python3 tasks.py bundle build --update` takes "
        "what is there now."
    )


def _expect(found: str, wanted: str, what: str) -> None:
    if found != wanted:
        raise WrongBytes(f"{what}: came with digest {found}, and must have {wanted}. Nothing of it was kept. {CHANGED}")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _address(reference: Reference, place: Place) -> str:
    """What skopeo is to call a reference at a place. Raises Unavailable when it is no registry, or not over TLS."""
    scheme, separator, rest = place.address.rpartition("://")
    if separator and scheme != "https":
        raise Unavailable(f"{place.address} is no registry with TLS", "Images come from no other.")
    return f"docker://{rest.rstrip('/')}/{reference.path}{reference.suffix}"


def _checked(source: str, digest: str, place: Place, *flags: str) -> bytes:
    """A manifest, index or config of this digest. Raises BuildError."""
    raw = _raw(source, place, *flags)
    _expect(_digest(raw), digest, source)
    return raw


def _raw(source: str, place: Place, *flags: str) -> bytes:
    """A manifest or index as it is, or with --config a config. Raises Unavailable."""
    words = ("--command-timeout", "2m", "inspect", "--raw", *flags, f"--retry-times={RETRIES}", source)
    try:
        return _skopeo(words)
    except _Failed as error:
        raise _error(source, place, str(error)) from None


@dataclass(frozen=True)
class _Progress:
    """How far a copy into a directory is, by what is there of the layers (digest -> bytes)."""

    directory: Path
    wanted: dict[str, int]
    report: Report

    def size(self) -> int:
        """Bytes that are there, those of a layer that is on its way too; says so."""
        paths = [
            *(_blob(self.directory, digest) for digest in self.wanted),
            *self.directory.glob("layout/oci-put-blob*"),
        ]
        total = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        self.report(f"{total / 1e6:.1f} of {sum(self.wanted.values()) / 1e6:.1f} MB")
        return total


def _copy(source: str, place: Place, directory: Path, progress: _Progress) -> None:
    """Fetch the layers of a manifest that are not there yet. Raises Unavailable."""
    words = (
        "copy", "--quiet", f"--retry-times={RETRIES}", "--dest-oci-accept-uncompressed-layers",
        f"--dest-shared-blob-dir={directory}/blobs", source, f"oci:{directory}/layout:image",
    )  # fmt: skip
    for attempt in range(RETRIES + 1):
        try:
            _skopeo(words, progress)
        except _Failed as error:
            if attempt == RETRIES or not re.search(CUT, str(error)):
                raise _error(source, place, str(error)) from None
            progress.report(f"{error}; trying again")
        else:
            return


def _error(source: str, place: Place, said: str) -> BuildError:
    """What to tell of a skopeo that failed."""
    for pattern, advice in LOCAL:
        if re.search(pattern, said):
            return BuildError(f"skopeo cannot fetch {source}: {said}. {advice}")
    if re.search(r"(?i)digest .*(did|does) not match", said):
        return WrongBytes(f"{source}: {said}. Nothing of it was kept. {CHANGED}")
    host = place.address.rpartition("://")[2].partition("/")[0]
    if re.search(r"(manifest|name) unknown", said):
        return _Missing(f"{source.removeprefix('docker://')} is not there", "Check the reference in bundle.yaml.")
    advice = next(advice for pattern, advice in ADVICE if re.search(pattern, said))
    return Unavailable(f"{source.removeprefix('docker://')} cannot be fetched ({said})", advice.format(host=host))


def _skopeo(words: tuple[str, ...], progress: _Progress | None = None) -> bytes:
    """Run skopeo and return what it prints. Raises _Failed; also when what it copies to has long not grown."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(["skopeo", *words], stdout=out, stderr=errors, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise BuildError("skopeo, which images are fetched with, is not installed. Install it.") from None
        with process:
            try:
                _watch(process, progress)
            except BaseException:
                process.terminate()
                raise
        for file in (out, errors):
            file.seek(0)
        if process.returncode:
            raise _Failed(_words(errors.read().decode(errors="replace")) or f"it ended with {process.returncode}")
        return out.read()


def _watch(process: subprocess.Popen[bytes], progress: _Progress | None) -> None:
    """Wait for skopeo's end, and say how far its copy is. Raises _Failed when nothing comes any more."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        if progress is not None and (now := progress.size()) != size:
            size, since = now, time.monotonic()
        elif progress is not None and time.monotonic() - since > STALLED:
            raise _Failed(f"nothing came for {STALLED} seconds")
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def _words(log: str) -> str:
    """The last message of skopeo's log, without its beginning, which says what it was asked."""
    messages = re.findall(r'level=(?:fatal|error) msg=("(?:[^"\\]|\\.)*")', log)
    said = re.sub(r"\\(.)", r"\1", messages[-1][1:-1]) if messages else log.strip().rpartition("\n")[2]
    return re.sub(r'^(Error parsing image name "[^"]*"|initializing source \S+): ', "", said).rstrip(". ")
