"""Facts of what kubeadm made and of what the API says. Output of odd machines is hand-written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import Machine, answer, recorded

from facts.etcd import Members
from facts.kubeadm import ClusterConfig, JoinInfo, KubeadmNode, StoredConfiguration
from facts.kubernetes import Manifest
from facts.restore import Restoration

CONTROL_PLANE = recorded("KubeadmNode.cluster-cp1")
WORKER = recorded("KubeadmNode.cluster-w1")
HASH = "sha256:273a7ee2ee86b8e26d2c2f153054cd714f44abb9510620148afbc5638f6fa141"
NODES = "\n".join(recorded("ClusterConfig.cluster-cp1")[1:])
MANIFEST = "/etc/kubernetes/addons/flannel.yaml"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A CA as `make_ca` makes it."""
    return make_ca(tmp_path_factory.mktemp("ca"))


def make_ca(directory: Path) -> tuple[bytes, str]:
    """A CA's certificate, and the hash of its public key by kubeadm's documented recipe."""
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=kubernetes", "-keyout", directory / "ca.key", "-out", directory / "ca.crt"]
    subprocess.run([*request, *subject], check=True, capture_output=True)
    recipe = f"openssl pkey -in {directory}/ca.key -pubout -outform der | openssl dgst -sha256 -hex | sed 's/.*= *//'"
    digest = subprocess.run(["sh", "-c", recipe], check=True, capture_output=True, text=True).stdout.strip()
    return (directory / "ca.crt").read_bytes(), f"sha256:{digest}"


def test_node_of_a_recorded_control_plane() -> None:
    assert answer(KubeadmNode, CONTROL_PLANE) == {
        "state": "control-plane",
        "busy": False,
        "manifests": ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"],
        "etcd_data": True,
        "ca_cert_hash": HASH,
    }


def test_node_of_a_recorded_worker() -> None:
    assert answer(KubeadmNode, WORKER) == {
        "state": "worker",
        "busy": False,
        "manifests": [],
        "etcd_data": False,
        "ca_cert_hash": HASH,
    }


@pytest.mark.parametrize(
    ("left", "state"),
    [
        ([], "none"),
        (["file pki/ca.crt", f"hash {HASH[7:]}"], "none"),
        (["etcd"], "partial"),
        (["file kubelet.conf"], "partial"),
        (["file pki/ca.crt", "file bootstrap-kubelet.conf"], "partial"),
        (["file pki/ca.crt", "file admin.conf"], "partial"),
        (["file manifests/kube-apiserver.yaml"], "partial"),
        ([line for line in CONTROL_PLANE if line != "file manifests/etcd.yaml"], "partial"),
        ([line for line in CONTROL_PLANE if line != "file kubelet.conf"], "partial"),
        ([line for line in CONTROL_PLANE if line != "file admin.conf"], "partial"),
        ([line for line in CONTROL_PLANE if line != "file pki/ca.crt"], "partial"),
        ([*WORKER, "etcd"], "partial"),
        ([*WORKER, "file admin.conf"], "partial"),
        ([*WORKER, "file manifests/kube-scheduler.yaml"], "partial"),
        ([*WORKER, "file manifests/nginx-proxy.yaml"], "worker"),
        ([*CONTROL_PLANE, "file manifests/kube-vip.yaml"], "control-plane"),
    ],
)
def test_node_is_what_its_files_make_it(left: list[str], state: str) -> None:
    assert answer(KubeadmNode, left)["state"] == state


def test_node_is_nothing_on_a_bare_machine(machine: Machine) -> None:
    machine.program("openssl")
    assert machine.ask(KubeadmNode) == KubeadmNode.default()


def test_node_is_nothing_on_a_machine_without_openssl(machine: Machine) -> None:
    assert machine.ask(KubeadmNode) == KubeadmNode.default()


def test_node_reads_a_real_control_planes_disk(machine: Machine, ca: tuple[bytes, str]) -> None:
    machine.program("openssl")
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        machine.file(f"/etc/kubernetes/manifests/{name}.yaml")
    for name in ("admin.conf", "kubelet.conf", "tmp/old.conf"):
        machine.file(f"/etc/kubernetes/{name}")
    machine.file("/etc/kubernetes/pki/ca.crt", ca[0])
    machine.file("/var/lib/etcd/member/wal/0.wal")
    assert machine.ask(KubeadmNode) == {
        "state": "control-plane",
        "busy": False,
        "manifests": ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"],
        "etcd_data": True,
        "ca_cert_hash": ca[1],
    }


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMIIB\n"], ids=["empty", "cut"])
def test_node_has_no_hash_of_a_ca_that_cannot_be_read(machine: Machine, text: str) -> None:
    machine.program("openssl")
    machine.file("/etc/kubernetes/pki/ca.crt", text)
    assert machine.ask(KubeadmNode)["ca_cert_hash"] is None


def test_restore_finds_the_ca_that_signs_and_the_one_before_while_it_is_rotated(
    machine: Machine, ca: tuple[bytes, str], tmp_path: Path
) -> None:
    machine.program("openssl")
    machine.path("/var/lib").mkdir(parents=True)
    assert machine.ask(Restoration)["ca_cert_hashes"] == []
    (tmp_path / "new").mkdir()
    new, digest = make_ca(tmp_path / "new")
    machine.file("/etc/kubernetes/pki/ca.crt", new + ca[0])
    assert machine.ask(Restoration)["ca_cert_hashes"] == [digest]
    machine.file("/etc/kubernetes/pki/rotation/old/ca.crt", ca[0])
    assert machine.ask(Restoration)["ca_cert_hashes"] == [digest, ca[1]]


@pytest.mark.parametrize(("code", "busy"), [(0, True), (1, False)])
def test_node_is_busy_while_a_kubeadm_is_at_work(machine: Machine, code: int, busy: bool) -> None:
    machine.program("pgrep", f'test "$*" = "-x kubeadm" && exit {code}; exit 64')
    assert machine.ask(KubeadmNode)["busy"] is busy


def test_cluster_of_a_recorded_control_plane() -> None:
    control_plane = {"ready": True, "roles": ["control-plane"], "taints": ["control-plane"]}
    assert answer(ClusterConfig, recorded("ClusterConfig.cluster-cp1")) == {
        "state": "initialised",
        "nodes": {
            "cp1": control_plane,
            "cp2": control_plane,
            "cp3": control_plane,
            "w1": {"ready": True, "roles": [], "taints": []},
        },
    }


def test_cluster_is_none_on_a_recorded_worker() -> None:
    assert answer(ClusterConfig, recorded("ClusterConfig.cluster-w1")) == {"state": "none", "nodes": {}}


def test_cluster_node_without_a_true_ready_condition_is_not_ready() -> None:
    lines = [line.replace('"status": "True"', '"status": "Unknown"') for line in recorded("ClusterConfig.cluster-cp1")]
    assert not any(node["ready"] for node in answer(ClusterConfig, lines)["nodes"].values())


def test_cluster_node_that_has_only_registered_is_not_ready() -> None:
    items = '{"items": [{"metadata": {"name": "w2"}, "status": {}}]}'
    assert answer(ClusterConfig, ["initialised", items])["nodes"] == {"w2": {"ready": False, "roles": [], "taints": []}}


def test_cluster_refuses_an_answer_that_is_none_of_the_four() -> None:
    with pytest.raises(ValueError, match="not an answer of this fact: 'Warning: permanently added'"):
        answer(ClusterConfig, ["Warning: permanently added", "none"])


def test_cluster_is_none_on_a_bare_machine(machine: Machine) -> None:
    assert machine.ask(ClusterConfig) == {"state": "none", "nodes": {}}


def test_cluster_is_none_with_an_empty_admin_conf(machine: Machine) -> None:
    machine.file("/etc/kubernetes/admin.conf", "")
    assert machine.ask(ClusterConfig)["state"] == "none"


# A kubectl that prints the file `nodes` or fails with it, and to which what `init` makes is `there`, `missing` or
# `refused`.
KUBECTL = """\
cd {root}
case "$*" in
*' get nodes -o json') cat nodes; exit "$(cat nodes-code)";;
*configmap/kubeadm-config*daemonset/kube-proxy*)
    case "$(cat made)" in
    there) echo configmap/kubeadm-config; echo daemonset.apps/kube-proxy; exit 0;;
    refused) echo 'The connection to the server 10.88.0.10:6443 was refused' >&2; exit 1;;
    esac
    case "$*" in *--ignore-not-found*) exit 0;; esac
    echo 'Error from server (NotFound): daemonsets.apps "kube-proxy" not found' >&2; exit 1;;
esac
exit 64"""


@pytest.fixture
def kubectl(machine: Machine) -> Machine:
    """A control plane whose kubectl does what three files say."""
    machine.file("/etc/kubernetes/admin.conf", "apiVersion: v1\n")
    machine.file("nodes", f"{NODES}\n")
    machine.file("nodes-code", "0")
    machine.file("made", "there")
    machine.program("kubectl", KUBECTL.format(root=machine.root))
    return machine


def test_cluster_is_initialised_when_all_that_init_makes_is_there(kubectl: Machine) -> None:
    found = kubectl.ask(ClusterConfig)
    assert found["state"] == "initialised"
    assert sorted(found["nodes"]) == ["cp1", "cp2", "cp3", "w1"]


def test_cluster_is_not_initialised_when_the_last_of_init_is_missing(kubectl: Machine) -> None:
    kubectl.file("made", "missing")
    kubectl.file("nodes", '{"items": []}\n')
    assert kubectl.ask(ClusterConfig) == {"state": "not-initialised", "nodes": {}}


@pytest.mark.parametrize("printed", ["", '{\n    "apiVersion": "v1",\n    "items": [],\n    "kind": "List"\n}\n'])
def test_cluster_is_unreachable_when_the_api_does_not_answer(kubectl: Machine, printed: str) -> None:
    kubectl.file("nodes", printed)
    kubectl.file("nodes-code", "1")
    assert kubectl.ask(ClusterConfig) == {"state": "unreachable", "nodes": {}}


def test_cluster_is_unreachable_without_kubectl(machine: Machine) -> None:
    machine.file("/etc/kubernetes/admin.conf", "apiVersion: v1\n")
    assert machine.ask(ClusterConfig) == {"state": "unreachable", "nodes": {}}


def test_cluster_whose_api_stops_between_the_questions_is_unreachable(kubectl: Machine) -> None:
    kubectl.file("made", "refused")
    assert kubectl.ask(ClusterConfig)["state"] == "unreachable"


def test_join_info_of_a_recorded_control_plane() -> None:
    assert answer(JoinInfo, recorded("JoinInfo.cluster")) == {
        "tokens": [
            {"id": "bbmr3d", "expires": "2026-11-24T13:09:34Z"},
            {"id": "le9or5", "expires": "2026-11-24T13:09:36Z"},
        ],
        "certificate_key_token": "le9or5",
    }


def test_join_info_of_a_token_that_never_expires() -> None:
    assert answer(JoinInfo, ["token abcdef "]) == {
        "tokens": [{"id": "abcdef", "expires": ""}],
        "certificate_key_token": None,
    }


def test_join_info_is_empty_without_a_cluster(machine: Machine) -> None:
    assert machine.ask(JoinInfo) == {"tokens": [], "certificate_key_token": None}


def test_join_info_asks_for_ids_and_times_and_never_for_secrets(machine: Machine) -> None:
    machine.program("kubectl", f'printf "%s\\n" "$@" >> {machine.root}/asked')
    machine.ask(JoinInfo)
    asked = machine.path("asked").read_text()
    id_and_time = 'token {{index .data "token-id" | base64decode}} {{with index .data "expiration"}}'
    assert f"go-template={{{{range .items}}}}{id_and_time}" in asked
    assert 'go-template={{range .metadata.ownerReferences}}owner {{.name}}{{"\\n"}}{{end}}\n' in asked
    assert "token-secret" not in asked
    assert "json" not in asked


def test_manifest_of_a_recorded_control_plane_is_applied() -> None:
    assert answer(Manifest, recorded("Manifest.cluster")) == {"state": "applied", "diff": []}


def test_managers_of_fields_that_only_kubectl_knows_are_no_difference() -> None:
    """kubectl 1.21 shows them of a ServiceAccount that kube-controller-manager has given a token."""
    lines = recorded("Manifest.v1.21")
    assert answer(Manifest, lines) == {"state": "applied", "diff": []}
    both = answer(Manifest, [*lines[:-1], "@@ -1 +1 @@", "-  replicas: 1", "+  replicas: 2", "1"])
    assert both["state"] == "differs"
    assert [line for line in both["diff"] if line[0] in "+-"] == ["-  replicas: 1", "+  replicas: 2"]


def test_manifest_is_unknown_when_there_is_none(machine: Machine) -> None:
    assert machine.ask(Manifest, path=MANIFEST) == {"state": "unknown", "diff": []}


def test_manifest_is_unknown_without_kubectl(machine: Machine) -> None:
    machine.file(MANIFEST)
    assert machine.ask(Manifest, path=MANIFEST) == {"state": "unknown", "diff": []}


@pytest.mark.parametrize(("code", "applied"), [(0, "applied"), (1, "differs"), (2, "unknown"), (124, "unknown")])
def test_manifest_is_what_kubectl_diff_says(machine: Machine, code: int, applied: str) -> None:
    path: Path = machine.file(MANIFEST)
    machine.program("kubectl", f'echo "$@" > {machine.root}/asked; echo "--- /tmp/LIVE-1/a"; echo "-old"; exit {code}')
    assert machine.ask(Manifest, path=MANIFEST) == {"state": applied, "diff": ["-old"] if code == 1 else []}
    asked = machine.path("asked").read_text()
    assert f"diff --server-side --force-conflicts --field-manager=pyinfra-kubeadm -f {path}" in asked


@pytest.mark.parametrize(("address", "server"), [("10.0.0.21", "10.0.0.21"), ("fd00::21", "[fd00::21]")])
def test_a_control_planes_own_api_is_asked_in_either_family(machine: Machine, address: str, server: str) -> None:
    machine.file("/etc/kubernetes/manifests/kube-apiserver.yaml", f"    - --advertise-address={address}\n")
    machine.file("/etc/kubernetes/admin.conf", "x")
    machine.program("kubectl", 'echo "$*" >> asked; exit 1')
    machine.ask(ClusterConfig)
    assert f" --server=https://{server}:6443 get nodes" in (machine.root / "asked").read_text()


@pytest.mark.parametrize("own", ["https://127.0.0.1:2379", "https://[::1]:2379"])
def test_etcd_is_asked_where_it_listens_for_its_own_host(machine: Machine, own: str) -> None:
    machine.file("/etc/kubernetes/pki/etcd/healthcheck-client.key")
    machine.file("/etc/kubernetes/manifests/etcd.yaml", f"    - --listen-client-urls={own},https://other:2379\n")
    machine.program("etcdctl", 'echo "$1" >> asked; exit 1')
    assert machine.ask(Members)["state"] == "unreachable"
    assert (machine.root / "asked").read_text() == f"--endpoints={own}\n"


def test_the_configuration_that_the_cluster_keeps_is_text_and_none_where_no_api_answers(machine: Machine) -> None:
    machine.program("kubectl", "printf 'apiServer:\\n  certSANs: [a]\\n'")
    assert machine.ask(StoredConfiguration) == "apiServer:\n  certSANs: [a]\n"
    machine.program("kubectl", "echo refused >&2; exit 1")
    assert machine.ask(StoredConfiguration) is None
