"""Which file a setting is from: by the levels of pyinfra, as it reads them itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyinfra.api.exceptions import InventoryError

from cluster.settings import SettingsError
from tools import settings

INVENTORY = """\
control_plane = [("cp1", {"address": "10.0.0.21", "vip_interface": "bond0"})]
worker = (["w1", ("w2", {"kubelet_config": {"maxPods": 50}})], {"kubelet_config": {"maxPods": 20}})
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inventories").mkdir()
    (tmp_path / "group_data").mkdir()
    (tmp_path / "inventories/site.py").write_text(INVENTORY)
    (tmp_path / "group_data/all.py").write_text('vip = "10.0.0.100"\nssh_user = "admin"\nbundle_port = 5000\n')
    (tmp_path / "group_data/worker.py").write_text('vip_interface = "eth1"\n')
    monkeypatch.chdir(tmp_path)
    return Path("inventories/site.py")


def test_each_value_is_said_with_its_file_and_the_hosts_that_have_it(site: Path) -> None:
    found = [(row.name, row.origin, row.hosts) for row in settings.read(site) if row.origin != "default"]
    everybody, inventory = ("cp1", "w1", "w2"), "inventories/site.py"
    assert found == [
        ("vip", "group_data/all.py", everybody),
        ("bundle_port", "group_data/all.py", everybody),
        ("vip_interface", inventory, ("cp1",)),
        ("vip_interface", "group_data/worker.py", ("w1", "w2")),
        ("kubelet_config", inventory, ("w1",)),
        ("kubelet_config", inventory, ("w2",)),
    ]


def test_people_read_values_as_they_write_them_and_what_they_mean(site: Path) -> None:
    lines = settings.text(settings.read(site)).splitlines()
    assert "vip = '10.0.0.100'  (group_data/all.py)" in lines
    assert "pod_subnet = '10.244.0.0/16'  (default)" in lines
    assert "kubelet_config = {'maxPods': 50}  (inventories/site.py, w2)" in lines
    assert "    Port on which they do, to hosts of the inventory only." in lines


def test_settings_that_cannot_be_are_refused_as_in_a_run(site: Path) -> None:
    Path("group_data/all.py").write_text("vipp = '10.0.0.100'\n")
    with pytest.raises(SettingsError, match=r"vipp: there is no such setting; did you mean vip\?"):
        settings.read(site)


def test_an_inventory_that_is_not_there_is_said() -> None:
    with pytest.raises(InventoryError, match=r"^nowhere.py: there is no such inventory\.$"):
        settings.read(Path("nowhere.py"))
