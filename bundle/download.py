"""One file, downloaded by curl (https://curl.se/docs/manpage.html) and never taken for whole before it is.

Proxies, CA and passwords are those that curl finds in its environment and in ~/.netrc. ~/.curlrc is not read: a line
of it could switch the check of certificates off.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from bundle.command import BuildError
from bundle.manifests import LOADER
from bundle.progress import Report

# What a URL, and where it redirects to, may be fetched by. Without TLS only where the address that was given is.
PROTOCOLS = {"https": "=https", "http": "=http,https", "file": "=file"}
STALLED = 30  # seconds of less than 1 kB/s
PAUSES: tuple[float, ...] = (1, 4)  # seconds before each new attempt, after one that got nothing more
# Faults that may pass (https://curl.se/docs/manpage.html#EXIT), and statuses that curl's own --retry takes for such.
PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
PASSING_STATUSES = {408, 429, 500, 502, 503, 504}
NO_RESUME = {33, 36}
UNTRUSTED = {35, 60, 77, 83}
NOT_WRITTEN = {23, 26, 27}


class Unavailable(BuildError):
    """A file cannot be had from a place; `reason` is the short form. Another place may have it."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason}. {advice}".strip())
        self.reason = reason


class WrongBytes(BuildError):
    """What came is not what it must be. No other place is tried: somebody has to look."""


@dataclass(frozen=True)
class Outcome:
    """How a curl ended: its exit code, its words, and the last answer's status, protocol and headers."""

    code: int
    said: str
    status: int = 0
    protocol: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str:
        """The value of a header, named in lower case; empty when it was not sent."""
        return dict(self.headers).get(name, "")


def fetch(url: str, target: Path, sha256: str | None, report: Report) -> None:
    """Download a URL to a file, going on where an earlier attempt was cut. Raises BuildError.

    Unavailable when it cannot be had, WrongBytes when it has another sha256. What has come so far is kept as
    `<target>.part` for the next attempt; without a sha256 to tell whether the pieces fit, it is begun anew instead.
    """
    refuse_credentials(url)
    if urlsplit(url).scheme not in PROTOCOLS:
        raise BuildError(f"{url}: is no address that files are fetched from; use https://, http:// or file://.")
    if has(target, sha256):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _alone(part, report) as lock:
        try:
            if not has(target, sha256):  # it may have been made by whom we waited for
                _fill(url, part, sha256, lock, report)
                part.replace(target)
        except WrongBytes:
            os.truncate(part, 0)
            raise
        finally:
            if part.exists() and (sha256 is None or not part.stat().st_size):
                part.unlink()


def fetch_text(url: str) -> str:
    """The text of a small file. Raises BuildError."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "text")
        fetch(url, target, None, lambda _: None)
        return target.read_text(errors="replace")


def has(path: Path, sha256: str | None) -> bool:
    """Whether a file is there with this sha256."""
    return sha256 is not None and path.is_file() and sha256_of(path) == sha256


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def checksum(text: str, name: str) -> str:
    """The sha256 of the file `name` in a text that holds one alone, or lines of sha256sum's, GNU or BSD style, or is
    the index of a repository of charts.

    https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html,
    https://helm.sh/docs/topics/chart_repository/#the-index-file. Raises Unavailable when there is none, or more than
    one.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        return text.strip().lower()
    lines = re.findall(r"^([0-9a-fA-F]{64}) [ *]?(.+?)\s*$", text, re.MULTILINE)
    lines += [(value, file) for file, value in re.findall(r"^SHA256 \((.+)\) = ([0-9a-fA-F]{64})\s*$", text, re.M)]
    if re.search(r"^entries:$", text, re.MULTILINE):
        lines += _of_charts(text)
    found: set[str] = {value.lower() for value, file in lines if file.rpartition("/")[2] == name}
    if len(found) != 1:
        raise Unavailable(f"the checksums hold {len(found) or 'no'} sha256 of {name}")
    return found.pop()


def _of_charts(index: str) -> list[tuple[str, str]]:
    """The sha256 and address of every archive that the index of a repository of charts has."""
    try:
        rows = [row for rows in yaml.load(index, LOADER)["entries"].values() for row in rows]
        found = [(str(row.get("digest")), str(url)) for row in rows for url in row["urls"]]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return []
    return [(digest, url) for digest, url in found if re.fullmatch(r"[0-9a-fA-F]{64}", digest)]


def refuse_credentials(address: str) -> None:
    """Raises BuildError when an address has a user or password in it, which would be seen in lists of processes."""
    authority = address.partition("://")[2] or address
    _, at, host = authority.partition("/")[0].rpartition("@")
    if at:
        raise BuildError(
            f"{host}: its address holds a user or password, which every user of this machine could read. "
            "Put them into ~/.netrc (https://everything.curl.dev/usingcurl/netrc.html) instead."
        )


def _fill(url: str, part: Path, sha256: str | None, lock: int, report: Report) -> None:
    """Let the part become the whole file. Raises BuildError."""
    failures, restarted, most = 0, False, part.stat().st_size
    while True:
        if sha256 is None:
            os.truncate(part, 0)
        begun = part.stat().st_size
        outcome = _curl(url, part, lock, report)
        if outcome.code == 0 or (begun and outcome.status == 416):  # 416: there is no more of it to be had
            found = sha256_of(part)
            if sha256 is None:
                _whole(url, outcome, part.stat().st_size)
            if sha256 in (None, found):
                return
            if not begun or restarted:
                raise WrongBytes(f"{url}: has sha256 {found}, and must have {sha256}. Nothing of it was kept.")
            restarted = True  # an earlier piece may have been of another file
            os.truncate(part, 0)
        elif outcome.code in NO_RESUME and begun:
            os.truncate(part, 0)
        else:
            size = part.stat().st_size
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if not passing(outcome) or failures > len(PAUSES):
                raise error(url, outcome, part)
            report(f"{outcome.said}; trying again")
            time.sleep(PAUSES[failures - 1])


def _curl(url: str, part: Path, lock: int, report: Report) -> Outcome:
    """Run curl once, with a report of how far it is.

    Not with its own --retry, which forgets what came since it was started (`--continue-at -` is looked at once).
    """
    protocols = PROTOCOLS[urlsplit(url).scheme]
    command = [
        "curl", "--disable", "--silent", "--show-error", "--fail", "--location", "--globoff", "--proto", protocols,
        "--proto-redir", protocols, "--netrc-optional", "--connect-timeout", "10", "--speed-limit", "1000",
        "--speed-time", str(STALLED), "--continue-at", "-", "--dump-header", "-", "--output", str(part), url,
    ]  # fmt: skip
    begun = part.stat().st_size
    with tempfile.TemporaryFile() as headers:
        try:
            # The lock goes with it: a curl that outlives us still holds others off the part.
            process = subprocess.Popen(command, stdout=headers, stderr=subprocess.PIPE, pass_fds=[lock])
        except FileNotFoundError:
            raise BuildError("curl, which downloads are made with, is not installed. Install it.") from None
        with process:
            assert process.stderr is not None
            try:
                while process.poll() is None:
                    report(progress(part.stat().st_size, total(_sent(headers.fileno()), begun)))
                    try:
                        process.wait(0.5)
                    except subprocess.TimeoutExpired:
                        continue
            except BaseException:
                process.terminate()
                raise
            said = process.stderr.read().decode(errors="replace").strip().partition("\n")[0]
        return answer(process.returncode, said, _sent(headers.fileno()))


def _sent(headers: int) -> str:
    return os.pread(headers, 1_000_000, 0).decode(errors="replace")


def answer(code: int, said: str, headers: str) -> Outcome:
    """An outcome from curl's exit code, its words, and the headers of all answers on the way."""
    first, *rest = headers.replace("\r\n", "\n").strip().split("\n\n")[-1].split("\n")
    protocol, _, status = first.partition(" ")
    pairs = [line.partition(":") for line in rest]
    return Outcome(
        code, said or f"curl ended with {code}",
        int(status[:3]) if status[:3].isdigit() else 0, protocol,
        tuple((name.strip().lower(), value.strip()) for name, _, value in pairs),
    )  # fmt: skip


def total(headers: str, begun: int) -> int:
    """How many bytes the whole file has by what the server said so far; 0 when it has not said."""
    outcome = answer(0, "", headers)
    length = outcome.header("content-length")
    return begun + int(length) if outcome.status in (200, 206) and length.isdigit() else 0


def progress(done: int, of: int) -> str:
    """How far a download is, in MB."""
    return f"{done / 1e6:.1f} of {of / 1e6:.1f} MB" if of else f"{done / 1e6:.1f} MB"


def passing(outcome: Outcome) -> bool:
    """Whether another attempt may end better."""
    return outcome.code in PASSING or (outcome.code == 22 and outcome.status in PASSING_STATUSES)


def error(url: str, outcome: Outcome, part: Path) -> BuildError:
    """What to tell of a download that failed for good."""
    mirror = "name a mirror of its host in bundle.yaml (`mirrors`)"
    if outcome.code < 0:
        return BuildError(f"{url}: curl was ended by signal {-outcome.code}. Run the build again.")
    if outcome.code in NOT_WRITTEN:
        return BuildError(f"{part}: cannot be written: {outcome.said}. Make room there, or set XDG_CACHE_HOME.")
    if outcome.code == 37 or outcome.status in (404, 410):
        return Unavailable(f"{url}: is not there ({outcome.said})", "Check the version and platform in bundle.yaml.")
    if outcome.status in (401, 403):
        advice = f"If it wants a user and password, put them into ~/.netrc; else {mirror}."
    elif outcome.code == 1:
        advice = f"It leads to an address without TLS, which is not followed; {mirror}."
    elif outcome.code in UNTRUSTED:
        advice = "If a proxy or mirror has a CA of its own, name a file with that CA in CURL_CA_BUNDLE."
    else:
        advice = f"If there is a proxy, set https_proxy; else {mirror}. What came so far is kept for the next build."
    return Unavailable(f"{url}: cannot be downloaded ({outcome.said})", advice)


def _whole(url: str, outcome: Outcome, size: int) -> None:
    """Raises Unavailable unless the server has said how long a file is, or marked its end, and that is what came."""
    if urlsplit(url).scheme == "file":
        return
    length = outcome.header("content-length")
    marked = outcome.protocol.startswith(("HTTP/2", "HTTP/3")) or "chunked" in outcome.header("transfer-encoding")
    if not (int(length) == size if length.isdigit() else marked):
        raise Unavailable(
            f"{url}: {size} bytes came, and the server said {length or 'nothing'} of how long it is",
            "Whether it is whole cannot be told.",
        )


@contextmanager
def _alone(part: Path, report: Report) -> Iterator[int]:
    """The part, opened and locked against other builds: a file descriptor. It may be renamed or removed meanwhile."""
    while True:
        with part.open("ab") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("waiting for another build that is downloading it")
                fcntl.flock(held, fcntl.LOCK_EX)
            # Whom we waited for has renamed or removed it: there is a new one to lock.
            if part.exists() and os.path.samestat(os.fstat(held.fileno()), part.stat()):
                yield held.fileno()
                return
