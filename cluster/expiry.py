"""When certificates end, and what is wrong with them: as a table, and in words with their remedies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.certificates import (
    API_SERVER,
    BUNDLE_SERVER,
    BY_PATH,
    HAPROXY_CA,
    KINDS,
    KUBELET,
    KUBELET_CLIENT,
    OPTIONAL,
    RENEW,
    RESTART,
    ROTATED,
    UNFILED,
    File,
    State,
    Use,
    common_name,
    days,
    loaded,
    names,
    served_by,
    use,
)


@dataclass(frozen=True)
class Row:
    """One certificate of one host, as it is shown."""

    host: str
    certificate: str
    signer: str
    days: int | None
    use: Use


def rows(host: str, state: State, bundle_port: str = "") -> list[Row]:
    """A host's certificates: in files, then those that are in none."""
    found = [
        Row(host, path, _signer(file["pem"]), _days(file["pem"], state["now"]), use(state, path, bundle_port))
        for path, file in sorted(state["files"].items())
    ]
    for port in UNFILED:
        if port in state["ports"]:
            pem = state["ports"][port]
            found.append(Row(host, f"port {port}", _signer(pem), _days(pem, state["now"]), "yes" if pem else "silent"))
    return found


def _days(pem: str | None, now: int) -> int | None:
    return days(pem, now) if loaded(pem) else None


def _signer(pem: str | None) -> str:
    """The name of the CA. One that a program makes for a single certificate, `NAME-ca@TIME`, is the program itself."""
    found = loaded(pem)
    if found is None:
        return "?"
    own = found.issuer == found.subject or re.fullmatch(r".*-ca@\d+", common_name(found.issuer))
    return "itself" if own else common_name(found.issuer)


def copy(path: str, pem: str | None, now: int) -> State:
    """A kubeconfig on the control machine, as a host's only certificate."""
    return State(now=now, files={path: File(changed=now, pem=pem, paired=True)}, ports={}, started={})


def table(found: Sequence[Row]) -> list[str]:
    """The rows as lines of aligned columns, with a heading."""
    head = ("HOST", "CERTIFICATE", "SIGNER", "DAYS LEFT", "IN USE")
    lines = [head, *((row.host, row.certificate, row.signer, _shown(row.days), row.use) for row in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _shown(left: int | None) -> str:
    return "?" if left is None else str(left)


@dataclass(frozen=True)
class Findings:
    """What is wrong with certificates, a line each."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def judge(
    host: str,
    state: State,
    warning: int,
    critical: int,
    wanted_names: frozenset[str] | None = None,
    bundle_port: str = "",
) -> Findings:
    """What is wrong with a host's certificates.

    `warning` and `critical` are days before the end; `wanted_names` are those of a control plane's API server, None on
    other hosts.
    """
    errors, warnings = [], []
    if wanted_names is not None:
        for kind in KINDS:
            if kind.path not in state["files"] and kind.path not in OPTIONAL:
                errors.append(f"{host}: {kind.path} is missing. {RENEW}")
    for row in rows(host, state, bundle_port):
        where, remedy = f"{host}: {row.certificate}", _remedy(row.certificate)
        file = state["files"].get(row.certificate)
        if file and row.days is None:
            errors.append(f"{where}: no certificate can be read there. {remedy}")
        elif file and not file["paired"]:
            errors.append(f"{where}: its key is that of another. {remedy}")
        elif row.days is not None and row.days < critical:
            errors.append(f"{where}: {_end(row.days)}. {remedy}")
        elif row.days is not None and row.days < warning:
            warnings.append(f"{where}: {_end(row.days)}. {remedy}")
        if file and row.use == "no":
            errors.append(f"{where}: {_unused(state, row.certificate, bundle_port)}")
        elif row.use == "silent":
            errors.append(f"{where}: {_silent(row.certificate, bundle_port)}")
    api_server = state["files"].get(API_SERVER)
    if wanted_names is not None and api_server and loaded(api_server["pem"]):
        has = names(api_server["pem"])
        lacks, beyond = sorted(wanted_names - has), sorted(has - wanted_names)
        what = [f"lacks {', '.join(lacks)}"] if lacks else []
        what += [f"has {', '.join(beyond)}, which the settings do not ask for"] if beyond else []
        if what:
            warnings.append(f"{host}: {API_SERVER} {' and '.join(what)}. deploys/renew_certificates.py makes it anew.")
    return Findings(tuple(errors), tuple(warnings))


def _end(left: int) -> str:
    """Whole days left, in words; of one that has ended some hours ago -1 are left."""
    if left < 0:
        return f"has ended, {_days_of(-left - 1)} ago" if left < -1 else "has ended, less than a day ago"
    return f"ends in {_days_of(left)}" if left else "ends in less than a day"


def _days_of(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


def _unused(state: State, path: str, bundle_port: str) -> str:
    """How a file is not in use."""
    port, kind = served_by(path, bundle_port), BY_PATH.get(path)
    if port is not None and port in state["ports"]:
        left = days(state["ports"][port], state["now"])
        how = RESTART if kind or path == KUBELET else "Restart its service."
        return f"port {port} serves another, which {_end(left)}. {how}"
    return f"{kind.program if kind else 'its program'} runs since before this was written. {RESTART}"


def _silent(certificate: str, bundle_port: str) -> str:
    port = certificate.removeprefix("port ").split()[0] if certificate.startswith("port ") else None
    port = port or served_by(certificate, bundle_port)
    kind = BY_PATH.get(certificate)
    if port is None and kind:
        return f"{kind.program}, which has it, does not run. `crictl ps -a` and `journalctl -u kubelet` there say why."
    unit = "bundle-server" if port == bundle_port else "kubelet"
    return f"port {port} shows no certificate. `crictl ps -a` and `journalctl -u {unit}` there say why."


def _remedy(certificate: str) -> str:
    """What to do about a certificate."""
    if certificate in BY_PATH or certificate == KUBELET:
        return RENEW
    if certificate.startswith("port "):
        return "deploys/renew_certificates.py restarts its program, which then makes another."
    if certificate in (KUBELET_CLIENT, ROTATED):
        return "The kubelet renews it by itself; `journalctl -u kubelet` there says why it does not."
    if certificate.endswith("/admin.conf"):
        return "deploys/kubeconfig.py fetches the one that there is on the first control plane."
    if certificate == BUNDLE_SERVER:
        return "deploys/distribute.py makes it anew."
    if certificate == HAPROXY_CA or certificate.endswith("ca.crt"):
        return "It is a CA: deploys/rotate_ca.py replaces it (docs/certificates.md)."
    return "It is not kubeadm's: renew it as it was made."
