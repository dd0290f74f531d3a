"""Runs of the real `pyinfra` command over machines that only pretend to be there (fake_nodes.py)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.rpms import VERSIONLOCK
from cluster import families
from cluster.changes import Plan, difference, load
from cluster.lock import File, Image, Lock, Package
from facts.firewall import RULES as UFW

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).parent / "pyinfra"
VERSION = "v1.36.2"
# In an order that is not the alphabet's, which joins must keep.
GROUPS = {
    "load_balancer": {"lb1": "10.0.0.11", "lb2": "10.0.0.12"},
    "control_plane": {"cp1": "10.0.0.21", "cp3": "10.0.0.23", "cp2": "10.0.0.22"},
    "worker": {"w1": "10.0.0.31", "w2": "10.0.0.32", "w3": "10.0.0.33"},
}
VIP = "10.0.0.100"

INVENTORY = """\
from pathlib import Path as _Path

from tests.plan import fake_rotation as _fake_rotation
from tests.plan import fake_upgrade as _fake_upgrade
from tests.plan.fake_nodes import install as _install

_here = _Path(__file__).parent
_install(_here)
_settings = {settings!r} | {{"secrets_dir": str(_here / "secrets")}}
"""

IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause")
PROGRAMS = ("bin/kubeadm", "bin/kubelet", "bin/kubectl", "bin/crictl", "bin/etcdctl", "bin/etcdutl", "cni/bridge")
PACKAGES = {
    "base": ("conntrack", "curl", "openssl"),
    "runtime": ("containerd", "runc"),
    "load_balancer": ("curl", "haproxy", "keepalived"),
    "mirror": ("nginx", "openssl"),
    "time": ("chrony",),
}
RPMS = {
    "base": ("conntrack-tools", "container-selinux", "curl", "openssl"),
    "runtime": (),
    "load_balancer": ("curl", "haproxy", "keepalived"),
    "mirror": ("nginx", "openssl", "policycoreutils-python-utils"),
    "time": ("chrony",),
}


# What a bundle has in place of the distribution's runtime: its component and version, programs, packages.
RUNTIMES: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "package": ({}, (), ("containerd", "runc")),
    "upstream": ({"containerd": "v2.3.7"}, ("runtime/containerd", "runtime/runc"), ()),
    "cri-o": ({"cri-o": "v1.36.3"}, ("runtime/crio", "runtime/pinns"), ("skopeo",)),
}


def make_bundle(
    directory: Path,
    runtime: str = "package",
    releases: Sequence[str] = ("debian-12",),
    more: Sequence[str] = (),
    added: Mapping[str, str] | None = None,
    addons: Mapping[str, tuple[str, str]] | None = None,
    kubernetes: str = VERSION,
    networks: Mapping[str, tuple[str, str]] | None = None,
) -> Path:
    """A bundle of a few bytes per piece, with `more` images, by their whole names, files that were `added`, `addons` of
    the site's own: name -> namespace, manifest; and `networks`: name -> version, manifest."""
    components, programs, own = RUNTIMES[runtime]
    known = {name: families.of(name) for name in releases}
    formats = {name: family.format if family else "deb" for name, family in known.items()}
    sets = {
        name: PACKAGES | {"runtime": own}
        if format == "deb"
        else RPMS | {"runtime": () if runtime == "package" else own}
        for name, format in formats.items()
    }
    files: list[File] = []

    def piece(path: str, text: str, version: str = "v1") -> str:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        files.append(File(path=path, size=len(text), sha256=digest, name=Path(path).name, version=version))
        return digest

    def blob(text: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        piece(f"images/blobs/sha256/{digest}", text)
        return f"sha256:{digest}"

    images = []
    tags = {"etcd": "3.6.8-0"} | {name: kubernetes for name in IMAGES if name.startswith("kube-")}
    names = (
        *(f"registry.k8s.io/{name}:{tags.get(name, 1)}" for name in IMAGES),
        "ghcr.io/flannel-io/flannel:1",
        "e2e/agnhost:1",
    )
    for name in (*names, *more):
        manifest, layer = blob(f"manifest of {name}"), blob(f"layer of {name}")
        images.append(Image(name=name, digest=manifest, size=9, blobs=(manifest, layer)))
    for path, text in (added or {}).items():
        piece(f"files/{path}", text)
    for name, (version, text) in (networks or {}).items():
        piece(f"networks/{name}.yaml", text, version)
    for path in (*PROGRAMS, *programs):
        piece(path, f"{path} {kubernetes}")
    for name, (_, text) in (addons or {}).items():
        piece(f"addons/{name}.yaml", text)
    packages = []
    for release, format in formats.items():
        extra = (VERSIONLOCK,) if format == "rpm" else ()
        for name in sorted({*extra, *(name for each in sets[release].values() for name in each)}):
            version, file = (
                ("2.0", f"{name}_2.0_amd64.deb") if format == "deb" else ("2.0-1", f"{name}-2.0-1.x86_64.rpm")
            )
            path = f"packages/{release}/{file}"
            piece(path, f"{name} of {release}")
            packages.append(Package(name=name, version=version, architecture="amd64", release=release, file=path))
    lock = Lock(
        format=2, platform="linux/amd64", kubernetes_version=kubernetes, components=components, images=tuple(images),
        packages=tuple(packages), package_sets=sets, files=tuple(files),
        addons={name: namespace for name, (namespace, _) in (addons or {}).items()},
    )  # fmt: skip
    (directory / "bundle.lock").write_text(lock.model_dump_json())
    return directory


def machine(address: str) -> dict[str, Any]:
    """A machine on which nothing has been done."""
    return {
        "address": address, "hostname": "debian", "cpus": 2, "swap": ["/dev/vda2"],
        "fstab": ["/dev/vda2 none swap sw 0 0"], "modules": {"overlay": "available", "br_netfilter": "available"},
        "os": "debian-12", "firewall": None, "firewalld": "1.3.3", "loaded": "", "selinux": [],
        "mtu": 1500, "held": {}, "lost": {}, "links": [], "ahead": 0, "synchronized": True,
        "sysctl": {}, "packages": {}, "units": {}, "masked": [], "images": {}, "files": {}, "faults": {},
        "routes": {}, "rules": [], "pods": {}, "dead": False,
    }  # fmt: skip


Record = dict[str, Any]
Change = tuple[str, str]


@dataclass(frozen=True)
class Run:
    """What one run said and did."""

    code: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    log: tuple[Record, ...] = field(repr=False)
    plan: Plan | None = field(default=None, repr=False)
    result: Plan | None = field(default=None, repr=False)

    def differs(self, other: Run) -> list[str]:
        """What this run's plan and what the other did have not in common."""
        assert self.plan and other.result
        return difference(self.plan, other.result)

    @property
    def words(self) -> str:
        return self.stderr + self.stdout

    @property
    def changes(self) -> list[Record]:
        """Commands of change, in the order of their beginnings."""
        return self.like("", "change")

    def like(self, words: str, kind: str) -> list[Record]:
        """Commands with these words in them, in the order of their beginnings."""
        found = [each for each in self.log if each["kind"] == kind and words in each["command"]]
        return sorted(found, key=lambda each: each["began"])

    @property
    def planned(self) -> set[Change]:
        """Changes that `--json` announces, as host and operation; a question left open is none."""
        rows = json.loads(self.stdout)["plan"]
        changed = {(host, name) for row in rows for name in row["names"] for host in row["hosts_with_change"]}
        return {(host, re.sub(r"^(Cluster|Upgrade) \| ", "", name)) for host, name in changed}

    @property
    def made(self) -> set[Change]:
        """Changes that the run says it has made, as host and operation."""
        found, operation = set(), ""
        for line in self.stderr.splitlines():
            if start := re.fullmatch(r"--> Starting operation: (.+?) *", line):
                operation = re.sub(r"^(Cluster|Upgrade) \| ", "", start[1])
            elif done := re.fullmatch(r" *\[(\S+)\] +Success", line):
                found.add((done[1], operation))
        return found


@dataclass(frozen=True)
class Site:
    """An inventory and its machines, in a directory."""

    directory: Path

    def run(self, *flags: str, answers: str = "", layer: str = "cluster") -> Run:
        """`pyinfra inventory.py deploys/cluster.py`, or another layer, with these flags; lines answer its prompts."""
        log = self.directory / "log.jsonl"
        log.write_text("")
        # With `-y` nothing is planned, unless a plan is asked for.
        names = ("result_out",) if "-y" in flags else ("plan_out", "result_out")
        kept = {name: self.directory / f"{name}.json" for name in names}
        for path in kept.values():
            path.unlink(missing_ok=True)
        options = [word for name, path in kept.items() for word in ("--data", f"{name}={path}")]
        done = subprocess.run(
            [PYINFRA, self.directory / "inventory.py", f"deploys/{layer}.py", *options, *flags],
            cwd=ROOT, env={**os.environ, "PYINFRA_PROGRESS": "off"}, input=answers, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        records = tuple(json.loads(line) for line in log.read_text().splitlines())
        unexpected = [f"{each['host']}: {each['command']}" for each in records if each["kind"] == "unexpected"]
        assert not unexpected, f"commands that fake_nodes.py does not know: {unexpected}"
        plans = {name: load(path) for name, path in kept.items() if path.exists()}
        return Run(done.returncode, done.stdout, done.stderr, records, plans.get("plan_out"), plans.get("result_out"))

    @contextmanager
    def state(self) -> Iterator[dict[str, Any]]:
        """What the machines are, to be looked at and changed."""
        path = self.directory / "state.json"
        found = json.loads(path.read_text())
        yield found
        path.write_text(json.dumps(found))

    def break_command(self, host: str, command: str, words: str) -> Site:
        """From now on the commands of this host that match, with their standard input, fail with these words."""
        with self.state() as state:
            state["nodes"][host]["faults"] = {command: words}
        return self

    def mend(self, host: str) -> None:
        with self.state() as state:
            state["nodes"][host]["faults"] = {}

    def copy(self, directory: Path) -> Site:
        shutil.copytree(self.directory, directory)
        return Site(directory)


Groups = Mapping[str, Mapping[str, str]]


def make_site(
    directory: Path,
    bundle: Path,
    groups: Groups = GROUPS,
    own: Mapping[str, object] | None = None,
    site: str = "",
    systems: Mapping[str, str] | None = None,
    firewalls: Mapping[str, str] | None = None,
    **settings: object,
) -> Site:
    """Bare machines, of Debian 12 unless `systems` has another by host; `firewalls` are active on hosts.

    `settings` are laid over those of a site that works, `own` are those of one host.
    """
    directory.mkdir(parents=True, exist_ok=True)
    working = {
        "bundle_dir": str(bundle), "cluster_name": "test", "kubernetes_version": VERSION, "vip": VIP,
        "time_sync": "check",
    }  # fmt: skip
    lines = [INVENTORY.format(settings=working | settings)]
    for group, members in groups.items():
        hosts = ", ".join(
            f'("@fake/{name}", {{"address": {each!r}, **_settings, **{(own or {}).get(name, {})!r}}})'
            for name, each in members.items()
        )
        lines.append(f"{group} = [{hosts}]\n")
    (directory / "inventory.py").write_text("".join(lines))
    nodes = {
        name: machine(address) | {"os": (systems or {}).get(name, "debian-12")}
        for members in groups.values()
        for name, address in members.items()
    }
    for name, firewall in (firewalls or {}).items():
        nodes[name]["firewall"] = firewall
        if firewall == "ufw":
            text = (ROOT / "tests/data/before.rules.ufw-0.36.2.txt").read_text()
            nodes[name]["files"] = {UFW: {"text": text, "mode": "640", "owner": "root:root", "changed": 0}}
    # `site`: the endpoint at which the site itself balances.
    cluster: dict[str, Any] = {"nodes": {}, "tokens": [], "certificate_key": None, "applied": {}, "site": site}
    cluster |= {
        "pods": [],
        "budgets": [],
        "cordoned": [],
        "left": [],
    }  # what a drain evicts; members that have left etcd
    cluster |= {"tainted": True, "roles": {}}  # labels and taints of Nodes
    cluster |= {"subnets": {}, "made": 0}  # pods' subnets by node, and how many were ever given
    (directory / "state.json").write_text(json.dumps({"clock": 0, "cluster": cluster, "nodes": nodes}))
    return Site(directory)


def together(runs: Mapping[str, Callable[[], Run]]) -> dict[str, Future[Run]]:
    """Several runs side by side, each with machines of its own; a pyinfra run keeps one processor busy."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {name: pool.submit(run) for name, run in runs.items()}


@dataclass(frozen=True)
class Deployed:
    """Machines that were bare, and the run that deployed the cluster on them."""

    site: Site
    run: Run


def deploy(directory: Path, bundle: Path, *flags: str, answers: str = "") -> Deployed:
    site = make_site(directory, bundle)
    run = site.run(*flags, answers=answers)
    assert run.code == 0, run.words
    return Deployed(site, run)
