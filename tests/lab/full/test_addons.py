"""Add-ons on real nodes: CoreDNS, metrics-server, local-path, a manifest and a chart of a site's own.

The bundle is built here, from source where no registry can be asked; helm, metrics-server and local-path then take a
quarter of an hour once. metrics-server comes second, to kubelets that serve by certificates of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import addons as known
from cluster.settings import load
from deploys.plan import TEMPLATES
from lab import lab, layout
from tests.lab.nodes import ROOT, changes, deployed, everywhere, foretold, kubectl, ssh
from tests.lab.test_4_survival import wait_for

OUTPUT = ROOT / "dist" / "addons"
NODES = ("cp1", "cp2", "cp3", "w1")
FIRST = ("coredns", "local-path", "motd", "shop")
ALL = ("coredns", "metrics-server", "local-path", "motd", "shop")
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
SHELL = "docker.io/library/busybox:1.37.0"
CHART = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: IMAGE
          args: [netexec, --http-port=8080]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}}
---
apiVersion: v1
kind: Secret
metadata: {name: made-up}
stringData: {password: {{ randAlphaNum 12 }}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-elsewhere, namespace: kube-system}
data: {version: {{ .Capabilities.KubeVersion.Version }}}
"""
MOTD = """\
apiVersion: lab.test/v1
kind: Message
metadata: {name: today}
spec: {text: hello}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: messages.lab.test}
spec:
  group: lab.test
  scope: Namespaced
  names: {plural: messages, singular: message, kind: Message}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties: {spec: {type: object, properties: {text: {type: string}}}}
"""


def build(directory: Path) -> None:
    """A bundle with these add-ons, by the function behind `tasks.py bundle build`."""
    (directory / "shop" / "templates").mkdir(parents=True)
    (directory / "shop" / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 0.3.1\n")
    (directory / "shop" / "values.yaml").write_text("replicas: 1\n")
    (directory / "shop" / "templates" / "all.yaml").write_text(CHART.replace("IMAGE", AGNHOST))
    (directory / "values.yaml").write_text("replicas: 2\n")
    (directory / "motd.yaml").write_text(MOTD)
    own = {
        "motd": {"manifests": [str(directory / "motd.yaml")]},
        "shop": {
            "chart": {"path": str(directory / "shop"), "values": [str(directory / "values.yaml")]},
            "namespace": "shop",
        },
    }
    site = directory / "bundle.yaml"
    site.write_text(yaml.safe_dump({"addons": ["metrics-server", "local-path"], "own_addons": own}))
    script = "import sys; from pathlib import Path; from bundle.build import build; build(*map(Path, sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(OUTPUT), str(site)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=5400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]


def flags(*addons: str) -> list[str]:
    values = {
        "bundle_dir": str(OUTPUT), "addons": json.dumps(addons), "dns_replicas": "3",
        "dns_hosts": '{"db.lab.test": "10.88.0.77"}', "dns_zones": '{"corp.lab.test": ["10.88.0.78"]}',
    }  # fmt: skip
    return [word for name, value in values.items() for word in ("--data", f"{name}={value}")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """What the plan for bare nodes said, and the run: without metrics-server."""
    build(tmp_path_factory.mktemp("site"))
    lab.down()
    lab.up(layout.topology("compact"))
    plan = deployed("cluster", "--dry", *flags(*FIRST))
    yield plan, deployed("cluster", "-y", *flags(*FIRST))
    lab.down()


@pytest.fixture(scope="module")
def metrics(cluster: tuple[str, str]) -> tuple[str, str]:
    """The plan and the run with which metrics-server comes to the cluster."""
    plan = deployed("cluster", "--dry", *flags(*ALL))
    return plan, deployed("cluster", "-y", *flags(*ALL))


def items(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("get", *words, "-o", "json"))["items"]
    return found


def applied(*objects: dict[str, Any]) -> None:
    """Apply objects by way of the first control plane."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    ssh("cp1", f"echo '{text}' | kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f -")


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a few lines of shell once."""
    container = {"name": "shell", "image": SHELL, "command": ["sh", "-c", script], **spec.pop("container", {})}
    whole = {"restartPolicy": "Never", "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": whole}


def said(name: str, phase: str = "Succeeded") -> str:
    """What a pod printed that has come to this end, after which it is gone."""
    state = ("get", "pod", name, "-o", "jsonpath={.status.phase}")
    wait_for(lambda: kubectl(*state) in ("Succeeded", "Failed"), f"pod {name} to end", 120)
    found, text = kubectl(*state), kubectl("logs", name)
    kubectl("delete", "pod", name, "--now")
    assert found == phase, text
    return text


def test_the_run_makes_what_the_plan_said_and_a_second_one_nothing(cluster: tuple[str, str]) -> None:
    plan, _ = cluster
    assert foretold("cluster") == []
    assert changes(plan) != {}
    assert changes(deployed("cluster", "-y", *flags(*FIRST))) == {}


def test_every_pod_of_coredns_is_on_another_node(cluster: tuple[str, str]) -> None:
    where = [each["spec"]["nodeName"] for each in items("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")]
    assert len(where) == len(set(where)) == 3


def test_pods_find_names_of_the_settings(cluster: tuple[str, str]) -> None:
    """agnhost says DNS when a name is not resolved; nobody answers at the address of the other."""
    for name, found in (("db.lab.test", True), ("nobody.lab.test", False)):
        words = ["/agnhost", "connect", "--timeout=3s", f"{name}:80"]
        applied(pod("names", "", container={"image": AGNHOST, "command": words}))
        assert said("names", "Failed").startswith("DNS") is not found, name


def test_a_volume_outlives_its_pod_and_its_directory_goes_with_its_claim(cluster: tuple[str, str]) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                 "resources": {"requests": {"storage": "1Mi"}}},
    }  # fmt: skip
    volume = {
        "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
        "container": {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]},
    }
    applied(claim, pod("writes", "echo words > /kept/file", **volume))
    said("writes")
    applied(pod("reads", "cat /kept/file", **volume))
    assert said("reads") == "words\n"
    (there,) = items("persistentvolumes")
    path = there["spec"].get("hostPath", there["spec"].get("local"))["path"]
    assert path.startswith("/opt/local-path-provisioner/")
    assert ssh("w1", f"cat {path}/file") == "words\n"
    kubectl("delete", "pvc", "kept", timeout=120)
    wait_for(lambda: items("persistentvolumes") == [], "the volume to go", 120)
    assert ssh("w1", "ls /opt/local-path-provisioner") == ""


def test_a_chart_and_a_manifest_with_a_kind_of_its_own_are_what_they_say(cluster: tuple[str, str]) -> None:
    (web,) = items("deployments", "-n", "shop")
    assert (web["metadata"]["name"], web["status"]["availableReplicas"]) == ("shop-web", 2)
    assert len(items("secrets", "-n", "shop")) == 1
    assert (
        kubectl("get", "configmap", "shop-elsewhere", "-n", "kube-system", "-o", "jsonpath={.data.version}")
        == "v1.36.2"
    )
    assert kubectl("get", "message", "today", "-o", "jsonpath={.spec.text}") == "hello"


def test_every_offered_manifest_is_taken_by_the_api_as_it_is(cluster: tuple[str, str]) -> None:
    mine = load({"vip": "10.88.0.100"})
    for name, offered in known.OFFERED.items():
        if name == "coredns":
            continue  # a part of kubeadm's own, and applied already
        values: dict[str, object] = {key: f"{repository}:v1" for key, repository in offered.images.items()}
        values |= {"corefile": known.corefile(mine), "sha256": "0", "spread": known.spread(mine)}
        values |= {"link_local": known.LINK_LOCAL, "cluster_dns": known.cluster_dns(mine)}
        text = TEMPLATES.get_template(f"addons/{name}.yaml.j2").render(settings=mine, **values)
        # What is in a namespace of the manifest's own has none to go to while nothing is made.
        objects = [each for each in yaml.safe_load_all(text) if each]
        made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
        for each in objects:
            if each["metadata"].get("namespace") in made:
                each["metadata"]["namespace"] = "default"
        words = "apply --server-side --force-conflicts --dry-run=server --validate=strict -f -"
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        script = f"kubectl --kubeconfig /etc/kubernetes/admin.conf {words} <<'END'\n{stdin}\nEND"
        assert ssh("cp1", script).count("serverside-applied (server dry run)") == len(objects), name


def test_metrics_server_comes_by_what_the_plan_said_and_a_second_run_changes_nothing(metrics: tuple[str, str]) -> None:
    plan, _ = metrics
    assert foretold("cluster") == []
    assert changes(plan) != {}
    assert changes(deployed("cluster", "-y", *flags(*ALL))) == {}


def test_every_kubelet_is_known_by_the_clusters_ca(metrics: tuple[str, str]) -> None:
    def trusted(node: str) -> None:
        url = f"https://{layout.node(node).address}:10250/healthz"
        answer = ssh("cp1", f"curl -sS --cacert /etc/kubernetes/pki/ca.crt -o /dev/null -w '%{{http_code}}' {url}")
        assert answer == "401", f"{node}: {answer}"

    everywhere(trusted, NODES)


def test_metrics_of_every_node_and_pod_are_there(metrics: tuple[str, str]) -> None:
    def nodes() -> list[str]:
        text = ssh("cp1", "kubectl --kubeconfig /etc/kubernetes/admin.conf top nodes --no-headers", check=False)
        return sorted(line.split()[0] for line in text.splitlines() if "<unknown>" not in line)

    wait_for(lambda: nodes() == sorted(NODES), "metrics of every node", 120)
    assert "coredns-" in kubectl("top", "pods", "-n", "kube-system")


def test_logs_of_pods_on_every_node_can_be_read(metrics: tuple[str, str]) -> None:
    for each in items("pods", "-n", "kube-system", "-l", "k8s-app=kube-proxy"):
        assert kubectl("logs", "-n", "kube-system", each["metadata"]["name"]), each["spec"]["nodeName"]


def test_a_node_that_joins_later_asks_for_its_certificate_and_gets_it(metrics: tuple[str, str]) -> None:
    lab.replace("w1")
    kubectl("delete", "node", "w1")
    deployed("cluster", "-y", *flags(*ALL))
    assert ssh("w1", "grep -c '^serverTLSBootstrap: true' /var/lib/kubelet/config.yaml") == "1\n"
    assert changes(deployed("cluster", "-y", *flags(*ALL))) == {}


def test_what_is_taken_out_of_the_setting_is_left_and_said(metrics: tuple[str, str]) -> None:
    output = deployed("addons", "-y", *flags("coredns", "metrics-server", "local-path", "motd"))
    words = " ".join(output.split())
    assert "add-on shop is no longer in `addons`. It is left as it is; as root on cp1: kubectl delete -f" in words
    assert changes(output) == {}
    assert len(items("deployments", "-n", "shop")) == 1
