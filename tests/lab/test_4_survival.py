"""The first day: what carries the virtual address fails, and the API answers again before anyone is woken.

Each test prints the time without an answer that it measured (`pytest -s`, or the report of bench/); the goal is 1.5 s.
No time is asserted beyond the limit at which a client would have given up.
"""

from __future__ import annotations

import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import lab
from tests.lab.nodes import CONTROL_PLANES, VIP, deployed, holder, kubectl, ssh

pytestmark = pytest.mark.usefixtures("cluster")
EVERY, PATIENCE, LIMIT = 0.05, 1.0, 60.0  # seconds


class Client:
    """Asks the API through the virtual IP twenty times a second, each time on a new connection."""

    def __init__(self, ca: str) -> None:
        self.context = ssl.create_default_context(cadata=ca)
        self.answers: list[float] = []
        self.over = threading.Event()

    def ask(self) -> None:
        connection = http.client.HTTPSConnection(VIP, 6443, timeout=PATIENCE, context=self.context)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                self.answers.append(time.monotonic())
        except OSError:
            pass
        finally:
            connection.close()

    def run(self) -> None:
        with ThreadPoolExecutor(64) as pool:
            while not self.over.wait(EVERY):
                pool.submit(self.ask)

    def gap(self, since: float) -> float:
        """The longest time without an answer, in seconds, from a moment on."""
        seen = [since, *sorted(at for at in self.answers if at > since)]
        return max((later - earlier for earlier, later in itertools.pairwise(seen)), default=float("inf"))


@pytest.fixture
def client() -> Iterator[Client]:
    asking = Client(ssh("cp1", "cat /etc/kubernetes/pki/ca.crt"))
    thread = threading.Thread(target=asking.run)
    thread.start()
    wait_for(lambda: len(asking.answers) > 20, "the API to answer at all")
    yield asking
    asking.over.set()
    thread.join()


def wait_for(what: Callable[[], bool], words: str, limit: float = LIMIT) -> float:
    """Seconds until something holds; fails when it does not within the limit."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < limit, f"waited {limit} s for {words}"
        time.sleep(0.05)
    return time.monotonic() - begun


def outage(client: Client, event: Callable[[], object], name: str) -> None:
    """Do it to the cluster; print how long the API was away, and see that a write succeeds again."""
    begun = time.monotonic()
    event()
    wait_for(lambda: client.answers[-1] > time.monotonic() - 0.3 and time.monotonic() - begun > 5, "the API again")
    away = client.gap(begun)
    wait_for(lambda: written(name), "a write to succeed")
    print(f"\n{name}: {away:.2f} s without an answer through {VIP}")
    assert away < LIMIT


def written(name: str) -> bool:
    try:
        kubectl("create", "configmap", name, "-n", "default", "--request-timeout=5s", timeout=10)
    except AssertionError as error:
        return "already exists" in str(error)
    return True


def converge() -> None:
    """The next run of the whole deploy finds a cluster that it can verify."""
    deployed("cluster", "-y")
    kubectl("delete", "configmap", "-n", "default", "--all", "--field-selector=metadata.name!=kube-root-ca.crt")


def test_haproxy_killed_on_the_load_balancer_that_has_the_address(client: Client) -> None:
    node = holder()
    outage(client, lambda: ssh(node, "pkill -KILL haproxy"), "haproxy-killed")
    converge()


def test_the_load_balancer_that_has_the_address_loses_power(client: Client) -> None:
    node = holder()
    outage(client, lambda: lab.stop(node), "load-balancer-stopped")
    lab.start(node)
    converge()
    assert holder() != node, "an address that has moved stays where it is"


def test_the_first_control_plane_loses_power(client: Client) -> None:
    outage(client, lambda: lab.stop("cp1"), "control-plane-stopped")
    lab.start("cp1")
    converge()
    ready = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert set(CONTROL_PLANES) < set(ready)


def test_the_load_balancer_that_has_the_address_is_unplugged(client: Client) -> None:
    node = holder()
    outage(client, lambda: lab.cut(node), "load-balancer-unplugged")
    lab.mend(node)
    converge()
