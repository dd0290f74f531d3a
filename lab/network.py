"""The lab's wires: a bridge, a namespace and a cable for each node, and no way out."""

from __future__ import annotations

import json
from pathlib import Path

from lab.layout import BRIDGE, GATEWAY, GATEWAY6, Node
from lab.shell import run

TABLE = "kubeadm_lab"
# Nodes may answer this machine and be neighbours of it, never ask it; nothing of theirs is forwarded off the bridge.
RULES = f"""
table inet {TABLE} {{
    chain input {{
        type filter hook input priority -10;
        iifname "{BRIDGE}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname "{BRIDGE}" ct state new,invalid,untracked drop
    }}
    chain forward {{
        type filter hook forward priority -10;
        iifname "{BRIDGE}" oifname != "{BRIDGE}" drop
        oifname "{BRIDGE}" iifname != "{BRIDGE}" drop
    }}
}}
"""


def has_ipv6() -> bool:
    """Whether this machine's kernel has IPv6 and uses it."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


def links() -> set[str]:
    """Names of this machine's interfaces."""
    return {row["ifname"] for row in json.loads(run("ip", "-j", "link"))}


def namespaces() -> set[str]:
    """Names of this machine's network namespaces that are the lab's."""
    rows = json.loads(run("ip", "-j", "netns") or "[]")
    return {row["name"] for row in rows if row["name"].startswith(f"{BRIDGE}-")}


def ensure_bridge() -> None:
    """The bridge and the rules that keep its packets inside."""
    if BRIDGE not in links():
        run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        run("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        if has_ipv6():
            run("ip", "addr", "add", f"{GATEWAY6}/64", "dev", BRIDGE, "nodad")
    run("ip", "link", "set", BRIDGE, "up")
    run("nft", "-f", "-", stdin=f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n{RULES}")


def renew_node(node: Node) -> None:
    """A node's namespace, its cable to the bridge, its address and a route that ends at this machine.

    All of it is new at each boot, as in a machine whose power was off; only a cable that was pulled stays so.
    """
    pulled = node.link in links() and not plugged(node)
    if node.link in links():
        run("ip", "link", "delete", node.link)
    if node.namespace in namespaces():
        run("ip", "netns", "delete", node.namespace)
    run("ip", "netns", "add", node.namespace)
    inside = ("ip", "-n", node.namespace)
    number = int(node.address.rpartition(".")[2])
    run(
        "ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0",
        "address", f"02:00:0a:58:00:{number:02x}", "netns", node.namespace,
    )  # fmt: skip
    run("ip", "link", "set", node.link, "master", BRIDGE, "down" if pulled else "up")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "addr", "add", f"{node.address}/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    # A Service's address needs a route before kube-proxy can rewrite it; this one leads to a closed door.
    run(*inside, "route", "add", "default", "via", GATEWAY)
    if has_ipv6():
        run(*inside, "addr", "add", f"{node.address6}/64", "dev", "eth0", "nodad")
        run(*inside, "-6", "route", "add", "default", "via", GATEWAY6)


def silence(node: Node) -> None:
    """Have a node that is off answer nobody, as its kernel still would for its addresses."""
    run("ip", "-n", node.namespace, "link", "set", "eth0", "down", check=False)


def plug(node: Node, plugged: bool) -> None:
    """Plug a node's cable into the bridge, or pull it."""
    run("ip", "link", "set", node.link, "up" if plugged else "down")


def plugged(node: Node) -> bool:
    """Whether a node's cable is plugged in."""
    rows = json.loads(run("ip", "-j", "link", "show", node.link, check=False) or "[]")
    return bool(rows) and "UP" in rows[0]["flags"]


def remove() -> None:
    """Namespaces, cables, bridge and rules: all of them, whatever is left."""
    for name in namespaces():
        run("ip", "netns", "delete", name)
    for name in links():
        if name == BRIDGE or name.startswith("lab-"):
            run("ip", "link", "delete", name, check=False)
    run("nft", "delete", "table", "inet", TABLE, check=False)
