"""Three minors, one after the other, while a client writes through the virtual IP; the last is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import pytest

from lab import lab, layout
from tests.lab.bundles import built
from tests.lab.nodes import BUNDLE, ROOT, changes, deployed, pyinfra, pyinfra_command, ssh
from tests.lab.test_4_survival import wait_for
from tests.lab.test_5_interrupted import killed_when
from tests.lab.test_5_nodes import ETCDCTL
from tests.lab.upgrades import Writer, kept, servers, versions, writes

ETCD = {"v1.33.5": "3.5", "v1.34.9": "3.6", "v1.35.6": "3.6"}  # which comes with each; the lab's own is the last
FIRST, *_, BEFORE = ETCD
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
APPLICATION = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: held, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: held}}
  template:
    metadata: {labels: {app: held}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: pause
          image: IMAGE
          readinessProbe: {tcpSocket: {port: 1}}  # never ready, so the budget allows none to go, as yet
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: held, namespace: default}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: held}}
"""


def bundle_of(version: str) -> str:
    return str(built(version, f"kubernetes_version: {version}\n"))


def etcds() -> set[str]:
    """The minors of etcd that the members say they are."""
    members = json.loads(ssh("cp1", f"{ETCDCTL} endpoint status --cluster -w json"))
    return {each["Status"]["version"].rpartition(".")[0] for each in members}


@pytest.fixture(scope="module")
def writer(bundle: str) -> Iterator[Writer]:
    """A cluster of the first version, and somebody who writes into it all the time."""
    lab.down()
    lab.up(layout.topology("compact"), bundle_of(FIRST))
    deployed("cluster", "-y")
    with writes() as writing:
        yield writing
    lab.down()


@pytest.mark.parametrize(("before", "after"), list(pairwise(ETCD)))
def test_a_minor_is_planned_done_and_then_done_no_more(writer: Writer, before: str, after: str) -> None:
    assert (versions(), etcds()) == ({before}, {ETCD[before]})
    lab.up(layout.topology("compact"), bundle_of(after))
    refused = pyinfra("cluster", "-y")
    assert refused.returncode != 0 and "Run deploys/upgrade.py" in refused.stdout, refused.stdout[-3000:]
    plan = changes(deployed("upgrade", "--dry"))
    assert plan == changes(deployed("upgrade", "-y")) != {}
    assert (versions(), servers(), etcds()) == ({after}, {after}, {ETCD[after]})
    for layer in ("upgrade", "cluster"):
        assert changes(deployed(layer, "-y")) == {}
    kept(writer)


def test_one_that_was_killed_goes_on_until_a_disruption_budget_stops_it_and_the_node_is_given_back(
    writer: Writer,
) -> None:
    lab.up(layout.topology("compact"), str(BUNDLE))
    image = ssh("cp1", "sed -n 's/.*sandbox_image = \"\\(.*\\)\".*/\\1/p' /etc/containerd/config.toml").strip()
    ssh("cp1", f"cat <<'END' | {KUBECTL} apply -f -\n{APPLICATION.replace('IMAGE', image)}END")
    ssh("cp1", f"{KUBECTL} wait pods -l app=held --for=jsonpath={{.status.phase}}=Running --timeout=60s")
    # The kubeadm of a control plane is left at work.
    killed_when("upgrade", "cp2", "pgrep -f '^kubeadm upgrade' >/dev/null", limit=900)
    done = pyinfra("upgrade", "-y", "--data", "drain_timeout=20")
    assert done.returncode != 0
    assert "budget default/held holds" in done.stdout, done.stdout[-3000:]
    assert BEFORE in versions()  # w1, which is not cordoned either
    ssh("cp1", f"{KUBECTL} delete poddisruptionbudget,deployment held")


def test_one_that_is_killed_goes_on_where_the_nodes_are(writer: Writer) -> None:
    """The control planes are done; the worker's is killed while its kubelet is away."""
    begun = subprocess.Popen(
        pyinfra_command("upgrade", "-y"), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    cordoned = f"{KUBECTL} get node w1 -o jsonpath='{{.spec.unschedulable}}'"
    wait_for(lambda: ssh("cp1", cordoned, check=False) == "true", "the worker to be drained", 600)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    deployed("upgrade", "-y")
    (version,) = versions()
    assert version not in ETCD
    assert servers() == {version}
    for layer in ("upgrade", "cluster"):
        assert changes(deployed(layer, "-y")) == {}
    kept(writer)
