"""A small but whole bundle, signed: whatever happens to any byte or file of it on its way is found.

Each test damages a bundle in many ways, chosen by a seed that a failure shows.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bundle import sbom
from bundle.signature import sign
from bundle.verify import BundleError, verify
from cluster.lock import File, Image, Lock, Package

SEED = 20240229
FLIPS = 400
SOURCE = "https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/"
PROGRAMS = {"bin/kubeadm": b"kubeadm of so many bytes", "bin/kubelet": b"kubelet of so many bytes", "cni/bridge": b"b"}
PACKAGE = "packages/debian-12/runc_1.1.5_amd64.deb"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(directory: Path, path: str, data: bytes) -> bytes:
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_bytes(data)
    return data


def blob(directory: Path, data: bytes) -> dict[str, Any]:
    write(directory, f"images/blobs/sha256/{sha(data)}", data)
    return {"digest": f"sha256:{sha(data)}", "size": len(data)}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def write_images(directory: Path) -> tuple[Image, ...]:
    """An OCI layout of two images that share a layer."""
    images, rows = [], []
    shared = blob(directory, gzip.compress(b"shared layer", mtime=0))
    for name in ("registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/pause:3.10.2"):
        own = blob(directory, gzip.compress(name.encode(), mtime=0))
        config = blob(directory, encoded({"os": "linux", "architecture": "amd64", "history": name}))
        manifest = blob(directory, encoded({"schemaVersion": 2, "config": config, "layers": [shared, own]}))
        blobs = [row["digest"] for row in (manifest, config, shared, own)]
        images.append(Image(name=name, digest=manifest["digest"], size=1, blobs=blobs, origin=own["digest"]))
        rows.append({**manifest, "annotations": {"org.opencontainers.image.ref.name": name}})
    write(directory, "images/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    write(directory, "images/index.json", encoded({"schemaVersion": 2, "manifests": rows}))
    return tuple(images)


def described(directory: Path) -> tuple[File, ...]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return tuple(
        File(
            path=str(path.relative_to(directory)), size=path.stat().st_size, sha256=sha(path.read_bytes()),
            name=path.name, version="v1.36.2", source=SOURCE + path.name, licence="Apache-2.0",
        )
        for path in paths
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle that is whole, and the public key that it is signed by. Tests put back what they change."""
    directory, key = tmp_path_factory.mktemp("bundle"), tmp_path_factory.mktemp("key") / "key"
    for path, data in PROGRAMS.items():
        write(directory, path, data)
    images = write_images(directory)
    deb = write(directory, PACKAGE, b"!<arch>\ndebian-binary")
    write(directory, "packages/debian-12/Packages", f"Package: runc\nSHA256: {sha(deb)}\n".encode())
    write(directory, "packages/debian-12/Release", b"")
    package = Package(name="runc", version="1.1.5", architecture="amd64", release="debian-12", file=PACKAGE)
    lock = Lock(
        format=2, platform="linux/amd64", kubernetes_version="v1.36.2", components={"kubernetes": "v1.36.2"},
        images=images, packages=(package,), package_sets={"debian-12": {"runtime": ("runc",)}},
        files=described(directory),
    )  # fmt: skip
    write(directory, sbom.NAME, sbom.text(lock).encode())
    whole = lock.model_copy(update={"files": described(directory)})
    write(directory, "bundle.lock", (whole.model_dump_json(indent=2) + "\n").encode())
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    sign(directory, key)
    return directory, key.with_name("key.pub")


def found(made: tuple[Path, Path]) -> list[str]:
    try:
        return verify(*made)
    except BundleError as error:
        return [str(error)]


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_the_whole_bundle_is_whole(made: tuple[Path, Path]) -> None:
    assert found(made) == []
    assert len(files(made[0])) == 18


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_any_flipped_bit_is_found(made: tuple[Path, Path]) -> None:
    """As many flips in each file as in any other, so that small ones have their share."""
    choose = random.Random(SEED)
    full = [path for path in files(made[0]) if path.stat().st_size]
    for number in range(FLIPS):
        path = full[number % len(full)]
        position, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
        flip(path, position, bit)
        said = found(made)
        flip(path, position, bit)
        assert said, f"seed {SEED}, flip {number}: bit {bit} of byte {position} of {path}"
    assert found(made) == []


def test_any_flipped_bit_of_the_lock_or_its_signature_is_found(made: tuple[Path, Path]) -> None:
    choose = random.Random(SEED + 1)
    for number in range(FLIPS // 2):
        path = made[0] / choose.choice(["bundle.lock", "bundle.lock.sig"])
        position, bit = choose.randrange(path.stat().st_size), choose.randrange(8)
        flip(path, position, bit)
        said = found(made)
        flip(path, position, bit)
        where = f"seed {SEED + 1}, flip {number}: bit {bit} of byte {position} of {path}"
        assert len(said) == 1, where
        assert said[0].startswith(f"{made[0]}/bundle.lock.sig: "), where
    assert found(made) == []


def test_a_file_that_was_cut_is_found(made: tuple[Path, Path]) -> None:
    choose = random.Random(SEED + 2)
    for path in files(made[0]):
        data = path.read_bytes()
        for length in {0, len(data) - 1, choose.randrange(len(data) or 1)} if data else ():
            path.write_bytes(data[:length])
            said = found(made)
            path.write_bytes(data)
            assert said, f"seed {SEED + 2}: {path} cut to {length} bytes"
    assert found(made) == []


def test_a_file_that_has_grown_is_found(made: tuple[Path, Path]) -> None:
    for path in files(made[0]):
        data = path.read_bytes()
        for more in (b"\0", b"\n", b" ", data or b"x"):
            path.write_bytes(data + more)
            said = found(made)
            path.write_bytes(data)
            assert said, f"{path} and {more[:10]!r}"
    assert found(made) == []


def test_a_file_that_is_gone_is_found(made: tuple[Path, Path]) -> None:
    for path in files(made[0]):
        data = path.read_bytes()
        path.unlink()
        said = found(made)
        path.write_bytes(data)
        assert said, path
    assert found(made) == []


def test_two_files_of_equal_size_in_each_others_place_are_found(made: tuple[Path, Path]) -> None:
    one, other = (made[0] / path for path in ("bin/kubeadm", "bin/kubelet"))
    assert one.stat().st_size == other.stat().st_size
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert [line.partition(": ")[0] for line in found(made)] == [str(one), str(other)]
    one.write_bytes(first)
    other.write_bytes(second)
    assert found(made) == []


@pytest.mark.parametrize(
    "path", ["new", "bin/.hidden", "images/blobs/sha256/beside", "BUNDLE.LOCK", "bundle.lock.sig.new"]
)
def test_a_file_more_is_found(made: tuple[Path, Path], path: str) -> None:
    (made[0] / path).write_bytes(b"")
    assert found(made) == [f"{made[0]}/{path}: is not in bundle.lock. Remove it; nothing uses it."]
    (made[0] / path).unlink()


def test_a_lock_written_anew_for_changed_files_is_found(made: tuple[Path, Path]) -> None:
    directory = made[0]
    program, lock = directory / "bin/kubeadm", directory / "bundle.lock"
    data, text = program.read_bytes(), lock.read_bytes()
    changed = data.replace(b"so", b"no")
    program.write_bytes(changed)
    lock.write_bytes(text.replace(sha(data).encode(), sha(changed).encode()))
    assert verify(directory) == []  # which is why there is a signature
    (said,) = found(made)
    assert said.startswith(f"{directory}/bundle.lock.sig: is not a signature of this bundle.lock: ")
    program.write_bytes(data)
    lock.write_bytes(text)
    assert found(made) == []
