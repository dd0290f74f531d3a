"""What SELinux must be told of, on hosts where it runs, when `selinux` is "configure" (docs/platforms.md)."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api.operation import OperationMeta
from pyinfra.operations import selinux as builtin

from cluster.pieces import NODE_DIRECTORY
from deploys import plan
from facts.selinux import SELinux
from operations import selinux


def asked() -> bool:
    """Whether this host's SELinux is to be told."""
    return plan.settings().selinux == "configure" and host.get_fact(SELinux) != "none"


def restore(what: str, paths: Sequence[str], after: Sequence[OperationMeta]) -> None:
    """Give new files the labels that the policy has for them."""
    if asked():
        selinux.labels(name=f"Label {what} for SELinux", paths=paths, after=after)


def serve_bundle(after: Sequence[OperationMeta]) -> None:
    """Let nginx listen on the bundle's port and read its pieces."""
    if asked():
        port = plan.settings().bundle_port
        builtin.port(name=f"Let nginx listen on {port} (SELinux)", protocol="tcp", port_num=port, se_type="http_port_t")
        mapped = builtin.file_context_mapping(
            name="Let nginx read the bundle (SELinux)",
            target=f"{NODE_DIRECTORY}(/.*)?", se_type="httpd_sys_content_t",
        )  # fmt: skip
        restore("the bundle", [NODE_DIRECTORY], [*after, mapped])


def balance() -> None:
    """Let HAProxy listen on and connect to any port: 6443 is none of its own."""
    if asked():
        builtin.boolean(
            name="Let HAProxy use any port (SELinux)",
            bool_name="haproxy_connect_any",
            value=builtin.Boolean.ON,
            persistent=True,
        )
