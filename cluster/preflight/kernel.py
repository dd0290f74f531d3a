"""The kernel, control groups and swap of nodes."""

from __future__ import annotations

from collections.abc import Iterator

from cluster import cilium, networks
from cluster.compatibility import load, parse, refusals
from cluster.findings import Finding
from cluster.networks import NFTABLES_KERNEL
from cluster.preflight.seen import Seen
from cluster.settings import Settings

# Those that kubeadm's SystemVerification asks for, of the ones that both versions list
# (https://github.com/kubernetes/system-validators, validators/types_unix.go).
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
# The older packet filter's module of each family.
TABLES = {4: "ip_tables", 6: "ip6_tables"}
NO_CGROUP_V1 = 256  # systemd refuses to boot with it unless forced (its NEWS of 256)


def features(settings: Settings) -> list[tuple[str, ...]]:
    """What the kernel must have with these settings, each as modules any of which will do."""
    mode = settings.kube_proxy_mode
    found: list[tuple[str, ...]] = [
        ("overlay",),
        ("br_netfilter",),
        ("nf_conntrack",),
        *(("nf_tables",) if mode == "nftables" else ("nf_tables", TABLES[version]) for version in settings.ip_families),
        *networks.modules(settings),
        *((name,) for name in networks.proxy_modules(settings)),
    ]
    return list(dict.fromkeys(found))


def modules(settings: Settings) -> tuple[str, ...]:
    """All modules that are asked for."""
    return tuple(name for each in features(settings) for name in each)


def check(seen: Seen) -> Iterator[Finding]:
    """Findings of nodes' kernels; load balancers run on any."""
    for node in seen.nodes:
        name, settings = node.name, seen.settings[node.name]
        if state := seen.hardware.get(name):
            for words in refusals(settings.kubernetes_version, {"kernel": state["kernel"]}):
                yield Finding("kernel", (name,), words.rstrip("."))
            if settings.kube_proxy_mode == "nftables" and parse(state["kernel"]) < parse(NFTABLES_KERNEL):
                what = f"Linux {state['kernel']} is below {NFTABLES_KERNEL}, the least for kube-proxy in mode nftables"
                yield Finding("kernel", (name,), what)
            given = cilium.version(settings, seen.lock) if settings.cni == "cilium" else ""
            if given and parse(state["kernel"]) < parse(least := cilium.kernel(given)):
                yield Finding(
                    "kernel", (name,), f"Linux {state['kernel']} is below {least}, the least for Cilium {given}"
                )
        if found := seen.modules.get(name):
            for any_of in features(settings):
                if all(found.get(each) == "absent" for each in any_of):
                    what = f"the kernel has no {' or '.join(any_of)}, neither loadable nor compiled in"
                    yield Finding("ipvs" if any_of[0].startswith("ip_vs") else "kernel-features", (name,), what)
        yield from _cgroups(seen, name, settings)
        yield from _swap(seen, name)


def _cgroups(seen: Seen, name: str, settings: Settings) -> Iterator[Finding]:
    state = seen.cgroups.get(name)
    if not state:
        return
    if lacking := [each for each in CONTROLLERS if each not in state["controllers"]]:
        yield Finding("cgroup-controllers", (name,), f"no cgroup controller {', '.join(lacking)}")
    if state["version"] != 1:
        return
    minor = ".".join(map(str, parse(settings.kubernetes_version)[:2]))
    known = load().minors.get(minor)
    told = settings.kubelet_config.get("failCgroupV1") is False
    passed = {"SystemVerification", "all"} & set(settings.ignore_preflight_errors)
    if known and known.cgroup_v1 == "opt-in" and not (told and passed):
        yield Finding(
            "cgroup-v1-refused", (name,), f"cgroup v1, which Kubernetes {minor} refuses unless told otherwise"
        )
    elif (known and known.cgroup_v1 != "works") or (state["systemd"] or 0) >= NO_CGROUP_V1:
        yield Finding("cgroup-v1", (name,), f"cgroup v1, with Kubernetes {minor} and systemd {state['systemd']}")


def _swap(seen: Seen, name: str) -> Iterator[Finding]:
    state = seen.swap.get(name)
    if not state or not state["devices"]:
        return
    devices = ", ".join(state["devices"])
    if state["fstab"] or state["units"] or state["zram"]:
        yield Finding("swap", (name,), f"swap is on ({devices})")
    else:
        yield Finding("swap-returns", (name,), f"swap is on ({devices}), and nothing known turned it on")
