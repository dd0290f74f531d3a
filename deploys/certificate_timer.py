"""Certificates renewed by a timer on every control plane before they end (docs/certificates.md).

Hosts: control_plane. Changes: /usr/local/sbin/certificate-renewal, certificate-renewal.service and
certificate-renewal.timer; these then do what deploys/renew_certificates.py does on that host, one control plane at a
time. Undo: `certificate_renewal_schedule = None`.
"""

from pyinfra.api import deploy

from deploys import plan, timers
from facts.certificate import RENEWAL
from operations import certificates, timer


@deploy("Certificate timer")
def certificate_timer() -> None:
    settings, me = plan.settings(), plan.me()
    if me in plan.topology().control_planes:
        if settings.certificate_renewal_schedule is None:
            timer.absent(name="Remove the timer of renewal", timer=RENEWAL)
        else:
            program = f"certificates/{RENEWAL}.j2"
            timers.run(
                RENEWAL, "renewal", templates="certificates",
                script=plan.template(program, **certificates.on_the_node(settings, me)),
                schedule=settings.certificate_renewal_schedule,
            )  # fmt: skip
    plan.barrier("certificate timer")


plan.run(__name__, certificate_timer)
