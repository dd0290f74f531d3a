"""Servers and certificates for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> servers.Certificates:
    return servers.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(certificates: servers.Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make programs trust the tests' CA, ask no proxy, and have an empty home, whose path this is."""
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(certificates.ca))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def server(certificates: servers.Certificates, tmp_path: Path, trusted: Path) -> Iterator[servers.Server]:
    """A trusted HTTPS server of an empty directory, which is its `root`."""
    root = tmp_path / "served"
    root.mkdir()
    with servers.serve(root, certificates.server) as running:
        yield running
