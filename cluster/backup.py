"""A backup of etcd with what must lie beside it: how it is described, and what is wrong with one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from cluster.compatibility import parse

NODE_DIRECTORY = "/var/backups/kubernetes"
# Where what is to be encrypted is made; a reset removes it with all that is there.
PRIVATE_DIRECTORY = "/var/lib/pyinfra-kubeadm/backup"
MANIFEST = "manifest.json"
SNAPSHOT, PKI, CONFIGURATION = "snapshot.db", "pki.tar", "kubeadm-config.yaml"
ENCRYPTED = ".cms"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A path inside the backup, never beyond it.
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class BackupError(ValueError):
    """A backup that cannot be used, with the reason and what to do."""


class Manifest(BaseModel):
    """What a backup says of itself; templates/backup/etcd-backup.j2 writes it.

    `keys` and `hash` are those of `etcdutl snapshot status`, `live_keys` is the number of keys at `revision`. `files`
    are sha256 by name, of what lies in the directory: of encrypted files, encrypted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster_name: str
    kubernetes_version: str
    etcd_version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+")]
    member: str
    time: str
    revision: int
    keys: int
    live_keys: int
    hash: int
    ca_cert_hash: str
    encrypted: bool
    files: dict[FileName, Sha256]

    def words(self) -> str:
        """In one line, for people."""
        return (
            f"of {self.time} by {self.member}: {self.live_keys} keys at revision {self.revision}, Kubernetes "
            f"{self.kubernetes_version}, etcd {self.etcd_version}{', encrypted' if self.encrypted else ''}"
        )

    def parts(self, name: str) -> list[str]:
        """The files that make up one part of the backup, in order: encrypted ones are cut."""
        return sorted(each for each in self.files if each == name or each.startswith(f"{name}."))


def sha256(path: Path) -> str:
    """The checksum of a file, hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def read(directory: Path) -> Manifest:
    """A backup's manifest, after every file of it was compared with it.

    Raises BackupError when it is not a backup, or one of its files is not as it was written.
    """
    path = directory / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BackupError(
            f"{directory} is not a backup: {path} cannot be read ({error.strerror}). Name the directory that "
            "deploys/etcd_backup.py fetched, such as secrets/production/backups/20261125T021200Z-cp1-asked."
        ) from None
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BackupError(f"{path} does not describe a backup ({where}). Take another backup.") from None
    found = [f"no {name} is in it" for name in (SNAPSHOT, PKI, CONFIGURATION) if not manifest.parts(name)]
    for name, wanted in manifest.files.items():
        if not (directory / name).is_file():
            found.append(f"{name} is missing")
        elif sha256(directory / name) != wanted:
            found.append(f"{name} is damaged: its sha256 is not the one that was written with it")
    if found:
        raise BackupError(f"{directory} is damaged: {'; '.join(found)}. Fetch it again, or take another backup.")
    return manifest


def whole(snapshot: Path) -> bool:
    """Whether a snapshot ends in the sha256 of what is before, as `etcdctl snapshot save` writes it.

    `etcdutl snapshot restore` looks at the same
    (https://github.com/etcd-io/etcd/blob/v3.6.8/etcdutl/snapshot/v3_snapshot.go).
    """
    size = snapshot.stat().st_size
    if size % 512 != hashlib.sha256().digest_size:
        return False
    digest, left = hashlib.sha256(), size - 32
    with snapshot.open("rb") as source:
        while left:
            part = source.read(min(left, 1 << 20))
            digest.update(part)
            left -= len(part)
        return source.read() == digest.digest()


def unsuitable(
    manifest: Manifest, cluster_name: str, kubernetes_version: str, etcd: str, authorities: Mapping[str, Sequence[str]]
) -> list[str]:
    """Every reason why a backup is not for this cluster, in words.

    + kubernetes_version: that of the settings
    + etcd: the version that will read it, such as "3.6.8"
    + authorities: by control plane, hashes of its cluster's CA and, while that is rotated, of the one before
    """
    found = []
    if manifest.cluster_name != cluster_name:
        found.append(
            f"the backup is of the cluster {manifest.cluster_name}, and this inventory's is {cluster_name}. Name a "
            "backup of this cluster; if it is this one's and was renamed since, set cluster_name to what it was."
        )
    strangers = [name for name, own in authorities.items() if own and manifest.ca_cert_hash not in own]
    if strangers:
        found.append(
            f"{', '.join(strangers)}: holds another CA than the backup's ({manifest.ca_cert_hash}), so the backup is "
            "another cluster's. Name a backup of this cluster, or reset these hosts if theirs is to go."
        )
    there, here = parse(manifest.etcd_version)[:2], parse(etcd)[:2]
    if there > here:
        found.append(
            f"the backup is of etcd {manifest.etcd_version}, and etcd {etcd} would have to read it: none reads what a "
            "newer one wrote. Deploy the bundle that the cluster had then."
        )
    elif there[0] != here[0] or here[1] - there[1] > 1:
        found.append(
            f"the backup is of etcd {manifest.etcd_version}, which etcd {etcd} does not read: one minor is the most. "
            "Deploy the bundle that the cluster had then, and upgrade after the restore."
        )
    if parse(manifest.kubernetes_version)[:2] > parse(kubernetes_version)[:2]:
        found.append(
            f"the backup is of Kubernetes {manifest.kubernetes_version}, and the settings ask for "
            f"{kubernetes_version}, which may not know its objects. Deploy the bundle of that version."
        )
    return found


def recipient(path: Path) -> str:
    """The certificate of a file to which backups are encrypted, as PEM. Raises BackupError when it cannot be."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror})") from None
    if b"PRIVATE KEY" in text:
        raise BackupError(f"{path} has a private key in it, which would be sent to every control plane: leave it out")
    try:
        certificate = x509.load_pem_x509_certificate(text)
    except ValueError:
        raise BackupError(f"{path} is no X.509 certificate in PEM") from None
    if not isinstance(certificate.public_key(), RSAPublicKey | EllipticCurvePublicKey):
        raise BackupError(f"{path}: nothing can be encrypted to its kind of key; one of RSA or an elliptic curve can")
    return certificate.public_bytes(Encoding.PEM).decode().strip()
