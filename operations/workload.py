"""Pods that try what users' pods will need: DNS, other pods, Services, images without a registry."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import gevent
from jinja2 import Template
from pyinfra import logger
from pyinfra.api import OperationError

from cluster.endpoint import Endpoint
from cluster.topology import Topology
from operations import remote

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
# Why a pod has no containers yet is said nowhere else.
COMPLAINTS = (
    f"{KUBECTL} --request-timeout=20s get events -A --field-selector type=Warning --sort-by=.lastTimestamp | tail -n 20"
)
NAMESPACE = "pyinfra-kubeadm-verify"
MANIFEST = Template(
    """\
apiVersion: v1
kind: Namespace
metadata:
  name: {{ namespace }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: probe
  namespace: {{ namespace }}
spec:
  selector:
    matchLabels: {app: probe}
  template:
    metadata:
      labels: {app: probe}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      tolerations:
        - operator: Exists
      containers:
        - name: probe
          image: {{ image }}
          imagePullPolicy: IfNotPresent
          args: [netexec, --http-port=8080]
          readinessProbe:
            httpGet: {path: /healthz, port: 8080}
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: probe
  namespace: {{ namespace }}
spec:
  selector: {app: probe}
{% if dual %}
  ipFamilyPolicy: RequireDualStack
{% endif %}
  ports:
    - port: 80
      targetPort: 8080
""",
    trim_blocks=True,
)


def settled(look: Callable[[], list[str]], seconds: int) -> list[str]:
    """Look until nothing is wrong or time runs out; return what the last look found."""
    found = look()
    for waited in range(0, seconds, 5):
        if not found:
            return []
        if waited % 30 == 0:
            logger.info("    not yet, after %s s of %s: %s", waited, seconds, "; ".join(found[:4]))
        gevent.sleep(5)
        found = look()
    return found


def findings(topology: Topology, image: str, dual: bool = False) -> list[str]:
    """Run one pod on every node, try every path from every pod, and remove them all again; of two families, each."""
    first = topology.first_control_plane.name
    manifest = MANIFEST.render(namespace=NAMESPACE, image=image, dual=dual)
    try:
        try:
            remote.on(first, f"{KUBECTL} apply -f - >/dev/null", manifest, "starting the probe pods")
            rollout = f"{KUBECTL} -n {NAMESPACE} rollout status daemonset/probe --timeout=120s >/dev/null"
            remote.on(first, rollout, why="waiting for the probe pods")
            return _paths(first, dual)
        finally:
            remove = f"{KUBECTL} delete namespace {NAMESPACE} --ignore-not-found --wait=true --timeout=120s >/dev/null"
            remote.on(first, remove, why="removing the probe pods")
    except OperationError as error:
        return [str(error)]


def attempts(pods: list[dict[str, Any]], services: Sequence[str] = ()) -> dict[tuple[str, str], str]:
    """What to try: (pod, target) -> what a failure of it means. Each pod tries the next one, so that n nodes cost n.

    + pods: as `kubectl get pods -o json` has them
    + services: addresses of the Service of these pods that are to be tried beside its name
    """
    found = {}
    for pod, other in zip(pods, [*pods[1:], pods[0]], strict=True):
        node, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
        targets = {
            **{
                str(Endpoint(ip_address(row["ip"]), 8080)): f"the pod on {other['spec']['nodeName']}"
                for row in other["status"]["podIPs"]
            },
            **{str(Endpoint(ip_address(each), 80)): "the Service by its address" for each in services},
            f"probe.{NAMESPACE}.svc:80": "the Service by its DNS name",
            "kubernetes.default.svc:443": "the API's Service by its DNS name",
        }
        found.update({(name, target): f"from the pod on {node}, {what}" for target, what in targets.items()})
    return found


def _paths(first: str, dual: bool) -> list[str]:
    listing = remote.on(first, f"{KUBECTL} -n {NAMESPACE} get pods -o json", why="listing the probe pods")
    services = []
    if dual:
        asked = f"{KUBECTL} -n {NAMESPACE} get service probe -o json"
        found = remote.on(first, asked, why="asking for the addresses of the probe Service")
        services = json.loads("\n".join(found))["spec"]["clusterIPs"]
    wanted = attempts(json.loads("\n".join(listing))["items"], services)
    # DNS and the rules of a new Service may take a moment to reach every node.
    one = (
        f"for i in 1 2 3 4 5 6; do said=$({KUBECTL} -n {NAMESPACE} exec $0 -- /agnhost connect --timeout=5s $1 2>&1) "
        "&& exit 0; sleep 2; done; echo $0 $1 $said"
    )
    lines = "".join(f"{pod} {target}\n" for pod, target in wanted)
    failed = [
        line.split(maxsplit=2)
        for line in remote.on(first, f"xargs -r -P 8 -L 1 sh -c {shlex.quote(one)}", lines, "trying the pods' paths")
    ]
    return [
        f"{wanted[words[0], words[1]]} ({words[1]}) is not reached: {' '.join(words[2:])[:300]}" for words in failed
    ]
