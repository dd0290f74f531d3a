"""Add-ons: manifests applied whole, and everything in them waited for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator
from typing import Any

from pyinfra import host, logger
from pyinfra.api import OperationError, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from facts.kubernetes import Manifest, MetricsCertificate, kubectl
from operations import remote
from operations.change import any_changes, will
from operations.workload import COMPLAINTS, settled

# What the API says for a moment only: kinds that this manifest itself defines, webhooks that it starts.
PASSING = ("no matches for kind", "failed calling webhook", "ensure CRDs are installed first", 'namespaces "')
TRIES = 30
APPLY = "apply --server-side --force-conflicts --field-manager=pyinfra-kubeadm"


def apply_script(path: str, context: str, partial: bool = False) -> str:
    """Shell that applies a manifest by server-side apply, again as long as its own parts are not there yet.

    Up to 1.24 kubectl itself wants whole objects, where the API takes parts of them.
    """
    flags = f"{APPLY} --validate=false" if partial else APPLY
    passing = "|".join(f"*'{words}'*" for words in PASSING)
    return (
        f"n=0; until said=$({kubectl(context)} {flags} -f {shlex.quote(path)} 2>&1); do n=$((n+1)); "
        f'case "$said" in {passing}) test $n -lt {TRIES};; *) false;; esac || {{ echo "$said" >&2; exit 1; }}; '
        "sleep 2; done"
    )


def get_script(path: str, context: str, also: str) -> str:
    """Shell that prints the live objects of a manifest as lists of JSON, a line each."""
    get = f"{kubectl(context)} --request-timeout=20s get --ignore-not-found -o json"
    more = f"; {get} {also} | tr -d '\\n'; echo" if also else ""
    return f"{get} -f {shlex.quote(path)} | tr -d '\\n'; echo{more}"


def unfinished(items: list[dict[str, Any]]) -> list[str]:
    """What of live objects does not work yet, in words.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status, and of the others alike.
    """
    found = []
    for item in items:
        words = _lacks(item["kind"], item.get("spec") or {}, item.get("status") or {})
        if not words and item["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
            seen = (item.get("status") or {}).get("observedGeneration", 0)
            words = "" if seen >= item["metadata"].get("generation", 0) else "has not been looked at"
        if words:
            namespace = item["metadata"].get("namespace")
            name = "/".join(filter(None, (namespace, item["metadata"]["name"])))
            found.append(f"{item['kind']} {name} {words}")
    return found


def _lacks(kind: str, spec: dict[str, Any], status: dict[str, Any]) -> str:
    conditions = {row["type"]: row for row in status.get("conditions") or []}
    by_hand = (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    if kind == "Deployment":
        wanted, ready = spec.get("replicas", 1), status.get("availableReplicas", 0)
        old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
        return _counted(min(ready, status.get("updatedReplicas", 0)), wanted) or ("has old pods" if old else "")
    if kind == "StatefulSet":
        ready = status.get("readyReplicas", 0)
        updated = ready if by_hand else status.get("updatedReplicas", 0)
        return _counted(min(ready, updated), spec.get("replicas", 1))
    if kind == "DaemonSet":
        ready = status.get("numberAvailable", 0)
        updated = ready if by_hand else status.get("updatedNumberScheduled", 0)
        return _counted(min(ready, updated), status.get("desiredNumberScheduled", 0))
    if kind == "Job":
        return "" if status.get("succeeded", 0) >= spec.get("completions", 1) else "has not completed"
    needed = {"CustomResourceDefinition": "Established", "APIService": "Available"}.get(kind)
    if needed and conditions.get(needed, {}).get("status") != "True":
        return f"is not {needed}: {conditions.get(needed, {}).get('message', 'it says nothing')}"
    return ""


def _counted(ready: int, wanted: int) -> str:
    return "" if ready >= wanted else f"has {ready} of {wanted} pods"


def live(name: str, path: str, context: str, also: str) -> list[dict[str, Any]]:
    """The live objects of a manifest. Raises OperationError."""
    lines = remote.on(name, get_script(path, context, also), why=f"looking at what {path} has made")
    found: list[dict[str, Any]] = []
    for line in filter(str.strip, lines):
        answer = json.loads(line)
        found += answer["items"] if answer["kind"] == "List" else [answer]
    return found


@operation()
def applied(
    path: str,
    written_by: OperationMeta,
    context: str = "",
    also: str = "",
    wait: bool = True,
    seconds: int = 180,
    partial: bool = False,
    anew: bool = False,
) -> Generator[StringCommand, None, None]:
    """
    Apply a manifest on the node by server-side apply, and wait until all that it made works, unless nothing can.

    + path: the manifest
    + written_by: the operation that writes it; when that changes the file, so does this the cluster
    + context: file of a context whose namespace is that of objects that name none
    + also: another object to wait for, such as "apiservice v1beta1.metrics.k8s.io"
    + wait: whether pods can run at all
    + seconds: how long to wait
    + partial: whether its objects are parts of what kubeadm has made
    + anew: whether this run makes them otherwise before
    """
    state = None if anew or any_changes([written_by]) else host.get_fact(Manifest, path=path, context=context)
    if state and state["state"] == "applied":
        host.noop(f"{path} is what the cluster has")
        return
    will(f"apply {path}", state["diff"] if state else [])
    yield StringCommand(apply_script(path, context, partial))
    if not host.state.is_executing or not wait:
        return

    def look() -> list[str]:
        try:
            return unfinished(live(host.name, path, context, also))
        except OperationError as error:  # the API may be away for a moment
            return [str(error)]

    if not (found := settled(look, seconds)):
        logger.info("%sall of %s works", host.print_prefix, path)
        return
    text = (
        f"{path} was applied, and after {seconds} s not all of it works:\n"
        + "\n".join(f"  - {line}" for line in found)
        + "\nPods that do not run, and what happened last (the next run waits again):"
    )
    yield StringCommand(
        f"{{ printf '%s\\n' {shlex.quote(text)}; {kubectl()} get pods -A -o wide | grep -vE ' (Running|Completed) '; "
        f"{COMPLAINTS}; }} >&2; exit 1"
    )


API_SERVICE = """\
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {namespace: kube-system, name: metrics-server, port: 443}
  caBundle: $ca
"""
HOST = "metrics-server.kube-system.svc"


def certificate_script() -> str:
    """Shell that makes metrics-server's certificate and has the API check it; the key is never on a disk."""
    apply = f"{kubectl()} {APPLY} -f -"
    return (
        "umask 077; d=$(mktemp -d /run/metrics-server.XXXXXXXX) && trap 'rm -rf \"$d\"' EXIT && "
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 "
        f"-subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -addext extendedKeyUsage=serverAuth "
        '-keyout "$d/tls.key" -out "$d/tls.crt" 2>/dev/null && '
        f'{kubectl()} create secret tls metrics-server -n kube-system --cert "$d/tls.crt" --key "$d/tls.key" '
        f'--dry-run=client -o yaml | {apply} && ca=$(base64 -w0 "$d/tls.crt") && {apply} <<EOF\n{API_SERVICE}EOF'
    )


@operation()
def metrics_certificate() -> Generator[StringCommand, None, None]:
    """Give metrics-server a certificate of its own, by which the API checks it, or a new one before it ends."""
    if (state := host.get_fact(MetricsCertificate)) == "valid":
        host.noop("metrics-server's certificate is valid, and the API checks it")
        return
    will(f"make metrics-server's certificate ({state})")
    yield StringCommand(certificate_script())
