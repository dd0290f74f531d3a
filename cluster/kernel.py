"""Kernel settings of nodes."""

from __future__ import annotations

# What Kubernetes and its networks need of every node. A site may add others, not change these.
NEEDED = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    # kubelet insists on these (protectKernelDefaults), and sets them itself where it may.
    "vm.overcommit_memory": "1",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
}
FORWARDING = "net.ipv6.conf.all.forwarding"


def own(values: dict[str, str]) -> dict[str, str]:
    """A site's own settings, as the kernel shows them: with single spaces. Raises ValueError for those of `NEEDED`."""
    if taken := sorted({*NEEDED, FORWARDING} & set(values)):
        raise ValueError(f"must not have {', '.join(taken)}, which nodes need as they are set already")
    return {key: " ".join(value.split()) for key, value in values.items()}
