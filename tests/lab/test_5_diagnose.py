"""A diagnosis of the finished cluster: of one that is well, and of one in which four things are broken at once."""

from __future__ import annotations

import re
import stat
import tarfile
import time

import pytest

from lab import lab
from tests.lab.nodes import ROOT, changes, kubectl, pyinfra, ssh

pytestmark = pytest.mark.usefixtures("cluster")
BALANCER, CUT, WORKER = "lb2", "cp3", "w1"
# A small file system of its own, with one file that fills it; a worker has no etcd.
FILL = (
    "mkdir -p /var/lib/etcd && mount -t tmpfs -o size=32m tmpfs /var/lib/etcd && "
    "{ dd if=/dev/zero of=/var/lib/etcd/full bs=1M count=40 2>/dev/null || true; }"
)


def diagnosed() -> dict[str, str]:
    """The files of a new archive, by path below its top. No host is changed."""
    done = pyinfra("diagnose", "-y")
    assert "--> Results:" in done.stdout, done.stdout[-5000:]
    assert changes(done.stdout) == {}
    written = re.search(r"Written: (\S+)", done.stdout)
    assert written, done.stdout[-5000:]
    path = ROOT / written[1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as tar:
        found = {each.name.partition("/")[2]: file.read().decode() for each in tar if (file := tar.extractfile(each))}
    path.unlink()
    return found


def secrets() -> list[str]:
    """Lines of keys that lie on a control plane."""
    words = "cat /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/etcd/ca.key /etc/kubernetes/pki/sa.key"
    lines = [line for line in ssh("cp1", words).splitlines() if "-----" not in line]
    kubeconfig = ssh("cp1", "sed -n 's/ *client-key-data: //p' /etc/kubernetes/admin.conf").strip()
    assert len(lines) > 9 and len(kubeconfig) > 100
    return [*lines, kubeconfig]


def test_the_first_page_says_that_all_is_well_or_names_what_is_broken() -> None:
    end = time.monotonic() + 150  # what was broken before this is fresh in logs
    while "Nothing looks wrong." not in (files := diagnosed())["report.md"]:
        assert time.monotonic() < end, files["report.md"]
    assert [secret for secret in secrets() if any(secret in text for text in files.values())] == []
    try:
        lab.cut(CUT)
        ssh(BALANCER, "systemctl stop haproxy")
        ssh(WORKER, f"systemctl kill -s KILL kubelet; systemctl stop kubelet; {FILL}")
        page = diagnosed()["report.md"]
    finally:
        lab.mend(CUT)
        ssh(BALANCER, "systemctl start haproxy")
        ssh(WORKER, "umount /var/lib/etcd; rmdir /var/lib/etcd; systemctl start kubelet")
    assert f"**error** {CUT}: does not answer" in page, page
    assert f"**error** {BALANCER}: haproxy.service is inactive" in page, page
    assert f"**error** {WORKER}: kubelet.service is" in page, page
    assert f"**error** {WORKER}: 0 of 32 MiB free on the file system of /var/lib/etcd" in page, page
    assert f"etcd member {CUT} is not healthy" in page, page
    kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=50s")
