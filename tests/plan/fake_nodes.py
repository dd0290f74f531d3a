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
import posixpath
import re
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.facts import _MISSING_COMMAND_MARKER
from pyinfra.connectors import fake
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host
from pyinfra.facts.files import FindFiles
from pyinfra.facts.selinux import FileContextMapping, SEBoolean, SEPorts
from pyinfra.facts.server import Hostname, TmpDir, Which

from bundle.rpms import VERSIONLOCK
from cluster import bridge
from cluster.backup import NODE_DIRECTORY as BACKUPS
from cluster.endpoint import Endpoint
from cluster.kubeadm import ROLE
from cluster.networks import CNI_FILES
from cluster.pieces import NODE_DIRECTORY, STATIC_PODS, short_name
from cluster.ports import load as port_rules
from cluster.runtime import PACKAGES, SOCKETS, UNITS
from cluster.topology import Node as Address
from facts import crio as crio_facts
from facts.backup import NAME, Backups
from facts.certificate import Certificate
from facts.cgroup import Cgroup
from facts.checksum import Checksums
from facts.containerd import Images
from facts.disk import FileSystems, SyncWrites
from facts.etcd import Members
from facts.file import FileState
from facts.firewall import RULES as UFW
from facts.firewall import Firewall
from facts.haproxy import Backends
from facts.hardware import Hardware
from facts.keepalived import Vrrp
from facts.kernel import KernelModules, Sysctl
from facts.kubeadm import ClusterConfig, JoinInfo, KubeadmNode, Readable
from facts.kubelet import CERTIFICATE, CONFIG, SIGNER, KubeletServing, ServingRequests, SharedKubeletConfig
from facts.kubernetes import Addons, Manifest, MetricsCertificate, Objects, PodSubnets
from facts.leftovers import Leftovers
from facts.network import Answers, Listeners, Pings, Reach, RoutesAndNames
from facts.package import Packages
from facts.pod_network import PodNetwork
from facts.pods import NodePods
from facts.restore import ASIDE, BEFORE, MANIFESTS, WORK, Restoration
from facts.running import Running
from facts.runtime import SECOND, Installed, Runtime
from facts.selinux import Mislabelled, SELinux
from facts.service import Unit
from facts.sudo import Sudo
from facts.surroundings import Surroundings
from facts.swap import Swap
from facts.time import Time, TimeSynchronized
from facts.timer import Timer
from facts.together import NEXT
from facts.traces import Others, Remains, Traces
from operations import addons, bundle_server, containerd, crio, kubelet, kubernetes, swap, timer, verify, workload
from operations import kubeadm as kubeadm_operations
from operations.file import ASIDE as KEPT
from operations.file import write_script
from operations.firewall import RELOAD
from operations.kubeadm import answers, ready
from operations.restore import PODS, STOP

KUBERNETES = "/etc/kubernetes"
CA, ADMIN = f"{KUBERNETES}/pki/ca.crt", f"{KUBERNETES}/admin.conf"
ETCD_KEY, ETCD_DATA = f"{KUBERNETES}/pki/etcd/healthcheck-client.key", "/var/lib/etcd/member"
HAPROXY, KEEPALIVED = "/etc/haproxy/haproxy.cfg", "/etc/keepalived/keepalived.conf"
FIREWALLD = (
    "/etc/firewalld/zones/kubernetes-pods.xml", "/etc/firewalld/policies/kubernetes.xml",
    "/etc/firewalld/policies/kubernetes-fwd.xml",
)  # fmt: skip
SEMANAGE, UNMANAGED = "policycoreutils-python-utils", "/etc/NetworkManager/conf.d/90-kubernetes.conf"
SERVER, NGINX = "bundle-server.service", f"{bundle_server.DIRECTORY}/nginx.conf"
MIRRORS = "/etc/containers/registries.conf.d/10-bundle.conf"
REGISTRIES = "/etc/containerd/certs.d/_default/hosts.toml"
# What any kernel of a distribution has; the node layer loads the others.
COMPILED_IN = ("nf_conntrack", "nf_tables", "ip_tables", "vxlan", "ip_set", "xt_set")
COMPILED_IN += ("bpf", "cgroup2", "cls_bpf", "sch_ingress", "ip_set_hash_ip")
BRIDGE = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")
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
# The programs of runtimes, and the configuration that each reads when it starts.
RUNTIMES = {"containerd": ("containerd", containerd.CONFIG), "cri-o": ("crio", crio.CONFIG)}
# What a unit cannot be started without: a program, and files.
NEEDS: dict[str, tuple[str, list[str]]] = {
    "haproxy.service": ("haproxy", [HAPROXY]),
    "keepalived.service": ("keepalived", [KEEPALIVED]),
    "containerd.service": ("containerd", []),
    "crio.service": ("crio", [crio.POLICY]),
    SERVER: ("nginx", [NGINX, bundle_server.CERTIFICATE, bundle_server.KEY]),
}


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


# Facts


@fact(Hostname)
def _(node: Node) -> str:
    return node.state["hostname"]


@fact(Which, command="ANY_program")
def _(node: Node, program: str) -> str:
    return "" if program == "sepolicy" else f"/usr/bin/{program}"


@fact(SELinux)
def _(node: Node) -> str:
    return "1" if node.state["selinux"] else "none"


def with_program(kind: type[Any], program: str, **arguments: Any) -> re.Pattern[str]:
    """The command of a fact of pyinfra's that is asked only where there is a program."""
    asked = kind().command(**arguments)
    return like(f"if command -v {program} >/dev/null 2>&1; then ( {asked} ); else echo '{_MISSING_COMMAND_MARKER}'; fi")


@command(with_program(SEBoolean, "getsebool", boolean="haproxy_connect_any"), "fact")
def _(node: Node) -> str:
    return f"haproxy_connect_any --> {'on' if 'haproxy_connect_any' in node.state['selinux'] else 'off'}"


@command(with_program(SEPorts, "semanage"), "fact")
def _(node: Node) -> str:
    if not node.has(SEMANAGE):
        return _MISSING_COMMAND_MARKER
    own = [each.partition(" ")[2] for each in node.state["selinux"] if each.startswith("port ")]
    return f"http_port_t                    tcp      {', '.join([*own, '80', '443', '8008-8009'])}"


@command(with_program(FileContextMapping, "semanage", target=f"{NODE_DIRECTORY}(/.*)?"), "fact")
def _(node: Node) -> str:
    if not node.has(SEMANAGE):
        return _MISSING_COMMAND_MARKER
    row = f"{NODE_DIRECTORY}(/.*)?   all files   system_u:object_r:httpd_sys_content_t:s0"
    return row if "mapping" in node.state["selinux"] else ""


@fact(Mislabelled, paths=("ANY_paths",))
def _(node: Node, paths: str) -> str:
    return "\n".join(f"Would relabel {path} from bin_t to another_t" for path in mislabelled(node, paths))


def mislabelled(node: Node, paths: str) -> list[str]:
    """Files beneath these paths that are newer than their labels."""
    beneath = [path for path in node.files if any(f"{path}/".startswith(f"{each}/") for each in shlex.split(paths))]
    return [path for path in beneath if node.files[path]["changed"] > node.files[path].get("labelled", 0)]


@command(r"restorecon -R (?P<paths>.+)")
def _(node: Node, paths: str) -> None:
    for path in mislabelled(node, paths):
        node.files[path]["labelled"] = node.world.clock


@command(r"setsebool -P (?P<name>\S+) on")
def _(node: Node, name: str) -> None:
    node.state["selinux"].append(name)


@command(r"semanage port -a -t http_port_t -p tcp (?P<port>\d+)")
def _(node: Node, port: str) -> None:
    if not node.has(SEMANAGE) or f"port {port}" in node.state["selinux"]:
        raise Refused(f"ValueError: Port tcp/{port} already defined")
    node.state["selinux"].append(f"port {port}")


@command(rf"semanage fcontext -a -t httpd_sys_content_t '{re.escape(NODE_DIRECTORY)}\(/\.\*\)\?'")
def _(node: Node) -> None:
    if not node.has(SEMANAGE):
        raise Refused("sh: 1: semanage: not found")
    node.state["selinux"].append("mapping")


@fact(TmpDir)
def _(node: Node) -> str:
    return "/tmp"


@fact(Cgroup)
def _(node: Node) -> str:
    kubelet = "kubelet systemd\n" if "/var/lib/kubelet/config.yaml" in node.files else ""
    return f"version 2\ncontrollers cpuset cpu io memory pids\nsystemd 252\n{kubelet}"


@fact(Hardware)
def _(node: Node) -> str:
    rows: list[dict[str, Any]] = [
        {"family": "inet6", "local": each, "prefixlen": 64, "scope": "global"}
        if ":" in each
        else {"family": "inet", "local": each, "prefixlen": 24}
        for each in node.addresses
    ]
    links = [{"ifname": "eth0", "address": node.mac, "mtu": node.state["mtu"], "addr_info": rows}]
    machine = {
        "hostname": node.state["hostname"], "cpus": node.state["cpus"], "memory": 4096, "kernel": "6.1.0-31-amd64",
        "machine": "x86_64", "os_id": node.state["os"].rpartition("-")[0],
        "os_version": node.state["os"].rpartition("-")[2], "machine_id": f"machine-{node.name}",
        "systemd": "yes", "disk": 51200, "addr": json.dumps(links),
    }  # fmt: skip
    return "\n".join(f"{key} {value}" for key, value in machine.items())


@fact(Checksums, paths=("ANY_paths",))
@fact(Checksums, paths=("ANY_paths",), programs=True)
def _(node: Node, paths: str) -> str:
    return "\n".join(f"{node.sha256(path)} *{path}" for path in shlex.split(paths) if path in node.files)


@fact(FileState, path="ANY_path", secret=True)
def _(node: Node, path: str) -> str:
    if path not in node.files:
        return ""
    return f"{node.files[path]['mode']} {node.files[path]['owner'].replace(':', ' ')}\n{node.sha256(path)}  -"


@fact(FileState, path="ANY_path")
def _(node: Node, path: str) -> str:
    if path not in node.files:
        return ""
    file = node.files[path]
    return f"{file['mode']} {file['owner'].replace(':', ' ')}\n{base64.b64encode(file['text'].encode()).decode()}"


@fact(Certificate, path="ANY_path.crt", address="ANY_address")
def _(node: Node, path: str, address: str) -> str:
    if not {f"{path}.crt", f"{path}.key"} <= set(node.files):
        return ""
    file = node.files[f"{path}.crt"]
    if not node.has("openssl") or f"for {address} " not in file["text"]:
        return "other"
    return f"{'ending' if file.get('ending') else 'valid'}\nnotAfter=Nov 23 01:02:03 2036 GMT"


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


@fact(Swap)
def _(node: Node) -> str:
    on = [f"device {device} partition 1 0 -2" for device in node.state["swap"]]
    return "\n".join([*on, *(f"fstab {line}" for line in node.state["fstab"])])


@fact(KernelModules, names=("ANY_names",))
def _(node: Node, names: str) -> str:
    there = dict.fromkeys(COMPILED_IN, "builtin") | node.state["modules"]
    return "\n".join(f"{name} {there.get(name, 'absent')}" for name in shlex.split(names))


@fact(Sysctl, keys=("ANY_keys",))
def _(node: Node, keys: str) -> str:
    live = node.state["sysctl"]
    return "\n".join(f"{key}={live.get(key, 0)}" if known(node, key) else key for key in shlex.split(keys))


def known(node: Node, key: str) -> bool:
    """Settings of bridges are there once their module is."""
    return key not in BRIDGE or node.state["modules"]["br_netfilter"] == "loaded"


def own_answer(name: str) -> Callable[[Node], str]:
    """A runtime's own answer, from the configuration with which it was started."""

    def answer(node: Node) -> str:
        program, _ = RUNTIMES[name]
        kubelet = "kubelet systemd\n" if "/var/lib/kubelet/config.yaml" in node.files else ""
        if not node.has(program):
            return f"{kubelet}absent"
        if not node.active(UNITS[name]) or not node.has("crictl"):
            return f"{kubelet}unreachable\nsh: 1: crictl: not found"
        text = node.units[UNITS[name]]["config"]
        pause = re.search(r'(?:sandbox|sandbox_image|pause_image) = "(\S+)"', text)
        image = pause[1] if pause else "registry.k8s.io/pause:3.6"
        if name == "cri-o":
            driver = re.search(r'cgroup_manager = "(\S+)"', text)[1]
            second = f'[crio.runtime]\ncgroup_manager = "{driver}"\n[crio.image]\npause_image = "{image}"'
            return f"{kubelet}running\n{{}}\n{SECOND}\n{second}"
        said = re.findall(r"SystemdCgroup = (\w+)", text)
        options = {"SystemdCgroup": said[-1:] == ["true"]}
        registries = re.search(r'config_path = "(\S+)"', text)
        config = {
            "containerd": {"defaultRuntimeName": "runc", "runtimes": {"runc": {"options": options}}},
            "sandboxImage": image, "registry": {"configPath": registries[1] if registries else ""},
        }  # fmt: skip
        return f"{kubelet}running\n{json.dumps({'config': config})}\n{SECOND}"

    return answer


for _name in RUNTIMES:
    fact(Runtime, runtime=_name, socket=SOCKETS[_name])(own_answer(_name))


def installed(name: str) -> Callable[[Node], str]:
    def answer(node: Node) -> str:
        there = [each for each in PACKAGES[name] if each in node.state["packages"]]
        lines = [f"package {each} {node.state['packages'][each]['version']} installed" for each in there]
        if f"/etc/systemd/system/{UNITS[name]}" in node.files:
            lines.append("unit")
        if kubelet := node.files.get("/var/lib/kubelet/instance-config.yaml"):
            lines.append(f"socket {kubelet['text'].strip().partition('unix://')[2]}")
        return "\n".join(lines)

    return answer


for _name in RUNTIMES:
    fact(Installed, runtime=_name)(installed(_name))


@fact(crio_facts.Images)
def _(node: Node) -> str:
    if not node.has("crio"):
        return "absent"
    if not node.active("crio.service"):
        return "unreachable"
    rows = [
        {"repoTags": [name], "repoDigests": [f"{name.rpartition(':')[0]}@{digest}"]}
        for name, digest in node.state["images"].items()
    ]
    return f"running\n{json.dumps({'images': rows})}"


@fact(Images)
def _(node: Node) -> str:
    if not node.has("containerd"):
        return "absent"
    if not node.active("containerd.service"):
        return "unreachable"
    return "\n".join(["running", *(f"{name} {digest}" for name, digest in node.state["images"].items())])


@fact(Vrrp, vip="ANY_vip")
def _(node: Node, vip: str) -> str:
    words = {"installed": node.has("keepalived"), "running": node.active("keepalived.service")}
    return "\n".join(word for word, true in {**words, "vip": node.world.holder(vip) == node.name}.items() if true)


@fact(Answers, address="ANY_address")
def _(node: Node, address: str) -> str:
    who = node.world.holder(address)
    macs = [each.mac for each in node.world.nodes.values() if each.name == who or address in each.addresses]
    return f"replied\n{address} dev eth0 lladdr {macs[0]} REACHABLE" if macs else ""


@fact(RoutesAndNames, names=("ANY_names",))
def _(node: Node, names: str) -> str:
    shlex.split(names)
    lines = ["nameserver 10.0.0.2"]
    if "." in node.state["address"]:
        lines += ["route 00000000 00000000 0003", "route 0000000A 00FFFFFF 0001"]
    if node.has_ipv6:
        lines.append(f"route6 {'0' * 32} 00 00000003")
    return "\n".join(lines)


@fact(Listeners, ports=("ANY_ports",))  # type: ignore[arg-type]
def _(node: Node, ports: str) -> str:
    there = {int(port): f"- {process}" for port, process in node.state["held"].items()}
    if node.active("haproxy.service"):
        for port in re.findall(r"bind (?:\*|\[::\]):(\d+)", node.files[HAPROXY]["text"]):
            there[int(port)] = "haproxy.service haproxy"
    if node.active(SERVER):
        there |= {
            int(port): f"{SERVER} nginx" for port in re.findall(r"listen \S+:(\d+) ssl", node.units[SERVER]["config"])
        }
    role = node.world.cluster["nodes"].get(node.name)
    for rule in port_rules():
        if role and rule.process and isinstance(rule.port, int) and rule.to == role.replace("-", "_"):
            there[rule.port] = f"kubelet.service {rule.process[:15]}"
    return "\n".join(f"{port:04X} {who}" for port, who in there.items() if str(port) in ports.split())


@fact(Reach, targets=("ANY_targets",))
def _(node: Node, targets: str) -> str:
    return "\n".join(f"{target} {node.reaches(target)}" for target in shlex.split(targets))


@fact(Pings, addresses=("ANY_addresses",), mtu=1500)
def _(node: Node, addresses: str) -> str:
    return "\n".join(f"{address} full" for address in shlex.split(addresses))


@command(like(FileSystems().command(paths=("ANY_paths",), measured=(("ANY_measured", "ANY_below"),))), "fact")
def _(node: Node, paths: str, measured: str, below: str) -> str:
    rows = [f"room {path} 100000 90000 /\ninodes {path} 6000000 5000000" for path in shlex.split(paths)]
    used = 1 if any(path.startswith(NODE_DIRECTORY) for path in node.files) else 0
    return "\n".join([*rows, f"used {NODE_DIRECTORY} {used}"])


@fact(SyncWrites)
def _(node: Node) -> str:
    if ETCD_DATA in node.files:
        raise Refused("a disk with an etcd on it is not written to")
    return "path /var/lib\n" + "2300 bytes (2.3 kB, 2.2 KiB) copied, 0.000812 s, 2.8 MB/s\n" * 100


@fact(Leftovers)
def _(node: Node) -> str:
    lines = ["ours"] if any(path.startswith(NODE_DIRECTORY) for path in node.files) else []
    places = {"/etc/cni/net.d/": "cni", "/var/lib/etcd/": "etcd"}
    lines += [f"{kind} {path.removeprefix(at)}" for at, kind in places.items() for path in node.files if at in path]
    return "\n".join([*lines, *(f"link {name}" for name in node.state["links"])])


@fact(Surroundings)
def _(node: Node) -> str:
    lines = ["config"] if "/etc/containerd/config.toml" in node.files else []
    if firewall := node.state["firewall"]:
        lines.append(f"firewall {firewall}")
    if node.state["selinux"]:
        lines.append("selinux 1")
    if node.active("NetworkManager.service") and UNMANAGED not in node.files:
        lines.append("networkmanager")
    return "\n".join(lines)


@fact(Firewall)
def _(node: Node) -> str:
    if not (firewall := node.state["firewall"]):
        return ""
    lines = [f"active {firewall}", *([f"version {node.state['firewalld']}"] if firewall == "firewalld" else [])]
    return "\n".join([*lines, *([] if node.rules() == node.state["loaded"] else [f"stale {firewall}"])])


@command(RELOAD["firewalld"])
@command(RELOAD["ufw"])
def _(node: Node) -> None:
    node.state["loaded"] = node.rules()


@fact(Time)
def _(node: Node) -> str:
    return f"{time.time() + node.state['ahead']:.9f}"


@fact(TimeSynchronized)
def _(node: Node) -> str:
    return "yes" if node.state["synchronized"] else "no"


@fact(Sudo)
def _(node: Node) -> str:
    return "yes"


@fact(Backends)
def _(node: Node) -> str:
    if not node.has("haproxy"):
        return "absent"
    if not node.active("haproxy.service"):
        return "unreachable"
    rows = ["running", "# pxname,svname,status,addr,check_status"]
    for name, address in re.findall(r"^ +server (\S+) (\S+)", node.files[HAPROXY]["text"], re.MULTILINE):
        status = "UP" if node.world.cluster["nodes"].get(name) == "control-plane" else "DOWN"
        rows.append(f"kube-apiserver,{name},{status},{address},L7OK")
    return "\n".join(rows)


@fact(Members)
def _(node: Node) -> str:
    if ETCD_KEY not in node.files or not node.has("etcdctl"):
        return "absent"
    if node.state.get("quorum_lost"):
        return "unreachable"
    if f"kube-system/etcd-{node.name}" not in node.state["pods"].values():
        return "unreachable"
    nodes, left = node.world.cluster["nodes"], node.world.cluster["left"]
    names = [name for name, role in nodes.items() if role == "control-plane" and name not in left]
    urls = {
        name: f"https://{Endpoint(ipaddress.ip_address(node.world.nodes[name].addresses[0]), 2380)}" for name in names
    }
    members = [
        {"ID": str(number), "name": name, "clientURLs": [name], "peerURLs": [urls[name]]}
        for number, name in enumerate(names)
    ]
    unhealthy = node.world.cluster.get("unhealthy", ())
    health = [
        {"endpoint": name, "health": name not in unhealthy and not node.world.nodes[name].state["dead"]}
        for name in names
    ]
    return "\n".join(["running", json.dumps({"members": members}), json.dumps(health)])


@fact(KubeadmNode)
def _(node: Node) -> str:
    shown = re.compile(rf"{KUBERNETES}/(manifests/[^/]+\.yaml|[^/]+\.conf|pki/ca\.crt)")
    lines = [f"file {found[1]}" for path in node.files if (found := shown.fullmatch(path))]
    if ETCD_DATA in node.files:
        lines.append("etcd")
    if node.state.get("busy"):
        lines.append("busy")
    if CA in node.files:
        lines.append(f"hash {node.sha256(CA)}")
    return "\n".join(lines)


@fact(ClusterConfig)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return "none"
    try:
        return f"initialised\n{get_nodes(node)}"
    except Refused:
        return "unreachable"


@fact(JoinInfo)
def _(node: Node) -> str:
    return "\n".join(f"token {token.split('.')[0]}" for token in node.world.cluster["tokens"])


@fact(PodSubnets)
def _(node: Node) -> str:
    try:
        node.api()
    except Refused:
        return ""
    nodes = {name: node.world.nodes[name].state["address"] for name in node.world.cluster["nodes"]}
    rows = [f"{name} {address} {node.world.cluster['subnets'][name]}" for name, address in nodes.items()]
    return "\n".join([*rows, "answered"])


@fact(PodNetwork, script="ANY_script", protocol=bridge.PROTOCOL, chain=bridge.CHAIN)
def _(node: Node, script: str) -> str:
    if script not in node.files:
        return ""
    routes = [f"route {subnet} via {hop} dev eth0" for subnet, hop in node.state["routes"].items()]
    return "\n".join(["written", *routes, *(f"rule {rule}" for rule in node.state["rules"])])


@fact(Manifest, path="ANY_path")
@fact(Manifest, path="ANY_path", context="ANY_context")
def _(node: Node, path: str, context: str = "") -> str:
    if path not in node.files or (context and context not in node.files):
        return "absent"
    return "0" if node.world.cluster["applied"].get(path) == node.sha256(path) else "+what differs\n1"


@fact(Objects, path="ANY_path")
def _(node: Node, path: str) -> str:
    """The operator adds to what it is given: all that it takes when nothing is said."""
    if path not in node.files or node.world.cluster["applied"].get(path) != node.sha256(path):
        return ""
    (document,) = yaml.safe_load_all(node.files[path]["text"])
    document["spec"] |= {"variant": "Calico"}
    document["spec"]["calicoNetwork"]["ipPools"][0] |= {"blockSize": 26, "allowedUses": ["Workload", "Tunnel"]}
    return json.dumps(document)


@fact(Addons, directory="ANY_directory")
def _(node: Node, directory: str) -> str:
    inside = [path.removeprefix(f"{directory}/") for path in node.files if path.startswith(f"{directory}/")]
    return "\n".join(name.removesuffix(".yaml") for name in inside if name.endswith(".yaml"))


@fact(MetricsCertificate)
def _(node: Node) -> str:
    return "valid" if "metrics-server" in node.world.cluster["applied"] else "absent"


@fact(KubeletServing)
def _(node: Node) -> str:
    if CONFIG not in node.files:
        return "none"
    if "serverTLSBootstrap: true" not in node.files[CONFIG]["text"]:
        return "own"
    return "authority" if CERTIFICATE in node.files else "waiting"


@fact(SharedKubeletConfig)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return ""
    row = {"metadata": {"name": "kubelet-config"}, "data": {"kubelet": node.world.cluster["kubelet"]}}
    return json.dumps({"items": [{"metadata": {"name": "kube-proxy"}, "data": {}}, row]})


@fact(ServingRequests)
def _(node: Node) -> str:
    if ADMIN not in node.files:
        return ""
    return json.dumps({"items": list(node.world.cluster.get("requests", {}).values())})


@fact(NodePods, node="ANY_name")
def _(node: Node, name: str) -> str:
    node.api()
    cluster = node.world.cluster
    if name not in cluster["nodes"]:
        return ""
    pods = [each for each in cluster["pods"] if each["spec"]["nodeName"] == name]
    cordoned = "true" if name in cluster["cordoned"] else ""
    return f"{name} {cordoned}\n{json.dumps({'items': pods})}\n{json.dumps({'items': cluster['budgets']})}"


@fact(Running)
def _(node: Node) -> str:
    lines = ["kubelet"] if node.active("kubelet.service") else []
    if node.runtime and node.has("crictl"):
        named = {each: dict(zip(("namespace", "name"), name.split("/"), strict=True))
                 for each, name in node.state["pods"].items()}  # fmt: skip
        items = [{"id": each, "state": "SANDBOX_READY", "metadata": name} for each, name in named.items()]
        lines += ["pods", json.dumps({"items": items})]
    return "\n".join(lines)


@fact(Traces, paths=("ANY_paths",))
def _(node: Node, paths: str) -> str:
    there = [each for each in shlex.split(paths) if any(f"{path}/".startswith(f"{each}/") for path in node.files)]
    return "\n".join(there)


@fact(Remains, subnets=("ANY_subnet",))
def _(node: Node, subnet: str) -> str:
    return "\n".join(f"link {name}" for name in node.state["links"])


@fact(Others)
def _(node: Node) -> str:
    return ""


# Pieces of the bundle, files, packages and units


@command(r"umask 022; mkdir -p \S+ && free=\$\(df .*", "probe")
def _(node: Node) -> None:
    pass


@command(r"upload (?P<path>/tmp/\S+)")
def _(node: Node, path: str, stdin: str) -> None:
    with tarfile.open(stdin) as tar:
        pieces = {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}
    node.write(path, json.dumps(pieces))


@command(r"umask 022; mkdir -p .* tar -x --no-same-owner -f (?P<uploaded>\S+) .*")
def _(node: Node, uploaded: str, stdin: str) -> None:
    pieces = json.loads(node.files.pop(uploaded)["text"])
    for line in stdin.splitlines():
        digest, path = line.split("  ")
        if hashlib.sha256(pieces[path].encode()).hexdigest() != digest:
            raise Refused(f"{line}\nThese pieces are not as bundle.lock says. Run again to carry them anew.")
    for path, text in pieces.items():
        node.write(f"{NODE_DIRECTORY}/{path}", text)


FETCH = bundle_server.fetch_script(["ANY_url"], NODE_DIRECTORY, bundle_server.INCOMING)


@command(like(FETCH.replace("ANY_url ANY_url", "ANY_urls")))
def _(node: Node, urls: str, stdin: str) -> None:
    certificates, end, lines = stdin.rpartition("-----END CERTIFICATE-----\n")
    wanted = {path: digest for digest, _, _, path in (line.split("  ") for line in lines.splitlines())}
    pieces: dict[str, str] = {}
    for server in (node.reach(url, certificates + end) for url in shlex.split(urls)):
        for path in wanted.keys() - pieces.keys():
            source = f"{NODE_DIRECTORY}/{path}"
            if server and source in server.files and server.sha256(source) == wanted[path]:
                pieces[path] = server.files[source]["text"]
    if lacking := wanted.keys() - pieces.keys():
        raise Refused(f"pieces that did not come: {len(lacking)}, such as {min(lacking)}.")
    for path, text in pieces.items():
        node.write(f"{NODE_DIRECTORY}/{path}", text)


@command(like(bundle_server.certificate_script(Address("ANY_name", "ANY_address"))))  # type: ignore[arg-type]
def _(node: Node, name: str, address: str) -> None:
    if not node.has("openssl"):
        raise Refused("sh: 1: openssl: not found")
    lines = (
        f"-----BEGIN CERTIFICATE-----\nof {name} for {address} made at {node.world.clock}\n-----END CERTIFICATE-----\n"
    )
    node.write(bundle_server.CERTIFICATE, lines)
    node.write(bundle_server.KEY, f"the key of {name}\n", "600")


@command(r"mkdir -p \S+ && install -m 755 (?P<source>\S+) (?P<path>\S+)\.new && mv -fT (?P=path)\.new (?P=path)")
def _(node: Node, source: str, path: str) -> None:
    if source not in node.files:
        raise Refused(f"install: cannot stat '{source}': No such file or directory")
    node.write(path, node.files[source]["text"], "755")


@command(like(write_script(containerd.CONFIG, "644", "root", "root", containerd.check_script("ANY_pause", "systemd"))))
def _(node: Node, pause: str, stdin: str) -> None:
    if not node.has("containerd"):
        raise Refused("sh: 1: containerd: not found")
    if "SystemdCgroup = true" not in stdin or f'"{pause}"' not in stdin:
        raise Refused("containerd would not have this of its configuration")
    node.write(containerd.CONFIG, stdin)


@command(like(write_script(crio.CONFIG, "644", "root", "root", crio.CHECK)))
def _(node: Node, stdin: str) -> None:
    if not node.has("crio"):
        raise Refused("sh: 1: crio: not found")
    node.write(crio.CONFIG, stdin)


@command(like(write_script("/ANY_directory/ANY_name", "ANY_mode", "ANY_user", "ANY_group", "ANY_check {}")))
def _(node: Node, directory: str, name: str, mode: str, user: str, group: str, check: str, stdin: str) -> None:
    program = check.split()[0]
    if not node.has(program):
        raise Refused(f"sh: 1: {program}: not found")
    for path in re.findall(r"(?:ca-file|ssl_certificate|ssl_certificate_key) ([^\s;]+)", stdin):
        if path not in node.files:
            raise Refused(f"[ALERT] cannot load '{path}'")
    node.write(f"/{directory}/{name}", stdin, mode, f"{user}:{group}")


@command(like(write_script("/ANY_directory/ANY_name", "ANY_mode", "ANY_user", "ANY_group", None)))
def _(node: Node, directory: str, name: str, mode: str, user: str, group: str, stdin: str) -> None:
    node.write(f"/{directory}/{name}", stdin, mode, f"{user}:{group}")


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


@command(r"printf '%s\\n' (?P<words>.*) >&2; exit 1", "read")
def _(node: Node, words: str) -> None:
    raise Refused(shlex.split(words)[0])


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


def refuse_by_selinux(node: Node, unit: str) -> None:
    """What an enforcing SELinux would not let a unit do."""
    checks = {
        "haproxy.service": "haproxy_connect_any" in node.state["selinux"],
        SERVER: not mislabelled(node, NODE_DIRECTORY) and {"port 5443", "mapping"} <= set(node.state["selinux"]),
        "keepalived.service": not mislabelled(node, "/usr/libexec/keepalived/check-api"),
        "containerd.service": not mislabelled(node, "/usr/bin/containerd"),
    }
    if node.state["selinux"] and not checks.get(unit, True):
        raise Refused(f"Job for {unit} failed: Permission denied")


@command(r"timeout \d+ systemctl restart (?P<unit>\S+) \|\| .*")
def _(node: Node, unit: str) -> None:
    refuse_by_selinux(node, unit)
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
        run_script(node, node.files[bridge.SCRIPT])


def run_script(node: Node, script: dict[str, Any]) -> None:
    """What the script of the network of bridges does; it needs iptables, and next hops in this network."""
    if script["mode"] != "755" or not node.has("kubelet"):
        raise Refused(f"{bridge.SCRIPT}: Permission denied")
    node.state["routes"] = dict(re.findall(r"^ip -4 route replace (\S+) via (\S+) proto 148$", script["text"], re.M))
    for hop in node.state["routes"].values():
        if hop == node.state["address"] or hop not in {each.state["address"] for each in node.world.nodes.values()}:
            raise Refused("Error: Nexthop has invalid gateway.")
    tables = re.findall(r"^\*(\w+)$(.*?)^COMMIT$", script["text"], re.M | re.DOTALL)
    within = [f"{table} {line}" for table, text in tables for line in re.findall(r"^-A .*$", text, re.M)]
    into = re.findall(r"^    iptables --wait 10 -t (\w+ -A .*)$", script["text"], re.M)
    node.state["rules"] = [*into, *within]


# Timers, and backups


def timed(node: Node, name: str) -> list[str]:
    """What systemd says of a timer; `failed` in a node's state has last words by its name."""
    unit = node.units.get(f"{name}.timer")
    lines = [f"timer LoadState={'loaded' if unit else 'not-found'}"]
    lines += [
        f"timer ActiveState={'active' if unit and unit['active'] else 'inactive'}",
        "service ActiveState=inactive",
    ]
    if words := node.state.get("failed", {}).get(name):
        lines += ["service ExecMainExitTimestamp=@1795572000", "service Result=exit-code", f"said {words}"]
    return lines


@fact(Timer, timer="ANY_name")
def _(node: Node, name: str) -> str:
    return "\n".join(timed(node, name))


@fact(Backups)
def _(node: Node) -> str:
    there = sorted(path for path in node.files if re.fullmatch(rf"{BACKUPS}/[^/]+/manifest.json", path))
    newest = [f"newest {node.files[path]['text']}" for path in there[-1:]]
    return "\n".join([*timed(node, NAME), f"kept {len(there)}", *newest])


@command(
    like(
        write_script(
            f"{timer.UNITS}/ANY_name.timer", "644", "root", "root", "systemd-analyze calendar ANY_schedule >/dev/null"
        )
    )
)
def _(node: Node, name: str, schedule: str, stdin: str) -> None:
    if f"OnCalendar={shlex.split(schedule)[0]}\n" not in stdin or "Nonsense" in schedule:
        raise Refused(f"Failed to parse calendar specification {schedule}: Invalid argument")
    node.write(f"{timer.UNITS}/{name}.timer", stdin)


@command(r"systemctl disable --now (?P<name>\S+)\.timer && rm -f (?P<paths>.+) && systemctl daemon-reload")
def _(node: Node, name: str, paths: str) -> None:
    for path in shlex.split(paths):
        node.files.pop(path, None)
    node.units.pop(f"{name}.timer")


@command("sh -s -- asked")
def _(node: Node, stdin: str) -> str:
    """What the program of backups does, as far as anyone looks at it."""
    node.api()
    minutes, seconds = divmod(node.world.clock, 60)
    directory = f"{BACKUPS}/20261125T{minutes // 60 % 24:02}{minutes % 60:02}{seconds:02}Z-{node.name}-asked"
    parts = {"snapshot.db": "a snapshot\n", "pki.tar": "the PKI\n", "kubeadm-config.yaml": "a configuration\n"}
    suffix = ".0000.cms" if "BEGIN CERTIFICATE" in stdin else ""
    for name, text in parts.items():
        node.write(f"{directory}/{name}{suffix}", text, "600")
    manifest = {
        "cluster_name": re.search(r'"cluster_name": "(\S+)"', stdin)[1], "kubernetes_version": "v1.36.2",
        "etcd_version": "3.6.8", "member": node.name, "time": "2026-11-25T02:12:00Z", "revision": 4711, "keys": 900,
        "live_keys": 800, "hash": 1, "ca_cert_hash": f"sha256:{node.sha256(CA)}", "encrypted": bool(suffix),
        "files": {f"{name}{suffix}": hashlib.sha256(text.encode()).hexdigest() for name, text in parts.items()},
    }  # fmt: skip
    node.write(f"{directory}/manifest.json", json.dumps(manifest), "600")
    return directory


@command(r"cd (?P<directory>\S+) && stat -c '%s %n' -- \*", "read")
def _(node: Node, directory: str) -> str:
    there = {path: file for path, file in node.files.items() if posixpath.dirname(path) == directory}
    return "\n".join(f"{len(file['text'])} {posixpath.basename(path)}" for path, file in there.items())


@command("mktemp -d", "read")
def _(node: Node) -> str:
    return "/tmp/tmp.private"


@command(r"rm -rf /tmp/tmp\.private", "read")
def _(node: Node) -> None:
    pass


@command(r"download (?P<path>\S+)", "read")
def _(node: Node, path: str) -> str:
    return base64.b64encode(node.files[path]["text"].encode()).decode()


# A restore


@fact(Restoration)
def _(node: Node) -> str:
    lines = [f"placed {pod}" for pod in PODS if f"{MANIFESTS}/{pod}.yaml" in node.files]
    lines += [f"aside {pod}" for pod in PODS if f"{ASIDE}/{pod}.yaml" in node.files]
    if "placed etcd" in lines or "aside etcd" in lines:
        lines += [f"name {node.name}", f"peer_url https://{node.addresses[0]}:2380", "version 3.6.8"]
    lines.append(f"program {'bumps' if node.has('etcdutl') else 'absent'}")
    if CA in node.files:
        lines.append(f"ca_cert_hash sha256:{node.sha256(CA)}")
    lines.append(f"free_mib {node.state.get('free_mib', 9000)}")
    for path in node.files:
        if found := re.fullmatch(rf"{WORK}([^/]+)", path):
            lines.append(f"{'prepared' if f'{path}/data/member' in node.files else 'begun'} {found[1]}")
        if found := re.fullmatch(rf"{BEFORE}([^/]+)", path):
            lines.append(f"before {found[1]}")
    return "\n".join(lines)


@command(rf"umask 077; mkdir -p (?P<work>{WORK}\S+)")
def _(node: Node, work: str) -> None:
    node.write(work, "")


@command(rf"upload (?P<path>{WORK}\S+/snapshot.db)")
def _(node: Node, path: str, stdin: str) -> None:
    node.write(path, stdin, "600")


PEERS = r"--initial-cluster (?P<peers>\S+) --initial-cluster-token (?P<id>\S+)"


@command(rf"umask 077; cd (?P<work>{WORK}\S+) && .* {PEERS} .*")
def _(node: Node, work: str, peers: str, id: str) -> None:
    if f"{work}/snapshot.db" not in node.files or f"{node.name}=https://" not in peers or not work.endswith(id):
        raise Refused("the snapshot did not come whole: run again")
    node.write(f"{work}/data/member", f"restored by {id} with {peers}")


@command(like(STOP))
def _(node: Node) -> None:
    for pod in PODS:
        if f"{MANIFESTS}/{pod}.yaml" in node.files:
            node.files[f"{ASIDE}/{pod}.yaml"] = node.files.pop(f"{MANIFESTS}/{pod}.yaml")


@command(rf"umask 077; mkdir -p (?P<before>{BEFORE}\S+) && if test .* mv -T (?P<work>{WORK}\S+)/data/member .*")
def _(node: Node, before: str, work: str) -> None:
    masters = [each for each in node.world.nodes.values() if f"{MANIFESTS}/etcd.yaml" in each.files]
    if masters:
        raise Refused(f"etcd of {masters[0].name} runs while data is exchanged")
    node.write(before, "")
    if ETCD_DATA in node.files:
        node.files[f"{before}/member"] = node.files.pop(ETCD_DATA)
    node.files[ETCD_DATA] = node.files.pop(f"{work}/data/member")


def put_back(node: Node, *pods: str) -> None:
    for pod in pods:
        if f"{ASIDE}/{pod}.yaml" in node.files:
            node.files[f"{MANIFESTS}/{pod}.yaml"] = node.files.pop(f"{ASIDE}/{pod}.yaml")


@command(r"\{ test ! -e \S+/etcd.yaml .* endpoint health .* --count-only .*")
def _(node: Node) -> None:
    others = [each for each in node.world.nodes.values() if f"{ASIDE}/etcd.yaml" in each.files or each is node]
    texts = {each.files[ETCD_DATA]["text"] for each in others}
    if len(texts) != 1 or "restored by" not in texts.pop():
        raise Refused("etcd is not healthy after 180 s")
    put_back(node, "etcd")
    node.state["quorum_lost"] = False


@command(r"\{ test ! -e \S+/kube-apiserver.yaml .* systemctl start kubelet.service")
def _(node: Node) -> None:
    put_back(node, "kube-apiserver")


@command(r"\{ test ! -e \S+/kube-controller-manager.yaml .* && rmdir .*; true")
def _(node: Node) -> None:
    put_back(node, "kube-controller-manager", "kube-scheduler")


@command(r"if test -e /etc/kubernetes/kubelet.conf; then timeout \d+ systemctl restart kubelet.service; fi")
def _(node: Node) -> None:
    if f"{KUBERNETES}/kubelet.conf" in node.files:
        node.start_kubelet()


@command(rf"rm -rf (?P<work>{WORK}\S+)")
def _(node: Node, work: str) -> None:
    for path in [each for each in node.files if each == work or each.startswith(f"{work}/")]:
        del node.files[path]


# The machine beneath


@command(r"hostnamectl set-hostname (?P<name>\S+)")
def _(node: Node, name: str) -> None:
    node.state["hostname"] = name


@command(like(swap.FSTAB))
def _(node: Node) -> None:
    node.state["fstab"] = []


@command("swapoff -a")
def _(node: Node) -> None:
    node.state["swap"] = []


@command(r"modprobe -a (?P<names>.+)")
def _(node: Node, names: str) -> None:
    loaded = dict.fromkeys(shlex.split(names), "loaded")
    node.state["modules"].update(loaded)
    if "br_netfilter" in loaded:  # The kernel's own defaults.
        node.state["sysctl"].update(dict.fromkeys(BRIDGE, "1"))


@command(r"sysctl -q -p (?P<path>\S+)")
def _(node: Node, path: str) -> None:
    for key, value in (line.split(" = ") for line in node.files[path]["text"].splitlines()):
        if not known(node, key):
            raise Refused(f"sysctl: cannot stat /proc/sys/{key.replace('.', '/')}: No such file or directory")
        node.state["sysctl"][key] = value


@command(like(containerd.import_script("ANY_seconds")))  # type: ignore[arg-type]
def _(node: Node, seconds: str, stdin: str) -> None:
    if not node.active("containerd.service"):
        raise Refused("ctr: failed to dial /run/containerd/containerd.sock")
    for line in stdin.splitlines():
        index, blobs = line.split("\t")
        for blob in blobs.split():
            if f"{NODE_DIRECTORY}/images/{blob}" not in node.files:
                raise Refused(f"tar: {blob}: Cannot stat: No such file or directory")
        (row,) = json.loads(index)["manifests"]
        node.state["images"][row["annotations"]["io.containerd.image.name"]] = row["digest"]


@command(like(crio.copy_script("ANY_seconds")))  # type: ignore[arg-type]
def _(node: Node, seconds: str, stdin: str) -> None:
    if not node.has("skopeo") or not node.active("crio.service"):
        raise Refused("sh: 1: skopeo: not found")
    for line in stdin.splitlines():
        name, index = line.split("\t")
        (row,) = json.loads(index)["manifests"]
        if f"{NODE_DIRECTORY}/images/blobs/{row['digest'].replace(':', '/')}" not in node.files:
            raise Refused(f"open {row['digest']}: no such file or directory")
        node.state["images"][name] = row["digest"]


# kubeadm and the cluster


def cri_socket(document: dict[str, Any]) -> str:
    return document["nodeRegistration"]["criSocket"].removeprefix("unix://")


def kubeadm(words: str) -> str:
    return rf'.*umask 077; .* timeout \d+ kubeadm {words} --config "\$f"( >/dev/null)?'


@command(kubeadm("init phase certs ca"))
def _(node: Node) -> None:
    if not node.has("kubeadm"):
        raise Refused("timeout: failed to run command 'kubeadm': No such file or directory")
    node.write(CA, "the cluster's CA\n")


@command(kubeadm("init --skip-token-print"))
def _(node: Node, stdin: str) -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all(stdin)}
    node.refuse_unprepared(control_plane=True, socket=cri_socket(documents["InitConfiguration"]))
    endpoint = documents["ClusterConfiguration"]["controlPlaneEndpoint"]
    if node.world.cluster["nodes"] or not node.world.leads_to(endpoint, node):
        raise Refused("a second cluster is started" if node.world.cluster["nodes"] else f"{endpoint}: no route to host")
    node.world.cluster["endpoint"] = endpoint
    node.world.cluster["tainted"] = documents["InitConfiguration"]["nodeRegistration"].get("taints") != []
    node.world.cluster["configuration"] = yaml.safe_dump(documents["ClusterConfiguration"])
    kubelets = {key: value for key, value in documents["KubeletConfiguration"].items() if key != "kind"}
    node.world.cluster["kubelet"] = yaml.safe_dump(kubelets)
    node.world.cluster["proxy"] = yaml.safe_dump(documents["KubeProxyConfiguration"])
    node.become("control-plane", cri_socket(documents["InitConfiguration"]))
    node.world.cluster["tokens"] = [each["token"] for each in documents["InitConfiguration"]["bootstrapTokens"]]


@command(kubeadm("token create"))
def _(node: Node, stdin: str) -> None:
    node.api()
    (document,) = (each for each in yaml.safe_load_all(stdin) if each["kind"] == "InitConfiguration")
    node.world.cluster["tokens"] += [each["token"] for each in document["bootstrapTokens"]]


@command(kubeadm("init phase upload-certs --upload-certs --skip-certificate-key-print"))
def _(node: Node, stdin: str) -> None:
    node.api()
    (document,) = (each for each in yaml.safe_load_all(stdin) if each["kind"] == "InitConfiguration")
    node.world.cluster["certificate_key"] = document["certificateKey"]


@command(kubeadm("join"))
def _(node: Node, stdin: str) -> None:
    document, cluster = yaml.safe_load(stdin), node.world.cluster
    discovery, control_plane = document["discovery"]["bootstrapToken"], document.get("controlPlane")
    node.refuse_unprepared(control_plane=bool(control_plane), socket=cri_socket(document))
    seed = next(node.world.nodes[name] for name in cluster["nodes"])
    wrong = {
        "no route to host": not node.world.leads_to(discovery["apiServerEndpoint"], node),
        "the token is unknown": discovery["token"] not in cluster["tokens"],
        "the CA is another": discovery["caCertHashes"] != [f"sha256:{seed.sha256(CA)}"],
        "the certificate key is another": control_plane
        and control_plane["certificateKey"] != cluster["certificate_key"],
        "the name is taken": node.name in cluster["nodes"],
    }
    if any(wrong.values()):
        raise Refused(", ".join(what for what, so in wrong.items() if so))
    node.become("control-plane" if control_plane else "worker", cri_socket(document))
    if directory := document.get("patches", {}).get("directory"):
        patch = f"{directory}/kubeletconfiguration+merge.yaml"
        if patch not in node.files:
            raise Refused(f"{patch}: no such file or directory")
        path = "/var/lib/kubelet/config.yaml"
        node.write(path, node.files[path]["text"] + node.files[patch]["text"])


@command(r"timeout \d+ kubeadm reset -f .*")
@command(r"if command -v kubeadm >/dev/null; then timeout \d+ kubeadm reset -f --kubeconfig /nonexistent .*")
def _(node: Node) -> None:
    for path in [each for each in node.files if each.startswith((f"{KUBERNETES}/", "/var/lib/etcd"))]:
        del node.files[path]
    node.unit("kubelet.service")["active"] = False
    node.state["pods"] = {}


@command(rf"rm -rf /etc/cni/net.d/(?P<name>{'|'.join(map(re.escape, CNI_FILES.values()))}) /run/flannel .*")
def _(node: Node, name: str) -> None:
    node.files.pop(f"/etc/cni/net.d/{name}", None)


@command(r".* member list.* member remove .* delete node (?P<name>\S+) .*")
def _(node: Node, name: str) -> None:
    node.api()
    node.world.cluster["nodes"].pop(name, None)


DRAIN = rf"{kubeadm_operations.KUBECTL} --server=https://\S+ drain (?P<name>\S+) .* --timeout=\d+s"


@command(DRAIN + r"( 2>&1; echo \$\?)?")
def _(node: Node, name: str) -> str:
    """Pods leave at once, or are held for good by a budget that is told so."""
    node.api()
    cluster = node.world.cluster
    cluster["cordoned"] = sorted({*cluster["cordoned"], name})
    if any(each["status"]["disruptionsAllowed"] < 1 for each in cluster["budgets"]):
        return f"error: unable to drain node {name!r}: global timeout reached\n1"
    cluster["pods"] = [each for each in cluster["pods"] if each["spec"]["nodeName"] != name]
    return f"node/{name} drained\n0"


@command(rf"{kubeadm_operations.KUBECTL} --server=https://\S+ uncordon (?P<name>\S+)")
def _(node: Node, name: str) -> None:
    node.api()
    node.world.cluster["cordoned"].remove(name)


@command(r'.* member list\) && .* == "https://(?P<address>\S+):2380" .* member remove "\$id"; }')
def _(node: Node, address: str) -> None:
    node.api()
    owners = [each.name for each in node.world.nodes.values() if each.addresses[0] == address]
    node.world.cluster["left"] += owners


@command(rf"for i in [\d ]+; do {kubeadm_operations.KUBECTL} --server=https://\S+ delete node (?P<name>\S+) .*")
def _(node: Node, name: str) -> None:
    node.api()
    cluster = node.world.cluster
    if cluster["nodes"].pop(name) == "control-plane" and name not in cluster["left"]:
        raise Refused("its etcd member would be left behind")
    cluster["left"] = [each for each in cluster["left"] if each != name]


@command(r"timeout 120 systemctl disable --now (?P<unit>\S+)")
def _(node: Node, unit: str) -> None:
    node.unit(unit).update(active=False, enabled=False)


@command(r"timeout 90 systemctl stop kubelet.service")
def _(node: Node) -> None:
    node.unit("kubelet.service")["active"] = False


@command(r"printf '%s\\n' (?P<ids>.*) \| timeout 300 xargs .* crictl stopp .* && sync")
def _(node: Node, ids: str) -> None:
    if node.active("kubelet.service"):
        raise Refused("the kubelet begins again what is ended")
    for each in ids.split():
        del node.state["pods"][each]


@command(r"(?P<program>ip6?tables-nft)-save -c \| grep -vE .* \| (?P=program)-restore -c")
@command(r"ip route flush root (?P<program>\S+)")
def _(node: Node, program: str) -> None:
    pass


@command(r"! ip link show (?P<name>\S+) >/dev/null 2>&1 \|\| ip link delete (?P=name)")
def _(node: Node, name: str) -> None:
    node.state["links"].remove(name)


@command(r"for p in (?P<paths>.+?); do rm -rf .*; systemctl daemon-reload")
def _(node: Node, paths: str) -> None:
    for path in list(node.files):
        if any(f"{path}/".startswith(f"{each}/") for each in shlex.split(paths)):
            del node.files[path]


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


@command(like(ready("ANY_endpoint", seconds=240)), "read")  # type: ignore[arg-type]
@command(like(ready("ANY_endpoint")), "read")  # type: ignore[arg-type]
def _(node: Node, endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if node.addresses[0] != host.strip("[]") or port != "6443" or ADMIN not in node.files:
        raise Refused(f"https://{endpoint}/readyz did not answer")


@command(like(answers("ANY_endpoint")), "read")  # type: ignore[arg-type]
def _(node: Node, endpoint: str) -> None:
    if CA not in node.files or not node.world.leads_to(endpoint, node):
        raise Refused(f"https://{endpoint}/readyz did not answer as this cluster")


@command(f"cat {ADMIN}", "read")
def _(node: Node) -> str:
    return node.files[ADMIN]["text"]


@command(rf"{kubernetes.KUBECTL} apply --server-side .* -f (?P<path>\S+)")
def _(node: Node, path: str) -> None:
    node.api()
    node.world.cluster["applied"][path] = node.sha256(path)


@command(like(addons.apply_script("ANY_path", "")))
@command(like(addons.apply_script("ANY_path", "", partial=True)))
@command(like(addons.apply_script("ANY_path", "ANY_context")))
def _(node: Node, path: str, context: str = "") -> None:
    node.api()
    if context and context not in node.files:
        raise Refused(f"error: stat {context}: no such file or directory")
    node.world.cluster["applied"][path] = node.sha256(path)


@command(like(addons.get_script("ANY_path", "", "")), "read")
@command(like(addons.get_script("ANY_path", "ANY_context", "")), "read")
@command(like(addons.get_script("ANY_path", "", "apiservice v1beta1.metrics.k8s.io")), "read")
def _(node: Node, path: str, context: str = "") -> str:
    """The objects of a manifest; pods work at once."""
    node.api()
    found = [each for each in yaml.safe_load_all(node.files[path]["text"]) if each]
    return json.dumps({"kind": "List", "items": [{**each, "status": working(each)} for each in found]})


def working(item: dict[str, Any]) -> dict[str, Any]:
    wanted = (item.get("spec") or {}).get("replicas", 1)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), wanted)
    return {"observedGeneration": 1, **counts}


@command(like(addons.certificate_script()))
def _(node: Node) -> None:
    node.api()
    node.world.cluster["applied"]["metrics-server"] = "a certificate"


@command(like(kubelet.SWITCH))
def _(node: Node) -> None:
    node.write(CONFIG, node.files[CONFIG]["text"] + kubelet.LINE + "\n")
    node.start_kubelet()


@command(rf"{kubernetes.KUBECTL} patch configmap kubelet-config -n kube-system --type=merge --patch-file=/dev/stdin")
def _(node: Node, stdin: str) -> None:
    node.api()
    node.world.cluster["kubelet"] = json.loads(stdin)["data"]["kubelet"]


@command(rf"{kubernetes.KUBECTL} certificate approve (?P<names>.+)")
def _(node: Node, names: str) -> None:
    node.api()
    for name in names.split():
        request = node.world.cluster["requests"].pop(name)
        owner = node.world.nodes[request["spec"]["username"].removeprefix("system:node:")]
        owner.write(CERTIFICATE, f"signed by the cluster's CA for {owner.name}\n", "600")


@command(rf"{kubernetes.KUBECTL} (rollout status|wait) .* --timeout=\d+s \|\| .*", "read")
def _(node: Node) -> None:
    node.api()


@command(rf"for i in .*; do {kubernetes.KUBECTL} get (?P<what>\S+) >/dev/null .*; exit 1", "read")
def _(node: Node, what: str) -> None:
    node.api()
    if f"{KUBERNETES}/addons/tigera-operator.yaml" not in node.world.cluster["applied"]:
        raise Refused(f"the server doesn't have a resource type {what!r}")


@command(like(f"{verify.KUBECTL} get nodes -o json"), "read")
def get_nodes(node: Node) -> str:
    node.api()
    items = [
        {
            "metadata": {"name": name, "labels": dict.fromkeys(marks(node.world, name)["labels"], "")},
            "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in marks(node.world, name)["taints"]]},
            "status": {"conditions": [node.world.nodes[name].readiness()]},
        }
        for name in node.world.cluster["nodes"]
    ]
    return json.dumps({"items": items})


def marks(world: World, name: str) -> dict[str, list[str]]:
    """Labels and taints of a Node: those that kubeadm has given it, until somebody changes them."""
    own = [f"{ROLE}control-plane"] if world.cluster["nodes"][name] == "control-plane" else []
    taints = own if world.cluster["tainted"] else []
    found: dict[str, list[str]] = world.cluster["roles"].setdefault(name, {"labels": own, "taints": [*taints]})
    return found


@command(r"(?P<commands>\S+ --kubeconfig \S+ --request-timeout=30s (label|taint) .*)")
def _(node: Node, commands: str) -> None:
    node.api()
    for each in commands.split(" && "):
        words = [word for word in each.split()[3:] if word != "--overwrite"]
        kind, _, name, key = words
        found = marks(node.world, name)[f"{kind}s"]
        if key.endswith("-"):
            found.remove(key.partition(":")[0])
        else:
            found.append(key.partition(":")[0].rstrip("="))


@command(like(str(FindFiles().command(path="ANY_path", maxdepth=1))), "fact")
def _(node: Node, path: str) -> str:
    return "\n".join(each for each in node.files if each.rpartition("/")[0] == path)


@command(
    like(f"install -d -m 700 {KEPT} && mkdir -p ANY_to && cd ANY_at && mv --backup=numbered -t ANY_to -- ANY_names")
)
def _(node: Node, to: str, at: str, names: str) -> None:
    for name in shlex.split(names):
        node.files[f"{to}/{name}"] = node.files.pop(f"{at}/{name}")


@fact(Readable)
def _(node: Node) -> str:
    kept = ("/etc/kubernetes/pki/", "/etc/kubernetes/manifests/", "/etc/kubernetes/")
    inside = [
        path for path in node.files
        if path.startswith(kept) and path.endswith((".key", ".conf", ".yaml")) and path.count("/") <= 5
    ]  # fmt: skip
    return "\n".join(f"{node.files[path]['mode']} {path}" for path in inside if node.files[path].get("opened"))


@command(r"chmod go-rwx -- (?P<paths>.+)")
def _(node: Node, paths: str) -> None:
    for path in shlex.split(paths):
        node.files[path].update(mode="600", opened=False)


@command(like(f"{verify.KUBECTL} get pods -A -o json"), "read")
@command(like(f"{workload.KUBECTL} -n {workload.NAMESPACE} get pods -o json"), "read")
def _(node: Node) -> str:
    node.api()
    items = [
        {
            "metadata": {"namespace": "probe", "name": f"probe-{name}"},
            "spec": {"nodeName": name},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"ready": True}],
                "podIPs": [{"ip": pod_subnet(number).replace(".0/24", ".2")}],
            },
        }
        for number, name in enumerate(node.world.cluster["nodes"])
    ]
    return json.dumps({"items": items})


@command(like(f"{verify.KUBECTL} --server=https://ANY_endpoint get --raw=/readyz || true"), "read")
def _(node: Node, endpoint: str) -> str:
    return "ok" if node.world.leads_to(endpoint, node) else ""


@command(like(f"{workload.KUBECTL} -n {workload.NAMESPACE} get service probe -o json"), "read")
def _(node: Node) -> str:
    node.api()
    return json.dumps({"spec": {"clusterIPs": ["10.96.0.99", "fd00:10:96::99"]}})


@command(rf"{workload.KUBECTL} apply -f - .*", "probe")
@command(rf"{workload.KUBECTL} -n {workload.NAMESPACE} rollout status .*", "probe")
@command(rf"{workload.KUBECTL} delete namespace {workload.NAMESPACE} .*", "probe")
@command(rf".*{workload.KUBECTL} -n {workload.NAMESPACE} exec .* /agnhost connect .*", "probe")
def _(node: Node) -> None:
    node.api()


# Some subjects are in files of their own, which add to COMMANDS.
from tests.plan import fake_certificates, fake_diagnose, fake_reconfigure  # noqa: E402, F401
