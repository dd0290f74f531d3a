"""Where files and images of a bundle can be had from just now: their upstreams, or mirrors of those."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from bundle.catalogue import Catalogue
from bundle.command import BuildError
from bundle.download import refuse_credentials
from bundle.progress import say, step

Kind = Literal["directory", "upstream", "mirror"]
ASKED: tuple[Kind, ...] = ("upstream", "mirror")
# Images of docker.io are at another name than their references say; clients know that.
REGISTRIES = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True)
class Place:
    """What stands in a host's place: host, host:port, either with a path, or the same after `scheme://`."""

    kind: Kind
    address: str

    def url(self, upstream: str) -> str:
        """The URL at this place of what upstream has at `https://host/path`."""
        return f"{base(self.address)}/{upstream.partition('://')[2].partition('/')[2]}"


def base(address: str) -> str:
    """The beginning of a URL at an address: over TLS unless it says otherwise."""
    return (address if "://" in address else f"https://{address}").rstrip("/")


def places(catalogue: Catalogue, hosts: Collection[str]) -> dict[str, list[Place]]:
    """The places that answer, for each host, in the order of the catalogue's sources; one line says which and why.

    Mirrors are asked only for hosts whose upstream does not answer (or the other way about, as the sources' order
    is). Raises BuildError when an address of a mirror holds a password.
    """
    kinds = sorted(set(ASKED) & set(catalogue.sources), key=catalogue.sources.index)
    found: dict[str, list[Place]] = {host: [] for host in hosts}
    said: dict[str, list[str]] = {host: [] for host in hosts}
    with step(f"asking which of {len(found)} hosts answer"):
        for kind in kinds:
            left = [host for host in found if not found[host]]
            candidates = {host: candidates_of(catalogue, kind, host) for host in left}
            answers = ask(place.address for each in candidates.values() for place in each)
            for host in left:
                found[host] = [place for place in candidates[host] if not answers[place.address]]
                said[host].append(_words(kind, candidates[host], answers, first=not said[host]))
    for host in sorted(found):
        say(f"{host}: {'; '.join(said[host]) or 'neither upstream nor a mirror is a source'}")
    return found


def candidates_of(catalogue: Catalogue, kind: str, host: str) -> list[Place]:
    """The places of a kind that a host may have, whether they answer or not."""
    if kind == "upstream":
        return [Place("upstream", host)]
    return [Place("mirror", address) for address in catalogue.mirrors.get(host, ())]


def ask(addresses: Iterable[str]) -> dict[str, str]:
    """Why each address does not answer, in curl's words; empty when it does. All at once, in 10 seconds at most."""
    distinct = sorted(set(addresses))
    for address in distinct:
        refuse_credentials(address)
    with ThreadPoolExecutor(max_workers=max(len(distinct), 1)) as pool:
        return dict(zip(distinct, pool.map(_silence, distinct), strict=True))


def _silence(address: str) -> str:
    """Why an address does not answer. Any HTTP status is an answer; /v2/ is what every registry has.

    https://distribution.github.io/distribution/spec/api/#api-version-check
    """
    url = f"{base(REGISTRIES.get(address, address))}/v2/"
    if urlsplit(url).scheme == "file":
        directory = Path(unquote(urlsplit(base(address)).path))
        return "" if directory.is_dir() else f"there is no directory {directory}"
    command = ("curl", "--disable", "--silent", "--show-error", "--proto", "=https,http", "--netrc-optional")
    limits = ("--connect-timeout", "5", "--max-time", "10")
    output = ("--output", "/dev/null", "--write-out", "%{http_code}")
    try:
        done = subprocess.run([*command, *limits, *output, url], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError("curl, which downloads are made with, is not installed. Install it.") from None
    if done.stdout[-3:].strip("0"):
        return ""
    return done.stderr.strip().partition("\n")[0] or f"curl ended with {done.returncode}"


def _words(kind: Kind, candidates: list[Place], answers: dict[str, str], first: bool) -> str:
    """What to say of a host's places of one kind, after what was said of the other."""
    good = [place.address for place in candidates if not answers[place.address]]
    bad = ", ".join(f"{place.address} ({answers[place.address]})" for place in candidates if answers[place.address])
    if kind == "upstream":
        return "upstream answers" if good else f"does not answer ({answers[candidates[0].address]})"
    if good:
        return f"its mirror {good[0]} {'answers' if first else 'does'}"
    if not bad:
        return "it has no mirror"
    return f"none of its mirrors answers: {bad}" if first else f"no mirror answers either: {bad}"
