from __future__ import annotations

from typing import Any

import pytest
import yaml

from cluster.kubeconfigs import MergeError, merged


def config(cluster: str, user: str, server: str, ca: str = "Q0E=", key: str = "a2V5") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": user, "user": {"client-key-data": key}}],
            "contexts": [{"name": "here", "context": {"cluster": cluster, "user": user}}],
            "current-context": "here",
        }
    )


def names(document: dict[str, Any]) -> dict[str, list[str]]:
    return {kind: [each["name"] for each in document[kind]] for kind in ("clusters", "users", "contexts")}


def written(node: yaml.Node) -> Any:
    """A document with its scalars as they are written, each with its quotes; a null may be spelt otherwise."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: written(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [written(each) for each in node.value]
    return None if node.tag.endswith(":null") else (node.value, node.style)


ADDED = config("production", "kubernetes-admin", "https://192.0.2.100:6443")


@pytest.mark.parametrize(
    "own",
    [
        "",
        "# nothing yet\n",
        "apiVersion: v1\nkind: Config\nclusters: null\n",
        "clusters: [{name: production, cluster: }]\n",
    ],
)
def test_a_file_that_has_nothing_gets_the_context_and_uses_it(own: str) -> None:
    document = yaml.safe_load(merged(own, ADDED, "production"))
    name = "kubernetes-admin@production"
    assert document["current-context"] == name
    assert names(document) == {"clusters": ["production"], "users": [name], "contexts": [name]}


def test_everything_else_stays_in_its_place_and_so_does_the_context_in_use() -> None:
    own = config("test", "kubernetes-admin", "https://192.0.2.7:6443", key="bXk=")
    own += "preferences: {colors: true}\nextensions:\n- name: token\n  extension: {expiry: 2026-11-30T17:00:00Z}\n"
    text = merged(own, ADDED, "production")
    document, before = yaml.load(text, yaml.BaseLoader), yaml.load(own, yaml.BaseLoader)
    for kind in ("clusters", "users", "contexts"):
        assert document[kind][:-1] == before[kind]
    assert {key: document[key] for key in before if key not in names(document)} == {
        key: before[key] for key in before if key not in names(document)
    }
    assert yaml.safe_load(text)["preferences"] == {"colors": True}
    assert names(document)["users"] == ["kubernetes-admin", "kubernetes-admin@production"]
    assert merged(text, ADDED, "production") == text


def test_what_is_written_in_quotes_or_without_stays_so_for_kubectl_reads_other_numbers() -> None:
    own = config("test", "me", "https://192.0.2.7:6443").replace("name: test", 'name: "12e34567"')
    own += "extensions: [{name: a, extension: ['1e5', \"y\", '0o17', 12:34:56, 1_000, yes, 2026-11-30, ~, '=']}]\n"
    before, after = yaml.compose(own), yaml.compose(merged(own, ADDED, "production"))
    assert written(after)["clusters"][0]["name"] == ("12e34567", '"')
    assert written(after)["extensions"] == written(before)["extensions"]


def test_a_renewed_one_takes_the_place_of_the_old_and_its_namespace_stays() -> None:
    text = merged(config("test", "me", "https://192.0.2.7:6443"), ADDED, "production")
    document = yaml.safe_load(text)
    document["contexts"][1]["context"]["namespace"] = "shop"
    document["contexts"].reverse()
    renewed = config("production", "kubernetes-admin", "https://192.0.2.100:6443", ca="TmV3", key="bmV3")
    after = yaml.safe_load(merged(yaml.safe_dump(document), renewed, "production"))
    assert names(after)["contexts"] == ["kubernetes-admin@production", "here"]
    assert after["contexts"][0]["context"]["namespace"] == "shop"
    assert after["users"][1]["user"] == {"client-key-data": "bmV3"}
    assert after["clusters"][1]["cluster"]["certificate-authority-data"] == "TmV3"


def test_the_persons_own_way_to_the_cluster_stays_beside_its_ca() -> None:
    document = yaml.safe_load(merged("", ADDED, "production"))
    own = {"proxy-url": "socks5://127.0.0.1:1080", "tls-server-name": "api"}
    trust = {"certificate-authority": "ca.crt", "insecure-skip-tls-verify": True}
    document["clusters"][0]["cluster"] = {"server": "https://192.0.2.100:6443", **own, **trust}
    text = merged(yaml.safe_dump(document), ADDED, "production")
    assert yaml.safe_load(text)["clusters"][0]["cluster"] == {
        "server": "https://192.0.2.100:6443", "certificate-authority-data": "Q0E=", **own,
    }  # fmt: skip
    assert merged(text, ADDED, "production") == text


def test_a_user_whose_name_has_the_cluster_keeps_it() -> None:
    added = config("production", "jane@production", "https://192.0.2.100:6443")
    assert names(yaml.safe_load(merged("", added, "production")))["users"] == ["jane@production"]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("clusters: [", "no kubeconfig"),
        ("a list of words", "no kubeconfig"),
        ("clusters: [{cluster: {}}]", "no kubeconfig"),
        (config("production", "me", "https://192.0.2.7:6443", ca="T3RoZXI="), "another cluster production, at https"),
    ],
)
def test_what_cannot_be_read_or_has_another_cluster_of_the_name_is_refused(own: str, words: str) -> None:
    with pytest.raises(MergeError, match=words):
        merged(own, ADDED, "production")
