"""References to images, as the kubelet's runtimes understand them."""

from __future__ import annotations

import pytest

from bundle import references
from bundle.command import BuildError

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("registry.k8s.io/coredns/coredns:v1.14.2", "registry.k8s.io/coredns/coredns:v1.14.2"),
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("calico/node:v3.32.0", "docker.io/calico/node:v3.32.0"),
        ("localhost/app:1", "localhost/app:1"),
        ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("Internal/app:1", "Internal/app:1"),
        (f"quay.io/a/b@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"quay.io/a/b:v1@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
    ],
)
def test_what_is_left_out_of_a_reference_is_put_in(text: str, name: str) -> None:
    assert references.parse(text).name == name
    assert references.parse(name).name == name


def test_a_reference_has_parts() -> None:
    etcd = references.parse("registry.k8s.io:443/a/etcd:3.6.8-0")
    assert (etcd.host, etcd.path, etcd.tag, etcd.digest, etcd.suffix, etcd.short) == (
        "registry.k8s.io:443", "a/etcd", "3.6.8-0", "", ":3.6.8-0", "etcd",
    )  # fmt: skip
    pinned = references.parse(f"a/b:1@{DIGEST}")
    assert (pinned.tag, pinned.digest, pinned.suffix) == ("", DIGEST, f"@{DIGEST}")


@pytest.mark.parametrize(
    "text",
    ["", "a b", "nginx:", "nginx@", "nginx@sha256:0a", f"nginx@sha512:{'0' * 64}", "https://quay.io/a", "quay.io/",
     "../a", "-a.b/c", "quay.io/A/b:1", "nginx:1:2", "--help", "quay.io//a", "nginx:ü"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        references.parse(text)
    assert str(caught.value) == (
        f"{text!r} is no reference of an image. It must be like registry.k8s.io/pause:3.10, or end in @sha256: and 64 "
        "digits of a digest."
    )
