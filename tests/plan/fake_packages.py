"""What the machines of fake_nodes.py know of packages, and of systemd's units."""

from __future__ import annotations

import posixpath
import shlex

from bundle.rpms import VERSIONLOCK
from cluster import bridge
from cluster.pieces import NODE_DIRECTORY
from cluster.runtime import UNITS
from facts.package import Packages
from facts.service import Unit
from operations import bundle_server, containerd, crio
from tests.plan import fake_network, fake_selinux
from tests.plan.fake_nodes import HAPROXY, KEEPALIVED, RUNTIMES, SERVER, UNMANAGED, Node, Refused, command, fact

NGINX = f"{bundle_server.DIRECTORY}/nginx.conf"
# What packages bring along: a unit, whether it runs from then on where units do, and a configuration of their own.
BRINGS = {
    "deb": {
        "containerd": ("containerd.service", True, "/etc/containerd/config.toml"),
        "haproxy": ("haproxy.service", True, HAPROXY),
        "keepalived": ("keepalived.service", False, None),
        "chrony": ("chrony.service", True, "/etc/chrony/chrony.conf"),
        "nginx": ("nginx.service", True, "/etc/nginx/nginx.conf"),
    },
    "rpm": {
        "haproxy": ("haproxy.service", False, HAPROXY),
        "keepalived": ("keepalived.service", False, KEEPALIVED),
        "chrony": ("chronyd.service", False, "/etc/chrony.conf"),
        "nginx": ("nginx.service", False, "/etc/nginx/nginx.conf"),
    },
}
# What a unit cannot be started without: a program, and files.
NEEDS: dict[str, tuple[str, list[str]]] = {
    "haproxy.service": ("haproxy", [HAPROXY]),
    "keepalived.service": ("keepalived", [KEEPALIVED]),
    "containerd.service": ("containerd", []),
    "crio.service": ("crio", [crio.POLICY]),
    SERVER: ("nginx", [NGINX, bundle_server.CERTIFICATE, bundle_server.KEY]),
}


@fact(Packages, names=("ANY_names",), format="rpm")
def _(node: Node, names: str) -> str:
    there = {name: node.state["packages"].get(name) for name in shlex.split(names)}
    found = [f"{name} 0:{each['version']} rpm installed" for name, each in there.items() if each]
    found += [f"{name}-0:{each['version']}.*" for name, each in there.items() if each and each["held"]]
    return "\n".join([*found, *(f"no package provides {name}" for name, each in there.items() if not each)])


@fact(Packages, names=("ANY_names",))
def _(node: Node, names: str) -> str:
    there = {name: node.state["packages"][name] for name in shlex.split(names) if name in node.state["packages"]}
    return "\n".join(
        f"{name} {each['version']} {'hold' if each['held'] else 'install'} installed" for name, each in there.items()
    )


@fact(Unit, unit="ANY_unit")
def _(node: Node, unit: str) -> str:
    return unit_state(node, unit, "")


@fact(Unit, unit="ANY_unit", files=("ANY_files",))
def unit_state(node: Node, unit: str, files: str) -> str:
    there = [path for path in node.files if {path, posixpath.dirname(path)} & set(shlex.split(files))]
    times = [f"changed={node.files[path]['changed']}.0" for path in there]
    try:
        state = node.unit(unit)
    except Refused:
        return "\n".join(["LoadState=not-found", "ActiveState=inactive", "UnitFileState=", *times])
    active, enabled = "active" if state["active"] else "inactive", "enabled" if state["enabled"] else "disabled"
    shown = [f"ActiveState={active}", f"UnitFileState={enabled}", f"ActiveEnterTimestamp=@{state['since']}"]
    return "\n".join(["LoadState=loaded", *shown, *times])


@command(r"mkdir -p .* set -- apt-get .* install .*--allow-change-held-packages (?P<names>.+) >/dev/null")
def _(node: Node, names: str) -> None:
    repository = f"{NODE_DIRECTORY}/packages/{node.state['os']}/"
    for name, version in (each.split("=") for each in shlex.split(names)):
        if f"{repository}{name}_{version}_amd64.deb" not in node.files:
            raise Refused(f"E: Version '{version}' for '{name}' was not found")
        bring(node, "deb", name, version)


DNF = r"rm -rf .* baseurl=file://(?P<repository>\S+)/packages/(?P<release>\S+) .* set -- dnf .* "


@command(DNF + r'&& "\$@" --noplugins install (?P<names>.+) >/dev/null')
def _(node: Node, repository: str, release: str, names: str) -> None:
    for name, version, number in (each.rsplit("-", 2) for each in shlex.split(names)):
        if f"{repository}/packages/{release}/{name}-{version}-{number}.x86_64.rpm" not in node.files:
            raise Refused(f"Error: Unable to find a match: {name}-{version}-{number}")
        bring(node, "rpm", name, f"{version}-{number}")


@command(DNF + r'&& "\$@" .* versionlock delete .* && "\$@" .* versionlock add (?P<names>.+) >/dev/null')
def _(node: Node, repository: str, release: str, names: str) -> None:
    if not node.has(VERSIONLOCK):
        raise Refused("No such command: versionlock.")
    for name in shlex.split(names):
        node.state["packages"][name]["held"] = True


def bring(node: Node, format: str, name: str, version: str) -> None:
    """Have a package, and what it brings along."""
    node.state["packages"][name] = {"version": version, "held": False}
    unit, runs, path = BRINGS[format].get(name, (None, False, None))
    if unit and unit not in node.units:
        masked = unit in node.state["masked"]
        runs = runs and not masked
        node.units[unit] = {"active": runs, "enabled": not masked, "since": node.world.clock if runs else ""}
        node.units[unit]["config"] = ""
    if path and path not in node.files:
        node.write(path, "# the distribution's own\n")


@command(r"apt-mark hold (?P<names>.+) >/dev/null")
def _(node: Node, names: str) -> None:
    for name in shlex.split(names):
        node.state["packages"][name]["held"] = True


@command(r"systemctl mask (?P<units>.+)")
def _(node: Node, units: str) -> None:
    node.state["masked"] += shlex.split(units)


@command("systemctl daemon-reload")
def _(node: Node) -> None:
    pass


@command(r"systemctl enable (?P<unit>\S+)")
def _(node: Node, unit: str) -> None:
    node.unit(unit)["enabled"] = True


@command(r"timeout \d+ systemctl reload-or-restart (?P<unit>\S+) \|\| .*")
def _(node: Node, unit: str) -> None:
    if unit == "NetworkManager.service":
        node.units[unit]["unmanaged"] = UNMANAGED in node.files
    else:
        assert node.active(unit)
        node.unit(unit)["since"] = node.world.clock


@command(r"timeout \d+ systemctl restart (?P<unit>\S+) \|\| .*")
def _(node: Node, unit: str) -> None:
    fake_selinux.refuse_by_selinux(node, unit)
    program, files = NEEDS.get(unit, (None, []))
    for path in files:
        if path not in node.files:
            raise Refused(f"Job for {unit} failed: there is no {path}")
    if program and not node.has(program):
        raise Refused(f"Job for {unit} failed: Unable to locate executable '/usr/sbin/{program}'")
    node.unit(unit).update(active=True, since=node.world.clock)
    if unit == "kubelet.service" and node.name in node.world.cluster["nodes"]:
        node.start_kubelet()
    for name, (_, path) in RUNTIMES.items():
        if unit == UNITS[name]:
            own = [each for each in node.files if posixpath.dirname(each) == containerd.DROP_INS]
            node.unit(unit)["config"] = "".join(node.files[each]["text"] for each in (path, *own))
    if unit == SERVER:
        served = {"config": NGINX, "certificate": bundle_server.CERTIFICATE}
        node.unit(unit).update({what: node.files[path]["text"] for what, path in served.items()})

    if unit == bridge.UNIT:
        fake_network.run_script(node, node.files[bridge.SCRIPT])


@command(r"timeout 120 systemctl disable --now (?P<unit>\S+)( && rm -f \S+)?")
def _(node: Node, unit: str) -> None:
    node.unit(unit).update(active=False, enabled=False)


@command(r"apt-mark unhold (?P<names>.+) >/dev/null")
def _(node: Node, names: str) -> None:
    for name in shlex.split(names):
        node.state["packages"][name]["held"] = False


@command(r"dpkg --purge (?P<names>.+) >/dev/null")
def _(node: Node, names: str) -> None:
    for name in shlex.split(names):
        del node.state["packages"][name]


@command(r"systemctl unmask (?P<units>.+)")
def _(node: Node, units: str) -> None:
    for unit in shlex.split(units):
        node.state["masked"].remove(unit)
