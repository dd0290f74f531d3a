"""Files written whole, and the block in /etc/hosts. All states of hosts are hand-written."""

from __future__ import annotations

import base64
import grp
import hashlib
import os
import pwd
from collections.abc import Callable
from typing import Any

import pytest
from harness import Command, Hosts, Machine
from pyinfra.api import OperationError, OperationValueError
from pyinfra.facts.files import FindFiles

from facts.file import FileState
from operations import file
from operations import hosts as hosts_file

Make = Callable[[dict[str, dict[str, Any]]], Hosts]
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
DEST = "/etc/haproxy/haproxy.cfg"


def state(path: str, text: str | bytes, mode: str = "644", owner: str = "root root") -> dict[str, list[str]]:
    """The answers of a host with this file, to whoever may see it and to whoever may not."""
    data = text.encode() if isinstance(text, str) else text
    head = f"{mode} {owner}"
    return {
        FileState().command(path): [head, base64.b64encode(data).decode()],
        FileState().command(path, secret=True): [head, f"{hashlib.sha256(data).hexdigest()}  -"],
    }


def nothing(path: str) -> dict[str, list[str]]:
    return {FileState().command(path): [], FileState().command(path, secret=True): []}


def write(machine: Machine, text: str, mode: str = "644", validate: str | None = None) -> Any:
    return machine.sh(file.write_script(DEST, mode, USER, GROUP, validate), stdin=text)


@pytest.mark.parametrize(
    ("sha256", "mode", "owner", "reasons"),
    [
        ("a", "644", ("root", "root"), []),
        ("b", "644", ("root", "root"), ["content"]),
        ("a", "600", ("root", "root"), ["mode 644 -> 600"]),
        ("a", "644", ("etcd", "adm"), ["owner root:root -> etcd:adm"]),
        ("b", "755", ("root", "adm"), ["content", "mode 644 -> 755", "owner root:root -> root:adm"]),
    ],
)
def test_difference_names_what_differs(sha256: str, mode: str, owner: tuple[str, str], reasons: list[str]) -> None:
    current = {"sha256": "a", "mode": "644", "user": "root", "group": "root", "content": ""}
    assert file.difference(current, sha256, mode, *owner) == reasons


def test_difference_of_a_file_that_is_not_there() -> None:
    assert file.difference(None, "a", "644", "root", "root") == ["absent"]


def test_a_file_that_is_absent_is_written(hosts: Make) -> None:
    bare = hosts({"lb1": nothing(DEST)})
    written = [Command(file.write_script(DEST, "644", "root", "root", "haproxy -c -f {}"), "global\n")]
    wanted = {"dest": DEST, "content": "global\n", "validate": "haproxy -c -f {}"}
    assert bare.plan(file.content, **wanted) == written
    assert bare.execute(file.content, **wanted) == written
    assert bare.noops == []


def test_a_file_that_is_as_wanted_is_left_alone(hosts: Make) -> None:
    done = hosts({"lb1": state(DEST, "global\n", "600")})
    for secret in (False, True):
        assert done.plan(file.content, dest=DEST, content="global\n", mode="600", secret=secret) == []
        assert done.execute(file.content, dest=DEST, content="global\n", mode="600", secret=secret) == []
    assert done.noops == [f"{DEST} is as wanted"] * 4


@pytest.mark.parametrize(
    "drift",
    [state(DEST, "other\n"), state(DEST, "global\n", "600"), state(DEST, "global\n", owner="haproxy adm")],
    ids=["content", "mode", "owner"],
)
def test_a_file_that_drifted_is_written(hosts: Make, drift: dict[str, Any]) -> None:
    yielded = hosts({"lb1": drift}).execute(file.content, dest=DEST, content="global\n")
    assert [command.stdin for command in yielded] == ["global\n"]


def test_a_secret_is_written_from_standard_input_and_never_named(hosts: Make) -> None:
    path = "/etc/kubernetes/admin.conf"
    bare = hosts({"cp1": nothing(path)})
    for run in (bare.plan, bare.execute):
        (command,) = run(file.content, dest=path, content="key: hunter2\n", mode="600", secret=True)
        assert command.stdin == "key: hunter2\n"
        assert "hunter2" not in command.text
    assert [asked.text for _, asked in bare.ran] == [FileState().command(path, secret=True)] * 2
    assert "hunter2" not in repr(bare.changes)


def test_a_difference_is_told_and_of_a_secret_one_that_there_is_one(hosts: Make) -> None:
    drifted = hosts({"lb1": state(DEST, "global\n")})
    drifted.plan(file.content, dest=DEST, content="defaults\n")
    (change,) = drifted.changes
    assert change.words == f"modify {DEST} (content)"
    assert change.diff[-2:] == ("-global", "+defaults")
    drifted.plan(file.content, dest=DEST, content="defaults\n", secret=True)
    assert drifted.changes[0].diff == ("(secret: content not shown)",)


def test_a_relative_destination_is_refused(hosts: Make) -> None:
    with pytest.raises(OperationValueError, match=r"^etc/x: destination must be an absolute path$"):
        hosts({"lb1": {}}).plan(file.content, dest="etc/x", content="a\n")


def test_a_text_without_an_end_is_refused(hosts: Make) -> None:
    with pytest.raises(OperationValueError, match=r"^/etc/x: content must end in a newline$"):
        hosts({"lb1": {}}).plan(file.content, dest="/etc/x", content="a")


def test_a_file_to_be_absent_is_removed_once(hosts: Make) -> None:
    assert hosts({"lb1": state("/etc/a b", "x")}).execute(file.absent, path="/etc/a b") == [
        Command("rm -f -- '/etc/a b'")
    ]
    gone = hosts({"lb1": nothing("/etc/a b")})
    assert gone.execute(file.absent, path="/etc/a b") == []
    assert gone.noops == ["/etc/a b is not there"]


def listed(*names: str) -> dict[Any, Any]:
    return {"lb1": {str(FindFiles().command(path="/etc/x.d", maxdepth=1)): [f"/etc/x.d/{name}" for name in names]}}


def test_files_beside_ours_are_set_aside_and_known_ones_stay(hosts: Make) -> None:
    drifted = hosts(listed("10-ours.conf", "20-site.conf", "99-odd one.conf", "README", "05-x.conf.bak"))
    wanted = {"directory": "/etc/x.d", "known": ("10-ours.conf", "20-site.conf")}
    (command,) = drifted.execute(file.aside, **wanted)
    assert command.text.endswith(f"mv --backup=numbered -t {file.ASIDE}/etc/x.d -- '99-odd one.conf'")
    assert drifted.plan(file.aside, **wanted) == [command]
    assert drifted.announced == ["set aside /etc/x.d/99-odd one.conf"]


def test_where_the_first_file_counts_those_after_ours_stay(hosts: Make) -> None:
    drifted = hosts(listed("00-stale.conflist", "10-ours.conflist", "87-podman.conflist"))
    drifted.plan(file.aside, directory="/etc/x.d", known=(), before="10-ours.conflist")
    assert drifted.announced == ["set aside /etc/x.d/00-stale.conflist"]


def test_nothing_is_set_aside_where_there_is_nothing(hosts: Make) -> None:
    for names in ((), ("10-ours.conf",)):
        bare = hosts(listed(*names))
        assert bare.plan(file.aside, directory="/etc/x.d", known=("10-ours.conf",)) == []
        assert bare.execute(file.aside, directory="/etc/x.d", known=("10-ours.conf",)) == []


def test_what_is_set_aside_twice_is_kept_twice(machine: Machine, hosts: Make) -> None:
    for text in ("first", "second"):
        machine.file("/etc/x.d/99-odd.conf", text)
        (command,) = hosts(listed("99-odd.conf")).execute(file.aside, directory="/etc/x.d", known=())
        done = machine.sh(command.text)
        assert done.returncode == 0, done.stderr
    kept = machine.path(f"{file.ASIDE}/etc/x.d")
    assert {path.read_text() for path in kept.iterdir()} == {"first", "second"}
    assert machine.path(file.ASIDE).stat().st_mode & 0o777 == 0o700
    assert not list(machine.path("/etc/x.d").iterdir())


def test_writing_makes_the_file_and_its_directory(machine: Machine) -> None:
    done = write(machine, "global\n", mode="640")
    assert (done.returncode, done.stderr) == (0, "")
    target = machine.path(DEST)
    assert target.read_text() == "global\n"
    assert target.stat().st_mode & 0o7777 == 0o640
    assert target.parent.stat().st_mode & 0o7777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def test_writing_replaces_the_old_file_by_another_in_one_step(machine: Machine) -> None:
    old = machine.file(DEST, "old\n")
    before = old.stat().st_ino
    with old.open() as reader:
        assert write(machine, "new\n").returncode == 0
        assert reader.read() == "old\n"
    assert old.read_text() == "new\n"
    assert old.stat().st_ino != before


def test_writing_over_a_link_replaces_the_link_and_not_what_it_leads_to(machine: Machine) -> None:
    target = machine.file("/etc/real", "old\n")
    machine.file("/etc/haproxy/x")
    machine.path(DEST).symlink_to(target)
    assert write(machine, "new\n").returncode == 0
    assert (target.read_text(), machine.path(DEST).read_text()) == ("old\n", "new\n")
    assert not machine.path(DEST).is_symlink()


def test_writing_stops_when_the_new_file_is_refused_and_leaves_the_old_one(machine: Machine) -> None:
    old = machine.file(DEST, "old\n")
    machine.program("haproxy", "echo 'unknown keyword' >&2; exit 1")
    done = write(machine, "new\n", validate="haproxy -c -q -f {}")
    assert (done.returncode, done.stderr) == (1, "unknown keyword\n")
    assert old.read_text() == "old\n"
    assert list(old.parent.iterdir()) == [old]


def test_writing_shows_the_validator_the_whole_new_file_while_only_its_owner_may_read_it(machine: Machine) -> None:
    old = machine.file(DEST, "old\n")
    machine.program("haproxy", f'test "$1" = -f && cat "$2" > {machine.root}/seen && stat -c %a "$2"')
    done = write(machine, "new\n", validate="haproxy -f {}")
    assert (done.returncode, done.stdout) == (0, "600\n")
    assert machine.path("seen").read_text() == "new\n"
    assert old.stat().st_mode & 0o7777 == 0o644
    assert list(old.parent.iterdir()) == [old]


def test_writing_stops_at_an_owner_that_does_not_exist_and_leaves_the_old_file(machine: Machine) -> None:
    old = machine.file(DEST, "old\n")
    done = machine.sh(file.write_script(DEST, "644", "no-such-user", "no-such-group", None), stdin="new\n")
    assert done.returncode != 0
    assert "no-such-user" in done.stderr
    assert old.read_text() == "old\n"
    assert list(old.parent.iterdir()) == [old]


def test_writing_where_a_directory_is_fails_and_leaves_it_alone(machine: Machine) -> None:
    inside = machine.file(f"{DEST}/inside", "x")
    assert write(machine, "new\n").returncode != 0
    assert list(machine.path(DEST).iterdir()) == [inside]
    assert list(machine.path(DEST).parent.iterdir()) == [machine.path(DEST)]


def test_hosts_block_is_added_at_the_end_and_the_rest_stays() -> None:
    old = "127.0.0.1 localhost\n\n# ours\n10.9.9.9 printer\n"
    assert hosts_file.merged(old, {"cp1": ["10.0.0.21"], "w1": ["10.0.0.31"]}) == (
        f"{old}# BEGIN pyinfra-kubeadm\n10.0.0.21 cp1\n10.0.0.31 w1\n# END pyinfra-kubeadm\n"
    )


def test_hosts_block_is_replaced_where_it_stands() -> None:
    once = hosts_file.merged("127.0.0.1 localhost\n", {"cp1": ["10.0.0.21"]}) + "10.9.9.9 printer\n"
    assert hosts_file.merged(once, {"cp1": ["10.0.0.99"]}) == once.replace("10.0.0.21", "10.0.0.99")


@pytest.mark.parametrize(
    "old",
    [
        "",
        "127.0.0.1 localhost",
        "127.0.0.1 localhost\n",
        "# BEGIN pyinfra-kubeadm\n10.0.0.1 old\n# END pyinfra-kubeadm\n10.9.9.9 printer\n",
        "# BEGIN pyinfra-kubeadm\n10.0.0.1 old\n10.9.9.9 printer\n",
        "# END pyinfra-kubeadm\n10.9.9.9 printer\n# BEGIN pyinfra-kubeadm\n",
    ],
    ids=["empty", "no-newline", "fresh", "done", "no-end", "reversed"],
)
def test_hosts_merged_twice_are_as_merged_once_and_keep_what_others_wrote(old: str) -> None:
    once = hosts_file.merged(old, {"cp1": ["10.0.0.21"]})
    assert hosts_file.merged(once, {"cp1": ["10.0.0.21"]}) == once
    assert ("10.9.9.9 printer" in once) == ("10.9.9.9 printer" in old)


def test_hosts_entries_write_the_merged_file_once(hosts: Make) -> None:
    merged = hosts_file.merged("127.0.0.1 localhost\n", {"cp1": ["10.0.0.21"]})
    drifted = hosts({"cp1": state("/etc/hosts", "127.0.0.1 localhost\n")})
    assert [command.stdin for command in drifted.execute(hosts_file.entries, names={"cp1": ["10.0.0.21"]})] == [merged]
    done = hosts({"cp1": state("/etc/hosts", merged)})
    assert done.execute(hosts_file.entries, names={"cp1": ["10.0.0.21"]}) == []
    assert done.noops == ["/etc/hosts is as wanted"]


def test_hosts_file_that_is_not_there_gets_localhost(hosts: Make) -> None:
    (command,) = hosts({"cp1": nothing("/etc/hosts")}).execute(hosts_file.entries, names={"cp1": ["10.0.0.21"]})
    assert command.stdin == hosts_file.merged("127.0.0.1 localhost\n", {"cp1": ["10.0.0.21"]})


def test_hosts_file_that_is_not_utf8_is_not_thrown_away(hosts: Make) -> None:
    latin = hosts({"cp1": state("/etc/hosts", b"127.0.0.1 localhost\n10.9.9.9 printer # caf\xe9\n")})
    with pytest.raises(OperationError, match=r"/etc/hosts.*UTF-8"):
        latin.execute(hosts_file.entries, names={"cp1": ["10.0.0.21"]})
