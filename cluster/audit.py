"""The audit policy of API servers: where its file is, and what has them read it.

The file's name follows its text, so that another policy is another argument, and API servers are restarted for it
(https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

DIRECTORY = "/etc/kubernetes/audit"
LOGS = "/var/log/kubernetes-audit"
LEVELS = ("None", "Metadata", "Request", "RequestResponse")


def checked(policy: dict[str, Any]) -> dict[str, Any]:
    """A policy that an API server starts with, as far as is seen before it is tried. Raises ValueError."""
    if not policy:
        return policy
    rules = policy.get("rules")
    if not isinstance(rules, list | tuple) or not rules:
        raise ValueError("must have `rules`, a list of one at least, for an API server refuses a policy without")
    for at, rule in enumerate(rules):
        if not isinstance(rule, Mapping) or rule.get("level") not in LEVELS:
            raise ValueError(f"rules[{at}].level must be one of {', '.join(LEVELS)}")
    return policy


def text(policy: Mapping[str, Any]) -> str:
    """The file of a policy."""
    whole = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **policy}
    return yaml.safe_dump(_lists(whole), sort_keys=False)


def path(policy: Mapping[str, Any]) -> str:
    """Where the file of a policy is."""
    return f"{DIRECTORY}/policy-{hashlib.sha256(text(policy).encode()).hexdigest()[:12]}.yaml"


def api_server(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments and volumes of ClusterConfiguration's apiServer for a policy; none without one."""
    if not policy:
        return {}
    arguments = {
        "audit-policy-file": path(policy),
        "audit-log-path": f"{LOGS}/audit.log",
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
    }
    volume = {"pathType": "DirectoryOrCreate"}
    return {
        "extraArgs": [{"name": name, "value": value} for name, value in arguments.items()],
        "extraVolumes": [
            {"name": "audit-policy", "hostPath": DIRECTORY, "mountPath": DIRECTORY, "readOnly": True, **volume},
            {"name": "audit-log", "hostPath": LOGS, "mountPath": LOGS, "readOnly": False, **volume},
        ],
    }


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _lists(each) for name, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, list | tuple) else value
