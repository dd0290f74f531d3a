"""The first page of a diagnosis: markdown that is read in a terminal as it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cluster.findings import Reported, names
from cluster.symptoms import Past

WHAT = """\
## What is in this archive

- `report.md`: this page
- `cluster/`: nodes, pods, events, objects and kubeadm's ConfigMaps, as one API server has them
- `hosts/NAME/`: each host's units, journal, kernel's log, network and disks; of nodes also crictl, pods' logs and
  configuration; of control planes also etcd, /readyz and the static pods' manifests; of balancing hosts also HAProxy's
  and Keepalived's state
- `hosts/NAME/facts/`, `facts.json`: what this project's own facts make of the host

Taken out, and shown as `[removed]`: private keys, tokens, passwords, certificate keys, units' environment, data of
Secrets. Secrets were not asked for at all, nor ConfigMaps other than kubeadm's, kube-proxy's and CoreDNS's. Names of
hosts, addresses and pods are in it: show it to whom you would show those.
"""


def page(
    cluster: str,
    version: str,
    time: datetime,
    since: str,
    findings: Sequence[Reported],
    past: Sequence[Past],
    hosts: Sequence[tuple[str, str, str]],
    not_asked: Sequence[str],
    files: Sequence[str],
) -> str:
    """The page. `hosts` are names, roles and a few words on each; `files` are paths in the archive."""
    errors = [each for each in findings if each.severity == "error"]
    warnings = [each for each in findings if each.severity == "warning"]
    counts = f"{len(errors) or 'No'} error{'' if len(errors) == 1 else 's'}, {len(warnings) or 'no'} warning"
    lines = [
        f"# Diagnosis of {cluster}",
        "",
        f"{time:%Y-%m-%d %H:%M:%S} UTC, Kubernetes {version} by the settings; logs of the last {since}.",
        "",
        f"{counts}{'' if len(warnings) == 1 else 's'}." + ("" if findings else " Nothing looks wrong."),
        "",
        "## What looks wrong",
        "",
    ]
    for title, rows in (("error", errors), ("warning", warnings)):
        for row in rows:
            where = f"{names(row.hosts)}: " if row.hosts else ""
            lines += [f"- **{title}** {where}{row.evidence}", f"  {row.why}", f"  What to do: {row.remedy}", ""]
    if not findings:
        lines += ["Nothing.", ""]
    if past:
        lines += ["## Seen earlier in logs, and not since", ""]
        lines += [
            f"- {each.host or 'cluster'}: {each.symptom}, {each.count} in {each.file}: {each.last}" for each in past
        ]
        lines += [""]
    lines += ["## Hosts", ""]
    width = max((len(name) for name, *_ in hosts), default=0)
    lines += [f"    {name.ljust(width)}  {role.ljust(13)}  {words}" for name, role, words in hosts]
    if not_asked:
        lines += ["", f"Not asked, for this run was limited: {names(not_asked)}."]
    return "\n".join([*lines, "", WHAT, f"{len(files)} files."]) + "\n"
