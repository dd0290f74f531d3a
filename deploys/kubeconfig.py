"""Kubeconfigs on the control machine: the administrator's, or that of a user with groups and an end.

Hosts: the first control plane of the run. Changes: secrets/ on the control machine, 0600. With `--data user=NAME`, and
if you like `--data groups=a,b --data days=N`, the cluster signs a certificate for that user. With
`--data merge=~/.kube/config` its context is in that file too. Undo: remove the file; a certificate cannot be taken
back, so take away what its groups may do (docs/certificates.md).
"""

import os
from pathlib import Path

from pyinfra.api import deploy

from cluster import users
from deploys import plan
from operations import pki, user


@deploy("Kubeconfig")
def kubeconfig() -> None:
    settings = plan.settings()
    at = plan.in_run(plan.topology().control_planes)
    plan.refuse([] if at else ["no control plane is in this run, and a kubeconfig comes from one. Widen --limit."])
    directory = Path(settings.secrets_dir) / settings.cluster_name
    wanted, into = asked(), own()
    dest = str(directory / "users" / f"{wanted.name}.conf" if wanted else directory / "admin.conf")
    if plan.me() == at[0]:
        if wanted:
            kept = user.kubeconfig(
                name=f"Keep a kubeconfig of {wanted.name}",
                dest=dest, user=wanted, cluster=settings.cluster_name, server=f"https://{plan.endpoint()}",
            )  # fmt: skip
        else:
            kept = pki.kubeconfig(name="Keep the administrator's kubeconfig", dest=dest)
        if into:
            user.merge(
                name=f"Have its context in {into}",
                into=into, dest=dest, cluster=settings.cluster_name, after=[kept],
            )  # fmt: skip
        user.tell(name="Say until when it lets in", dest=dest)
    plan.barrier("kubeconfig")


def own() -> str | None:
    """The person's own kubeconfig that `--data merge` names. Raises InputError."""
    said = plan.option("merge")
    if said is not None and (not isinstance(said, str) or not said or os.pathsep in said):
        raise plan.InputError(
            f"merge: must be one file, not {said!r}, such as --data merge=~/.kube/config; of several in $KUBECONFIG "
            "name the one that is to have it."
        )
    return said


def asked() -> users.User | None:
    """The user that `--data` names; None for the administrator. Raises InputError."""
    name, groups, days = (plan.option(each) for each in ("user", "groups", "days"))
    if name is None:
        plan.refuse(["groups and days are a user's: add --data user=NAME."] if groups or days else [])
        return None
    try:
        return users.user(name, groups, days, plan.settings().kubernetes_version)
    except users.UserError as error:
        raise plan.InputError(str(error)) from None


plan.run(__name__, kubeconfig, options=("user", "groups", "days", "merge"))
