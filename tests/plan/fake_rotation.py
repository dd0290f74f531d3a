"""What these machines do with CAs: trust some, sign by one, and tell the cluster of them.

CAs are real, so that who has signed what can be seen. No node may be in a phase while another is two behind.
"""

from __future__ import annotations

import re

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.certificates import ADMIN, CA, HAPROXY_CA, KUBELET_CLIENT, PKI, ROTATED
from cluster.rotation import AUTHORITIES, CONTROLLER_MANAGER, KUBECONFIGS, KUBELET_CONF, ROTATION, SIGNING, public_key
from facts.authority import Authorities, Published
from operations import rotation_scripts as scripts
from tests.plan.fake_certificates import known, made, now
from tests.plan.fake_nodes import Node, Refused, command, fact, like

WORKLOADS = ("kube-system deployment/coredns", "kube-system daemonset/kube-proxy", "kube-flannel daemonset/flannel")


def key() -> str:
    private = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def shared(node: Node) -> dict[str, dict[str, str]]:
    """CAs of the whole cluster by "old" and "new", made when they are first asked for, and the new one's key."""
    cluster = node.world.cluster
    if "authorities" not in cluster:
        cluster["authorities"] = {
            "old": {name: made("kubernetes", "kubernetes", 3650, now(node)) for name in AUTHORITIES}
        }
    return cluster["authorities"]


def own(node: Node) -> dict:
    """What this node has of CAs."""
    if "authorities" not in node.state:
        old = shared(node)["old"]
        control_plane = ADMIN in node.files
        names = AUTHORITIES if control_plane else ("ca",)
        configs = [path for path in KUBECONFIGS if path in node.files or (control_plane and path != KUBELET_CONF)]
        node.state["authorities"] = {
            "certificates": {f"{PKI}/{name}.crt": [old[name]] for name in names}
            | {path: [old["ca"]] for path in configs},
            "signs": "old", "signing": f"{PKI}/ca.crt" if control_plane else None, "running": f"{PKI}/ca.crt",
            "changed": {}, "rotation": False, "root": [old["ca"]],
        }  # fmt: skip
    mine = node.state["authorities"]
    # What kube-controller-manager has read when it was started.
    started = known(node)["started"].get("kube-controller-manager", 0)
    if started >= mine["changed"].get(CONTROLLER_MANAGER, 0):
        mine["running"] = mine["signing"]
    if started >= mine["changed"].get(CA, 0):
        mine["root"] = mine["certificates"][CA]
    return mine


def serving(node: Node) -> str:
    """The certificate by which the kubelet serves, of the CA that signed when it was approved."""
    mine, changed = own(node), node.files[ROTATED]["changed"]
    if mine.get("serving", [None])[0] != changed:
        key = shared(node)["key"] if mine.get("phase", 0) > 1 else None
        mine["serving"] = [changed, made(node.name, "kubernetes", 365, now(node), key=key)]  # type: ignore[arg-type]
    return mine["serving"][1]


@fact(Authorities)
def _(node: Node) -> str:
    lines: list[str] = []
    if CA in node.files:
        mine, all_of_them = own(node), shared(node)
        shown = dict(mine["certificates"])
        shown[KUBELET_CLIENT] = [known(node)["files"][KUBELET_CLIENT]["pem"]]
        if ROTATED in node.files:
            shown[ROTATED] = [serving(node)]
        for which in ("old", "new") if mine["rotation"] else ():
            shown |= {f"{ROTATION}/{which}/{name}.crt": [pem] for name, pem in all_of_them[which].items()}
        for path, pems in shown.items():
            lines += [f"certificates {mine['changed'].get(path, 0)} {path}", *(pem.rstrip() for pem in pems)]
        if ADMIN in node.files:
            for name in AUTHORITIES:
                if name not in mine.get("keyless", []):
                    pem = public_key(all_of_them[mine["signs"]][name])
                    lines += [f"key 0 {PKI}/{name}.key", pem.rstrip()]
            lines += [f"manifest {mine['changed'].get(CONTROLLER_MANAGER, 0)} {CONTROLLER_MANAGER}"]
            lines += [f"signing {mine['signing']}", f"running {mine['running']}"]
    if HAPROXY_CA in node.files:
        text = node.files[HAPROXY_CA]["text"]
        lines += [f"certificates 0 {HAPROXY_CA}", (text if "BEGIN" in text else shared(node)["old"]["ca"]).rstrip()]
    return "\n".join(lines)


@command(like(scripts.begin()))
def _(node: Node, stdin: str) -> None:
    if f"certificatesDir: {scripts.MAKING}/new" not in stdin:
        raise Refused("the CAs would be made where the old ones are")
    mine = shared(node)
    mine["key"] = key()  # type: ignore[assignment]
    mine["new"] = {
        name: made("kubernetes", "kubernetes", 3650, now(node), key=mine["key"], age=1) for name in AUTHORITIES
    }
    own(node)["rotation"] = True


@command(like(scripts.SEND), "read")
def _(node: Node) -> str:
    return "both CAs"


@command(like(scripts.RECEIVE))
def _(node: Node, stdin: str) -> None:
    if stdin != "both CAs\n":
        raise Refused("tar: This does not look like a tar archive")
    own(node)["rotation"] = True


def trust(node: Node, bundle: dict[str, list[str]], phase: int) -> None:
    """Write what differs."""
    mine = own(node)
    wanted = {path: bundle["ca"] for path in mine["certificates"] if path.endswith(".conf")}
    wanted |= {f"{PKI}/{name}.crt": pems for name, pems in bundle.items()}
    for path, pems in wanted.items():
        if mine["certificates"][path] != pems:
            mine["certificates"][path], mine["changed"][path] = pems, now(node)
            if path in (CA, KUBELET_CONF, ADMIN):
                text = "".join(pems) if path == CA else f"{path} of {node.name} in phase {phase}\n"
                node.write(path, text, "644" if path == CA else "600")
    mine["phase"] = phase


for _phase, _order in {1: ("old", "new"), 2: ("new", "old"), 3: ("new",)}.items():

    @command(like(scripts.lay(_phase)))
    def _(node: Node, phase: int = _phase, order: tuple[str, ...] = _order) -> None:
        mine, both = own(node), shared(node)
        if not mine["rotation"]:
            raise Refused(f"cat: {ROTATION}/new/ca.crt: No such file or directory")
        behind = [
            each.name for each in node.world.nodes.values()
            if CA in each.files and own(each).get("phase", 0) < phase - 1
        ]  # fmt: skip
        if behind:
            raise Refused(f"phase {phase} of {node.name} would be before phase {phase - 1} of {behind}")
        trust(node, {name: [both[each][name] for each in order] for name in AUTHORITIES}, phase)
        mine["signs"] = "old" if phase < 2 else "new"
        if mine["signing"] != f"{SIGNING[phase]}.crt":
            mine["signing"], mine["changed"][CONTROLLER_MANAGER] = f"{SIGNING[phase]}.crt", now(node)
        known(node)["key"] = both["key"] if phase >= 2 else None


@command(like(scripts.lay_on_worker()))
def _(node: Node, stdin: str) -> None:
    pems = re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----\n", stdin, re.DOTALL)
    both = shared(node)
    phase = {(both["old"]["ca"], both["new"]["ca"]): 1, (both["new"]["ca"], both["old"]["ca"]): 2}.get(tuple(pems), 3)
    trust(node, {"ca": pems}, phase)


@command(r"umask 077; w=\$\(mktemp -d .*CN=system:node:(?P<name>[^']+)'.*kubelet.service && for i in .*")
def _(node: Node, name: str, stdin: str) -> None:
    planes = [each for each in node.world.nodes.values() if ADMIN in each.files]
    if name != node.name or stdin != shared(node)["new"]["ca"]:
        raise Refused("it is not this node's")
    if any(own(each)["running"] != f"{SIGNING[2]}.crt" for each in planes):
        raise Refused(f"{name}: no certificate of the new CA came for the kubelet")
    pem = made(f"system:node:{name}", "kubernetes", 365, now(node), key=shared(node)["key"])  # type: ignore[arg-type]
    node.files.pop(ROTATED, None)
    known(node)["files"][KUBELET_CLIENT] = {"pem": pem, "changed": now(node)}
    node.start_kubelet()


@command(r"timeout 120 systemctl restart kubelet.service && for i in .*healthz.*")
def _(node: Node) -> None:
    node.start_kubelet()


@fact(Published)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    cluster, old = node.world.cluster, shared(node)["old"]["ca"]
    told = cluster.setdefault("told", [old])
    lines = ["published", *(pem.rstrip() for pem in told), ""]
    planes = [each for each in node.world.nodes.values() if ADMIN in each.files]
    for namespace in ("default", "kube-system"):
        lines += [f"namespace {namespace}", *(pem.rstrip() for pem in own(planes[0])["root"])]
    for name in WORKLOADS:
        lines.append(f"workload {cluster.setdefault('marks of CAs', {}).get(name, '')} {name}")
    lines.append("workload  shop deployment/till")
    return "\n".join(lines)


@command(like(scripts.inform()))
def _(node: Node, stdin: str) -> None:
    node.api()
    node.world.cluster["told"] = re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----\n", stdin, re.DOTALL)


@command(like(scripts.begin_anew("ANY_namespace ANY_name", "ANY_mark")))
def _(node: Node, namespace: str, name: str, mark: str) -> None:
    node.api()
    if shared(node)["new"]["ca"] not in node.world.cluster["told"]:
        raise Refused("its pods would not know the new CA")
    node.world.cluster["marks of CAs"][f"{namespace} {name}"] = mark


@command(like(scripts.rolled_out("ANY_namespace ANY_name")), "read")
def _(node: Node, namespace: str, name: str) -> None:
    node.api()


@command(rf"rm -rf {scripts.MAKING} && mv -T {ROTATION} {scripts.MAKING} && rm -rf {scripts.MAKING}")
def _(node: Node) -> None:
    own(node)["rotation"] = False
