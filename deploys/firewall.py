"""What the cluster's hosts must reach on each other, let in by firewalld or ufw (docs/platforms.md).

Hosts: all on which one of them is active, when `host_firewall` is "open"; else nothing is asked or changed.
Changes: kubernetes.xml and kubernetes-fwd.xml in /etc/firewalld/policies, /etc/firewalld/zones/kubernetes-pods.xml; a
block in /etc/ufw/before.rules. Undo: remove these, then `firewall-cmd --reload` or `ufw reload`.
"""

from pyinfra import host
from pyinfra.api import deploy

from deploys import plan, rules
from facts.file import FileState
from facts.firewall import RULES, Firewall
from operations import file
from operations import firewall as operations


@deploy("Firewall")
def firewall() -> None:
    if plan.settings().host_firewall == "open":
        state = host.get_fact(Firewall)
        if "firewalld" in state["active"]:
            plan.refuse(rules.too_old({host.name: state}))
            written = [
                file.content(name=f"Write {each.path}", dest=each.path, content=each.text, mode=each.mode)
                for each in rules.firewalld(plan.me())
            ]
            operations.loaded(name="Have firewalld let in what the cluster needs", firewall="firewalld", after=written)
        if "ufw" in state["active"]:
            current = host.get_fact(FileState, path=RULES)
            written = [
                file.content(
                    name="Write the cluster's block of ufw's rules",
                    dest=each.path, content=each.text, mode=each.mode, validate="iptables-restore --test --noflush {}",
                )
                for each in rules.ufw(plan.me(), current)
            ]  # fmt: skip
            operations.loaded(name="Have ufw let in what the cluster needs", firewall="ufw", after=written)
    plan.barrier("firewall")


plan.run(__name__, firewall)
