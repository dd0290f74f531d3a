"""Families of distributions: which release a host is of, and what its bundle must have."""

from __future__ import annotations

import pytest

from bundle import catalogue
from cluster import families

SETS = {"base", "runtime", "load_balancer", "mirror", "time"}
KNOWN = [name for family in families.load().values() for name in family.releases]


@pytest.mark.parametrize("name", families.load())
def test_every_family_has_all_sets_and_absolute_paths(name: str) -> None:
    family = families.load()[name]
    assert set(family.sets) == SETS
    chrony = family.chrony
    paths = (chrony.config, chrony.drift, family.kubelet_environment, family.keepalived_check)
    assert all(path.startswith("/") for path in paths)
    assert chrony.unit.endswith(".service")
    assert set(family.unstarted) <= {package for each in family.sets.values() for package in each}


def test_no_release_is_of_two_families() -> None:
    assert len(KNOWN) == len(set(KNOWN))


@pytest.mark.parametrize(
    ("os_id", "version", "release"),
    [
        ("debian", "12", "debian-12"),
        ("ubuntu", "24.04", "ubuntu-24.04"),
        ("rocky", "9.4", "rocky-9"),
        ("almalinux", "10.0", "almalinux-10"),
        ("centos", "9", "centos-9"),
        ("openEuler", "22.03", "openEuler-22.03"),
        ("kylin", "V10", "kylin-V10"),
        ("kylin", "v10", None),  # Kylin's desktop, which is another distribution
        ("ubuntu", "23.10", None),
        ("rocky", "8.10", None),
        ("", "", None),
    ],
)
def test_a_host_is_of_the_release_that_its_os_release_names(os_id: str, version: str, release: str | None) -> None:
    system = families.system({"os_id": os_id, "os_version": version})
    assert families.release(system, KNOWN) == release


def test_a_release_of_its_own_goes_before_its_first_number() -> None:
    assert families.release("rocky-9.4", ["rocky-9", "rocky-9.4"]) == "rocky-9.4"


def test_a_host_needs_the_sets_of_its_roles() -> None:
    assert list(families.package_sets(["node"], chrony=False)) == ["base", "runtime"]
    assert list(families.package_sets(["balancer", "bundle_server"], chrony=True)) == [
        "load_balancer",
        "mirror",
        "time",
    ]


def test_a_known_release_needs_no_more_than_where_its_packages_are() -> None:
    text = {"packages": {"debian-12": {"image_base": ["kmod"]}}}
    own = {"packages": {"rocky-9": {"repositories": {}}, "slackware-15": {"suite": "own"}}}
    found = catalogue.merged(catalogue.known(text, own), own)["packages"]
    assert found["rocky-9"]["format"] == "rpm"
    assert set(found["rocky-9"]["sets"]) == SETS
    assert (found["debian-12"]["suite"], found["debian-12"]["image_base"]) == ("bookworm", ["kmod"])
    assert found["slackware-15"] == {"suite": "own"}


def test_a_site_adds_sets_to_a_known_release_and_replaces_those_of_the_same_name() -> None:
    own = {"packages": {"rocky-9": {"sets": {"tools": ["strace"], "time": []}}}}
    sets = catalogue.merged(catalogue.known({"packages": {}}, own), own)["packages"]["rocky-9"]["sets"]
    assert (sets["tools"], sets["time"], set(sets)) == (["strace"], [], SETS | {"tools"})


def test_what_the_catalogue_says_of_a_release_takes_the_place_of_what_is_known() -> None:
    text = {"packages": {"debian-12": {"sets": {"base": ["app"]}}}}
    assert catalogue.known(text, {})["packages"]["debian-12"]["sets"] == {"base": ["app"]}


def test_a_release_that_names_its_format_is_described_whole() -> None:
    row = {"format": "rpm", "sets": {"base": ["app"]}}
    text, own = {"packages": {"debian-12": row}}, {"packages": {"rocky-9": row}}
    assert catalogue.merged(catalogue.known(text, own), own)["packages"] == {"debian-12": row, "rocky-9": row}
    # What the site adds to a release of the catalogue is an addition, whatever it repeats.
    text = {"packages": {"debian-12": {}}}
    own = {"packages": {"debian-12": {"format": "deb", "sets": {"tools": ["strace"]}}}}
    assert set(catalogue.merged(catalogue.known(text, own), own)["packages"]["debian-12"]["sets"]) == SETS | {"tools"}
