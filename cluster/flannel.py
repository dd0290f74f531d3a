"""flannel's own configuration, of the cluster's families."""

from __future__ import annotations

import hashlib
import json
import re

from cluster.settings import Settings
from cluster.topology import Topology


def net_conf(settings: Settings) -> str:
    """net-conf.json, in one line (https://github.com/flannel-io/flannel/blob/v0.28.4/Documentation/configuration.md).

    Without a word of it, flannel has IPv4 and no IPv6.
    """
    pods = {each.version: str(each) for each in settings.pod_subnet.each}
    found: dict[str, object] = {} if 4 in pods else {"EnableIPv4": False}
    if 4 in pods:
        found["Network"] = pods[4]
    if 6 in pods:
        found |= {"EnableIPv6": True, "IPv6Network": pods[6]}
    return json.dumps({**found, "Backend": {"Type": settings.flannel_backend}})


def cni_conf() -> str:
    """The CNI configuration of each node (https://www.cni.dev/plugins/current/meta/flannel/).

    `forceAddress`: a node that joins anew may get another subnet than the one that its bridge has.
    """
    bridge = {"hairpinMode": True, "isDefaultGateway": True, "forceAddress": True}
    plugins = [{"type": "flannel", "delegate": bridge}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.3.1", "name": "cbr0", "plugins": plugins})


def checksum(settings: Settings) -> str:
    """By which pods of one configuration are told from those of another."""
    return hashlib.sha256(f"{net_conf(settings)}{cni_conf()}".encode()).hexdigest()[:16]


def interface(settings: Settings, topology: Topology) -> str:
    """The argument by which flannel finds its interface and address on each node.

    By one address it knows that of its family only and takes the interface's first of the other, which may be a virtual
    IP; so of two families it is given every node's addresses, of which each has its own.
    """
    if len(settings.ip_families) == 1:
        return "--iface=$(NODE_IP)"
    nodes = (*topology.control_planes, *topology.workers)
    addresses = "|".join(re.escape(str(address)) for node in nodes for address in node.addresses)
    return f"'--iface-regex=^({addresses})$'"
