"""The certificates of every host, in files and as ports serve them, with the days that they have left.

Hosts: all. Changes nothing. The run fails where a certificate has fewer days left than `certificate_critical_days`, or
is not the one that is served (docs/certificates.md).
"""

from pyinfra.api import deploy

from deploys import expiry, plan


@deploy("Certificates")
def certificates() -> None:
    plan.refuse(expiry.findings().errors)
    plan.barrier("certificates")


plan.run(__name__, certificates)
