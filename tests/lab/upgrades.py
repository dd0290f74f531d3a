"""A cluster that is upgraded while a client writes into it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.nodes import CONTROL_PLANES, KUBERNETES_NODES, MEASURED, kubectl, ssh
from tests.lab.test_4_survival import wait_for


class Writer:
    """Writes through the virtual IP, one object after the other, and keeps what was acknowledged."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.failed = 0
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.over.wait(0.2):
            number += 1
            try:
                kubectl("create", "configmap", f"write-{number}", "--request-timeout=5s", timeout=10)
                self.written.append(f"write-{number}")
            except (AssertionError, subprocess.TimeoutExpired):
                self.failed += 1


@contextmanager
def writes() -> Iterator[Writer]:
    """Somebody who writes into the cluster all the time."""
    writing = Writer()
    thread = threading.Thread(target=writing.run)
    thread.start()
    try:
        yield writing
    finally:
        writing.over.set()
        thread.join()


def versions() -> set[str]:
    items = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert {item["metadata"]["name"] for item in items} == set(KUBERNETES_NODES)
    assert not [item for item in items if item["spec"].get("unschedulable")]
    return {item["status"]["nodeInfo"]["kubeletVersion"] for item in items}


def servers() -> set[str]:
    images = (ssh(name, "grep -h ' image:.*kube-' /etc/kubernetes/manifests/*.yaml") for name in CONTROL_PLANES)
    return {line.rpartition(":")[2] for found in images for line in found.split("\n") if line}


def kept(writer: Writer, what: str = "upgrade") -> None:
    """Nothing that was acknowledged is lost."""
    wait_for(lambda: len(writer.written) > 10, "writes")
    known = list(writer.written)
    there = set(kubectl("get", "configmaps", "-o", "name").split())
    assert not [name for name in known if f"configmap/{name}" not in there]
    MEASURED.append(f"{what}: {len(known)} writes acknowledged, none lost; {writer.failed} were refused on the way")
