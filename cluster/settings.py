"""Every setting of a cluster, typed and checked as a whole before anything else is looked at."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    model_validator,
)

from cluster import audit, kernel
from cluster.endpoint import API_SERVER_PORT, LABEL, Endpoint
from cluster.ip_families import Address, Families, Network, addresses, networks

DnsLabel = Annotated[str, StringConstraints(pattern=rf"^{LABEL}$")]
DnsName = Annotated[str, StringConstraints(max_length=253, pattern=rf"^{LABEL}(\.{LABEL})*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
HostPort = Annotated[str, AfterValidator(lambda text: str(Endpoint.parse(text)))]
OnCalendar = Annotated[str, StringConstraints(pattern=r"^[\w*,./:~ +-]+$")]
DnsServer = Annotated[str, AfterValidator(lambda text: _dns_server(text))]
SysctlName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+(\.[\w:@/-]+)+$")]
SysctlValue = Annotated[str, Field(coerce_numbers_to_str=True), StringConstraints(pattern=r"^[^\s][^\n]*$")]
Addresses = Annotated[Families[Address], PlainValidator(addresses)]
Networks = Annotated[Families[Network], PlainValidator(networks)]
# HAProxy's port beside an API server that has 6443.
SHARED_HOST_PORT = 8443


def dns_server(text: str) -> Address:
    """The address of a DNS server that is written as CoreDNS reads it: with a port one of IPv6 is in brackets.

    Raises ValueError.
    """
    wanted = "must be an address, with or without a port, such as 192.0.2.53:53 or [2001:db8::53]:53"
    try:
        found: str | Address = ip_address(text)
    except ValueError:
        try:
            found = Endpoint.parse(text).host
        except ValueError:
            raise ValueError(wanted) from None
    if isinstance(found, str) or text.endswith("]") or (found.version == 6 and found.is_link_local):
        raise ValueError(wanted)
    return found


def _dns_server(text: str) -> str:
    dns_server(text)
    return text


class SettingsError(ValueError):
    """Settings that cannot work, all of them in one message."""


class Settings(BaseModel):
    """The settings of one cluster; the names are those of group_data and the inventory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _time(self) -> Self:
        if self.time_sync == "chrony" and not self.ntp_servers:
            raise ValueError('`ntp_servers` must name a time server when time_sync is "chrony"')
        return self

    load_balancing: Literal["dedicated", "control-planes", "external", "none"] = Field(
        "dedicated",
        description="Who balances the API: HAProxy and Keepalived on hosts of group load_balancer (`dedicated`) or on "
        "the `control-planes` themselves, an `external` load balancer of the site, or `none` before a single control "
        "plane (docs/load-balancing.md).",
    )
    vip: Addresses | None = Field(
        None,
        description="Virtual IP that Keepalived holds on one balancing host, or one of each family; must be set for "
        "`dedicated` and `control-planes`, the others have none.",
    )
    control_plane_endpoint: HostPort | None = Field(
        None,
        description="Name or address, and port, at which everyone asks for the API; must be set for `external`. Unset: "
        "the virtual IP, or with `none` the control plane's address.",
    )
    cluster_name: DnsLabel = Field("kubernetes", description="Name in kubeconfigs and of the directory of secrets.")
    kubernetes_version: Annotated[str, StringConstraints(pattern=r"^v1\.\d+\.\d+$")] = Field(
        "v1.36.2", description="Version to run, as Kubernetes writes it; the bundle must be of the same."
    )
    bundle_dir: str = Field("dist/bundle", description="The offline bundle on the control machine.")
    bundle_public_key: str | None = Field(
        None, description="File of OpenSSH public keys, one of which must have signed the bundle; unset: none is asked."
    )
    bundle_servers: tuple[str, ...] = Field(
        (),
        description="Hosts that hand the bundle on to the others; unset: the load balancers, without these the first "
        "two control planes.",
    )
    bundle_port: Port = Field(5443, description="Port on which they do, to hosts of the inventory only.")
    image_delivery: Literal["load", "registry"] = Field(
        "load",
        description="`load`: images are carried to each node and loaded; `registry`: pulled from the bundle's servers.",
    )
    container_runtime: Literal["containerd", "cri-o"] = Field(
        "containerd", description="What runs containers; the bundle must have it (docs/runtimes.md)."
    )
    secrets_dir: str = Field("secrets", description="Where the administrator's kubeconfig is kept, 0700.")
    api_port: Port = Field(
        default_factory=lambda data: (
            SHARED_HOST_PORT if data.get("load_balancing") == "control-planes" else API_SERVER_PORT
        ),
        description="Port of the API on the virtual IP; unset and `control-planes`: 8443, for 6443 is kube-apiserver's "
        "there.",
    )
    vip_interface: str | None = Field(
        None, description="Interface that carries the virtual IP; unset: the one with the host's address."
    )
    vrrp_router_id: int = Field(60, ge=1, le=255, description="VRRP router id, unique in the subnet.")
    vrrp_advert_interval: float = Field(
        0.2, ge=0.01, le=40, description="Seconds between VRRP adverts; a backup takes over after about three."
    )
    pod_subnet: Networks = Field(
        networks("10.244.0.0/16"),
        description="Addresses of pods: a /24 per node, of IPv6 a /64. One network, or one of each family with a comma "
        "between; the first is the cluster's primary family (docs/ipv6.md).",
    )
    service_subnet: Networks = Field(
        networks("10.96.0.0/12"), description="Addresses of Services, of the same families in the same order."
    )
    dns_domain: DnsName = Field("cluster.local", description="DNS domain of the cluster.")
    api_cert_extra_sans: tuple[str, ...] = Field((), description="More names or addresses in the API's certificate.")
    allow_scheduling_on_control_planes: bool = Field(
        False, description="Control planes that join take ordinary pods too; then a cluster needs no worker."
    )
    cni: Literal["flannel", "calico", "cilium", "bridge", "none"] = Field(
        "flannel",
        description="The pod network: `flannel`, `calico`, `cilium`, a `bridge` with static routes, or `none` when you "
        "install your own (docs/networks.md).",
    )
    flannel_backend: Literal["vxlan", "host-gw"] = Field("vxlan", description="How flannel carries pods' packets.")
    calico_installation: Literal["operator", "manifest"] = Field(
        "operator", description="What installs Calico: its operator, or upstream's `calico.yaml`."
    )
    calico_encapsulation: Literal["vxlan", "ipip", "bgp"] = Field(
        "vxlan", description="How Calico carries pods' packets: wrapped, or with `bgp` as they are."
    )
    cni_manifest: str | None = Field(
        None, description="With `none`: a file of manifests on the control machine that installs your network."
    )
    kube_proxy_mode: Literal["iptables", "ipvs", "nftables"] = Field(
        "iptables", description="How kube-proxy has packets find a Service's pods (docs/networks.md)."
    )
    addons: tuple[str, ...] = Field(
        ("coredns",),
        description="Add-ons by name: `coredns` (the settings `dns_` below), `metrics-server`, `local-path`, "
        "`node-local-dns`, `ingress-nginx`, `headlamp`, and those that the bundle has of yours (docs/addons.md).",
    )
    dns_replicas: int = Field(2, ge=1, description="Pods of CoreDNS, spread over the nodes.")
    dns_forwarders: tuple[DnsServer, ...] = Field(
        (), description="DNS servers that CoreDNS asks for all other names; unset: those of its node's resolv.conf."
    )
    dns_zones: dict[DnsName, tuple[DnsServer, ...]] = Field(
        default_factory=dict, description="Zones that have DNS servers of their own: zone -> servers."
    )
    dns_hosts: dict[DnsName, Addresses] = Field(
        default_factory=dict,
        description="Names that pods find by CoreDNS alone: name -> address, or one of each family.",
    )
    volume_directory: Annotated[str, StringConstraints(pattern=r"^/[\w./-]+$")] = Field(
        "/opt/local-path-provisioner", description="Where `local-path` keeps volumes on each node."
    )
    init_configuration: dict[str, Any] = Field(
        default_factory=dict, description="Merged into InitConfiguration, of the first control plane."
    )
    join_configuration: dict[str, Any] = Field(
        default_factory=dict, description="Merged into JoinConfiguration, of all other nodes."
    )
    cluster_configuration: dict[str, Any] = Field(default_factory=dict, description="Merged into ClusterConfiguration.")
    kubelet_config: dict[str, Any] = Field(
        default_factory=dict, description="Merged into KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."
    )
    kube_proxy_config: dict[str, Any] = Field(
        default_factory=dict, description="Merged into KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)."
    )
    audit_policy: Annotated[dict[str, Any], AfterValidator(audit.checked)] = Field(
        default_factory=dict,
        description="What API servers log of requests: a Policy (audit.k8s.io/v1) with its `rules`, written to every "
        "control plane; unset: nothing is logged (docs/reconfigure.md).",
    )
    sysctl: Annotated[dict[SysctlName, SysctlValue], AfterValidator(kernel.own)] = Field(
        default_factory=dict,
        description="More kernel settings of nodes, such as `{'fs.inotify.max_user_instances': 1024}`; one that is "
        "taken out again keeps its value until the host boots.",
    )
    ignore_preflight_errors: tuple[str, ...] = Field((), description="kubeadm preflight checks to pass over, by name.")
    containerd_restrict_oom_score_adj: bool = Field(
        False, description="For hosts whose containerd may not lower an OOM score (nested containers)."
    )
    time_sync: Literal["check", "chrony", "none"] = Field(
        "check", description="`chrony` configures it; `check` only asks that some service keeps the time."
    )
    ntp_servers: tuple[str, ...] = Field((), description="Time servers inside the closed network, for chrony.")
    host_firewall: Literal["leave", "open"] = Field(
        "leave",
        description="`open`: firewalld or ufw, where one is active, lets in what docs/ports.md names, and packets of "
        "pods; `leave`: firewalls are not changed, and preflight says which there are (docs/platforms.md).",
    )
    host_firewall_node_ports: bool = Field(
        False, description="With `open`, Services of type NodePort are let in too, on every node and from anywhere."
    )
    selinux: Literal["leave", "configure"] = Field(
        "leave",
        description="`configure`: where SELinux runs, HAProxy and the bundle's server may use their ports, and files "
        "get their labels; not proved on a real SELinux. `leave`: nothing is changed, and preflight says where it is "
        "enforcing (docs/platforms.md).",
    )
    network_manager: Literal["leave", "unmanage"] = Field(
        "leave",
        description="`unmanage`: on nodes where NetworkManager runs it is told to leave interfaces of pods alone; "
        "`leave`: preflight says where it is not told.",
    )
    backup_schedule: OnCalendar | None = Field(
        "*-*-* 02:00:00",
        description="When each control plane backs up its etcd member, as systemd's OnCalendar has it, within 15 "
        "minutes; None: never (docs/backup.md).",
    )
    backup_keep: int = Field(7, ge=1, description="How many of these backups a control plane keeps.")
    backup_certificate: str | None = Field(
        None,
        description="File of an X.509 certificate on the control machine to which backups are encrypted; unset: they "
        "are not. Keep its key away from the nodes.",
    )
    kubelet_drop_ins: tuple[str, ...] = Field(
        (),
        description="Files of your own in /etc/systemd/system/kubelet.service.d; others than these and kubeadm's are "
        "set aside.",
    )
    cni_files: tuple[str, ...] = Field(
        (),
        description="Files of your own in /etc/cni/net.d that come before the network's, of which the first counts; "
        "others are set aside.",
    )
    verify_timeout: int = Field(180, ge=0, description="Seconds that `verify` gives a cluster to settle.")
    drain_timeout: int = Field(
        300, ge=1, description="Seconds that pods of a node are given to leave it, as their budgets allow."
    )
    certificate_warning_days: int = Field(
        30,
        ge=1,
        description="Days before its end from which `certificates` warns of a certificate and `renew_certificates` "
        "renews it (docs/certificates.md).",
    )
    certificate_critical_days: int = Field(7, ge=0, description="Days before its end from which `certificates` fails.")
    certificate_renewal_schedule: OnCalendar | None = Field(
        None,
        description="When each control plane renews its certificates by itself, as systemd's OnCalendar has it, within "
        "15 minutes and one control plane at a time, such as `*-*-* 03:30:00`; None: never (docs/certificates.md).",
    )
    certificate_renewal_days: int = Field(
        60, ge=1, description="Days before its end from which that timer renews a certificate."
    )
    waived_checks: tuple[str, ...] = Field(
        (), description="Preflight checks to pass over, by name (docs/preflight.md)."
    )
    preflight_json: str | None = Field(None, description="File into which preflight writes its report as JSON as well.")

    @model_validator(mode="after")
    def _manifest(self) -> Self:
        if self.cni_manifest and self.cni != "none":
            raise ValueError(f'`cni_manifest` installs a network of your own: set cni to "none", not "{self.cni}"')
        return self

    @property
    def virtual_ips(self) -> tuple[Address, ...]:
        """The addresses that Keepalived holds: none, one, or one of each family with the primary first."""
        return self.vip.each if self.vip and self.load_balancing in ("dedicated", "control-planes") else ()

    @property
    def virtual_ip(self) -> Address | None:
        """The one of them at which the API is asked for."""
        return next(iter(self.virtual_ips), None)

    @property
    def ip_families(self) -> tuple[int, ...]:
        """The cluster's versions of IP, the primary first: (4,), (6,), (4, 6) or (6, 4)."""
        return self.pod_subnet.versions


NAMES = tuple(Settings.model_fields)
# Settings of one host; all others describe the cluster and are the same on every host.
PER_HOST = frozenset(
    {
        "vip_interface",
        "init_configuration",
        "join_configuration",
        "kubelet_config",
        "sysctl",
        "ignore_preflight_errors",
        "containerd_restrict_oom_score_adj",
    }
)
# What pyinfra and its connectors put beside our settings in a host's data.
FOREIGN = ("address", "fake_responses", "fake_delay", "fake_delay_jitter")
PREFIXES = ("_", "ssh_", "docker_", "podman_", "local_", "vagrant_", "terraform_")


def load(data: Mapping[str, Any]) -> Settings:
    """Check a host's data as settings.

    Raises SettingsError that lists every problem: unknown names (with the nearest known one), and values that are not
    what they should be.
    """
    own = {key: value for key, value in data.items() if key not in FOREIGN and not key.startswith(PREFIXES)}
    try:
        return Settings.model_validate(own)
    except ValidationError as error:
        # A default that depends on others follows from the problem that those have.
        problems = [dict(each) for each in error.errors() if each["type"] != "default_factory_not_called"]
        lines = "\n".join(f"  - {_explain(problem)}" for problem in problems)
        raise SettingsError(
            f"These settings cannot work; nothing was changed on any host:\n{lines}\n"
            "Correct them in the inventory or in group_data/; docs/settings.md describes each."
        ) from None


def _explain(problem: dict[str, Any]) -> str:
    if not problem["loc"]:  # of several settings together
        return str(problem["msg"])
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, NAMES, n=1)
        return f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    words = str(problem["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(map(str, problem['loc']))}: {words}, not {problem['input']!r}"


def disagreements(by_host: Mapping[str, Settings]) -> list[str]:
    """Settings of the cluster that hosts do not agree on, one line each."""
    found = []
    for name in NAMES:
        values = {host: getattr(settings, name) for host, settings in by_host.items()}
        first = next(iter(values.values()), None)
        others = [f"{value} on {host}" for host, value in values.items() if value != first]
        if others and name not in PER_HOST:
            what = f"{name}: is {first} on {next(iter(values))}, but {', '.join(others)}"
            found.append(f"{what}. It is one for the whole cluster: set it in group_data/all.py.")
    return found


def markdown() -> str:
    """docs/settings.md: a table of every setting, its default and what it means."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        rows.append(f"| `{name}` | `{_plain(default)!r}` | {field.description} |")
    head = "# Settings\n\nFlat names in `group_data/` or the inventory; an unknown one is refused.\n\n"
    host = (
        "\n\nA host has `address` of its own: its address in the cluster, or one of each family with a comma between; "
        "unset, `ssh_hostname`. "
        f"It may also have its own {', '.join(f'`{name}`' for name in sorted(PER_HOST))}; all others are one for the "
        "whole cluster.\n\n"
        "What is merged into documents of Kubernetes, and how, is in [configuration.md](configuration.md).\n"
    )
    return head + "\n".join(rows) + host


def _plain(value: object) -> object:
    if isinstance(value, Families):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
