"""Real kubeadms read what is written for their versions, and have the fields that are known of them."""

from __future__ import annotations

import copy
import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import kubeadms
import pytest
import yaml

from cluster import addressing, configuration, fields
from cluster import kubeadm as documents
from cluster.compatibility import parse
from cluster.ip_families import addresses
from cluster.settings import Settings, load
from cluster.topology import Node, Topology

TOKEN, KEY, HASH = "abcdef.0123456789abcdef", "c" * 64, f"sha256:{'d' * 64}"
CP1, CP2, W1 = (Node(name, IPv4Address(f"10.0.0.{last}")) for name, last in (("cp1", 21), ("cp2", 22), ("w1", 31)))
TOPOLOGY = Topology(control_planes=(CP1, CP2), workers=(W1,), load_balancers=())
# `kubeadm config validate` is of 1.28 (https://github.com/kubernetes/kubernetes/pull/118013).
VALIDATES = "1.28"
# What a site may set, of every kind and in every form that is written in another way by version.
OWN: dict[str, Any] = {
    "api_cert_extra_sans": ("api.example.org",),
    "init_configuration": {
        "nodeRegistration": {"kubeletExtraArgs": {"v": "3"}, "taints": []},
        "timeouts": {"controlPlaneComponentHealthCheck": "6m0s"},
    },
    "join_configuration": {
        "nodeRegistration": {"kubeletExtraArgs": [{"name": "v", "value": "3"}]},
        "timeouts": {"discovery": "7m0s"},
    },
    "cluster_configuration": {
        "apiServer": {
            "extraArgs": {"audit-log-maxage": "30"},
            "extraVolumes": [{"name": "audit", "hostPath": "/var/log", "mountPath": "/audit", "pathType": "Directory"}],
        },
        "controllerManager": {"extraArgs": [{"name": "v", "value": "2"}]},
        "etcd": {"local": {"extraArgs": {"quota-backend-bytes": "8589934592"}}},
        "featureGates": {},
    },
    "kubelet_config": {"maxPods": 200, "evictionHard": {"memory.available": "500Mi"}, "syncFrequency": "2m0s"},
    "kube_proxy_mode": "ipvs",
    "kube_proxy_config": {"conntrack": {"maxPerCore": 0}},
}
# What `migrate` does not give back of OWN, from a minor on: it puts v1beta3's timeouts in the place of v1beta4's, and
# in 1.30 still writes v1beta3 (kubeadm/app/util/config/common.go, defaultMigrateMutators).
NOT_MIGRATED: dict[str, dict[str, list[str]]] = {
    "InitConfiguration": {
        "1.21": [],
        "1.30": [".apiServer.timeoutForControlPlane: '6m0s' was read as None"],
        "1.31": [".timeouts.controlPlaneComponentHealthCheck: '6m0s' was read as '0s'"],
    },
    "JoinConfiguration": {"1.21": [], "1.30": [".discovery.timeout: '7m0s' was read as None"], "1.31": []},
}
# What kubeadms say of a field that they do not have.
UNREAD = re.compile(r"unknown field|error unmarshaling|strict decoding")
# A value of each type.
VALUES: dict[str, Any] = {
    **dict.fromkeys(("int", "int32", "uint32"), 1), "string": "x", "bool": True, "float": 0.5, "duration": "1m0s",
    "duration or int": "5s", "quantity": "1Mi", "time": "2026-11-24T10:00:00Z",
}  # fmt: skip


def settings(minor: str, **own: Any) -> Settings:
    made = load({"vip": "10.0.0.100", "kubernetes_version": kubeadms.version(minor), **own})
    assert configuration.problems(made) == []
    return made


def inits(minor: str, **own: Any) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(documents.init_documents(settings(minor, **own), TOPOLOGY, CP1, TOKEN, KEY)))


def joins(minor: str, node: Node, key: str | None, **own: Any) -> list[dict[str, Any]]:
    patches = parse(minor) >= (1, 25, 0)
    text = documents.join_documents(settings(minor, **own), TOPOLOGY, node, TOKEN, HASH, key, patches=patches)
    return list(yaml.safe_load_all(text))


def read(minor: str, path: Path, written: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """What a kubeadm has read from its own documents, by kind, as it writes them anew; and what it said of all."""
    path.write_text(yaml.safe_dump_all(written))
    done = kubeadms.kubeadm(minor, "config", "migrate", "--old-config", path)
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}, done.stderr


def lost(written: Any, found: Any, path: str = "") -> list[str]:
    """Paths of what was written and is not in what was read."""
    if isinstance(written, dict) and isinstance(found, dict):
        return [each for key, value in written.items() for each in lost(value, found.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(found, list) and len(written) == len(found):
        return [each for pair in zip(written, found, strict=True) for each in lost(*pair, f"{path}[]")]
    return [] if written == found or (not written and not found) else [f"{path}: {written!r} was read as {found!r}"]


def bases(minor: str) -> dict[str, list[dict[str, Any]]]:
    """Documents among which one of each kind can be read."""
    init, join = inits(minor), joins(minor, CP2, KEY)
    return {kind: join if kind == "JoinConfiguration" else init for kind in fields.KINDS}


def whole(minor: str, kind: str, base: dict[str, Any]) -> dict[str, Any]:
    """A document with every field that is known of a minor; what it has already stays."""
    document = copy.deepcopy(base)
    for field in fields.load():
        if field.kind == kind and field.within(minor):
            _set(document, field.path, VALUES[field.type])
    return document


def _set(place: Any, path: tuple[str, ...], value: Any) -> None:
    name, *rest = path
    empty: Any = value if not rest else [] if rest[0] == "[]" else {}
    if name == "[]":
        if not place:
            place.append(empty)
        below = place[0]
    else:
        below = place.setdefault("x" if name == "{}" else name, empty)
    if rest:
        _set(below, tuple(rest), value)


@pytest.mark.parametrize("own", [{}, OWN], ids=["plain", "with settings"])
def test_kubeadm_reads_all_that_is_written_for_it_and_warns_of_nothing(
    minor: str, own: dict[str, Any], tmp_path: Path
) -> None:
    for written in (inits(minor, **own), joins(minor, CP2, KEY, **own), joins(minor, W1, None, **own)):
        found, said = read(minor, tmp_path / "config.yaml", written)
        assert said == ""
        own_kinds = [document for document in written if document["kind"] not in fields.COMPONENTS]
        missing = [each for document in own_kinds for each in lost(document, found[document["kind"]])]
        since = NOT_MIGRATED[written[0]["kind"]].items()
        assert missing == ([lines for first, lines in since if parse(first) <= parse(minor)][-1] if own else [])
        if parse(minor) >= parse(VALIDATES):
            done = kubeadms.kubeadm(minor, "config", "validate", "--config", tmp_path / "config.yaml")
            assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


PODS, SERVICES, PODS6, SERVICES6 = "10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56", "fd00:10:96::/108"
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "IPv6": ("fd00::{0}", {"vip": "fd00::100", "pod_subnet": PODS6, "service_subnet": SERVICES6}),
    "IPv4 and IPv6": (
        "10.0.0.{0},fd00::{0}",
        {
            "vip": "10.0.0.100,fd00::100",
            "pod_subnet": f"{PODS},{PODS6}",
            "service_subnet": f"{SERVICES},{SERVICES6}",
        },
    ),
    "IPv6 and IPv4": (
        "fd00::{0},10.0.0.{0}",
        {
            "vip": "fd00::100,10.0.0.100",
            "pod_subnet": f"{PODS6},{PODS}",
            "service_subnet": f"{SERVICES6},{SERVICES}",
        },
    ),
}


def of_families(minor: str, form: str, own: dict[str, Any]) -> list[dict[str, Any]]:
    cp1, cp2, w1 = (
        Node(each.name, *addresses(form.format(last)).each) for each, last in ((CP1, 21), (CP2, 22), (W1, 31))
    )
    hosts = Topology(control_planes=(cp1, cp2), workers=(w1,), load_balancers=())
    assert addressing.check(hosts, settings(minor, **own)) == []
    return list(yaml.safe_load_all(documents.init_documents(settings(minor, **own), hosts, cp1, TOKEN, KEY)))


@pytest.mark.parametrize("what", FAMILIES)
def test_kubeadm_reads_addresses_and_networks_of_every_family(minor: str, what: str, tmp_path: Path) -> None:
    written = of_families(minor, *FAMILIES[what])
    found, said = read(minor, tmp_path / "config.yaml", written)
    assert said == ""
    own_kinds = [document for document in written if document["kind"] not in fields.COMPONENTS]
    assert [each for document in own_kinds for each in lost(document, found[document["kind"]])] == []


@pytest.mark.parametrize(
    ("key", "network", "words"),
    [
        ("pod_subnet", "fd00:10:244::/65", "is smaller than the size of node subnet with mask 64"),
        ("pod_subnet", "fd00::/47", "difference is greater than 16"),
        ("service_subnet", "fd00:10:96::/107", "the mask must be >= 108"),
        ("service_subnet", "fd00:10:96::/125", "is too small, the minimum is 10"),
    ],
)
def test_kubeadm_refuses_the_networks_that_are_refused_here(
    minor: str, key: str, network: str, words: str, tmp_path: Path
) -> None:
    form, own = "fd77::{0}", {**FAMILIES["IPv6"][1], "vip": "fd77::100", key: network}
    with pytest.raises(AssertionError, match=f"{key} {network}: "):
        of_families(minor, form, own)
    written = of_families(minor, *FAMILIES["IPv6"])
    for document in written:
        if document["kind"] == "ClusterConfiguration":
            document["networking"]["podSubnet" if key == "pod_subnet" else "serviceSubnet"] = network
    _, said = read(minor, tmp_path / "config.yaml", written)
    assert words in said


@pytest.mark.parametrize("kind", fields.KINDS)
def test_kubeadm_has_every_field_that_is_known_of_its_minor(minor: str, kind: str, tmp_path: Path) -> None:
    """Values of the right type that may mean nothing: what is said of their meaning does not matter."""
    written = [whole(minor, kind, each) if each["kind"] == kind else each for each in bases(minor)[kind]]
    _, said = read(minor, tmp_path / "config.yaml", written)
    assert not UNREAD.search(said), said


@pytest.mark.parametrize("kind", fields.KINDS)
def test_kubeadm_has_no_field_that_is_known_of_other_minors_alone(minor: str, kind: str, tmp_path: Path) -> None:
    known = [field for field in fields.load() if field.kind == kind]
    having = {field.path[:length] for field in known if field.within(minor) for length in range(len(field.path) + 1)}
    lacking = {}
    for field in known:
        length = next((each for each in range(len(field.path)) if field.path[: each + 1] not in having), None)
        if length is not None and field.path[length] not in ("[]", "{}"):  # else the same field in another shape
            lacking[field.path[: length + 1]] = field
    for field in lacking.values():
        written = copy.deepcopy(bases(minor)[kind])
        _set(next(each for each in written if each["kind"] == kind), field.path, VALUES[field.type])
        _, said = read(minor, tmp_path / "config.yaml", written)
        assert UNREAD.search(said), f"{'.'.join(field.path)} is read"
    assert lacking or kind == "JoinConfiguration" or minor >= "1.31"


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("KubeletConfiguration", {"maxPods": "many"}),
        ("KubeletConfiguration", {"syncFrequency": 60}),
        ("KubeletConfiguration", {"clusterDNS": "10.0.0.10"}),
        ("KubeProxyConfiguration", {"enableProfiling": "yes"}),
        ("ClusterConfiguration", {"apiServer": {"extraVolumes": {"name": "a"}}}),
        ("ClusterConfiguration", {"featureGates": {"IPv6DualStack": "true"}}),
        ("InitConfiguration", {"localAPIEndpoint": {"bindPort": "6443"}}),
        ("JoinConfiguration", {"nodeRegistration": {"taints": [{"key": 5}]}}),
    ],
)
def test_kubeadm_refuses_the_values_that_are_refused_here(
    minor: str, kind: str, document: dict[str, Any], tmp_path: Path
) -> None:
    assert len(list(fields.problems(kind, document, minor))) == 1
    written = [each if each["kind"] != kind else configuration.merged(each, document) for each in bases(minor)[kind]]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump_all(written))
    assert kubeadms.kubeadm(minor, "config", "migrate", "--old-config", tmp_path / "config.yaml").returncode != 0


@pytest.mark.parametrize(
    "words",
    [
        "init --skip-token-print --ignore-preflight-errors=Swap --config f",
        "init phase certs ca --config f",
        "init phase upload-certs --upload-certs --skip-certificate-key-print --config f",
        "token create --config f",
        "join --ignore-preflight-errors=Swap --config f",
        "reset -f --cri-socket unix:///run/containerd/containerd.sock",
    ],
)
def test_kubeadm_has_the_commands_and_flags_that_are_used(minor: str, words: str) -> None:
    """With --help, which a flag that is not known comes before."""
    done = kubeadms.kubeadm(minor, *words.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert kubeadms.kubeadm(minor, *words.split(), "--no-such-flag", "--help").returncode != 0
