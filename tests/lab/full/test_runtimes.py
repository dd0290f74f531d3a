"""Clusters on runtimes that are built from source: another major of containerd than the distribution's, and CRI-O."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bundle.verify import read_lock
from lab import lab, layout
from tests.lab.bundles import built
from tests.lab.nodes import MEASURED, changes, deployed, everywhere, foretold, ssh

NODES = ("cp1", "cp2", "cp3", "w1")
CRI_O = """
runtime: cri-o
runtimes: {cri-o: {programs: [crio, pinns, runc], packages: [skopeo, conmon]}}
"""
# What containerd is told by containerd_restrict_oom_score_adj: CRI-O and runc have no such thing, and a process without
# CAP_SYS_RESOURCE may not lower its score. CRI-O gives privileged containers all capabilities that there are, which
# runc then cannot apply, where containerd gives those that it has itself.
RESTRICTED = r"""#!/bin/sh
before=
for word; do
    case $before in
    -b | --bundle) spec=$word/config.json ;;
    -p | --process) spec=$word ;;
    *) spec= ;;
    esac
    [ -z "$spec" ] || sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj":0/; s/"CAP_SYS_RESOURCE", *//g' "$spec"
    before=$word
done
exec /usr/bin/runc "$@"
"""
DROP_IN = """
[crio.runtime.runtimes.runc]
runtime_path = "/usr/local/bin/runc-restricted"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
monitor_cgroup = "pod"
"""


@dataclass(frozen=True)
class Runtime:
    """A runtime as bundle.yaml, settings, systemd and the bundle's lock call it."""

    name: str
    site: str
    flags: tuple[str, ...]
    unit: str


RUNTIMES = (
    Runtime("containerd", "runtime: upstream\n", (), "containerd"),
    Runtime("cri-o", CRI_O, ("--data", "container_runtime=cri-o"), "crio"),
)


@dataclass(frozen=True)
class Raised:
    """A cluster that was planned and deployed on bare nodes as it was planned."""

    runtime: Runtime
    version: str

    def deployed(self, *flags: str) -> str:
        return deployed("cluster", *flags, *self.runtime.flags)


def restrict(node: str) -> None:
    """Have a node's CRI-O run runc as this machine lets it, by a file of a site's own."""
    for path, mode, text in (
        ("/usr/local/bin/runc-restricted", "755", RESTRICTED), ("/etc/crio/crio.conf.d/90-lab.conf", "644", DROP_IN),
    ):  # fmt: skip
        ssh(node, f"install -D -m {mode} /dev/null {path} && printf %s {shlex.quote(text)} > {path}")


@pytest.fixture(scope="module", params=RUNTIMES, ids=[runtime.name for runtime in RUNTIMES])
def raised(request: pytest.FixtureRequest) -> Iterator[Raised]:
    runtime: Runtime = request.param
    bundle = built(runtime.name, runtime.site)
    lab.down()
    lab.up(layout.topology("compact"), str(bundle))
    if runtime.name == "cri-o" and layout.read()["restricted"]:
        everywhere(restrict, NODES)
    found = Raised(runtime, read_lock(bundle).components[runtime.name])
    plan = found.deployed("--dry")
    found.deployed("-y")
    assert foretold("cluster") == []
    assert changes(plan) != {}
    yield found
    lab.down()


def test_pods_run_on_it(raised: Raised) -> None:
    nodes = json.loads(ssh("cp1", "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o json"))["items"]
    found = {item["metadata"]["name"]: item["status"]["nodeInfo"]["containerRuntimeVersion"] for item in nodes}
    assert found == dict.fromkeys(NODES, f"{raised.runtime.name}://{raised.version.removeprefix('v')}")


def test_the_daemon_has_the_configuration_that_kubernetes_needs(raised: Raised) -> None:
    for node in NODES:
        if raised.runtime.name == "cri-o":
            config = ssh(node, "curl -s --unix-socket /var/run/crio/crio.sock http://localhost/config")
            assert 'cgroup_manager = "systemd"' in config
        else:
            info = json.loads(ssh(node, "crictl info"))["config"]
            assert info["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
        assert "containerd" not in ssh(node, "dpkg-query -W -f '${Package}\\n'").split()


def test_a_second_run_changes_nothing(raised: Raised) -> None:
    for flags in ("--dry", "-y"):
        output = raised.deployed(flags)
        assert changes(output) == {}, f"{flags}: {output[-6000:]}"
    MEASURED.append(f"{raised.runtime.name} {raised.version}: three control planes and a worker, verified")


def test_a_stopped_runtime_is_started_and_pods_go_on(raised: Raised) -> None:
    before = ssh("w1", "crictl ps -q | sort")
    ssh("w1", f"systemctl stop {raised.runtime.unit}")
    raised.deployed("-y")
    assert ssh("w1", "crictl ps -q | sort") == before != ""
