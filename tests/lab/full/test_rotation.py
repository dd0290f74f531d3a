"""CAs replaced while a client writes through the virtual IP; the run is killed half-way, and run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import lab, layout
from tests.lab.nodes import BUNDLE, CONTROL_PLANES, KUBECTL, ROOT, changes, deployed, pyinfra, pyinfra_command, ssh
from tests.lab.test_4_survival import wait_for
from tests.lab.upgrades import Writer, kept, writes

NODES = (*CONTROL_PLANES, "w1")
ROTATION = "/etc/kubernetes/pki/rotation"


@pytest.fixture
def writer(bundle: str) -> Iterator[Writer]:
    """A cluster, and somebody who writes into it all the time."""
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    deployed("cluster", "-y")
    with writes() as writing:
        yield writing
    lab.down()


def ca(node: str, name: str = "ca") -> str:
    return ssh(node, f"cat /etc/kubernetes/pki/{name}.crt")


def signed_by(node: str, authority: str, path: str) -> bool:
    """Whether a certificate of a node is signed by this CA: both CAs have the same name."""
    check = f"cat > /run/test-ca && openssl verify -CAfile /run/test-ca {path} && echo signed"
    return "signed" in ssh(node, f"printf '%s' '{authority}' | {{ {check}; }}", check=False)


def test_cas_are_replaced_by_a_run_that_is_killed_and_run_again(writer: Writer, tmp_path: Path) -> None:
    admin = tmp_path / "admin.conf"
    shutil.copy(ROOT / "secrets/lab/admin.conf", admin)
    old = {name: ca("cp1", name) for name in ("ca", "front-proxy-ca", "etcd/ca")}
    flags = ("--data", f"made_before={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    assert changes(deployed("rotate_ca", "--dry", *flags))

    begun = subprocess.Popen(
        pyinfra_command("rotate_ca", "-y", *flags), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    command = "tr '\\0' ' ' < /proc/$(pgrep -x kube-controller)/cmdline"
    wait_for(lambda: f"{ROTATION}/new/ca.crt" in ssh("cp1", command, check=False), "phase 2 on cp1", 900)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    planned = pyinfra("rotate_ca", "--dry").stdout
    assert "A rotation of CAs is under way; phase 2 (certificates are signed by the new CA): cp1" in planned
    # Without the time: what is under way is gone on with.
    assert set(changes(deployed("rotate_ca", "-y"))) <= set(changes(planned))

    new = {name: ca("cp1", name) for name in old}
    assert not {old[name] for name in old} & {new[name] for name in old}
    for node in NODES:
        assert ca(node) == new["ca"]
        assert signed_by(node, new["ca"], "/var/lib/kubelet/pki/kubelet-client-current.pem")
        assert ssh(node, f"test -e {ROTATION} && echo there; true") == ""
    for node in CONTROL_PLANES:
        assert ssh(node, "cat /etc/haproxy/kubernetes-ca.crt") == new["ca"]
        assert signed_by(node, new["etcd/ca"], "/etc/kubernetes/pki/etcd/peer.crt")
        assert not signed_by(node, old["etcd/ca"], "/etc/kubernetes/pki/etcd/peer.crt")
    # What it trusts is told to it, so that it is its own certificate that is refused.
    authority = tmp_path / "ca.crt"
    authority.write_text(new["ca"])
    refused = subprocess.run(
        [KUBECTL[0], f"--kubeconfig={admin}", f"--certificate-authority={authority}", "get", "nodes"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Unauthorized" in refused.stderr or "must be logged in" in refused.stderr, refused.stderr
    kept(writer, "rotation of CAs")
    assert changes(deployed("rotate_ca", "-y", *flags)) == {}
    assert changes(deployed("cluster", "-y")) == {}
    assert "no errors, no warnings" in deployed("certificates", "-y")
