#!/usr/bin/env python3
"""What people type: `python3 tasks.py demo`, `python3 tasks.py test`, and the smaller tasks they are made of.

Started by any Python 3.11 or later, it first makes `.venv` from `requirements.txt` (versions and hashes
pinned) and starts again inside it; from there on it is an ordinary invoke task file.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.txt"


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def fail(text: str) -> None:
    sys.exit(f"error: {text}")


def ensure_packages(names: tuple[str, ...]) -> None:
    """Install the Debian packages that are missing, and say which."""
    if not shutil.which("dpkg-query"):
        fail("this machine is no Debian. The lab and the bundle are made with Debian's tools: use Debian 12 or later")
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    missing = [name for name in names if f"{name} installed" not in listed]
    if not missing:
        return
    if os.geteuid() != 0:
        fail(f"these Debian packages are missing and only root can install them: {' '.join(missing)}")
    say(f"Installing Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            fail(f"`{' '.join(command)}` failed with {done.returncode}:\n{done.stdout[-3000:]}")


def bootstrap() -> None:
    """Make or refresh `.venv`, then start this file again inside it. Does not return."""
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or later is needed; this is {sys.version.split()[0]} at {sys.executable}")
    stamp = VENV / "requirements.sha256"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        if VENV.is_symlink():
            fail(f"{VENV} is a link, and what it leads to is another's to change. Refresh it there, or remove the link")
        if shutil.which("apt-get"):
            ensure_packages(("python3-venv", "ca-certificates"))
        say(f"Installing {LOCK.name} into {VENV.name} (pinned, by hash)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
        if subprocess.run([*pip, "-r", LOCK]).returncode:
            fail(f"pip could not install {LOCK.name}; its words are above. Mend the network or index and run again")
        stamp.write_text(wanted)
    os.execv(PYTHON, [str(PYTHON), str(ROOT / "tasks.py"), *sys.argv[1:]])


if __name__ == "__main__" and Path(sys.prefix).resolve() != VENV.resolve():
    bootstrap()

from invoke import Collection, Context, Exit, Program, task

import bundle.build
import bundle.catalogue
import bundle.command
import bundle.compare
import bundle.extras
import bundle.inspect
import bundle.progress
import bundle.signature
import bundle.verify
import cluster.compatibility
import cluster.configuration
import cluster.findings
import cluster.plan_page
import cluster.ports
import cluster.settings
import lab.lab
import lab.layout

BUNDLE = ROOT / "dist" / "bundle"
# What a site changes of bundle/catalogue.yaml; there need not be one.
SITE = ROOT / "bundle.yaml"
LAB = "inventories/lab.py"
KUBECTL = BUNDLE / "bin" / "kubectl"
KUBECONFIG = ROOT / "secrets" / "lab" / "admin.conf"
# What the first word after a task is, where it may be left out; invoke takes no such word without its flag.
OPTIONAL = {"bundle.verify": "--directory", "bundle.inspect": "--directory", "bundle.push": "--inventory"}


def shown(words: Sequence[str | Path]) -> str:
    """A command as people would type it here."""
    return " ".join(str(word).removeprefix(f"{VENV}/bin/").removeprefix(f"{ROOT}/") for word in words)


@contextmanager
def beside(*words: str | Path) -> Iterator[None]:
    """Run a program of the environment while others run, and show at its end what it printed. Stops when it fails."""
    say(f"{shown(words)}: beside what follows; what it prints comes when it has ended")
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            words, stdout=said, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        ) as process,
    ):
        try:
            yield
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # with what it has started, such as compilers
            raise
        process.wait()
        said.seek(0)
        say(shown(words))
        sys.stdout.buffer.write(said.read())
    if process.returncode:
        raise Exit(f"error: `{shown(words)}` exited with {process.returncode}; what it printed is above", code=1)


def environment() -> dict[str, str]:
    return {**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}


def run(*words: str | Path) -> str:
    """Run a program of the environment, show what it prints as it comes, and return it. Stops when it fails."""
    say(shown(words))
    said = bytearray()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        while chunk := process.stdout.read1():  # not by lines: pytest's dots are no line for minutes
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            said += chunk
    if process.returncode:
        raise Exit(f"error: `{shown(words)}` exited with {process.returncode}; what it printed is above", code=1)
    return said.decode(errors="replace")


def pyinfra(inventory: str, deploy: str, *flags: str) -> str:
    """Run pyinfra as a user would, from the root of the project."""
    return run(VENV / "bin" / "pyinfra", inventory, deploy, *flags)


def changed(output: str) -> int:
    """How many changes a run has made, from the last line of pyinfra's own table of results."""
    total = [line for line in output.splitlines() if "Grand total" in line]
    cells = total[-1].split()[2:] if total else []
    return int(cells[1]) if len(cells) > 1 and cells[1].isdigit() else 0


@task(name="build")
def bundle_build(c: Context, update: bool = False, site: str = str(SITE), output: str = str(BUNDLE)) -> None:
    """Build dist/bundle, as bundle.yaml has it. What its lock pins comes again, or with --update what there is now."""
    if site != str(SITE) and not Path(site).exists():
        raise Exit(f"error: {site}: there is no such file", code=1)
    wanted = bundle.catalogue.load(Path(site))
    rpm = any(release.format == "rpm" for release in wanted.packages.values())
    ensure_packages((*bundle.build.APT_PACKAGES, *(bundle.build.RPM_PACKAGES if rpm else ())))
    bundle.build.build(Path(output).resolve(), Path(site), update)


@task(name="verify")
def bundle_verify(c: Context, directory: str = str(BUNDLE), public_key: str | None = None) -> None:
    """Check every byte of a bundle against its lock, and with --public-key who has signed that."""
    with bundle.progress.step(f"reading {directory}") as report:
        problems = bundle.verify.verify(Path(directory), public_key, report)
    if problems:
        raise Exit("\n".join(problems), code=1)
    signed = f", signed by a key of {public_key}" if public_key else ""
    say(f"{directory.removeprefix(f'{ROOT}/')}: every file is as bundle.lock says{signed}")


@task(name="sign", positional=["key"])
def bundle_sign(c: Context, key: str) -> None:
    """Sign dist/bundle with an SSH key, so that `bundle_public_key` can ask for it."""
    say(f"signed by {bundle.signature.sign(BUNDLE, Path(key).expanduser())}")


@task(name="inspect")
def bundle_inspect(c: Context, directory: str = str(BUNDLE)) -> None:
    """Show what a bundle holds: sizes, versions, where it is from, licences."""
    bundle.progress.CONSOLE.print(bundle.inspect.tree(bundle.verify.read_lock(Path(directory))))


@task(name="diff", positional=["old", "new"])
def bundle_diff(c: Context, old: str, new: str) -> None:
    """Show what differs between two bundles, and how much must be carried."""
    locks = [bundle.verify.read_lock(Path(each)) for each in (old, new)]
    bundle.progress.CONSOLE.print(bundle.compare.show(bundle.compare.difference(*locks)))


@task(name="add-image", positional=["image"])
def bundle_add_image(c: Context, image: str, name: str = "") -> None:
    """Add an image to dist/bundle: a reference, or a file made by `docker save`."""
    ensure_packages(bundle.build.APT_PACKAGES)
    bundle.extras.add_image(BUNDLE, bundle.catalogue.load(SITE), image, name)


@task(name="add-file", positional=["file"])
def bundle_add_file(c: Context, file: str) -> None:
    """Add a file to dist/bundle; the bundle's servers give it at /pieces/files/."""
    bundle.extras.add_file(BUNDLE, bundle.catalogue.load(SITE), Path(file))


@task(name="push")
def bundle_push(c: Context, inventory: str = LAB) -> None:
    """Carry dist/bundle to the hosts of an inventory, and change nothing else."""
    pyinfra(inventory, "deploys/distribute.py", "-y")


@task(name="up")
def lab_up(c: Context, topology: str = "default", bundle: str = str(BUNDLE)) -> None:
    """Raise the lab, or what is missing of it: --topology default, large, compact, small, single or mixed."""
    names = lab.layout.topology(topology)
    ensure_packages(lab.lab.APT_PACKAGES)
    lab.lab.up(names, bundle)


@task(name="down")
def lab_down(c: Context) -> None:
    """Take the lab down and leave nothing behind."""
    lab.lab.down()


@task(name="status")
def lab_status(c: Context) -> None:
    """Show the lab's nodes."""
    for row in lab.lab.status():
        print(" ".join(f"{value:14}" for value in row.values()).rstrip())


@task(name="shell", positional=["node"])
def lab_shell(c: Context, node: str) -> None:
    """Open a shell on a node."""
    raise Exit(code=lab.lab.shell(node))


@task(name="stop", positional=["node"])
def lab_stop(c: Context, node: str) -> None:
    """Cut a node's power."""
    lab.lab.stop(node)


@task(name="start", positional=["node"])
def lab_start(c: Context, node: str) -> None:
    """Start a stopped node."""
    lab.lab.start(node)


@task(name="replace", positional=["node"])
def lab_replace(c: Context, node: str) -> None:
    """Put a machine with an empty disk in a node's place."""
    lab.lab.replace(node)


@task(name="cut", positional=["node"])
def lab_cut(c: Context, node: str) -> None:
    """Unplug a node from the network."""
    lab.lab.cut(node)


@task(name="mend", positional=["node"])
def lab_mend(c: Context, node: str) -> None:
    """Plug a node in again."""
    lab.lab.mend(node)


@task
def demo(c: Context) -> None:
    """From nothing to a highly available cluster on this machine: bundle, lab, dry run, deploy, verify."""
    bundle_build(c)
    lab_up(c)
    pyinfra(LAB, "deploys/cluster.py", "--dry", "--diff")
    count = changed(pyinfra(LAB, "deploys/cluster.py", "-y"))
    print()
    run(KUBECTL, "--kubeconfig", KUBECONFIG, "get", "nodes", "-o", "wide")
    vip = lab.layout.read()["vip"]
    say(f"{count} changes made" if count else "0 changes: the cluster was as described already")
    say(f"API: https://{vip}:6443, the virtual IP of lb1 and lb2")
    say(f"kubeconfig: {KUBECONFIG.relative_to(ROOT)} (yours alone; try `{KUBECTL.relative_to(ROOT)} --kubeconfig ...`)")
    say("a node: `python3 tasks.py lab shell cp1`; another run: `python3 tasks.py demo`; all away: `... lab down`")


@task
def check(c: Context) -> None:
    """Lint, types and the direction of imports."""
    for words in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports", "--no-logo"]):
        run(VENV / "bin" / words[0], *words[1:])


@task
def test(c: Context, full: bool = False) -> None:
    """Every check and every test, the lab's included; with --full, of every minor of Kubernetes and every topology."""
    check(c)
    ensure_packages((*bundle.build.APT_PACKAGES, *bundle.build.RPM_PACKAGES, "docker-registry", "nginx"))
    minors = ["--full"] if full else []
    with beside(PYTHON, "-m", "pytest", "-q", "tests/plan"):  # a processor's work, about as long as all of these
        run(PYTHON, "-m", "pytest", "-q", "tests/unit")
        # A process of its own: unit tests import pyinfra_cli, and gevent's threads all stop where one waits for a lock.
        run(PYTHON, "-m", "pytest", "-q", "tests/bundle")
        run(PYTHON, "-m", "tests.versions.kubeadms", *minors)
        run(PYTHON, "-m", "pytest", "-q", "tests/versions", *minors)
        bundle_build(c)
    lab_down(c)
    lab_up(c)
    patch = ("--site", "tests/lab/patch.yaml", "--output", "dist/bundle-patch")
    try:
        # Its last file wants the bundle of another patch, which from source is ten minutes of both processors.
        with beside("nice", "-n", "19", PYTHON, "tasks.py", "bundle", "build", *patch):
            run(PYTHON, "-m", "pytest", "-v", "tests/lab")
        if full:
            run(PYTHON, "-m", "pytest", "-v", "-o", "faulthandler_timeout=3600", "tests/lab/full")
    finally:
        lab_down(c)


@task
def bench(c: Context, cold: bool = False) -> None:
    """Measure each stage over a lab of its own, and write bench/report.md."""
    run(PYTHON, "bench/stages.py", *(["--cold"] if cold else []))


@task(name="bench-bundle")
def bench_bundle(c: Context, engines: bool = False) -> None:
    """Measure the bundle beside plain tools over a lab of its own, and write bench/bundle.md."""
    run(PYTHON, "bench/bundle.py", *(["--engines"] if engines else []))


@task(name="bench-hosts")
def bench_hosts(c: Context) -> None:
    """Measure dry runs and runs that change nothing of 10, 100 and 500 hosts, and write bench/hosts.md."""
    if VENV.is_symlink():
        fail(f"{VENV} is a link, and what it leads to is another's to change. Remove the link")
    run(PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", "bench/requirements.txt")
    run(PYTHON, "bench/hosts.py")


@task
def settings(c: Context, inventory: str = "inventories/prod.py") -> None:
    """Show every setting of an inventory's hosts: its value, the file that it is from, and what it means."""
    raise Exit(code=subprocess.run([PYTHON, "-m", "tools.settings", inventory], check=False).returncode)


def planned(inventory: str, deploy: str, output: str, *flags: str) -> None:
    """Plan a deploy and keep that as JSON and a page. Ends with pyinfra's exit status where that is not 0."""
    path, started = Path(output), time.time()
    command = [VENV / "bin" / "pyinfra", inventory, f"deploys/{deploy}.py", *flags, "--data", f"plan_out={path}"]
    code = subprocess.run(command, check=False).returncode
    if code == 0 and not (path.exists() and path.stat().st_mtime >= started):  # so it ends where it has found no host
        raise Exit(f"error: no plan was made of deploys/{deploy}.py for {inventory}; why is above", code=1)
    if code:
        raise Exit(code=code)
    say(f"the plan: {path}")
    say(f"its page: {cluster.plan_page.beside(path)} (open it in a browser)")


@task
def plan(
    c: Context, inventory: str = "inventories/prod.py", deploy: str = "cluster", output: str = "plan.json"
) -> None:
    """Keep what a deploy would change as JSON, and as a page for a browser beside it. Changes no host."""
    planned(inventory, deploy, output, "--dry")


@task
def drift(c: Context, inventory: str = "inventories/prod.py", output: str = "drift.json") -> None:
    """Tell what differs between an inventory's hosts and what they are described as, and keep it as `plan` does: exit
    status 0 nothing, 2 something, 1 could not tell."""
    planned(inventory, "drift", output, "--diff", "-y")


@task
def docs(c: Context) -> None:
    """Write the documents of settings, configuration, compatibility, checks and ports anew from what they describe."""
    described = {"settings": cluster.settings, "configuration": cluster.configuration}
    described |= {"compatibility": cluster.compatibility, "preflight": cluster.findings, "ports": cluster.ports}
    for name, module in described.items():
        (ROOT / "docs" / f"{name}.md").write_text(module.markdown())


namespace = Collection(
    demo,
    test,
    check,
    bench,
    bench_bundle,
    bench_hosts,
    settings,
    plan,
    drift,
    docs,
    Collection(
        "bundle",
        bundle_build,
        bundle_verify,
        bundle_sign,
        bundle_inspect,
        bundle_diff,
        bundle_add_image,
        bundle_add_file,
        bundle_push,
    ),
    Collection("lab", lab_up, lab_down, lab_status, lab_shell, lab_stop, lab_start, lab_replace, lab_cut, lab_mend),
)


def main() -> None:
    os.chdir(ROOT)
    groups = {"bundle", "lab"}
    words = sys.argv[1:]
    if len(words) > 1 and words[0] in groups:  # people type `lab up`; invoke's own name for it is `lab.up`
        words[:2] = [".".join(words[:2])]
    if len(words) > 1 and words[0] in OPTIONAL and not words[1].startswith("-"):
        words.insert(1, OPTIONAL[words[0]])
    try:
        Program(namespace=namespace, name="tasks.py", version="0.1.0").run(["tasks.py", *words])
    except (bundle.command.BuildError, bundle.verify.BundleError, lab.layout.LabError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
