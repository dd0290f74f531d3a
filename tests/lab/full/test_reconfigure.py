"""Settings that change while a client writes through the virtual IP; and settings that a program does not take."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from typing import Any

import pytest

from lab import lab, layout
from tests.lab.nodes import (
    BUNDLE,
    CONTROL_PLANES,
    KUBERNETES_NODES,
    ROOT,
    VIP,
    changes,
    deployed,
    kubectl,
    pyinfra,
    ssh,
)  # fmt: skip
from tests.lab.test_5_interrupted import killed_when
from tests.lab.upgrades import Writer, kept, writes

PROXY = {"conntrack": {"maxPerCore": 0, "min": 0}}


def kubelets(**more: Any) -> dict[str, Any]:
    """The lab's own configuration of kubelets with more; `--data` takes the place of all of it."""
    own: dict[str, Any] = runpy.run_path(str(ROOT / "inventories/lab.py"))["_kubelet"]
    return own | more


def flags(**settings: Any) -> list[str]:
    return [word for name, value in settings.items() for word in ("--data", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def writer(bundle: str) -> Iterator[Writer]:
    lab.down()
    lab.up(layout.topology("compact"), str(BUNDLE))
    deployed("cluster", "-y")
    with writes() as writing:
        yield writing
    lab.down()


def cmdline(node: str, program: str) -> str:
    return ssh(node, f"tr '\\0' ' ' < /proc/$(pgrep -x {program})/cmdline")


def test_settings_of_every_kind_are_carried_and_no_acknowledged_write_is_lost(writer: Writer) -> None:
    changed = flags(
        cluster_configuration={
            "apiServer": {"extraArgs": {"default-watch-cache-size": "120"}},
            "etcd": {"local": {"extraArgs": {"heartbeat-interval": "150"}}},
        },
        audit_policy={"rules": [{"level": "Metadata"}]},
        api_cert_extra_sans=["api.example.org"],
        kubelet_config=kubelets(maxPods=77),
        kube_proxy_config=PROXY | {"metricsBindAddress": "127.0.0.1:10249"},
    )
    dry = changes(deployed("cluster", "--dry", *changed))
    assert dry == changes(deployed("cluster", "-y", *changed)) != {}
    for node in CONTROL_PLANES:
        assert "--default-watch-cache-size=120" in cmdline(node, "kube-apiserver")
        assert "--heartbeat-interval=150" in cmdline(node, "etcd")
        assert ssh(node, 'grep -c \'"level":"Metadata"\' /var/log/kubernetes-audit/audit.log').strip() != "0"
    for node in KUBERNETES_NODES:
        assert kubectl("get", "node", node, "-o", "jsonpath={.status.capacity.pods}") == "77"
    assert changes(deployed("cluster", "-y", *changed)) == {}
    deployed("cluster", "-y")
    assert changes(deployed("cluster", "-y")) == {}
    kept(writer, "reconfigure")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"cluster_configuration": {"scheduler": {"extraArgs": {"no-such-flag": "1"}}}},
            "kube-scheduler of cp1 did not become ready by its new manifest",
        ),
        ({"kubelet_config": {"topologyManagerPolicy": "nonsense"}}, "the kubelet of cp1 did not report ready"),
        ({"kube_proxy_config": {"detectLocalMode": "nonsense"}}, "kube-proxy did not become ready"),
    ],
)
def test_what_a_program_does_not_take_is_put_back(
    writer: Writer, settings: dict[str, dict[str, Any]], words: str
) -> None:
    own = {"kubelet_config": kubelets(), "kube_proxy_config": PROXY}
    done = pyinfra("reconfigure", "-y", *flags(**{name: own.get(name, {}) | each for name, each in settings.items()}))
    assert done.returncode != 0
    assert words in done.stdout and "of before is back" in done.stdout, done.stdout[-3000:]
    assert changes(deployed("reconfigure", "-y")) == {}


OTHER = "10.88.0.101"
MOVED = ("--data", f"vip={OTHER}")


def ways(address: str) -> set[str]:
    """Nodes with a kubeconfig that leads to an address, and hosts that carry it."""
    leads = f"grep -qsF 'https://{address}:' /etc/kubernetes/*.conf || ip -o -4 addr | grep -qF ' {address}/'"
    return {node for node in KUBERNETES_NODES if ssh(node, f"{leads} && echo yes || true").strip()}


def test_another_virtual_ip_reaches_every_node_and_the_old_goes_while_a_client_writes(writer: Writer) -> None:
    dry = changes(deployed("cluster", "--dry", *MOVED))
    assert changes(deployed("cluster", "-y", *MOVED)) == dry != {}
    assert ways(VIP) == set() and "w1" in ways(OTHER)
    assert changes(deployed("cluster", "-y", *MOVED)) == {}
    for name in ("kubeadm-config", "kube-proxy"):
        text = kubectl("get", "configmap", name, "-n", "kube-system", "-o", "yaml")
        assert VIP not in text.replace(f"- {VIP}\n", "") and OTHER in text
    info = kubectl("get", "configmap", "cluster-info", "-n", "kube-public", "-o", "yaml")
    assert VIP not in info and OTHER in info
    # And back, killed between two nodes.
    killed_when("reconfigure", "cp3", f"grep -qF 'https://{VIP}:' /etc/kubernetes/admin.conf")
    deployed("reconfigure", "-y")
    assert ways(OTHER) == set()
    assert changes(deployed("cluster", "-y")) == {}
    kept(writer, "another virtual IP")
