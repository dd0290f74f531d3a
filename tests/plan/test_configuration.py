"""A host's own configuration of its kubelet."""

from __future__ import annotations

from pathlib import Path

from runs import make_site

PATCH = "/etc/kubernetes/patches/kubeletconfiguration+merge.yaml"


def test_a_hosts_own_kubelet_configuration_is_written_before_it_joins_and_reaches_its_kubelet(
    tmp_path: Path, bundle: Path
) -> None:
    own = {"cp3": {"kubelet_config": {"maxPods": 30}}, "w2": {"kubelet_config": {"maxPods": 50}}}
    site = make_site(tmp_path / "site", bundle, own=own)
    dry = site.run("--dry", "--json")
    name = "Write the kubelet's own configuration"
    assert {host for host, operation in dry.planned if name in operation} == set(own)
    run = site.run("-y")
    assert run.code == 0, run.words
    for host, settings in own.items():
        (written,) = (each for each in run.like(PATCH, "change") if each["host"] == host)
        (join,) = (each for each in run.like("kubeadm join", "change") if each["host"] == host)
        assert written["ended"] < join["began"]
        with site.state() as state:
            files = {name: node["files"] for name, node in state["nodes"].items()}
        config = files[host]["/var/lib/kubelet/config.yaml"]["text"]
        assert config.endswith(f"maxPods: {settings['kubelet_config']['maxPods']}\n")
    assert {host for host, each in files.items() if PATCH in each} == set(own)
    assert site.run("-y").changes == []
