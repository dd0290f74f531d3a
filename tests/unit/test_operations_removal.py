"""Nodes taken out, hosts cleaned, pods ended: what is asked, and what is done about the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from harness import Hosts, Machine, answer, recorded
from pyinfra.api import OperationError

from cluster.settings import load
from cluster.topology import Node
from facts.pods import MARK, NodePods
from facts.running import Running
from facts.traces import METADATA, RULES, Others, Remains, Traces
from operations import cleanup, power, removal

Make = Callable[..., Hosts]
CP1, CP3 = Node("cp1", IPv4Address("10.0.0.21")), Node("cp3", IPv4Address("10.0.0.23"))
SETTINGS = load({"vip": "10.0.0.100", "load_balancing": "control-planes"})
PODS = "get pods -A --field-selector"


def node_pods(*pods: dict[str, Any], cordoned: bool = False, mark: str = "") -> list[str]:
    return [f"w1 {'true' if cordoned else ''} {mark}", json.dumps({"items": pods}), json.dumps({"items": []})]


POD = {
    "metadata": {"namespace": "shop", "name": "web-1", "ownerReferences": [{"kind": "ReplicaSet"}]},
    "status": {"phase": "Running"},
}
W1 = Node("w1", IPv4Address("10.0.0.31"))


def drain(hosts: Make, answers: dict[str, Any], run: str = "execute", seconds: int = 1) -> tuple[Hosts, list[Any]]:
    made = hosts({"cp1": answers})
    return made, getattr(made, run)(removal.drain, seed=CP1, node=W1, seconds=seconds)


def test_a_drain_is_announced_with_its_pods_and_its_time(hosts: Make) -> None:
    made, (command,) = drain(hosts, {PODS: node_pods(POD)}, "plan", seconds=300)
    assert made.announced == ["evict 1 pods from w1, within 300 s"]
    assert "--server=https://10.0.0.21:6443 drain w1 --ignore-daemonsets --delete-emptydir-data" in command.text


def test_what_is_no_node_is_not_drained(hosts: Make) -> None:
    made, commands = drain(hosts, {PODS: []})
    assert commands == []
    assert made.noops == ["w1 is no node of the cluster"]


def test_a_drain_that_is_done_at_once_is_done(hosts: Make) -> None:
    _, commands = drain(hosts, {"drain w1": ["node/w1 drained", "0"], "annotate": [], PODS: node_pods(POD)})
    assert len(commands) == 1


@pytest.mark.parametrize(("cordoned", "words"), [(False, "It takes pods again"), (True, "It is cordoned, as it was")])
def test_a_drain_out_of_time_names_pods_and_gives_the_node_back(hosts: Make, cordoned: bool, words: str) -> None:
    answers = {"drain w1": ["error", "1"], "uncordon": [], "annotate": [], PODS: node_pods(POD, cordoned=cordoned)}
    with pytest.raises(OperationError, match=rf"not drained in 1 s.* Still there: shop/web-1\. {words}"):
        drain(hosts, answers)


def test_no_uncordon_of_a_node_that_somebody_had_cordoned(hosts: Make) -> None:
    made = hosts({"cp1": {"drain w1": ["error", "1"], "annotate": [], PODS: node_pods(POD, cordoned=True)}})
    with pytest.raises(OperationError):
        made.execute(removal.drain, seed=CP1, node=W1, seconds=1)
    assert not [each for _, each in made.ran if "uncordon" in each.text]


@pytest.mark.parametrize(
    ("cordoned", "mark", "before"),
    [
        (False, "", "schedulable"), (True, "", "cordoned"), (True, "schedulable", "schedulable"),
        (True, "cordoned", "cordoned"), (False, "cordoned", "schedulable"),
    ],
)  # fmt: skip
def test_a_drain_notes_how_the_node_was_before_the_first_of_them_and_takes_the_note_off_when_it_gives_it_back(
    hosts: Make, cordoned: bool, mark: str, before: str
) -> None:
    made = hosts({"cp1": {"drain w1": ["error", "1"], "uncordon": [], "annotate": [],
                          PODS: node_pods(POD, cordoned=cordoned, mark=mark)}})  # fmt: skip
    with pytest.raises(OperationError, match="It takes pods again" if before == "schedulable" else "It is cordoned"):
        made.execute(removal.drain, seed=CP1, node=W1, seconds=1)
    ran = [each.text for _, each in made.ran if "get pods" not in each.text]
    assert f"annotate --overwrite node w1 {MARK}={before}" in ran[0]
    assert "drain w1" in ran[1]
    assert f"annotate --overwrite node w1 {MARK}- " in ran[-1]
    assert any("uncordon w1" in each for each in ran) == (before == "schedulable")


def test_the_note_stays_for_as_long_as_the_node_is_not_given_back(hosts: Make) -> None:
    made = hosts({"cp1": {"drain w1": ["error", "1"], "uncordon": {"success": False, "stderr": "no leader"},
                          "annotate": [], PODS: node_pods(POD)}})  # fmt: skip
    with pytest.raises(OperationError, match="no leader"):
        made.execute(removal.drain, seed=CP1, node=W1, seconds=1)
    assert not [each for _, each in made.ran if f"{MARK}- " in each.text]


MEMBERS = "member list -w json"


def test_a_member_is_removed_where_there_is_one(hosts: Make) -> None:
    there = recorded("Members.cluster")
    name = json.loads(there[1])["members"][0]["peerURLs"][0].split("//")[1].split(":")[0]
    (command,) = hosts({"cp1": {MEMBERS: there}}).plan(removal.member, node=Node("x", IPv4Address(name)))
    assert f'"https://{name}:2380"' in command.text
    made = hosts({"cp1": {MEMBERS: there}})
    assert made.plan(removal.member, node=Node("w9", IPv4Address("10.9.9.9"))) == []
    assert made.noops == ["etcd has no member w9"]


def test_no_member_is_removed_of_an_etcd_that_does_not_answer(hosts: Make) -> None:
    with pytest.raises(OperationError, match=r"^cp1: etcd is unreachable here, so cp3 cannot be taken out of it"):
        hosts({"cp1": {MEMBERS: ["unreachable"]}}).execute(removal.member, node=CP3)


def test_pods_of_a_node_that_is_not_there_are_none_and_a_silent_api_is_no_answer(machine: Machine) -> None:
    machine.program("kubectl", "exit 0")
    assert machine.ask(NodePods, node="w1") is None
    machine.program("sleep", "")
    machine.program("kubectl", "exit 1")
    assert machine.sh(NodePods().command(node="w1")).returncode == 1


def test_a_cordoned_node_is_known(machine: Machine) -> None:
    machine.program(
        "kubectl", 'case "$*" in *"get node "*) printf "w1 true schedulable";; *) printf \'{"items":\\n []}\\n\';; esac'
    )
    assert machine.ask(NodePods, node="w1") == {"cordoned": True, "mark": "schedulable", "pods": [], "budgets": []}


def test_traces_are_files_links_and_directories_but_for_empty_mounts(machine: Machine) -> None:
    machine.program("mountpoint", 'case "$2" in *etcd) exit 0;; esac; exit 1')
    machine.file("/etc/kubernetes/admin.conf")
    machine.file("/var/lib/etcd/x").unlink()
    machine.file("/opt/cni/x").unlink()
    machine.path("/etc/link").symlink_to("/nowhere")
    paths = ("/etc/kubernetes", "/var/lib/etcd", "/opt/cni", "/etc/link", "/etc/none")
    found = [path.removeprefix(str(machine.root)) for path in machine.ask(Traces, paths=paths)]
    assert found == ["/etc/kubernetes", "/opt/cni", "/etc/link"]


def test_removed_takes_files_and_directories_and_says_what_stays(hosts: Make, machine: Machine) -> None:
    (command,) = hosts({"h": {"for p in": ["/etc/a", "/etc/b"]}}).execute(
        cleanup.removed, paths=["/etc/a", "/etc/b", "/etc/c"], parents=["/etc/d"]
    )
    for name in ("findmnt", "systemctl"):
        machine.program(name, "")
    machine.program("mountpoint", "exit 1")
    machine.program("rmdir")
    machine.file("/etc/a")
    machine.file("/etc/b/deep/file")
    machine.path("/etc/d").mkdir()
    assert machine.sh(command.text).returncode == 0
    assert sorted(path.name for path in machine.path("/etc").iterdir()) == []
    machine.program("rm", "exit 1")
    machine.file("/etc/a")
    done = machine.sh(command.text)
    assert done.returncode == 1
    assert "/etc/a: not removed; is something mounted there or held open?" in done.stderr


SAVED = """\
*nat
:PREROUTING ACCEPT [3:180]
:KUBE-SERVICES - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:MINE - [0:0]
[3:180] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[1:60] -A PREROUTING -p tcp -m tcp --dport 22 -j MINE
[0:0] -A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN
[0:0] -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
[0:0] -A MINE -m comment --comment "not KUBE-" -j ACCEPT
COMMIT
"""


def test_rules_of_others_stay_with_their_counters(machine: Machine, hosts: Make) -> None:
    machine.file("/saved", SAVED)
    machine.program("iptables-nft-save", f"cat {machine.root}/saved")
    machine.program("iptables-nft-restore", f"cat > {machine.root}/restored")
    found = {"ip -o link show": ["rules iptables-nft 6"]}
    first, *_ = hosts({"h": found}).execute(cleanup.network, subnets=["10.244.0.0/16"])
    assert machine.sh(first.text).returncode == 0
    assert machine.path("/restored").read_text().splitlines() == [
        "*nat",
        ":PREROUTING ACCEPT [3:180]",
        ":MINE - [0:0]",
        "[1:60] -A PREROUTING -p tcp -m tcp --dport 22 -j MINE",
        '[0:0] -A MINE -m comment --comment "not KUBE-" -j ACCEPT',
        "COMMIT",
    ]
    assert "KUBE-" in RULES


def test_remains_are_counted_by_program_and_a_filter_that_is_not_at_work_is_not_asked(machine: Machine) -> None:
    machine.program(
        "ip",
        'case "$*" in "-o link show") printf "2: eth0@if3: <UP>\\n5: cni0: <UP>\\n";; '
        "*) echo 10.244.1.0/24 via 10.0.0.31 dev flannel.1 onlink;; esac",
    )
    machine.program("iptables-nft-save", f"cat {machine.root}/saved")
    machine.program("iptables-legacy-save", "exit 9")
    machine.file("/saved", SAVED)
    machine.file("/proc/kallsyms", "ffff t nft_do_chain [nf_tables]\n")
    assert machine.ask(Remains, subnets=("10.244.0.0/16",)) == {
        "interfaces": ["cni0"],
        "routes": ["10.244.1.0/24 via 10.0.0.31 dev flannel.1 onlink"],
        "rules": {"iptables-nft": 5},
        "pins": [],
        "mounts": [],
    }
    machine.path("/proc/kallsyms").unlink()
    assert machine.ask(Remains, subnets=("10.244.0.0/16",))["rules"] == {}


CILIUM = """\
*nat
:POSTROUTING ACCEPT [0:0]
:CILIUM_POST_nat - [0:0]
:OLD_CILIUM_POST_nat - [0:0]
:MINE - [0:0]
[0:0] -A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
[0:0] -A CILIUM_POST_nat -s 10.244.0.0/24 ! -o cilium_+ -j MASQUERADE
[0:0] -A MINE -m comment --comment "not CILIUM_" -j ACCEPT
COMMIT
"""
FILTERED = """\
filter protocol all pref 1 bpf chain 0
filter protocol all pref 1 bpf chain 0 handle 0x2 mine:[*fsobj] direct-action not_in_hw id 154 name mine
filter protocol all pref 1 bpf chain 0 handle 0x1 cil_from_netdev-eth0 direct-action not_in_hw id 155 name cil_from
"""


def with_cilium(machine: Machine) -> None:
    """A machine whose pods' network was Cilium, with values by which it is attached to the host's interface."""
    links = (
        "eth0@if3 cilium_net@cilium_host cilium_host@cilium_net cilium_vxlan lxc_health@if9 lxc0123456789ab@if7 lxcbr0"
    )
    shown = "\\n".join(f"{number}: {name}: <UP>" for number, name in enumerate(links.split(), 2))
    machine.program("ip", f'test "$*" != "-o link show" || printf "{shown}\\n"')
    machine.program("iptables-nft-save", f"cat {machine.root}/saved")
    machine.file("/saved", CILIUM)
    machine.file("/proc/kallsyms", "ffff t nft_do_chain [nf_tables]\n")
    mounted = f"{machine.root}/run/cilium"
    machine.file(
        "/proc/mounts",
        f"none {mounted}/cgroupv2 cgroup2 rw 0 0\nnone {mounted}/cgroupv2/x tmpfs rw 0 0\nx /run tmpfs\n",
    )
    for path in ("cilium/devices/eth0/links/cil_from_netdev", "tc/globals/cilium_calls_1", "tc/globals/mine"):
        machine.file(f"/sys/fs/bpf/{path}")


def test_cilium_is_known_by_its_interfaces_rules_pins_and_mounts(machine: Machine) -> None:
    with_cilium(machine)
    found = machine.ask(Remains, subnets=("10.244.0.0/16",))
    assert found["interfaces"] == ["cilium_net", "cilium_host", "cilium_vxlan", "lxc_health", "lxc0123456789ab"]
    assert found["rules"] == {"iptables-nft": 4}
    pins = ("cilium", "tc/globals/cilium_calls_1")
    assert found["pins"] == [f"{machine.root}/sys/fs/bpf/{path}" for path in pins]
    assert found["mounts"] == [f"{machine.root}/run/cilium/cgroupv2", f"{machine.root}/run/cilium/cgroupv2/x"]


def test_programs_of_cilium_are_taken_off_the_hosts_interfaces_before_their_maps_go(
    machine: Machine, hosts: Make
) -> None:
    with_cilium(machine)
    machine.file("/sys/class/net/eth0")
    machine.file("/filtered", FILTERED)
    gone = f"{machine.root}/sys/fs/bpf/cilium"
    machine.program(
        "tc",
        f'case "$2 $5" in "show ingress") cat {machine.root}/filtered;; '
        f'del*) test -e {gone} && echo "$*" >> {machine.root}/deleted;; esac',
    )
    told = ["pin /sys/fs/bpf/cilium", "mount /run/cilium/cgroupv2", "mount /run/cilium/cgroupv2/x"]
    made = hosts({"h": {"ip -o link show": told}})
    unpinned, *unmounted = made.execute(cleanup.network, subnets=[])
    assert machine.sh(unpinned.text).returncode == 0
    assert machine.path("/deleted").read_text() == "filter del dev eth0 ingress pref 1 handle 0x1 bpf\n"
    assert not machine.path("/sys/fs/bpf/cilium").exists()
    assert [path.name for path in machine.path("/sys/fs/bpf/tc/globals").iterdir()] == ["mine"]
    assert [each.text for each in unmounted] == ["umount /run/cilium/cgroupv2/x", "umount /run/cilium/cgroupv2"]
    made.plan(cleanup.network, subnets=[])
    said = "remove 0 routes, rules: none, programs and maps of eBPF, /run/cilium/cgroupv2, /run/cilium/cgroupv2/x"
    assert made.announced == [said]


def test_maps_of_cilium_stay_when_a_program_that_needs_them_does(machine: Machine, hosts: Make) -> None:
    with_cilium(machine)
    machine.file("/sys/class/net/eth0")
    machine.file("/filtered", FILTERED)
    machine.program("tc", f'case "$2 $5" in "show ingress") cat {machine.root}/filtered;; del*) exit 2;; esac')
    (command,) = hosts({"h": {"ip -o link show": ["pin /sys/fs/bpf/cilium"]}}).execute(cleanup.network, subnets=[])
    assert machine.sh(command.text).returncode != 0
    assert machine.path("/sys/fs/bpf/cilium").exists()


NAMESPACES = "printf 'default\\nk8s.io\\nmoby\\n'"


@pytest.mark.parametrize(
    ("containers", "found"), [("", ["moby"]), ("printf 'web\\ndb\\n'", ["default", "moby"])], ids=["empty", "used"]
)
def test_containers_of_others_are_known(machine: Machine, containers: str, found: list[str]) -> None:
    machine.program(
        "ctr",
        f'case "$*" in "namespaces ls -q") {NAMESPACES};; "-n default containers ls -q") {containers or ":"};; esac',
    )
    assert machine.ask(Others) == found


def test_namespaces_of_kubernetes_and_an_empty_default_are_nobody_elses(machine: Machine) -> None:
    machine.program("ctr", 'test "$1" != namespaces || printf "default\\nk8s.io\\n"')
    assert machine.ask(Others) == []


@pytest.mark.parametrize("program", ["exit 1", "test $1 = namespaces", None])
def test_whose_the_data_of_a_containerd_is_that_does_not_answer_is_not_known(
    machine: Machine, program: str | None
) -> None:
    if program:
        machine.program("ctr", program)
    machine.path("/var/lib/containerd").mkdir(parents=True)
    assert machine.ask(Others) == []
    machine.file(METADATA)
    assert machine.ask(Others) is None


def test_what_containerd_knows_goes_as_soon_as_it_has_stopped(hosts: Make) -> None:
    answers = {"systemctl show": ["LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"]}
    (command,) = hosts({"h": answers}).execute(cleanup.stopped, unit="containerd.service", file=METADATA)
    assert command.text == f"timeout 120 systemctl disable --now containerd.service && rm -f {METADATA}"


def test_a_block_is_cut_out_of_a_file_and_the_rest_stays(hosts: Make) -> None:
    lines = "127.0.0.1 localhost\n# B\n10.0.0.1 cp1\n# E\n192.0.2.9 own\n"
    shown = ["600 root root", base64.b64encode(lines.encode()).decode()]
    (command,) = hosts({"h": {"base64 -w0": shown}}).execute(
        cleanup.without_lines, path="/etc/hosts", begin="# B", end="# E"
    )
    assert command.stdin == "127.0.0.1 localhost\n192.0.2.9 own\n"
    assert "chmod 600" in command.text


PODS_HERE = {
    "1": "kube-system/etcd-cp1",
    "2": "kube-system/kube-apiserver-cp1",
    "3": "kube-system/kube-scheduler-cp1",
    "4": "shop/etcd-cp1",
    "5": "kube-system/etcd-cp2",
}


@pytest.mark.parametrize(("which", "ids"), [("ordinary", ["4", "5"]), ("control plane", ["2", "3"]), ("etcd", ["1"])])
def test_pods_are_chosen_by_what_they_are(which: power.Which, ids: list[str]) -> None:
    assert power.chosen(PODS_HERE, which, "cp1") == ids


@pytest.mark.parametrize(("pods", "seconds"), [(1, 30), (8, 30), (9, 60), (110, 420)])
def test_pods_have_twice_the_time_that_they_may_need_to_end(machine: Machine, pods: int, seconds: int) -> None:
    machine.program("timeout", f'echo "$1" > {machine.root}/limit; shift; exec "$@"')
    machine.program("crictl", f'echo "$*" >> {machine.root}/asked; test "$1" != ps || printf "c1\\nc2\\n"')
    done = machine.sh(power.stop_script([f"p{number}" for number in range(pods)]))
    assert done.returncode == 0, done.stderr
    assert int(machine.path("/limit").read_text()) >= 2 * seconds
    asked = machine.path("/asked").read_text().splitlines()
    assert sorted(each for each in asked if each.startswith("stopp")) == sorted(f"stopp p{n}" for n in range(pods))
    assert asked.count("stop --timeout 30 c1") == asked.count("stop --timeout 30 c2") == pods


def test_pods_that_do_not_end_in_time_are_said_to(machine: Machine) -> None:
    machine.program("timeout", "exit 124")
    done = machine.sh(f"{power.stop_script(['p1'])} && echo ended")
    assert (done.returncode, done.stdout) == (124, "")
    assert done.stderr.startswith("pods have not ended within 60 s: see there with crictl ps and dmesg")


def test_a_runtime_that_runs_and_does_not_answer_stops_the_run(hosts: Make) -> None:
    answers = {"crictl pods": ["kubelet"], "systemctl show": ["LoadState=loaded", "ActiveState=active"]}
    with pytest.raises(OperationError, match=r"^cp1: the container runtime does not answer"):
        hosts({"cp1": answers}).execute(power.pods_stopped, node=CP1, which="etcd", runtime="containerd.service")


def test_running_pods_are_those_whose_sandbox_is_ready() -> None:
    found = [
        {"id": "a", "state": "SANDBOX_READY", "metadata": {"namespace": "kube-system", "name": "etcd-cp1"}},
        {"id": "b", "state": "SANDBOX_NOTREADY", "metadata": {"namespace": "x", "name": "y"}},
    ]
    assert answer(Running, ["kubelet", "pods", json.dumps({"items": found})]) == {
        "kubelet": True,
        "pods": {"a": "kube-system/etcd-cp1"},
    }
    assert answer(Running, []) == {"kubelet": False, "pods": None}


def test_what_kubeadm_made_is_undone_where_there_is_anything(hosts: Make) -> None:
    bare = {"pki/ca.crt": [], "crictl pods": ["pods", "{}"]}
    assert hosts({"h": bare}).execute(cleanup.kubeadm, settings=SETTINGS) == []
    half = {"pki/ca.crt": ["etcd"], "crictl pods": ["pods", "{}"]}
    (command,) = hosts({"h": half}).execute(cleanup.kubeadm, settings=SETTINGS)
    assert "kubeadm reset -f --kubeconfig /nonexistent --cri-socket unix:///run/containerd" in command.text


def test_packages_are_released_and_removed_only_when_asked(hosts: Make) -> None:
    installed = {"dpkg-query": ["containerd 1.6 hold installed", "nginx 1 install installed"]}
    names = {"names": ["containerd", "nginx", "runc"], "release": "debian-12", "format": "deb"}
    masked = {"nginx": "nginx.service"}
    kept = hosts({"h": installed}).execute(cleanup.packages, **names, purge=False, masked=masked)
    assert [each.text for each in kept] == ["apt-mark unhold containerd >/dev/null"]
    gone = hosts({"h": installed}).execute(cleanup.packages, **names, purge=True, masked=masked)
    assert [each.text for each in gone] == [
        "apt-mark unhold containerd >/dev/null",
        "dpkg --purge containerd nginx >/dev/null",
        "systemctl unmask nginx.service",
    ]
