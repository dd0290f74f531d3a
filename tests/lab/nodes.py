"""The lab's nodes as the tests see them: over plain SSH and testinfra, not by the code that is tested."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import testinfra
from testinfra.host import Host

from cluster.changes import Plan, difference, load

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).parent / "pyinfra"
SSH_CONFIG = "/var/lib/pyinfra-kubeadm-lab/ssh_config"
KUBECTL = [str(ROOT / "dist/bundle/bin/kubectl"), f"--kubeconfig={ROOT / 'secrets/lab/admin.conf'}"]

LOAD_BALANCERS = ("lb1", "lb2")
CONTROL_PLANES = ("cp1", "cp2", "cp3")
KUBERNETES_NODES = (*CONTROL_PLANES, "w1")
NODES = (*LOAD_BALANCERS, *KUBERNETES_NODES)
VIP = "10.88.0.100"

# What tests have measured, one line each; printed at the end.
MEASURED: list[str] = []

Done = subprocess.CompletedProcess[str]


# Built from servers that stand for upstream's, as a site builds its own (mirrored.py).
BUNDLE = ROOT / "dist" / "mirrored"


def pyinfra_command(deploy: str, *flags: str) -> list[str]:
    return [str(PYINFRA), "inventories/lab.py", f"deploys/{deploy}.py", *flags]


def _kept(deploy: str, kind: str) -> Path:
    """Where the last plan or result of a deploy is kept for the tests."""
    return ROOT / "dist" / "lab-plans" / f"{deploy}-{kind}.json"


def pyinfra(deploy: str, *flags: str, inventory: str = "inventories/lab.py") -> Done:
    """One run of the pyinfra command, as a user would type it, with its words captured."""
    # With `-y` nothing is planned, unless a plan is asked for.
    kind = "result" if "-y" in flags and deploy != "drift" else "plan"
    _kept(deploy, kind).unlink(missing_ok=True)
    command = [*pyinfra_command(deploy, *flags), "--data", f"{kind}_out={_kept(deploy, kind)}"]
    command[1] = inventory
    return subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=1200, check=False,
    )  # fmt: skip


def deployed(deploy: str, *flags: str) -> str:
    """The words of a run that must succeed."""
    done = pyinfra(deploy, *flags)
    assert done.returncode == 0, done.stdout[-10000:]
    return done.stdout


def last_plan(deploy: str) -> Plan:
    """What the last dry run of a deploy has said."""
    return load(_kept(deploy, "plan"))


def foretold(deploy: str) -> list[str]:
    """What the last dry run of a deploy said and the run after it did otherwise, by host, operation and change."""
    plan, done = last_plan(deploy), load(_kept(deploy, "result"))
    assert plan.made <= done.made, "the run that was planned comes after its plan"
    return difference(plan, done)


def changes(output: str, column: int | None = None) -> dict[str, int]:
    """On how many hosts each operation will change something (a dry run), or did (a run); from pyinfra's tables.

    An operation that changes nothing is left out, so that nothing to do is an empty dictionary. Column 2 of a dry
    run's table is of changes that it leaves open.
    """
    ran = "--> Results:" in output
    table = "--> Results:" if ran else "--> Detected changes:"
    column = column or (2 if ran else 1)
    assert table in output, output[-3000:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.partition(table)[2].splitlines()]
    counts = {row[0]: row[column].split()[0] for row in rows if len(row) > column and " | " in row[0]}
    return {name: int(count) for name, count in counts.items() if count != "-"}


def everywhere(check: Callable[[str], object], nodes: Iterable[str] = NODES) -> None:
    """The same check on every node at once."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, nodes))


def ssh(node: str, command: str, check: bool = True, timeout: int = 120) -> str:
    """What a command on a node prints."""
    words = ["ssh", "-F", SSH_CONFIG, "-o", "ConnectTimeout=5", node, f"sudo sh -c {shlex.quote(command)}"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{node}: `{command}` exited with {done.returncode}: {done.stderr}"
    return done.stdout


def kubectl(*words: str, timeout: int = 60) -> str:
    """What kubectl on the control machine prints, through the virtual IP and with the kubeconfig kept there."""
    done = subprocess.run([*KUBECTL, *words], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def on(node: str) -> Host:
    """A node as testinfra sees it, with sudo."""
    return testinfra.get_host(f"ssh://{node}?ssh_config={SSH_CONFIG}&sudo=true")


def holders(balancers: Iterable[str] = LOAD_BALANCERS) -> list[str]:
    """Hosts that carry the virtual IP, of those that may and can be asked."""
    return [node for node in balancers if VIP in ssh(node, "ip -o -4 addr show dev eth0", check=False)]


def holder() -> str:
    """The load balancer that carries the virtual IP."""
    found = holders()
    assert len(found) == 1, f"{VIP} is on {found or 'no load balancer'}"
    return found[0]


def diagnosis() -> str:
    """State of pods, HAProxy and failed units, briefly; never raises."""
    show = {
        **dict.fromkeys(LOAD_BALANCERS, "ip -br addr show eth0; echo show stat | socat - /run/haproxy/admin.sock | "
        "cut -d, -f1,2,18; systemctl --failed --no-legend"),
        **dict.fromkeys(KUBERNETES_NODES, "systemctl --failed --no-legend; crictl ps -a 2>/dev/null; "
        "journalctl -u kubelet -n 8 --no-pager -o cat"),
    }  # fmt: skip
    parts = []
    for node, command in show.items():
        try:
            parts.append(f"--- {node}\n{ssh(node, command, check=False, timeout=15)}")
        except (subprocess.SubprocessError, OSError) as error:
            parts.append(f"--- {node}: {error}")
    try:
        parts.append(kubectl("get", "pods,nodes", "-A", "-o", "wide", "--request-timeout=5s", timeout=15))
    except (AssertionError, subprocess.SubprocessError, OSError) as error:
        parts.append(f"--- pods: {error}")
    return "\n".join(parts)[-12000:]
