"""Runtimes' own programs on our files: containerd of Debian and one built from its module make of the configuration
what is meant by it, and Debian's skopeo fills a storage such as CRI-O's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundle import catalogue, gobuild, oci
from cluster import runtime
from cluster.lock import Image
from cluster.pieces import NODE_DIRECTORY
from cluster.settings import load
from deploys.plan import TEMPLATES
from operations import containerd, crio

PAUSE = "registry.k8s.io/pause:3.10.2"
CRI = "io.containerd.grpc.v1.cri"
SETTINGS = load({"vip": "10.0.0.100", "containerd_restrict_oom_score_adj": True})


@dataclass(frozen=True)
class Program:
    """A containerd and its release."""

    path: Path
    release: str

    @property
    def version(self) -> int:
        return runtime.config_version(self.release)

    def render(self, version: int = 0, **values: object) -> str:
        """The configuration that it is given, or would be if it read another version."""
        version = version or self.version
        return TEMPLATES.get_template(f"containerd/config-{1 if version == 2 else 2}.toml.j2").render(
            settings=SETTINGS, version=version, cni_directories=runtime.has_cni_directories(self.release),
            pause=PAUSE, driver="systemd", registries=runtime.REGISTRIES, **values,
        )  # fmt: skip

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Shell to which this program is `containerd`."""
        environment = os.environ | {"PATH": f"{self.path.parent}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def dump(self, file: Path) -> dict[str, Any]:
        """What it makes of a file."""
        done = self.run(f"containerd --config {file} config dump")
        assert done.returncode == 0, done.stderr
        # Neither an old version nor an unknown or deprecated key is passed over in silence.
        assert done.stderr == ""
        return tomllib.loads(done.stdout)


def debians(directory: Path) -> Program:
    """containerd of Debian's archive, unpacked and not installed."""
    subprocess.run(["apt-get", "-qq", "download", "containerd"], cwd=directory, capture_output=True, check=True)
    (package,) = directory.glob("containerd_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, directory / "root"], check=True)
    said = subprocess.run(["dpkg-deb", "-f", package, "Version"], capture_output=True, text=True, check=True)
    return Program(directory / "root/usr/bin/containerd", said.stdout.strip())


def built(directory: Path) -> Program:
    """containerd of the catalogue, as a bundle is given it where nobody serves it; it stays in the builder's cache."""
    (directory / "bundle.yaml").write_text("runtime: upstream\n")
    component = catalogue.load(directory / "bundle.yaml").components["containerd"]
    (module,) = component.build
    only = module.model_copy(update={"packages": {"containerd": module.packages["containerd"]}})
    go = gobuild.toolchain(catalogue.load().go)
    return Program(gobuild.build(go, "containerd", only, "linux/amd64") / "containerd", component.version)


@pytest.fixture(scope="module", params=[debians, built], ids=["debian", "module"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return request.param(tmp_path_factory.mktemp("containerd"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Written:
    """A configuration in a directory, with a place for a site's own files."""

    program: Program
    file: Path
    drop_ins: Path

    def check(self) -> subprocess.CompletedProcess[str]:
        """What decides whether the file is put in place."""
        return self.program.run(containerd.check_script(PAUSE, "systemd").replace("{}", str(self.file)))


@pytest.fixture
def written(program: Program, tmp_path: Path) -> Written:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.toml").write_text(program.render(drop_ins=tmp_path / "conf.d"))
    return Written(program, tmp_path / "config.toml", tmp_path / "conf.d")


def test_containerd_makes_of_its_configuration_what_is_meant(written: Written) -> None:
    found = written.program.dump(written.file)
    plugins = found["plugins"]
    assert found["version"] == written.program.version
    if written.program.version == 2:
        images = runtimes = plugins[CRI]
        pause, directories = images["sandbox_image"], [runtimes["cni"]["bin_dir"]]
    else:
        images, runtimes = plugins["io.containerd.cri.v1.images"], plugins["io.containerd.cri.v1.runtime"]
        pause, directories = images["pinned_images"]["sandbox"], runtimes["cni"]["bin_dirs"]
    default = runtimes["containerd"]["runtimes"][runtimes["containerd"]["default_runtime_name"]]
    assert (pause, images["registry"]["config_path"]) == (PAUSE, "/etc/containerd/certs.d")
    assert (default["runtime_type"], default["options"]["SystemdCgroup"]) == ("io.containerd.runc.v2", True)
    assert (directories, runtimes["cni"]["conf_dir"]) == (["/opt/cni/bin"], "/etc/cni/net.d")
    assert runtimes["restrict_oom_score_adj"] is True
    assert written.check().returncode == 0


def test_a_file_of_the_sites_is_imported(written: Written) -> None:
    own = '[plugins."io.containerd.gc.v1.scheduler"]\n  startup_delay = "7s"\n'
    (written.drop_ins / "50-site.toml").write_text(f"version = {written.program.version}\noom_score = -5\n{own}")
    found = written.program.dump(written.file)
    assert found["oom_score"] == -5
    assert found["plugins"]["io.containerd.gc.v1.scheduler"]["startup_delay"] == "7s"
    assert written.check().returncode == 0


def test_a_file_of_the_sites_that_undoes_ours_keeps_it_from_its_place(written: Written) -> None:
    """One line of the CRI's table: in containerd 1.x it takes the place of all others, later it is one more."""
    own = f'version = 2\n[plugins."{CRI}"]\n  max_concurrent_downloads = 9\n'
    (written.drop_ins / "50-site.toml").write_text(own)
    done = written.check()
    if written.program.version == 2:
        assert done.returncode == 1
        assert "containerd would not have this of its configuration" in done.stderr
        assert done.stderr.endswith("/etc/containerd/conf.d: SystemdCgroup = true\n")
    else:
        assert done.returncode == 0, done.stderr


def test_a_file_that_is_no_toml_keeps_ours_from_its_place(written: Written) -> None:
    (written.drop_ins / "50-site.toml").write_text("not toml\n")
    assert written.check().returncode == 1


def test_a_configuration_of_a_later_version_does_not_get_into_place(written: Written) -> None:
    """containerd 1.6 itself says nothing against it, and runs with nothing of it."""
    later = written.program.version + 1
    written.file.write_text(written.program.render(version=later, drop_ins=written.drop_ins))
    done = written.check()
    assert done.returncode == 1
    assert "containerd would not have this of its configuration" in done.stderr


def test_skopeo_copies_an_image_into_a_storage_by_its_name_and_digest(tmp_path: Path) -> None:
    (tmp_path / "pause").write_text("a program")
    blobs = tmp_path / NODE_DIRECTORY.lstrip("/") / "images"
    blobs.mkdir(parents=True)
    layout = oci.Layout(blobs)
    layout.image(PAUSE, "linux/amd64", [layout.layer({"/pause": tmp_path / "pause"})], ["/pause"], "65535:65535")
    layout.finish()
    (row,) = oci.images(blobs)
    image = Image.model_validate(row)
    size = (blobs / "blobs" / image.digest.replace(":", "/")).stat().st_size
    (tmp_path / "policy.json").write_text(TEMPLATES.get_template("crio/policy.json.j2").render())
    # Which driver works depends on the file system of the tests; a node's is named by CRI-O's configuration.
    script = crio.copy_script(60, f"{tmp_path}/root", f"{tmp_path}/runroot", f"{tmp_path}/policy.json")
    script = script.replace(NODE_DIRECTORY, str(blobs.parent)).replace("[overlay@", "[vfs@")
    requests = crio.requests([image], {image.digest: size})
    done = subprocess.run(["sh", "-c", script], input=requests, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    storage = f"containers-storage:[vfs@{tmp_path}/root+{tmp_path}/runroot]{PAUSE}"
    manifest = subprocess.run(["skopeo", "inspect", "--raw", storage], capture_output=True, check=True).stdout
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == image.digest
