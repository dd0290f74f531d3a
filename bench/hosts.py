"""What a dry run and a run that changes nothing cost at 10, 100 and 500 hosts behind a slow link.

    python3 bench/hosts.py                   # in .venv, as root; bench/requirements.txt is installed too
    python3 bench/hosts.py --hosts 10        # other numbers of hosts, without writing the report
    python3 bench/hosts.py --hosts 10 --show w1     # and what that host is asked

pyinfra runs as users run it, over SSH by paramiko. Hosts are one asyncssh server with an address for each, in a network
namespace of its own behind a link with a delay. They answer what the pretended machines of tests/plan
have answered to the same deploy before. Prints a table and writes bench/hosts.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.answers import LOGIN
from bench.common import ROOT, machine
from bench.link import DELAY, connect, ip
from tasks import changed

SIZES = (10, 100, 500)
RUNS = {"dry run, bare hosts": ("--dry",), "no-change run": ("-y",)}
BALANCERS, CONTROL_PLANES = 2, 3
PYINFRA = str(Path(sys.executable).parent / "pyinfra")
INSIDE = "--inside"  # what this program tells itself, once it is in namespaces of its own
AIM = 2.0  # times the floor
SETTINGS = {"cluster_name": "test", "vip": "10.0.0.100", "time_sync": "check", "pod_subnet": "10.244.0.0/14"}
# The pretended machines with their answers kept; without it the inventory is of hosts that SSH reaches.
KEPT = """\
from pathlib import Path as _Path

from bench.answers import keep as _keep

_keep(_Path({path!r}))
"""


def groups(hosts: int) -> dict[str, dict[str, str]]:
    """So many hosts by group, with an address each."""
    workers = range(hosts - BALANCERS - CONTROL_PLANES)
    return {
        "load_balancer": {f"lb{number}": f"10.0.0.{10 + number}" for number in range(1, BALANCERS + 1)},
        "control_plane": {f"cp{number}": f"10.0.0.{20 + number}" for number in range(1, CONTROL_PLANES + 1)},
        "worker": {f"w{number + 1}": f"10.0.{1 + number // 200}.{1 + number % 200}" for number in workers},
    }


@dataclass(frozen=True)
class Figures:
    """What one run cost. Commands and round trips are by host."""

    run: str
    hosts: int
    seconds: float
    cpu: float
    mebibytes: float
    commands: dict[str, int]
    again: dict[str, int]
    trips: dict[str, int]
    parallel: int
    plain: float  # seconds of the same commands by paramiko alone

    @property
    def floor(self) -> float:
        """Seconds that round trips alone take: all of them in as many rows as pyinfra allows, or one host's."""
        return floor(list(self.trips.values()), self.parallel)

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor

    def row(self) -> str:
        """A line of a Markdown table."""
        met = "yes" if self.ratio <= AIM else "no"
        return (
            f"| {self.run} | {self.hosts} | {self.seconds:.1f} | {self.cpu:.1f} | {self.mebibytes:.0f} "
            f"| {typical(self.commands, 'w')} | {typical(self.commands, 'cp')} | {typical(self.again, 'w')} "
            f"| {typical(self.trips, 'w')} | {typical(self.trips, 'cp')} | {self.parallel} | {self.floor:.1f} "
            f"| {self.ratio:.1f} | {met} | {self.plain:.1f} | {self.seconds / self.plain:.1f} |"
        )


def floor(trips: Sequence[int], parallel: int) -> float:
    """The least seconds in which hosts can have these numbers of round trips, so many hosts at a time."""
    return DELAY * max(max(trips), sum(trips) / parallel)


def typical(numbers: dict[str, int], group: str) -> str:
    """The median of the hosts whose names begin so."""
    return f"{median(number for name, number in numbers.items() if name.startswith(group)):g}"


def slope(few: Figures, many: Figures) -> tuple[float, float]:
    """Seconds for each host more, and seconds of processors."""
    hosts = many.hosts - few.hosts
    return (many.seconds - few.seconds) / hosts, (many.cpu - few.cpu) / hosts


def parallel(hosts: int) -> int:
    """How many hosts pyinfra 3.10 asks at a time, as pyinfra.api.State has it where config.PARALLEL is not set."""
    from pyinfra.api.state import MAX_PARALLEL

    return min((os.cpu_count() or 1) * 20, hosts, MAX_PARALLEL)


@dataclass(frozen=True)
class Ran:
    """How a process ended, what it took, and what it said."""

    code: int
    seconds: float
    cpu: float
    mebibytes: float
    words: str

    def checked(self) -> Ran:
        """The same. Exits with its words where it has failed."""
        if self.code:
            sys.exit(f"{self.words[-20000:]}\nerror: this run ended with {self.code}")
        return self


def pyinfra(inventory: Path, *flags: str) -> Ran:
    """Run cluster.py to its end."""
    return ran([PYINFRA, str(inventory), "deploys/cluster.py", *flags])


def ran(command: Sequence[str]) -> Ran:
    """Run a command to its end."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYINFRA_PROGRESS": "off"},
            stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        return Ran(
            process.returncode, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024,
            words.read().decode(errors="replace"),
        )  # fmt: skip


class Site:
    """A cluster of so many hosts, twice: pretended by tests/plan, and reached by SSH."""

    def __init__(self, directory: Path, hosts: int) -> None:
        from tests.plan.runs import VERSION, make_bundle, make_site

        self.directory, self.hosts, self.groups = directory, hosts, groups(hosts)
        bundle = make_bundle(directory / "bundle")
        make_site(directory / "pretended", bundle, groups=self.groups, **SETTINGS)  # type: ignore[arg-type]
        self.pretended = directory / "pretended" / "inventory.py"
        self.settings = SETTINGS | {"bundle_dir": str(bundle), "kubernetes_version": VERSION}
        self.settings["secrets_dir"] = str(directory / "pretended" / "secrets")
        self.ssh = self._ssh_inventory()

    def _ssh_inventory(self) -> Path:
        """The same hosts as SSH reaches them, with keys that were made for this run."""
        keys = self.directory / "keys"
        keys.mkdir()
        addresses = {name: address for members in self.groups.values() for name, address in members.items()}
        known = []
        for name, address in addresses.items():
            make_key(keys / name)
            known.append(f"{address} {' '.join((keys / f'{name}.pub').read_text().split()[:2])}\n")
        make_key(self.directory / "key")
        (self.directory / "known_hosts").write_text("".join(known))
        (self.directory / "hosts.json").write_text(json.dumps(addresses))
        ssh = {"ssh_key": str(self.directory / "key"), "ssh_known_hosts_file": str(self.directory / "known_hosts")}
        lines = [f"_settings = {self.settings | ssh!r}\n"]
        for group, members in self.groups.items():
            rows = ", ".join(
                f'("{name}", {{"ssh_hostname": "{each}", "address": "{each}", **_settings}})'
                for name, each in members.items()
            )
            lines.append(f"{group} = [{rows}]\n")
        path = self.directory / "inventory.py"
        path.write_text("".join(lines))
        return path

    def pretend(self, *flags: str, keep: bool = True) -> None:
        """Run the deploy over the pretended machines, and have their answers kept."""
        answers = self.directory / ("answers" if keep else "unused")
        inventory = self.pretended.with_name("kept.py")
        first, *rest = self.pretended.read_text().split("_settings = ", 1)
        inventory.write_text("_settings = ".join([first + KEPT.format(path=str(answers)), *rest]))
        pyinfra(inventory, *flags).checked()

    def measure(self, run: str, show: Sequence[str]) -> Figures:
        """Run the deploy over SSH, against hosts that give the answers that were kept last."""
        with server(self.directory, show) as asked:
            done = pyinfra(self.ssh, *RUNS[run])
            found = asked()  # first: what they had no answer to is why a run fails
        if changes := changed(done.checked().words):
            sys.exit(f"{done.words[-20000:]}\nerror: a {run} has made {changes} changes")
        for name in show:
            print(f"==> {name} is asked:", *found[name]["asked"], sep="\n")
        with server(self.directory, ()) as asked:
            most = str(parallel(self.hosts))
            plain = ran([sys.executable, "-m", "gevent.monkey", "bench/plain.py", str(self.directory), most]).checked()
            asked()
        numbers = {key: {name: row[key] for name, row in found.items()} for key in ("commands", "again", "trips")}
        return Figures(
            run, self.hosts, done.seconds, done.cpu, done.mebibytes, **numbers, parallel=parallel(self.hosts),
            plain=plain.seconds,
        )  # fmt: skip


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)


@contextmanager
def server(directory: Path, show: Sequence[str]) -> Iterator[Any]:
    """Hosts that answer behind the link; gives what ends them and tells what they were asked.

    Exits with every command to which they knew no answer.
    """
    words = ["unshare", "--net", sys.executable, "bench/ssh_hosts.py", str(directory), *show]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def asked() -> dict[str, Any]:
            stdin.close()
            found: dict[str, Any] = json.loads(stdout.readline() or "{}")
            unknown = [f"{name}: {text}" for name, row in found.items() for text in row["unknown"]]
            if unknown or not found:
                sys.exit("\n".join(["error: hosts were asked what they had no answer to:", *unknown[:20]]))
            return found

        try:
            if stdout.readline() != "listening\n":
                sys.exit("error: the hosts' server has not come up; why is above")
            with link(process.pid):
                yield asked
        finally:
            process.kill()


@contextmanager
def link(pid: int) -> Iterator[None]:
    """The slow link to the namespace of a process: by netem, or where the kernel has none by bench/link.py."""
    if netem("lo"):
        ip("link add near0 type veth peer name far0")
        netem("near0")
        connect(pid)
        yield
        return
    words = [sys.executable, "bench/link.py", str(pid)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            if process.stdout.readline() != "up\n":
                sys.exit("error: there is no link to the hosts; why is above")
            yield
        finally:
            process.kill()


def netem(interface: str) -> bool:
    """Have an interface of this namespace send late; whether the kernel can."""
    late = f"tc qdisc replace dev {interface} root netem delay {DELAY * 1000:g}ms limit 100000"
    return subprocess.run(late.split(), capture_output=True, check=False).returncode == 0


def report(rows: Sequence[Figures], command: str, late: str, load: float) -> str:
    """The figures as Markdown; `late` is what has delayed packets, `load` the load average before."""
    lines = [
        "# What hosts cost", "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. Load average before: {load:.1f}; beside other work "
        "seconds are more than they need be.", "",
        "| run of cluster.py | hosts | seconds | CPU seconds | memory, MiB | commands, worker | control plane "
        "| again, worker | round trips, worker | control plane | parallel | floor, s | ratio | at most 2 "
        "| paramiko alone, s | ratio |",
        "| --- " + "| ---: " * 12 + "| --- " + "| ---: " * 2 + "|",
        *(each.row() for each in rows), "",
        *slopes(rows),
        "pyinfra ran with this project's config.py, group_data and deploys, over paramiko; "
        f"{BALANCERS} load balancers, {CONTROL_PLANES} control planes, the rest workers. Hosts are one asyncssh server "
        "with an address and a host key for each, in a network namespace of its own; every packet to them is "
        f"{DELAY * 1000:g} ms late, by {late}. They answer at once what the pretended machines of tests/plan have "
        "answered to the same deploy, bare and finished: commands take no time, and the bundle is of a few bytes. "
        "They share the machine's processors with pyinfra.", "",
        "Commands and round trips are medians over the hosts of a role; `again` counts commands of the same words as "
        "one before. A round trip is a channel opened, a command taken, or an answer that waited for standard input; a "
        f"login is {LOGIN}. No file is sent in these runs. `Parallel` is what pyinfra makes of the number of "
        "processors, of hosts and of open files where config.PARALLEL is not set. The floor is the delay times the "
        "round trips of all hosts over `parallel`, or of the host that is asked most. paramiko alone (bench/plain.py) "
        "connects to as many hosts at once, and asks each the same, with nothing around it.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def slopes(rows: Sequence[Figures]) -> list[str]:
    """What a host more costs between each two numbers of hosts, a run a paragraph."""
    lines = []
    for run in RUNS:
        found = [each for each in rows if each.run == run]
        steps = [
            "{:.3f} s and {:.3f} CPU seconds between {} and {} hosts".format(*slope(few, many), few.hosts, many.hosts)
            for few, many in pairwise(found)
        ]
        if steps:
            lines += [f"A host more costs a {run}: {', '.join(steps)}.", ""]
    return lines


def measure(sizes: Sequence[int], show: Sequence[str], work: Path) -> list[Figures]:
    """Every figure, each shown as soon as it is there."""
    rows = []
    for hosts in sizes:
        (work / str(hosts)).mkdir()
        site = Site(work / str(hosts), hosts)
        for run, flags in RUNS.items():
            begun = time.monotonic()
            if run == "no-change run":
                site.pretend("-y", keep=False)
            site.pretend(*flags)
            print(f"==> {hosts} hosts: answers were kept in {time.monotonic() - begun:.0f} s", flush=True)
            rows.append(site.measure(run, show))
            print(rows[-1].row(), flush=True)
    return rows


def inside(arguments: argparse.Namespace) -> None:
    """In namespaces of its own: nothing of it is left when this process ends, however it does."""
    work = Path(arguments.inside)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "bench", str(work)], check=True)
    ip("link set lo up")
    late = "tc netem" if netem("lo") else "bench/link.py, for this kernel has no netem"
    load = os.getloadavg()[0]
    rows = measure(arguments.hosts, arguments.show, work)
    command = ["python3", "bench/hosts.py", *(word for word in sys.argv[1:] if not word.startswith(INSIDE))]
    text = report(rows, shlex.join(command), late, load)
    print(text)
    if tuple(arguments.hosts) == SIZES:
        (ROOT / "bench" / "hosts.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=SIZES, help="other numbers, and write no report")
    parser.add_argument("--show", nargs="+", default=[], metavar="NAME", help="print what these hosts are asked")
    parser.add_argument(INSIDE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: sys.exit("error: told to end"))
    if arguments.inside:
        inside(arguments)
        return
    # Whatever ends this process ends unshare, which ends all that is in its namespaces.
    apart = ["setpriv", "--pdeathsig", "KILL"]
    apart += ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with tempfile.TemporaryDirectory(prefix="bench-hosts-") as work:
        command = [*apart, sys.executable, __file__, *sys.argv[1:], f"{INSIDE}={work}"]
        with subprocess.Popen(command) as process:
            try:
                process.wait()
            finally:
                process.kill()
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
