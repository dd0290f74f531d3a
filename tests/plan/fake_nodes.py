"""Machines with a memory, behind pyinfra's `@fake` connector: they know what these deploys ask and do, and no more.

A command is recognised by the text that the fact's class or the operation's own function makes of it. One that nobody
expects fails, and so does one that would fail on a real machine: no image without containerd, no join without a
cluster. log.jsonl has every command in the order of their ends, state.json what the machines have become.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import ipaddress
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors import fake
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host

from cluster.pieces import NODE_DIRECTORY, STATIC_PODS, short_name
from cluster.runtime import SOCKETS, UNITS
from facts.firewall import RULES as UFW
from facts.kubelet import CERTIFICATE, CONFIG, SIGNER
from facts.together import NEXT
from operations import containerd, crio

KUBERNETES = "/etc/kubernetes"
CA, ADMIN = f"{KUBERNETES}/pki/ca.crt", f"{KUBERNETES}/admin.conf"
ETCD_DATA = "/var/lib/etcd/member"
HAPROXY, KEEPALIVED = "/etc/haproxy/haproxy.cfg", "/etc/keepalived/keepalived.conf"
FIREWALLD = (
    "/etc/firewalld/zones/kubernetes-pods.xml", "/etc/firewalld/policies/kubernetes.xml",
    "/etc/firewalld/policies/kubernetes-fwd.xml",
)  # fmt: skip
UNMANAGED = "/etc/NetworkManager/conf.d/90-kubernetes.conf"
SERVER = "bundle-server.service"
MIRRORS = "/etc/containers/registries.conf.d/10-bundle.conf"
REGISTRIES = "/etc/containerd/certs.d/_default/hosts.toml"
# The programs of runtimes, and the configuration that each reads when it starts.
RUNTIMES = {"containerd": ("containerd", containerd.CONFIG), "cri-o": ("crio", crio.CONFIG)}


class Refused(Exception):
    """What the machine says on standard error when a command fails."""


class World:
    """All machines, and the cluster that those have made which ran kubeadm."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        state = json.loads((directory / "state.json").read_text())
        self.clock: int = state["clock"]
        self.cluster: dict[str, Any] = state["cluster"]
        self.nodes = {name: Node(self, name, each) for name, each in state["nodes"].items()}
        self.log = (directory / "log.jsonl").open("a", buffering=1)

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def save(self) -> None:
        nodes = {node.name: node.state for node in self.nodes.values()}
        state = {"clock": self.clock, "cluster": self.cluster, "nodes": nodes}
        (self.directory / "state.json").write_text(json.dumps(state))

    def holder(self, vip: str) -> str | None:
        """The host that carries the virtual IP and passes connections on."""
        for node in self.nodes.values():
            up = node.active("haproxy.service") and node.active("keepalived.service")
            if up and re.search(rf" {re.escape(vip)}/(32|128) dev ", node.files[KEEPALIVED]["text"]):
                return node.name
        return None

    def leads_to(self, endpoint: str, caller: Node) -> str | None:
        """Who takes a machine's connections to an endpoint: a host, "site" for its own load balancer, or nobody."""
        host, _, port = endpoint.rpartition(":")
        address = caller.look_up(host.strip("[]"))
        if holder := self.holder(address or ""):
            return holder if self.nodes[holder].balances_on() == port else None
        if endpoint == self.cluster["site"]:
            return "site"
        return next((each.name for each in self.nodes.values() if address in each.addresses and port == "6443"), None)


class Node:
    """One machine."""

    def __init__(self, world: World, name: str, state: dict[str, Any]) -> None:
        self.world, self.name, self.state = world, name, state
        self.files: dict[str, dict[str, Any]] = state["files"]
        self.units: dict[str, dict[str, Any]] = state["units"]

    @property
    def mac(self) -> str:
        return (b"\x52\x54" + ipaddress.ip_address(self.addresses[0]).packed[-4:]).hex(":")

    @property
    def addresses(self) -> list[str]:
        return self.state["address"].split(",")

    @property
    def has_ipv6(self) -> bool:
        return ":" in self.state["address"]

    def write(self, path: str, text: str, mode: str = "644", owner: str = "root:root") -> None:
        self.files[path] = {"text": text, "mode": mode, "owner": owner, "changed": self.world.clock}

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.files[path]["text"].encode()).hexdigest()

    def active(self, unit: str) -> bool:
        return self.units.get(unit, {}).get("active", False)

    @property
    def runtime(self) -> str | None:
        """The runtime that runs here."""
        return next((name for name, unit in UNITS.items() if self.active(unit)), None)

    def look_up(self, name: str) -> str | None:
        """The address of a name, by /etc/hosts; the site's DNS knows its own load balancer only."""
        if ":" in name or re.fullmatch(r"[\d.]+", name):
            return name
        rows = [line.split() for line in self.files.get("/etc/hosts", {"text": ""})["text"].splitlines()]
        known = {row[1]: row[0] for row in reversed(rows) if len(row) > 1}
        return known.get(name) or ("10.9.9.9" if self.world.cluster["site"].startswith(f"{name}:") else None)

    def reaches(self, target: str) -> str:
        """What bash says of a connection to this address or name, and port."""
        if not (address := self.look_up(target.rpartition(":")[0].strip("[]"))):
            return "Invalid argument"
        hosts = {own: each for each in self.world.nodes.values() for own in each.addresses}
        if address in hosts and not hosts[address].lets_in(self.state["address"], target.rpartition(":")[2]):
            return {"firewalld": "No route to host", "ufw": "timeout"}[hosts[address].state["firewall"]]
        there = address in hosts or self.world.leads_to(target, self)
        return str(self.state["lost"].get(target, "Connection refused" if there else "timeout"))

    def lets_in(self, source: str, port: str) -> bool:
        """Whether the firewall here, as it was last loaded, lets a host reach a TCP port."""
        rules = self.state["loaded"]
        if self.state["firewall"] == "firewalld":
            rules = re.sub(r"\s+", "", rules)
            wanted = f'<portport="{port}"protocol="tcp"/><accept/>'
            return f'<sourceaddress="{source}"/>{wanted}' in rules or f'<rulefamily="ipv4">{wanted}' in rules
        if self.state["firewall"] == "ufw":
            found = re.findall(rf"^-A ufw-before-input(?: -s (\S+))? -p tcp --dport {port} -j ACCEPT$", rules, re.M)
            return any(not sources or source in sources.split(",") for sources in found)
        return True

    def rules(self) -> str:
        """What the firewall here would load."""
        paths = {"firewalld": FIREWALLD, "ufw": (UFW,), None: ()}[self.state["firewall"]]
        return "".join(self.files[path]["text"] for path in paths if path in self.files)

    def balances_on(self) -> str | None:
        """The port of HAProxy here."""
        text = self.files.get(HAPROXY, {"text": ""})["text"]
        found = re.search(r"^ +bind (?:\*|\[::\]):(\d+)(?: v6only)?$", text, re.MULTILINE)
        return found[1] if found else None

    def unit(self, name: str) -> dict[str, Any]:
        if f"/etc/systemd/system/{name}" in self.files:
            self.units.setdefault(name, {"active": False, "enabled": False, "since": ""})
        if name not in self.units:
            raise Refused(f"Unit {name} not found.")
        return self.units[name]

    def has(self, program: str) -> bool:
        own = program == "iptables-restore" and self.state["firewall"] == "ufw"
        return own or f"/usr/bin/{program}" in self.files or program in self.state["packages"]

    def api(self) -> None:
        """Refuse unless the API server of this control plane answers kubectl."""
        up = f"kube-system/kube-apiserver-{self.name}" in self.state["pods"].values()
        up = up and f"{KUBERNETES}/manifests/kube-apiserver.yaml" in self.files
        if not (up and self.has("kubectl") and ADMIN in self.files and self.name in self.world.cluster["nodes"]):
            raise Refused("The connection to the server was refused - did you specify the right host or port?")

    def reach(self, url: str, trusted: str) -> Node | None:
        """The host whose server of the bundle answers at a URL, as it was when it was started, if this one may ask it
        and trusts it."""
        host, _, port = url.removeprefix("https://").rpartition(":")
        address = self.look_up(host.strip("[]")) or ""
        at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        for node in self.world.nodes.values():
            unit = node.units.get(SERVER, {})
            if not unit.get("active") or at not in re.findall(r"listen (\S+) ssl;", unit["config"]):
                continue
            if not node.lets_in(self.state["address"], url.rpartition(":")[2]):
                continue
            allowed = re.findall(r"allow (\S+);", unit["config"])
            return node if unit["certificate"] in trusted and set(self.addresses) & set(allowed) else None
        return None

    def pull(self, wanted: set[str]) -> None:
        """Have the runtime pull images, by their short names, from the first server that it is told of and has them."""
        if self.runtime == "cri-o":
            self.pull_crio(wanted)
            return
        hosts = self.files[REGISTRIES]["text"]
        trusted = "".join(
            self.files[path]["text"] for path in set(re.findall(r'ca = "(\S+)"', hosts)) & set(self.files)
        )
        for url in re.findall(r'^\[host."(\S+)"\]$', hosts, re.MULTILINE):
            if server := self.reach(url, trusted):
                served = re.findall(r'"([^"/]+)/v2/(\S+)/manifests/(\S+)" "(\S+)";', server.units[SERVER]["config"])
                for registry, repository, tag, manifest in served:
                    there = f"{NODE_DIRECTORY}/images/blobs/sha256/{manifest}" in server.files
                    if there and repository.rpartition("/")[2] in wanted:
                        self.state["images"][f"{registry}/{repository}:{tag}"] = f"sha256:{manifest}"

    def pull_crio(self, wanted: set[str]) -> None:
        """As CRI-O does: from the mirrors of an image's registry, then its location, each by a CA of its own."""
        for text in self.files[MIRRORS]["text"].split("[[registry]]")[1:]:
            registry = re.search(r'prefix = "(\S+)"', text)[1]
            location, *mirrors = re.findall(r'location = "(\S+)"', text)
            for server, path in (each.split("/", 1) for each in (*mirrors, location)):
                trusted = self.files[f"/etc/containers/certs.d/{server}/ca.crt"]["text"]
                if node := self.reach(f"https://{server}", trusted):
                    known = re.findall(r'"/v2/([^/"]+)/(\S+)/manifests/(\S+)" "(\S+)";', node.units[SERVER]["config"])
                    for name, repository, tag, manifest in known:
                        there = f"{NODE_DIRECTORY}/images/blobs/sha256/{manifest}" in node.files
                        if there and name == path and repository.rpartition("/")[2] in wanted:
                            self.state["images"][f"{registry}/{repository}:{tag}"] = f"sha256:{manifest}"

    def readiness(self) -> dict[str, str]:
        """The kubelet calls a node ready once it has a pod network: by a manifest, or by a file of its own."""
        if self.state["dead"]:
            return {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}
        if self.world.cluster["applied"] or any(path.startswith("/etc/cni/net.d/") for path in self.files):
            return {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}
        words = (
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network "
            "plugin returns error: cni plugin not initialized"
        )
        return {"type": "Ready", "status": "False", "message": words}

    def refuse_unprepared(self, control_plane: bool, socket: str) -> None:
        """kubeadm's preflight, as far as earlier layers see to it. It pulls what is not loaded."""
        wanted = {"pause", "kube-proxy", "flannel", *(STATIC_PODS if control_plane else ())}
        if self.runtime:
            self.pull(wanted - {short_name(name) for name in self.state["images"]})
        loaded = {short_name(name) for name in self.state["images"]}
        checks = {
            "programs are missing": self.has("kubeadm") and self.has("kubelet") and self.has("crictl"),
            "kubelet is not enabled": self.units.get("kubelet.service", {}).get("enabled"),
            "the container runtime is not running": self.runtime and SOCKETS[self.runtime] == socket,
            "images are missing": wanted <= loaded,
            "running with swap on": not self.state["swap"],
            "ip_forward is not 1": self.state["sysctl"].get("net.ipv4.ip_forward") == "1",
            "ipv6/conf/default/forwarding is not 1": not self.has_ipv6
            or self.state["sysctl"].get("net.ipv6.conf.all.forwarding") == "1",
            "modules are missing": set(self.state["modules"].values()) == {"loaded"},
            "port 6443 is in use": not (control_plane and self.balances_on() == "6443"),
            "the host name does not resolve": f" {self.name}\n" in self.files["/etc/hosts"]["text"],
            "it is part of a cluster already": f"{KUBERNETES}/kubelet.conf" not in self.files,
        }
        if failed := [what for what, well in checks.items() if not well]:
            raise Refused(f"[preflight] {self.name}: {', '.join(failed)}")

    def become(self, role: str, socket: str) -> None:
        """What `kubeadm init` and `kubeadm join` leave behind."""
        names = ["kubelet.conf", "pki/ca.crt"]
        if role == "control-plane":
            names += [f"manifests/{name}.yaml" for name in STATIC_PODS]
            names += ["admin.conf", "pki/etcd/healthcheck-client.key"]
            self.write(ETCD_DATA, "")
            loaded = {short_name(name): name for name in self.state["images"]}
            self.state["static_pods"] = {name: loaded[name] for name in STATIC_PODS}
        for name in names:
            own = f"{name} of {self.name}, made at {self.world.clock}\n"
            if name == "admin.conf":
                own = fake_certificates.administrators(self)
            self.write(f"{KUBERNETES}/{name}", "the cluster's CA\n" if name == "pki/ca.crt" else own, "600")
        self.write(CONFIG, self.world.cluster["kubelet"])
        self.write("/var/lib/kubelet/instance-config.yaml", f"containerRuntimeEndpoint: unix://{socket}\n")
        cluster = self.world.cluster
        if self.name not in cluster["nodes"]:  # kube-controller-manager gives every Node that is made the next subnet
            cluster["subnets"][self.name] = pod_subnet(cluster["made"])
            cluster["made"] += 1
        cluster["nodes"][self.name] = role
        cluster["roles"].pop(self.name, None)
        self.state["links"] = ["cni0", "flannel.1"]
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """Run the kubelet; it asks for a serving certificate when it is configured so and has none."""
        self.unit("kubelet.service").update(active=True, since=self.world.clock)
        # A program of the bundle has its version for its last word.
        self.state["running"] = self.files["/usr/bin/kubelet"]["text"].split()[-1]
        names = [f"kube-proxy-{self.name}", *(f"{each}-{self.name}" for each in STATIC_PODS if ADMIN in self.files)]
        self.state["pods"] = {f"{number:x}": f"kube-system/{name}" for number, name in enumerate(names)}
        if "serverTLSBootstrap: true" in self.files[CONFIG]["text"] and CERTIFICATE not in self.files:
            self.world.cluster.setdefault("requests", {})[f"csr-{self.name}"] = {
                "metadata": {"name": f"csr-{self.name}"},
                "spec": {
                    "signerName": SIGNER, "username": f"system:node:{self.name}", "groups": ["system:nodes"],
                    "usages": ["digital signature", "server auth"],
                    "request": serving_request(self.name, self.addresses),
                },
            }  # fmt: skip


def pod_subnet(number: int) -> str:
    """What the next of the nodes' pods get."""
    return f"10.{244 + number // 256}.{number % 256}.0/24"


def serving_request(name: str, addresses: list[str]) -> str:
    """What a kubelet asks to have signed, as the API shows it."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"),
        ]
    )
    own = [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    names = x509.SubjectAlternativeName([x509.DNSName(name), *own])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


class FakeNode(fake.FakeConnector):
    """`@fake` with these machines; unlike pyinfra's own, its hosts have names that a node can have."""

    world: World

    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        yield str(name), {}, ["@fake"]

    def connect(self) -> None:
        if self.world.nodes[self.host.name].state["dead"]:
            raise ConnectError("Could not connect (timed out)")

    def run_shell_command(self, command: Any, *_: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        text = str(command)
        if text.startswith("sh -c "):
            text = shlex.split(text)[2]
        if text.startswith("set -- ") and NEXT in text:
            return self._do_all(shlex.split(text.partition(" ; a=;")[0])[2:])
        return self._do(text, str(arguments.get("_stdin") or ""))

    def _do_all(self, words: list[str]) -> tuple[bool, CommandOutput]:
        """Several facts in one command, as facts.together has them: name, command, and so on."""
        lines = []
        for name, text in zip(words[::2], words[1::2], strict=True):
            ok, output = self._do(text, "")
            if not ok:
                said = OutputLine("stderr", f"could not load fact: {name} (exit status 1)")
                return ok, CommandOutput([*output.combined_lines, said])
            lines += [*output.combined_lines, OutputLine("stdout", NEXT)]
        return True, CommandOutput(lines)

    def put_file(self, filename_or_io: Any, remote_filename: str, *_: Any, **__: Any) -> bool:
        sent = base64.b64encode(filename_or_io.read()).decode() if hasattr(filename_or_io, "read") else filename_or_io
        return self._do(f"upload {remote_filename}", sent)[0]

    def get_file(self, remote_filename: str, filename_or_io: Any, *_: Any, **__: Any) -> bool:
        ok, output = self._do(f"download {remote_filename}", "")
        filename_or_io.write(base64.b64decode(output.stdout))
        return ok

    def _do(self, text: str, stdin: str) -> tuple[bool, CommandOutput]:
        node = self.world.nodes[self.host.name]
        # That of the host which has the command done; it may be done on another one.
        operation = ctx_host.get().executing_op_hash if ctx_host.isset() else None
        began, kind, ok, answer = self.world.tick(), "unexpected", False, f"nobody expects: {text}"
        for each, pattern, function in COMMANDS:
            if found := pattern.fullmatch(text):
                kind = each
                # Other hosts have their turns between the beginning of a command and its end.
                for _ in range(1 if kind == "fact" else 20):
                    gevent.sleep(0)
                groups = found.groupdict()
                if "stdin" in function.__code__.co_varnames[: function.__code__.co_argcount]:
                    groups["stdin"] = stdin
                try:
                    for fault, words in node.state["faults"].items():
                        if re.search(fault, f"{text}\n{stdin}"):
                            raise Refused(words)
                    ok, answer = True, function(node, **groups) or ""
                except Refused as error:
                    answer = str(error)
                break
        record = {
            "host": node.name, "kind": kind, "ok": ok, "began": began, "ended": self.world.tick(), "command": text,
            "operation": min(self.state.op_meta[operation].names) if operation else None,
        }  # fmt: skip
        self.world.log.write(json.dumps(record) + "\n")
        stream = "stdout" if ok else "stderr"
        return ok, CommandOutput([OutputLine(stream, line) for line in answer.splitlines()])


def install(directory: Path) -> None:
    """Have `@fake` mean the machines of this directory, in this process."""
    FakeNode.world = World(directory)
    fake.FakeConnector = FakeNode
    atexit.register(FakeNode.world.save)


Function = Callable[..., str | None]
COMMANDS: list[tuple[str, re.Pattern[str], Function]] = []


def like(text: str) -> re.Pattern[str]:
    """Recognise a command that was made with words such as ANY_path in place of its arguments."""
    seen: set[str] = set()

    def group(found: re.Match[str]) -> str:
        name = found[1]
        again, _ = name in seen, seen.add(name)
        return f"(?P={name})" if again else f"(?P<{name}>.+?)"

    return re.compile(re.sub(r"ANY_([a-z]+)", group, re.escape(text)), re.DOTALL)


def fact(kind: type[Any], **arguments: Any) -> Callable[[Function], Function]:
    """The function answers this fact as its command would."""
    return command(like(str(kind().command(**arguments))), "fact")


def command(pattern: re.Pattern[str] | str, kind: str = "change") -> Callable[[Function], Function]:
    """The function does what this command does; it "read"s, "probe"s without lasting effect, or "change"s."""

    def add(function: Function) -> Function:
        COMMANDS.append((kind, re.compile(pattern, re.DOTALL) if isinstance(pattern, str) else pattern, function))
        return function

    return add


def kubeadm(words: str) -> str:
    return rf'.*umask 077; .* timeout \d+ kubeadm {words} --config "\$f"( >/dev/null)?'


# The subjects are in files of their own, which add to COMMANDS. No two may know the same command: the first is asked.
from tests.plan import (  # noqa: E402, F401
    fake_backup,
    fake_bundle,
    fake_certificates,
    fake_diagnose,
    fake_files,
    fake_host,
    fake_kubeadm,
    fake_kubernetes,
    fake_network,
    fake_packages,
    fake_reconfigure,
    fake_removal,
    fake_restore,
    fake_runtime,
    fake_selinux,
)
